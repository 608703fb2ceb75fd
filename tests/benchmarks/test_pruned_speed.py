"""pruned_speed.py times what it says, and judges what it measures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("pruned_speed")


def test_a_toy_run_writes_its_table(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--toy", "--networks", "small", "--threads", "1", "--launches", "2", "--round-to", "8"]
    assert script.main([*options, "--check", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "pruned_speed.json").read_text())
    (row,) = result["rows"]
    assert (row["network"], row["threads"], row["round_to"], row["limit"]) == ("small", 1, 8, None)
    assert abs(row["macs_left"] - 0.5) <= 0.02
    assert row["pruned_mb"] < row["dense_mb"]
    assert set(result["samples_ms"]) == {"small, dense, 1 threads", "small, pruned 8, 1 threads"}
    assert all(len(times) == 2 for times in result["samples_ms"].values())
    assert "| small | 8 | 1 | 0." in capsys.readouterr().out


@pytest.mark.parametrize(("measured", "verdict", "code"), [(0.62, "pass", 0), (0.63, "MISS", 3)])
def test_the_limit_is_on_the_median(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: float, verdict: str, code: int
) -> None:
    middle = script.Median(measured, measured - 0.1, measured + 0.1)
    row = script.Row("dctcn_dense", 16, 2, 0.5, 0.47, 210.0, 98.0, middle, middle, middle, script.LIMIT)
    monkeypatch.setattr(script, "measure", lambda name, arguments: ([row], {}))
    options = ["--networks", "dctcn_dense", "--out", str(tmp_path)]
    assert script.main([*options, "--check"]) == code
    assert script.main(options) == 0
    assert f"| <= 0.62 | {verdict} |" in (tmp_path / "pruned_speed.md").read_text()


@pytest.mark.slow
def test_zeros_show_in_a_packed_copy_alone(script: Any, tmp_path: Path) -> None:
    storage = importlib.import_module("masked_storage")
    assert storage.main(["--toy", "--launches", "2", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "masked_storage.json").read_text())
    rows = {row["form"]: row for row in result["rows"]}
    assert list(rows) == ["dense", "2:4", "unstructured 50%", "unstructured 75%", "unstructured 90%"]
    dense = rows["dense"]["file_mb"]
    assert all(abs(row["file_mb"] / dense - 1) < 0.001 for row in rows.values())
    packed = [rows[f"unstructured {share}%"]["zlib_ratio"] for share in (50, 75, 90)]
    assert 1 > packed[0] > packed[1] > packed[2]
    assert rows["dense"]["zeros"] == 0
