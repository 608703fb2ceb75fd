"""Training to accuracy, by the commands a user types. Minutes each: `make test-slow`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
GRID = ROOT.parent / "shared" / "data" / "grid"

pytestmark = pytest.mark.slow


def rows(recipe: str, out: Path, *settings: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "edgelip", "export", f"export/recipes/{recipe}", "--json", "--out", str(out)]
    command += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return {row["variant"]: row for row in json.loads(done.stdout)["rows"]}


def test_the_quickstart_keeps_its_promises(tmp_path: Path) -> None:
    table = rows("quickstart.toml", tmp_path)
    dense = table["dense"]
    assert 85 <= dense["top1_pct"] <= 97
    assert dense["num_clips"] >= 2500
    for name in ("phm4", "phm4-int8", "pruned-phm4-int8"):
        assert table[name]["top1_drop_points"] <= 3
    assert table["phm4"]["file_bytes"] < 0.3 * dense["file_bytes"]
    assert table["phm4"]["resident_weights_bytes"] == pytest.approx(dense["resident_weights_bytes"], rel=0.01)
    assert min(row["file_bytes"] for row in table.values()) <= dense["file_bytes"] / 10
    for name in ("phm4-int8", "pruned-phm4-int8"):
        assert table[name]["int8_coverage_pct"] > 90
    parity = json.loads((tmp_path / "parity.json").read_text())["rows"]
    assert {row["engine"] for row in parity} >= {"ort", "openvino"}
    assert [row for row in parity if not row["agrees"]] == []
    for name in table:
        keys = {path.name.partition("-")[0] for path in (tmp_path / name / "engines").iterdir()}
        assert {"sm86", "sm89"} < keys


@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID spans are not beside the repository")
@pytest.mark.parametrize(("category", "least_pct"), [("digit", 95.0), (None, 90.0)])
def test_real_lips_are_read(tmp_path: Path, category: str | None, least_pct: float) -> None:
    settings = [f"data.root={json.dumps(str(GRID))}", 'variant=[{name="dense"}]']
    settings += [f"data.category={category}"] if category else []
    assert rows("grid.toml", tmp_path, *settings)["dense"]["top1_pct"] >= least_pct
