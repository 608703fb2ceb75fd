"""The command line in this process: a new one imports torch anew, for seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import Done, Edgelip

from edgelip.cli import main

sys.path.append(str(Path(__file__).parent.parent / "runtime"))  # tiny bundles


@pytest.fixture
def edgelip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Edgelip:
    """`edgelip("predict", path, ...)` runs that verb."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["edgelip", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        printed = capsys.readouterr()
        return Done(code, printed.out, (printed.err.strip().splitlines() or [""])[-1])

    return run
