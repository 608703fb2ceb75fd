"""Small files of the kernel, and short commands of the system: read within bounds, None where there is nothing."""

from __future__ import annotations

import math
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Optional

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
    path = shutil.which(name)
    if path is None:
        return None
    pieces, deadline = b"", time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            [path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    with process:
        assert process.stdout is not None  # it is a pipe
        try:
            while len(pieces) < max_bytes:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or not select.select([process.stdout], [], [], remaining_s)[0]:
                    return None
                piece = os.read(process.stdout.fileno(), max_bytes - len(pieces))
                if not piece:
                    code = process.wait(max(0.1, deadline - time.monotonic()))
                    return pieces.decode("utf-8", "replace") if code == 0 else None
                pieces += piece
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()
    return pieces.decode("utf-8", "replace")


def tool_line(name: str, *arguments: str, timeout_s: float = 5.0, max_bytes: int = 4096) -> Optional[str]:
    """The first line of a system command that prints until it is ended, which it is then; None as in run_tool."""
    path = shutil.which(name)
    if path is None:
        return None
    pieces, deadline = b"", time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            [path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    with process:
        assert process.stdout is not None  # it is a pipe
        try:
            while b"\n" not in pieces and len(pieces) < max_bytes:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or not select.select([process.stdout], [], [], remaining_s)[0]:
                    return None
                piece = os.read(process.stdout.fileno(), max_bytes - len(pieces))
                if not piece:
                    return None
                pieces += piece
        finally:
            process.kill()
    return pieces.partition(b"\n")[0].decode("utf-8", "replace")
