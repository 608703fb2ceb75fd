"""signs.py trains both networks, reads their deployed files and judges the difference; it goes on after a kill."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelip.data.synthetic.signing import words_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/ by name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def outcome(script: Any, **changes: Any) -> Any:
    fields = {
        "variant": "int8", "seed": 0, "method": "int8 PTQ", "parameters": 1_800_000, "macs": 10**7, "precision": "int8",
        "file_bytes": 2_000_000, "resident_weights_bytes": 0, "int8_coverage_pct": 95.0, "bundle_sha256": "",
        "words": (0, 1, 2, 3), "right": (True, True, True, False),
    }  # fmt: skip
    return script("row_outcomes").Outcome(**fields | changes)


def verdicts(script: Any, base: Any, *outcomes: Any) -> dict[str, bool]:
    signs = script("signs")
    rows = {"baseline": signs.Row("baseline", {0: base}, 0.0)}
    row = rows["int8"] = signs.Row("int8", {each.seed: each for each in outcomes}, 0.0)
    base_TN = np.repeat(rows["baseline"].right_TN, len(outcomes), axis=0)
    gains = {"int8": signs.pooled_accuracy_difference(row.right_TN, base_TN)}
    return {what: met for what, _, met in signs._limits(rows, gains)}


def test_limits_are_those_of_the_issue(script: Any) -> None:
    base = outcome(script, right=(True, False, False, False))
    kept = verdicts(script, base, outcome(script))
    assert kept == {
        "int8: points above the baseline >= 15": True,
        "int8: parameters <= 2,000,000": True,
        "int8: int8 file <= 2.5 MB": True,
        "int8: int8 share >= 80 %": True,
    }


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"right": (False, True, False, False)}, "int8: points above the baseline >= 15"),
        ({"parameters": 2_000_001}, "int8: parameters <= 2,000,000"),
        ({"file_bytes": 2_500_001}, "int8: int8 file <= 2.5 MB"),
        ({"int8_coverage_pct": 79.9}, "int8: int8 share >= 80 %"),
    ],
)
def test_a_limit_can_be_missed(script: Any, changes: dict[str, Any], missed: str) -> None:
    base = outcome(script, right=(True, False, False, False))
    assert [what for what, met in verdicts(script, base, outcome(script, **changes)).items() if not met] == [missed]


def test_the_worst_seed_decides_on_size(script: Any) -> None:
    base = outcome(script, right=(False,) * 4)
    large = outcome(script, seed=1, file_bytes=2_600_000)
    assert verdicts(script, base, outcome(script), large)["int8: int8 file <= 2.5 MB"] is False


def test_words_without_their_order_come_in_fours(script: Any) -> None:
    words = words_of(40)
    found = script("signs").without_order(words)
    assert found[:4] == ["flat-chin-vertical"] * 4
    assert len(set(found)) == len(words) // 4


def test_seeds_are_given_once(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("signs").main(["--seeds", "1", "1"]) == 2
    assert capsys.readouterr().err == "signs: --seeds [1, 1] name a seed twice. Give each once.\n"


@pytest.mark.slow
def test_a_toy_run_is_judged_and_made_once(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signs = script("signs")
    command = ["--toy", "--seeds", "0", "--out", str(tmp_path), "--set", 'variant=[{name="dense"}]']
    assert signs.main(command) == 0
    result = json.loads((tmp_path / "signs-seeds-0.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["baseline", "dense"]
    base, dense = (np.array([digit == "1" for digit in row["right"]["0"]]) for row in result["rows"])
    assert result["rows"][1]["gain_points"][0] == pytest.approx(100 * (dense.mean() - base.mean()))
    assert all(row["orderless_pct"] >= row["top1_pct"]["0"] for row in result["rows"])
    assert "| limit | measured |" in (tmp_path / "signs-seeds-0.md").read_text()
    capsys.readouterr()
    assert signs.main([*command, "--check"]) == 3  # untrained
    assert "train dense" not in capsys.readouterr().err
