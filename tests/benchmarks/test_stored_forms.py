"""stored_forms.py measures what it says and judges it."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgelip.compress.sensitivity import Harm

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
FAST = ["--toy", "--rounds", "2", "--threads", "1", "--num-clips", "4"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("stored_forms")


@pytest.mark.slow
def test_a_toy_network_is_measured_on_both_engines(script: Any, tmp_path: Path) -> None:
    forms = ["factors int8", "factors int4, runs int8"]
    assert script.main([*FAST, "--forms", *forms, "--out", str(tmp_path), "--check"]) == 0
    result = json.loads((tmp_path / "stored_forms.json").read_text())
    rows = {(row["engine"], row["form"]): row for row in result["rows"]}
    assert {form for _, form in rows} == {"dense fp32", "factors fp32", *forms}
    assert all(row["folded"] for row in rows.values())
    assert rows["ort", "factors int8"]["file_mb"] < 0.5 * rows["ort", "factors fp32"]["file_mb"]
    assert rows["ort", "factors int8"]["weights_mb"] == pytest.approx(rows["ort", "dense fp32"]["weights_mb"], rel=0.01)
    assert rows["openvino", "factors int8"]["weights_mb"] == pytest.approx(
        rows["openvino", "dense fp32"]["weights_mb"], rel=0.01
    )
    assert rows["ort", forms[1]]["file"] == "model.int8-u8.onnx"
    harms = result["harms"]
    assert harms["factors fp32"]["flipped"] == 0
    assert 15 < harms["factors int8"]["sqnr_db"] < 60
    assert harms[forms[1]]["sqnr_db"] < harms["factors int8"]["sqnr_db"]
    for form, parts in result["bytes"].items():
        assert sum(parts.values()) == round(1e6 * rows["ort", form]["file_mb"])


def test_limits_are_held_against_the_rows(script: Any) -> None:
    median = script.median_interval([1.0])
    row = script.Row("ort", 1, "factors int8", "f", 5.6, median, median, median, 200.0, True)
    fine = {"factors int8": Harm(0.0, 31.0, 0.0)}
    limits = {"toy": False, "is_goal_network": True}
    assert script.misses([row], fine, **limits) == []
    assert script.misses([replace(row, file_mb=5.61)], fine, **limits) == ["factors int8: 5.61 MB, limit 5.6"]
    assert script.misses([replace(row, file_mb=5.61)], fine, toy=False, is_goal_network=False) == []
    assert script.misses([replace(row, folded=False)], fine, toy=True, is_goal_network=True) == [
        "factors int8 is not folded by ort"
    ]
    slow = replace(row, to_dense=script.median_interval([1.2]))
    assert script.misses([slow], fine, **limits) == ["factors int8, ort: 1.20 times the dense file, limit 1.05"]
    assert script.misses([replace(slow, form="factors int8, runs int8")], fine, **limits) == []
    assert script.misses([row], {"factors int8": Harm(0.0, 29.0, 0.02)}, **limits) == [
        "factors int8: 98.0 % of the words agree, limit 99",
        "factors int8: SQNR 29.0 dB, limit 30",
    ]


def test_a_network_without_factors_is_refused(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([*FAST, "--backbone", "dctcn_dense"]) == 2
    expected = "stored_forms: The network has no PHM layer, so there are no factors to store. Give one that has.\n"
    assert capsys.readouterr().err == expected
