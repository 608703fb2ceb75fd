"""planted_faults.py: a spoilt measurement bears the badge of its fault, and the script sees it when one does not."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgelip.errors import GoalMissed, MeasurementError, UsageError

TESTS = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(TESTS.parent / "benchmarks")
    return importlib.import_module("planted_faults")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(TESTS / "runtime")
    tiny = importlib.import_module("tiny_bundles")
    folder: Path = tiny.write_bundle(tmp_path / "tiny")
    manifest = json.loads((folder / "manifest.json").read_text())
    for model in manifest["models"]:
        model["engines"] = ["ort", "ort-cuda"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_faults_are_badged_and_saved(
    script: Any, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = ["--only", "fallback", "--only", "throttled"]
    script.run(["--bundle", str(bundle), "--seconds", "0.05", "--out", str(tmp_path / "out"), *only])
    assert "| THROTTLED | THROTTLED |" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out/planted_faults.json").read_text())["rows"]
    assert [(row["fault"], row["badge"], row["as_it_must"]) for row in rows] == [
        ("fallback", "FALLBACK", True),
        ("throttled", "THROTTLED", True),
    ]
    assert rows[0]["planted"].startswith("an onnxruntime that says CUDAExecutionProvider")


def test_run_that_fails_is_no_row(script: Any, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="the run with the fault 'none' ended with code 2: edgelip: "):
        script.run_with("none", tmp_path / "nowhere", seconds=0.1)


def test_what_cannot_be_measured_is_refused_first(script: Any, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere is no bundle: it has no manifest\.json"):
        script.run(["--bundle", str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="--seconds is -1; expected more than 0, at most 86400"):
        script.run(["--bundle", str(bundle), "--seconds", "-1"])


def test_row_without_its_badge_misses_the_goal(script: Any) -> None:
    good = script.Row("swap", "files", "UNCONTROLLED", "UNCONTROLLED", ("swapped out",), True)
    script.check([good])
    bad = script.Row("none", "nothing", "VALID", "NOISY", ("others",), False)
    with pytest.raises(GoalMissed, match=r"^none is NOISY, expected VALID\. Repeat on a quiet machine\.$"):
        script.check([good, bad])
    assert "| none | nothing | VALID | NOISY | others | NO |" in script.table([bad])
