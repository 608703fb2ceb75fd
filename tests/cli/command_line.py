"""What one run of the command line leaves; the fixture `edgelip` in conftest.py makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """Exit code, stdout, and the last line of stderr."""

    code: int
    out: str
    line: str


Edgelip = Callable[..., Done]
