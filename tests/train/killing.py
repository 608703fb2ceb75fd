"""A run that dies in the middle, as by kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgelip.progress import Progress, Task


class Killed(BaseException):
    pass


class Killing(Progress):
    """Dies at one note of the progress, as a kill would: mid-epoch, after the state of the one before is on disk."""

    def __init__(self, at: str, error: type[BaseException] = Killed) -> None:
        super().__init__(quiet=True)
        self.at, self.error = at, error

    @contextmanager
    def task(self, name: str, *, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        killer = self

        class Dying(Task):
            def advance(self, amount: int, *, note: str | None = None) -> None:
                super().advance(amount, note=note)
                if killer.at in (note or ""):
                    raise killer.error

        yield Dying(name, total, unit, done)
