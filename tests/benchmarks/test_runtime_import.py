"""runtime_import.py writes what it measured, and judges it. No time is asserted."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgelip.errors import GoalMissed, MeasurementError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("runtime_import")


def test_it_writes_every_sample_and_the_table(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--rounds", "1", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "runtime_import.json").read_text())
    assert list(result["samples_ms"]) == ["python", "import numpy", "edgelip.runtime check"]
    assert all(len(each["wall"]) == len(each["cpu"]) == 1 for each in result["samples_ms"].values())
    assert set(result["shares_ms"]) == {"edgelip", "numpy", "standard library"}
    assert "| import time, edgelip.runtime check, ms |" in (tmp_path / "runtime_import.md").read_text()
    assert "<= 150" in capsys.readouterr().out


def test_import_time_is_above_the_python_of_the_same_round(script: Any) -> None:
    names = (script.BARE, script.NUMPY, script.RUNTIME)
    rounds = [(10.0, 70.0, 100.0), (20.0, 90.0, 130.0), (5.0, 60.0, 85.0)]
    found = script.findings({name: [(each[i], each[i] / 2) for each in rounds] for i, name in enumerate(names)})
    assert found[script.JUDGED].value == 90.0
    assert found["of that beside numpy, ms"].value == 30.0
    assert found["processor time, edgelip.runtime check, ms"].value == 45.0
    assert "| <= 150 | pass |" in script.table(found)


def test_a_miss_is_exit_3_and_on_a_busy_machine_exit_6(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "LIMIT_MS", 0.0)
    for load, code in ((0.0, GoalMissed.exit_code), (99.0, MeasurementError.exit_code)):
        monkeypatch.setattr(script.os, "getloadavg", lambda load=load: (load, load, load))
        assert script.main(["--rounds", "1", "--check", "--out", str(tmp_path)]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("runtime_import: the import takes ")
    assert lines[1].startswith("runtime_import: 99.0 programs wanted ")


def test_a_runtime_that_fails_otherwise_is_not_timed(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(script.PROGRAMS, script.RUNTIME, "raise SystemExit(2)")
    assert script.main(["--rounds", "1", "--out", str(tmp_path)]) == MeasurementError.exit_code
    assert "`edgelip.runtime check` ended with exit code 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
