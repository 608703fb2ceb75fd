"""A real OpenSSH server on loopback, with a board's user: another user, another home, a Python with numpy and one
engine and nothing else. Needs root, openssh-server and rsync."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_SBIN = "/usr/sbin:/sbin"
_PATH = f"{os.environ.get('PATH', '')}:{_SBIN}"
_RELAY = """
import os, selectors, socket, sys
host, port, limit, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
line = socket.create_connection((host, port))
ways, sent = selectors.DefaultSelector(), 0
ways.register(0, selectors.EVENT_READ)
ways.register(line, selectors.EVENT_READ)
while sent < limit:
    for key, _ in ways.select():
        if key.fileobj == 0:
            data = os.read(0, min(65536, limit - sent))
            sent += len(data)
            line.sendall(data)
        else:
            data = line.recv(65536)
            os.write(1, data)
        if not data:
            limit = 0
with open(count, "w") as file:
    file.write(str(sent))
"""


def missing_tool() -> str | None:
    """Why no server can be started here; None if one can."""
    tools = [tool for tool in ("sshd", "ssh", "ssh-keygen", "rsync", "useradd") if not shutil.which(tool, path=_PATH)]
    if tools:
        return f"{', '.join(tools)} missing: sudo apt-get install openssh-server openssh-client rsync passwd"
    return None if os.geteuid() == 0 else "the server needs root, to have a user of its own"


def require_server() -> None:
    """Fail, or skip on a newcomer's machine, where no server can be started."""
    reason = missing_tool()
    if reason and (os.environ.get("CI") or os.geteuid() == 0):
        pytest.fail(f"the ssh tests cannot run: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


@dataclass(frozen=True)
class SshBoard:
    """The running server. home: of its user; python: numpy and onnxruntime, bare: neither, numpy_only: no engine."""

    folder: Path
    user: str
    home: Path
    port: int
    server: int
    python: str
    numpy_only: str
    bare: str

    def config(self, name: str = "config", **settings: object) -> Path:
        """A client configuration whose host `board` is this server; `settings` replace or add to its lines."""
        lines = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "User": self.user,
            "IdentityFile": self.folder / "key",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "KexAlgorithms": "curve25519-sha256",  # the quickest: every step connects anew
            **settings,
        }
        path = self.folder / name
        path.write_text("Host board\n" + "".join(f"  {key} {value}\n" for key, value in lines.items()))
        return path

    def cut_config(self, limit: int) -> Path:
        """A configuration whose connections break after `limit` bytes to the board; the last one's count is kept."""
        relay = self.folder / "relay.py"
        relay.write_text(_RELAY)
        command = f"{sys.executable} -S -E {relay} %h %p {limit} {self.folder / 'sent'}"
        return self.config("cut", ProxyCommand=command)

    @property
    def sent_bytes(self) -> int:
        return int((self.folder / "sent").read_text())

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command as the board's user, over ssh."""
        ssh = ["ssh", "-F", str(self.config()), "board", *command]
        return subprocess.run(ssh, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def files(self) -> dict[str, int]:
        """Every file in the board's home and when it was last changed."""
        return {
            str(path.relative_to(self.home)): path.stat().st_mtime_ns
            for path in sorted(self.home.rglob("*"))
            if path.is_file()
        }

    def processes(self) -> list[str]:
        """Command lines of the board's user."""
        found = []
        for pid in _owned_by(pwd.getpwnam(self.user).pw_uid):
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return [line for line in found if line]  # a zombie has none

    def wait_until_idle(self) -> None:
        """Let what a broken connection left behind come to its end."""
        deadline = time.monotonic() + 20
        while any("sshd" not in line for line in self.processes()):
            assert time.monotonic() < deadline, self.processes()
            time.sleep(0.02)

    def cut(self) -> None:
        """End every session of the server, as a network that has gone does."""
        for pid in _descendants(self.server):
            name = Path(f"/proc/{pid}/comm")
            if name.exists() and name.read_text().startswith("sshd"):
                _end([pid])

    @contextmanager
    def small_cache(self, options: str) -> Iterator[None]:
        """A file system of its own at ~/.cache, of `options`."""
        cache, ids = self.home / ".cache", pwd.getpwnam(self.user)
        cache.mkdir(exist_ok=True)
        owner = f"uid={ids.pw_uid},gid={ids.pw_gid},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"{owner},{options}", "board", cache], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", cache], check=True)


