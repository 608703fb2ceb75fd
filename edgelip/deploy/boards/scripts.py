"""The small programs that a board's own Python runs, sent to it through stdin.

They stay free of anything newer than they need: REPORT must still compile under Python 2.7 to say that it is too old.
Each reads exactly the bytes that it is promised; stdin stays open while it runs, so that its end means a lost
connection.
"""

OLDEST_PYTHON = (3, 8)

# The one line that a shell sees: no newline, no `!`, nothing that fish or csh would read differently.
LOADER = 'import sys; exec(getattr(sys.stdin, "buffer", sys.stdin).read({num_bytes}))'

# argv: bytes of the zip. Runs the doctor from a temporary folder and removes it.
REPORT = """
import json, sys
if sys.version_info < (3, 8):
    sys.stdout.write(json.dumps({"too_old": "%d.%d.%d" % tuple(sys.version_info[:3])}))
    sys.exit(0)
import io, os, shutil, tempfile, zipfile
packed = sys.stdin.buffer.read(int(sys.argv[1]))
folder = tempfile.mkdtemp(prefix="edgelip-doctor-")
try:
    zipfile.ZipFile(io.BytesIO(packed)).extractall(folder)
    sys.dont_write_bytecode = True
    sys.path[:] = [folder] + [entry for entry in sys.path if entry]
    from edgelip.runtime.doctor import doctor
    report = doctor()
finally:
    shutil.rmtree(folder, ignore_errors=True)
sys.stdout.write(json.dumps(report))
"""

# argv: bytes of the JSON {final folder: {file: [sha256, bytes]}}. Puts a whole FINAL.part in the place of FINAL; a
# final that has been damaged becomes the part, for rsync to mend.
SETTLE = """
import hashlib, json, os, shutil, sys
wanted = json.loads(sys.stdin.buffer.read(int(sys.argv[1])).decode())
def whole(folder, files):
    for name, (sha256, num_bytes) in files.items():
        path = os.path.join(folder, *name.split("/"))
        if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) != num_bytes:
            return False
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            return False
    return True
missing = []
for final, files in wanted.items():
    part = final + ".part"
    if os.path.isdir(final) and not whole(final, files):
        shutil.rmtree(part, ignore_errors=True)
        os.rename(final, part)
    if not os.path.isdir(final):
        os.makedirs(part, exist_ok=True)
        if whole(part, files):
            os.sync()
            os.rename(part, final)
        else:
            missing.append(final)
parts = [os.path.join(at, name) for final in missing for at, _, names in os.walk(final + ".part") for name in names]
space = os.statvfs(os.path.dirname(next(iter(wanted))))
sys.stdout.write(json.dumps({
    "missing": missing,
    "free_bytes": space.f_bavail * space.f_frsize,
    "held_bytes": sum(map(os.path.getsize, parts)),
}))
"""

# argv: runtime folder, bundle folder, threads, verb, options... Ends the verb when the connection ends.
ATTENDED = """
import os, subprocess, sys, threading
runtime, bundle = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
environment = dict(os.environ, PYTHONPATH=runtime, PYTHONDONTWRITEBYTECODE="1")
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    environment[name] = sys.argv[3]
command = [sys.executable, "-m", "edgelip.runtime", sys.argv[4], bundle] + sys.argv[5:]
child = subprocess.Popen(command, cwd=runtime, env=environment, stdin=subprocess.DEVNULL)
def watch():
    os.read(0, 1)
    child.kill()
threading.Thread(target=watch, daemon=True).start()
code = child.wait()
os._exit(code if code >= 0 else 128 - code)
"""

# argv: file, first byte, how many at most.
READ = """
import sys
with open(sys.argv[1], "rb") as file:
    file.seek(int(sys.argv[2]))
    left = int(sys.argv[3])
    while left > 0:
        chunk = file.read(min(left, 1 << 20))
        if not chunk:
            break
        sys.stdout.buffer.write(chunk)
        left -= len(chunk)
"""
