"""feature_cache.py writes what it measured, and judges it. No time is asserted."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TOY = ("--toy", "--clips", "16", "--rounds", "1", "--check", "--out")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("feature_cache")


def test_it_writes_every_sample_and_the_same_weights(script: Any, tmp_path: Path) -> None:
    assert script.main([*TOY, str(tmp_path)]) == 0
    result = json.loads((tmp_path / "feature_cache.json").read_text())
    assert {name: len(seconds) for name, seconds in result["samples_s"].items()} == {
        "pixels": 1, "cached fp32": 1, "cached fp16": 1
    }  # fmt: skip
    found = {finding["what"]: finding["value"]["value"] for finding in result["findings"]}
    assert found["largest difference of weights, fp32 and pixels"] < 1e-5
    assert 1.5 < found["disk, cached fp32, MB"] / found["disk, cached fp16, MB"] < 2.1
    page = (tmp_path / "feature_cache.md").read_text()
    assert "| epoch on pixels / on cached fp16 |" in page


def test_a_limit_that_is_missed_is_told(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "weight_difference", lambda one, other: 0.5)
    assert script.main([*TOY, str(tmp_path)]) == 3
    assert "1 limits are missed: largest difference of weights, fp32 and pixels." in capsys.readouterr().err
