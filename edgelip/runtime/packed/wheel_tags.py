"""Do the wheels that a pack carries fit the Python and the machine that run it? Standard library only."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from edgelip.runtime.errors import MissingError

_WHEEL_FILE_LIMIT_BYTES = 64 << 10
_OLD_NAMES = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_MANYLINUX = re.compile(r"manylinux_(\d{1,3})_(\d{1,3})")


@dataclass(frozen=True)
class Machine:
    """What decides which wheels can be loaded. glibc: its version, None where another C library runs."""

    python: Tuple[int, int]
    implementation: str
    abi: str
    system: str
    processor: str
    glibc: Optional[Tuple[int, int]]

    def __str__(self) -> str:
        libc = "" if self.glibc is None else f" with glibc {self.glibc[0]}.{self.glibc[1]}"
        return f"{self.implementation} {self.python[0]}.{self.python[1]} on {self.system} {self.processor}{libc}"


def this_machine() -> Machine:
    """The Python that runs this, and what it runs on."""
    processor = platform.machine()
    if sys.maxsize < 1 << 32:  # a 32-bit Python under a 64-bit kernel, as Raspberry Pi OS has it
        processor = {"aarch64": "armv7l", "x86_64": "i686"}.get(processor, processor)
    python = sys.version_info[:2]
    abi = f"cp{python[0]}{python[1]}{getattr(sys, 'abiflags', '')}"
    return Machine(python, platform.python_implementation(), abi, sys.platform, processor, _glibc())


def check_wheels(folder: Path, machine: Machine) -> None:
    """Raises MissingError naming the first wheel unpacked in `folder` that does not fit `machine`."""
    for file in sorted(folder.glob("*.dist-info/WHEEL")):
        tags = tags_from_text(file.read_bytes()[:_WHEEL_FILE_LIMIT_BYTES].decode("utf-8", "replace"))
        if not any(fits(tag, machine) for tag in tags):
            name, _, version = file.parent.name[: -len(".dist-info")].partition("-")
            raise MissingError(
                f"this pack carries {name} {version} for {', '.join(tags)[:200]}; this is {machine}. "
                f"Pack again with a wheel of {name} that fits."
            )


def tags_from_text(text: str) -> List[str]:
    """The tags in a wheel's WHEEL file, such as cp311-cp311-manylinux_2_28_aarch64."""
    return [line[len("Tag:") :].strip() for line in text.splitlines() if line.startswith("Tag:")]


def fits(tag: str, machine: Machine) -> bool:
    """Can `machine` load a wheel of this tag?"""
    python, _, rest = tag.partition("-")
    abi, _, system = rest.partition("-")
    return _python_fits(python, abi, machine) and _system_fits(system, machine)


def _python_fits(python: str, abi: str, machine: Machine) -> bool:
    major, minor = machine.python
    if abi == "none" and python in ("py3", f"py{major}{minor}"):
        return True
    if machine.implementation != "CPython" or python[:3] != "cp3":
        return False
    oldest = int(python[3:]) if python[3:].isdigit() else minor + 1
    if abi == "abi3":
        return oldest <= minor and not machine.abi.endswith("t")  # the free-threaded build has no stable interface
    return oldest == minor and abi in (machine.abi, "none")


def _system_fits(system: str, machine: Machine) -> bool:
    if system == "any":
        return True
    if machine.system == "darwin":
        return system.startswith("macosx_") and system.endswith((f"_{machine.processor}", "_universal2"))
    if machine.system != "linux" or not system.endswith(f"_{machine.processor}"):
        return False
    kind = system[: -len(machine.processor) - 1]
    found = _MANYLINUX.fullmatch(kind)
    needed = (int(found.group(1)), int(found.group(2))) if found else _OLD_NAMES.get(kind)
    if needed is not None:
        return machine.glibc is not None and needed <= machine.glibc
    return kind == "linux" or (kind.startswith("musllinux_") and machine.glibc is None)


def _glibc() -> Optional[Tuple[int, int]]:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, OSError, ValueError):  # another C library, or no POSIX system
        return None
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return (int(numbers.group(1)), int(numbers.group(2))) if name == "glibc" and numbers else None
