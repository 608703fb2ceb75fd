"""Progress of long jobs on stderr: done, rate and time left. stdout stays free for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LINE_EVERY_S = 15.0  # where stderr is no terminal


class Task:
    """One running job of `total` units."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.note = ""
        self._first, self._started = done, time.perf_counter()

    def advance(self, amount: int, *, note: str | None = None) -> None:
        self.done += amount
        self.note = self.note if note is None else note

    def line(self) -> str:
        seconds = time.perf_counter() - self._started
        rate = (self.done - self._first) / seconds if seconds > 0 else 0.0
        left = _left((self.total - self.done) / rate) if rate > 0 else "time left unknown"
        note = f"  {self.note}" if self.note else ""
        return f"{self.name}: {self.done}/{self.total} {self.unit}, {rate:.0f} {self.unit}/s, {left}{note}"


def _left(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 5 * size:
            return f"{seconds / size:.1f} {unit} left"
    return f"{seconds:.0f} s left"


class Progress:
    """Writes to stderr; silent when `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._live = sys.stderr.isatty()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, *, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        """A job whose `advance` shows; at its end one line stays."""
        task = _Shown(name, total, unit, done, self)
        try:
            yield task
        except BaseException:
            task.abandon()
            raise
        task.close()

    def show(self, text: str, *, last: bool = False) -> None:
        if self.quiet:
            return
        if self._live:
            print(f"\r\x1b[2K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    @property
    def interval_s(self) -> float:
        return 0.2 if self._live else LINE_EVERY_S


class _Shown(Task):
    def __init__(self, name: str, total: int, unit: str, done: int, progress: Progress) -> None:
        super().__init__(name, total, unit, done)
        self._progress, self._shown = progress, time.perf_counter()

    def advance(self, amount: int, *, note: str | None = None) -> None:
        super().advance(amount, note=note)
        now = time.perf_counter()
        if now - self._shown >= self._progress.interval_s:
            self._shown = now
            self._progress.show(self.line())

    def abandon(self) -> None:
        """Leave the last line as it stands: what follows on the terminal is an error message."""
        self._progress.show(self.line(), last=True)

    def close(self) -> None:
        seconds = time.perf_counter() - self._started
        note = f"  {self.note}" if self.note else ""
        self._progress.show(f"{self.name}: {self.done} {self.unit} in {seconds:.1f} s{note}", last=True)
