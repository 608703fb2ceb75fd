"""Small files of the kernel, and short commands of the system: read within bounds, None where there is nothing."""

from __future__ import annotations

import math
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Sequence

ROOT = Path("/")  # every reader takes another root, so that a test can build the tree of a board
MAX_BYTES = 64 * 1024  # of all files of the kernel that are read, only /proc/cpuinfo is longer


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> Optional[str]:
    """The text of a file without surrounding blanks and zero bytes, cut at `max_bytes`; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes).decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:  # a sensor that is powered down answers with an error, not with a number
        return None


def read_number(path: Path) -> Optional[float]:
    """The number that a file holds; None if it cannot be read or holds something else."""
    try:
        number = float(read_text(path, max_bytes=64) or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def run_tool(name: str, *arguments: str, timeout_s: float = 5.0, max_bytes: int = MAX_BYTES) -> Optional[str]:
    """What a system command prints, at most `max_bytes` of it; None if it is absent, fails or takes too long."""
    deadline = time.monotonic() + timeout_s
    with _started(name, arguments) as process:
        printed = _printed(process, deadline, max_bytes=max_bytes) if process else None
        if process is None or printed is None:
            return None
        if len(printed) < max_bytes:
            try:
                if process.wait(max(0.1, deadline - time.monotonic())) != 0:
                    return None
            except subprocess.TimeoutExpired:
                return None
        return printed.decode("utf-8", "replace")


def tool_line(name: str, *arguments: str, timeout_s: float = 5.0, max_bytes: int = 4096) -> Optional[str]:
    """The first line of a system command that prints until it is ended, which it is then; None as in run_tool."""
    with _started(name, arguments) as process:
        deadline = time.monotonic() + timeout_s
        printed = _printed(process, deadline, max_bytes=max_bytes, until=b"\n") if process else None
    line, end, _ = (printed or b"").partition(b"\n")
    return line.decode("utf-8", "replace") if end else None


@contextmanager
def _started(name: str, arguments: Sequence[str]) -> Iterator[Optional["subprocess.Popen[bytes]"]]:
    """The running command, which is ended with the block; None if it is not there."""
    path = shutil.which(name)
    try:
        process = path and subprocess.Popen(
            [path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        process = None
    if not process:
        yield None
        return
    with process:
        try:
            yield process
        finally:
            process.kill()


def _printed(
    process: "subprocess.Popen[bytes]", deadline: float, *, max_bytes: int, until: Optional[bytes] = None
) -> Optional[bytes]:
    """What it prints up to its end, to `max_bytes` or to where `until` stands; None if that takes too long."""
    assert process.stdout is not None  # it is a pipe
    printed = b""
    while len(printed) < max_bytes and not (until and until in printed):
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0 or not select.select([process.stdout], [], [], remaining_s)[0]:
            return None
        piece = os.read(process.stdout.fileno(), max_bytes - len(printed))
        if not piece:
            break
        printed += piece
    return printed
