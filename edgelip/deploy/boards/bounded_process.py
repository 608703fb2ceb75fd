"""Run a local program whose output comes from a machine that is not trusted: bounded in size and time."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Literal, Protocol

from edgelip.errors import MissingError

_CHUNK_BYTES = 1 << 16
_MAX_STDERR_LINES = 200
_MAX_LINE = 2000
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Messages are recognised by their English text.
_ENVIRONMENT = {"LC_ALL": "C", "LANGUAGE": "C"}


class Sink(Protocol):
    """What takes stdout instead of memory: an open file, or something that reads along."""

    def write(self, chunk: bytes, /) -> int: ...


Stop = Literal["", "too long", "too large"]


@dataclass(frozen=True)
class Ended:
    """How a program ended. stop: why it was ended from here; stderr: its last lines, control characters removed."""

    code: int
    stdout: bytes
    stderr: str
    stop: Stop


def run_bounded(
    command: Sequence[str],
    *,
    mend: str,
    input: bytes = b"",
    hold_input: bool = False,
    seconds: float,
    limit_bytes: int,
    sink: Sink | None = None,
    heard: Callable[[str], None] = lambda line: None,
) -> Ended:
    """Run `command`; more than `limit_bytes` on stdout or `seconds` ends it.

    mend: the command that installs it, for the message where it is not there. hold_input: keep its stdin open after
    `input` until it ends. sink: where stdout goes instead of into memory. heard: called with each line of stderr.
    Raises MissingError if the program is not installed.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
        )
    except FileNotFoundError as error:
        raise MissingError(
            f"{command[0]} is not installed here; reaching a device needs it. Install it: {mend}"
        ) from error
    assert process.stdin
    assert process.stdout
    assert process.stderr
    stops: list[Stop] = []
    lines: list[str] = []

    def end(stop: Stop) -> None:
        stops.append(stop)
        process.kill()

    clock = threading.Timer(seconds, end, ("too long",))
    feeder = threading.Thread(target=_feed, args=(process.stdin, input, not hold_input), daemon=True)
    listener = threading.Thread(target=_listen, args=(process.stderr, lines, heard), daemon=True)
    memory = BytesIO()
    kept: Sink = sink or memory
    try:
        for thread in (clock, feeder, listener):
            thread.start()
        left = limit_bytes
        while chunk := os.read(process.stdout.fileno(), min(_CHUNK_BYTES, left + 1)):
            if len(chunk) > left:
                end("too large")
                break
            kept.write(chunk)
            left -= len(chunk)
        code = process.wait()
        listener.join(timeout=5)  # a grandchild may hold stderr open
    finally:
        clock.cancel()
        process.kill()
        process.wait()
        feeder.join()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
    return Ended(code, memory.getvalue(), "\n".join(lines[-_MAX_STDERR_LINES:]), stops[0] if stops else "")


def plain_line(text: str) -> str:
    """One line of text from elsewhere, without what could steer a terminal, cut to a sane length."""
    return without_control(" ".join(text.split())).strip()


def without_control(line: str) -> str:
    """A line that keeps its columns, without what could steer a terminal."""
    return _CONTROL.sub("", line)[:_MAX_LINE]


def _feed(pipe: BinaryIO, content: bytes, close: bool) -> None:
    with contextlib.suppress(OSError):  # the program left early: its exit code says why
        pipe.write(content)
        pipe.flush()
        if close:
            pipe.close()


def _listen(pipe: BinaryIO, lines: list[str], heard: Callable[[str], None]) -> None:
    with pipe:
        for raw in _lines_of(pipe):
            line = plain_line(raw.decode(errors="replace"))
            if line:
                lines.append(line)
                del lines[:-_MAX_STDERR_LINES]
                heard(line)


def _lines_of(pipe: BinaryIO) -> Iterator[bytes]:
    """Lines as they come, ended by newline or carriage return; a giant one is cut."""
    rest = b""
    while chunk := os.read(pipe.fileno(), _CHUNK_BYTES):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        yield from whole
        rest = rest[:_CHUNK_BYTES]
    yield rest