@contextmanager
def ssh_board() -> Iterator[SshBoard]:
    """Start a server, add its user; all of it goes again."""
    folder = Path(tempfile.mkdtemp(prefix="edgelip-sshd-", dir="/tmp"))  # not pytest's own: that is closed to others
    folder.chmod(0o755)
    user, home = f"edgelip-board-{os.getpid()}", folder / "home"
    _run("useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", "--password", "*", user)
    server = None
    try:
        home.mkdir(mode=0o755)
        for name in ("host_key", "other_key", "key", "wrong_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        (home / ".ssh").mkdir(mode=0o700)
        shutil.copy(folder / "key.pub", home / ".ssh" / "authorized_keys")
        python, numpy_only, bare = _pythons(folder / "opt", user)
        _run("chown", "-R", f"{user}:", str(home))
        port = _free_port()
        server = _start(folder, port)
        key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
        yield SshBoard(folder, user, home, port, server.pid, python, numpy_only, bare)
    finally:
        if server is not None:
            _end([*_descendants(server.pid), server.pid])
            server.wait()
        owned = pwd.getpwnam(user).pw_uid
        deadline = time.monotonic() + 10
        while (left := _owned_by(owned)) and time.monotonic() < deadline:
            _end(left)
            time.sleep(0.02)
        shutil.rmtree(folder, ignore_errors=True)
        _run("userdel", "--force", user)


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates privileges
    lines = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "PidFile": folder / "pid",
        "AuthorizedKeysFile": ".ssh/authorized_keys",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "AllowUsers": "edgelip-board-*",
        "MaxStartups": 100,
    }
    config = folder / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    sshd = shutil.which("sshd", path=_PATH) or ""
    if subprocess.run([sshd, "-t", "-f", config, "-oPerSourcePenalties=no"], capture_output=True).returncode == 0:
        config.write_text(config.read_text() + "PerSourcePenalties no\n")  # since 9.8 refusals make it deaf
    server = subprocess.Popen([sshd, "-D", "-f", config, "-E", folder / "log"])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.01)
    pytest.fail(f"sshd did not start: {(folder / 'log').read_text()[-500:]}", pytrace=False)


def _pythons(folder: Path, user: str) -> tuple[str, str, str]:
    """Three virtual environments that the user may run: with numpy and onnxruntime, with numpy, with nothing."""
    base, found = _base_python(user), []
    for name, packages in (("board", ("numpy", "onnxruntime")), ("numpy", ("numpy",)), ("bare", ())):
        venv = folder / name
        _run(base, "-m", "venv", "--without-pip", str(venv))
        (site,) = venv.glob("lib/python3.*/site-packages")
        for package in packages:
            _share(package, site)
        found.append(str(venv / "bin" / "python"))
    return found[0], found[1], found[2]


def _base_python(user: str) -> str:
    """A Python of this version that the user may run: the tests' own may lie in a closed home."""
    name = f"python3.{sys.version_info.minor}"
    candidates = [f"/usr/local/bin/{name}", f"/usr/bin/{name}", str(getattr(sys, "_base_executable", sys.executable))]
    for candidate in filter(os.path.exists, candidates):
        done = subprocess.run([candidate, "-m", "venv", "-h"], user=user, capture_output=True, cwd="/", check=False)
        if done.returncode == 0:
            return candidate
    pytest.fail(f"no {name} that other users may run; tried {', '.join(candidates)}", pytrace=False)


def _share(package: str, site: Path) -> None:
    """A package and its libraries from this environment, linked file by file: no other comes with it."""
    source = Path(__import__(package).__file__ or "").parent
    for part in (source, source.with_name(f"{package}.libs")):
        if part.is_dir():
            shutil.copytree(part, site / part.name, copy_function=_link, ignore=shutil.ignore_patterns("tests"))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _end(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _owned_by(uid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.stat().st_uid == uid:
                found.append(int(folder.name))
    return found


def _descendants(pid: int) -> list[int]:
    """Processes below `pid`, deepest first."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    queue: Sequence[int] = [pid]
    while queue:
        queue = [child for parent in queue for child in parents.get(parent, [])]
        found = [*queue, *found]
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(*command: str) -> None:
    program = shutil.which(command[0], path=_PATH) or command[0]
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: {done.stderr.strip()}", pytrace=False)
