"""deployed_speed.py judges what it measures, and measures all its subjects."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
SAMPLES = {
    "published eager": [1000.0] * 7,
    "our eager": [300.0] * 7,
    "ort fp32": [200.0] * 7,
    "ort int8": [125.0] * 7,
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("deployed_speed")


def test_ratios_are_held_against_their_limits(script: Any) -> None:
    limits = script.LIMITS["dctcn_phm16"]
    found = {f.what: f for f in script.findings_of("net", SAMPLES, threads=2, limits=limits)}
    verdicts = {what: finding.verdict for what, finding in found.items() if finding.limit}
    assert verdicts == {
        "net, 2 threads: published eager / ort fp32": "pass",
        "net, 2 threads: published eager / ort int8": "MISS",
        "net, 2 threads: ort fp32 / ort int8": "MISS",
    }
    assert found["net, 2 threads: our eager / ort fp32"].measured.value == pytest.approx(1.5)
    assert not any("openvino" in what for what in found)


@pytest.mark.slow
def test_every_subject_is_timed_and_profiled(script: Any, tmp_path: Path) -> None:
    arguments = ["--toy", "--networks", "snv05x_tcn1x", "--rounds", "1", "--threads", "1", "--out", str(tmp_path)]
    assert script.main([*arguments, "--check"]) == 0
    told = json.loads((tmp_path / "deployed_speed.json").read_text())
    subjects = set(told["samples_ms"]["snv05x_tcn1x, 1"])
    assert {"published eager", "our eager", "ort fp32", "ort int8", "openvino fp32"} <= subjects
    assert {"snv05x_tcn1x, ort fp32", "snv05x_tcn1x, ort int8"} <= set(told["layers"])
    assert "# Deployed files against torch" in (tmp_path / "deployed_speed.md").read_text()
