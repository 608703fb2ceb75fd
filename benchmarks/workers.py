"""One subject of a timing in a process of its own, asked for one run at a time.

What else a program has allocated decides how fast it gets large temporaries: in a fresh process the published forward
takes half as long again as in one that has exported a model before. So every subject starts alike.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType

from interleaved import elapsed_ms

from edgelip.errors import MeasurementError

READY = "ready"


class Worker:
    """A process that runs `serve`; calling it runs the subject once and gives its milliseconds on the wall clock.

    Raises MeasurementError with the last line that the process wrote to stderr if it ends.
    """

    def __init__(self, command: Sequence[str], *, what: str) -> None:
        self._what = what
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)
        if self._answer() != READY:
            raise MeasurementError(f"The process of {what} did not get ready.")

    def __call__(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        return float(self._answer())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            _, text = self._process.communicate()
            raise MeasurementError(f"The process of {self._what} ended: {(text.strip() or '?').splitlines()[-1]}")
        return line


def serve(run: Callable[[], object], *, warm_up: int = 2) -> None:
    """The other end: run the subject unseen, say so, then once for every line, until there are no more."""
    for _ in range(warm_up):
        run()
    print(READY, flush=True)
    for _ in sys.stdin:
        print(elapsed_ms(run)[0], flush=True)
