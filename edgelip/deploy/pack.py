"""A bundle with all that runs it: one file or one folder, for a device without pip and network."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgelip import __version__
from edgelip.deploy.boards.device_side import runtime_files
from edgelip.deploy.wheels import Wheel, unpack_wheel
from edgelip.errors import BundleError, UsageError
from edgelip.files import replace_folder, write_atomic
from edgelip.runtime.bundle import MANIFEST_NAME, Bundle
from edgelip.runtime.packed.start import WHEELS
from edgelip.runtime.packed.unpack import BUNDLE, ENGINES, MEMBER
from edgelip.runtime.signature import SIGNATURE_NAME

SUFFIX = ".pyz"
ACCURACY = "accuracy.json"
Source = Path | bytes  # where a file's content comes from
_SHEBANG = b"#!/usr/bin/env python3\n"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is made
# Any Python 3 must be able to read this much.
_START = """import os
import sys

if sys.version_info < (3, 8):
    sys.exit("edgelip: this pack needs Python 3.8 or newer; this is %d.%d." % sys.version_info[:2])
here = os.path.dirname(os.path.abspath(__file__))
{path}from pathlib import Path

from edgelip.runtime.packed.start import {run}

sys.exit({run}(Path(here), sys.argv[1:]))
"""
_ARCHIVE_START = _START.format(run="run_archive", path="")
_FOLDER_START = "#!/usr/bin/env python3\n" + _START.format(run="run_folder", path="sys.path.insert(0, here)\n")


def write_pack(bundle: Path, out: Path, *, wheels: Sequence[Path] = (), with_engines: bool = False) -> Path:
    """Write the pack of a bundle at `out`, all or nothing; the same input gives the same bytes. Returns `out`.

    out: NAME.pyz for a zip application, anything else for a folder. wheels: unpacked into a folder's site-packages.
    with_engines: also what was built ahead of time. manifest.sig and accuracy.json come along where they are.
    Raises BundleError if the bundle is not whole, UsageError for an `out` that must not be replaced and for wheels that
    cannot be carried, MissingError where the disk does not allow it.
    """
    opened = Bundle.open(bundle)
    archive = out.suffix == SUFFIX
    inside, outside = bundle.resolve(), out.resolve()
    if inside in (outside, *outside.parents) or outside in inside.parents:
        raise UsageError(f"{out} and the bundle {bundle} lie in each other. Choose another --out.")
    if archive and wheels:
        raise UsageError(
            f"{out} cannot carry wheels: a system loads native libraries from files, not from a zip. "
            f"Pack into a folder: --out {out.with_suffix('')}."
        )
    files = {**runtime_files(), **_bundle_files(opened, with_engines=with_engines)}
    if archive:
        _refuse_other_file(out)
        write_atomic(out, _archive({"__main__.py": _ARCHIVE_START.encode(), **files}))
        out.chmod(out.stat().st_mode | 0o111)
        return out
    with replace_folder(out, only_if_holds=f"{BUNDLE}/{MANIFEST_NAME}") as partial:
        carried = [unpack_wheel(Path(wheel), partial / WHEELS) for wheel in wheels]
        start, readme = _FOLDER_START.encode(), _readme(opened, carried).encode()
        for name, source in {**files, "run.py": start, "README.txt": readme}.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(_content(source))
        (partial / "run.py").chmod(0o755)
        Bundle.open(partial / BUNDLE)
    return out


def _bundle_files(bundle: Bundle, *, with_engines: bool) -> dict[str, Source]:
    names = [MANIFEST_NAME, *(entry.name for entry in bundle.manifest.files)]
    names += [name for name in (SIGNATURE_NAME, ACCURACY) if os.path.lexists(bundle.path / name) and name not in names]
    if with_engines:
        built = sorted((bundle.path / ENGINES).glob("[!.]*/[!.]*/*"))  # hidden ones are half-written
        if not built:
            raise UsageError(f"{bundle.path} has no {ENGINES}/ to pack. Build first, or leave --with-engines out.")
        names += [path.relative_to(bundle.path).as_posix() for path in built]
    for name in names:
        path = bundle.path / name
        if path.is_symlink() or not path.is_file() or not MEMBER.fullmatch(f"{BUNDLE}/{name}"):
            raise BundleError(f"{path} is no plain file of a plain name, so it cannot be packed. Remove it.")
    return {f"{BUNDLE}/{name}": bundle.path / name for name in names}


def _content(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _archive(files: Mapping[str, Source]) -> bytes:
    """A zip application. Stored, not deflated: the bytes depend on no library, and nothing can inflate."""
    whole = io.BytesIO()
    whole.write(_SHEBANG)
    with zipfile.ZipFile(whole, "w") as archive:
        for name, source in sorted(files.items()):
            member = zipfile.ZipInfo(name, _DATE)
            member.create_system, member.external_attr = 3, 0o100644 << 16  # as on Linux, wherever it is made
            archive.writestr(member, _content(source))
    return whole.getvalue()


def _refuse_other_file(out: Path) -> None:
    if not out.is_file():
        return
    try:
        with zipfile.ZipFile(out) as archive:
            archive.getinfo(f"{BUNDLE}/{MANIFEST_NAME}")
    except (zipfile.BadZipFile, KeyError):
        raise UsageError(f"{out} exists and is no pack, so it is not replaced. Choose another --out.") from None


def _readme(bundle: Bundle, wheels: Sequence[Wheel]) -> str:
    signs = bundle.manifest.clip.kind == "landmarks"
    reads = "sign-reading" if signs else "lip-reading"
    takes = "all landmarks of one sign, float (T, 543, 3)" if signs else "uint8 frames (B, T, H, W)"
    brings = ", ".join(f"{wheel.name} {wheel.version} ({wheel.tags[0]})" for wheel in wheels)
    needs = f"It brings {brings}." if wheels else "It needs numpy and an inference engine, such as onnxruntime."
    return f"""{bundle.name}: a {reads} word classifier, packed by edgelip {__version__}

    python3 run.py check                 is it whole, and does it compute here what it should?
    python3 run.py predict CLIPS.npz     words of clips: {takes}
    python3 run.py bench                 latency and memory on this machine
    python3 run.py --help

It runs in place, with Python 3.8 or newer, without pip and without a network. {needs}
What `build` makes is put into bundle/{ENGINES}/.

bundle/          the model, its words and what it must compute; see bundle/MODEL_CARD.md
edgelip/         the program (Apache-2.0)
run.py           start here

sha256 of bundle/manifest.json: {bundle.sha256}
"""
