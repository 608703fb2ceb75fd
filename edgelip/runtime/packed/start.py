"""What runs first inside a pack: it finds the pack's own bundle and hands over to the verbs of edgelip.runtime.

    python3 words.pyz check      a zip application; its bundle is unpacked once, into the user's cache
    python3 words/run.py check   a folder that runs in place, with the wheels in site-packages/ if it carries any

Standard library only, until numpy is known to be there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Callable, List, Sequence

from edgelip.runtime.errors import BundleError, EdgelipError, MissingError
from edgelip.runtime.packed.unpack import BUNDLE, unpack
from edgelip.runtime.packed.wheel_tags import check_wheels, this_machine

WHEELS = "site-packages"
_BARE_VERBS = ("doctor",)  # need no bundle


def run_folder(folder: Path, arguments: Sequence[str]) -> int:
    """Run a verb on the bundle of the pack at `folder`; the exit code."""
    wheels = folder / WHEELS

    def prepare() -> None:
        if wheels.is_dir():
            check_wheels(wheels, this_machine())
            sys.path.insert(1, str(wheels))
            seen = [str(wheels), *filter(None, [os.environ.get("PYTHONPATH")])]
            os.environ["PYTHONPATH"] = os.pathsep.join(seen)  # for what doctor starts

    return _run(list(arguments), prepare, lambda: folder / BUNDLE, program=f"python3 {folder.name}/run.py")


def run_archive(archive: Path, arguments: Sequence[str]) -> int:
    """Run a verb on the bundle inside the zip application `archive`; the exit code."""
    parser = argparse.ArgumentParser(prog=f"python3 {archive.name}", add_help=False, allow_abbrev=False)
    parser.add_argument("--unpack-to", metavar="FOLDER", type=Path)
    known, rest = parser.parse_known_args(arguments)
    unpacked: List[Path] = []

    def locate() -> Path:
        unpacked.append(unpack(archive, known.unpack_to))
        return unpacked[0]

    code = _run(rest, lambda: None, locate, program=f"{parser.prog} [--unpack-to FOLDER]")
    if unpacked and code == BundleError.exit_code and _is_damaged(unpacked[0]):
        print(f"edgelip: that is the unpacked copy: remove {unpacked[0]} and run this again.", file=sys.stderr)
    return code


def _run(arguments: List[str], prepare: Callable[[], None], locate: Callable[[], Path], *, program: str) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(program), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    from edgelip.runtime.__main__ import main

    needs_bundle = not (arguments[0] in _BARE_VERBS or {"-h", "--help"} & set(arguments))
    try:
        prepare()
        if needs_bundle:
            _require_numpy()
            arguments = [arguments[0], str(locate()), *arguments[1:]]
    except EdgelipError as error:
        print(f"edgelip: {error}", file=sys.stderr)
        if needs_bundle:
            return error.exit_code
    return main(arguments)


def _is_damaged(folder: Path) -> bool:
    from edgelip.runtime.bundle import Bundle

    try:
        Bundle.open(folder)
    except BundleError:
        return True
    return False


def _usage(program: str) -> str:
    return (
        f"usage: {program} check|predict|build|bench|doctor [OPTIONS]\n\n"
        "  check            is the bundle whole, and does it compute here what it should?\n"
        "  predict CLIPS    words of clips: .npz (array 'frames') or .npy, uint8 (B, T, H, W);\n"
        "                   of a sign all its landmarks, float (T, 543, 3)\n"
        "  build, bench     make what an engine runs on this device; latency and memory\n"
        "  doctor           what this machine has and lacks\n\n"
        f"The bundle is the pack's own. `{program} VERB --help` lists the options."
    )


def _require_numpy() -> None:
    if importlib.util.find_spec("numpy") is None:
        raise MissingError(
            "numpy is not installed here and this pack carries none. Install it, or pack into a folder with wheels "
            "that fit this machine: edgelip pack BUNDLE -o FOLDER --wheel NUMPY.whl --wheel ONNXRUNTIME.whl"
        )
