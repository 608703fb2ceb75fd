"""`edgelip report` over several exports, and `edgelip bench --report`, on tiny bundles."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Edgelip
from tiny_bundles import write_bundle

from edgelip.report.ledger import Ledger
from edgelip.runtime.bundle import Bundle

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from test_ledger import HEADER, make_row


def write_export(folder: Path, **header: Any) -> Path:
    """An export of one bundle called `dense`, and its table."""
    bundle = write_bundle(folder / "dense", name="dense", edit=lambda manifest: manifest["ledger"].update(parameters=7))
    row = make_row("dense", sitting=None, bundle_sha256=Bundle.open(bundle).sha256, latency_p50_ms=500.0)
    fields = {**HEADER, "recipe": folder.name, **header}
    (folder / "tradeoff.json").write_text(Ledger.from_rows(fields, [row]).to_json())
    return folder


@pytest.fixture
def exports(tmp_path: Path) -> list[Path]:
    return [
        write_export(tmp_path / "first"),
        write_export(tmp_path / "second", measured_at="2026-11-22T09:00:00+00:00"),
    ]


def test_report_joins_exports_and_writes_them_where_told(edgelip: Edgelip, exports: list[Path], tmp_path: Path) -> None:
    done = edgelip("report", *exports)
    assert done.code == 0, done.line
    assert "first/dense" in done.out
    assert "Latency is left out" in done.out
    assert not (tmp_path / "joint").exists()
    done = edgelip("report", *exports, "--out", tmp_path / "joint", "--json")
    assert [row["sitting"] for row in json.loads(done.out)["rows"]] == ["A", "B"]
    assert {path.name for path in (tmp_path / "joint").iterdir()} == {
        "tradeoff.md", "tradeoff.csv", "tradeoff.json", "tradeoff.png", "report.html"
    }  # fmt: skip


def test_report_of_one_export_is_written_into_it_or_where_told(
    edgelip: Edgelip, exports: list[Path], tmp_path: Path
) -> None:
    done = edgelip("report", exports[0])
    assert done.code == 0
    assert done.out.endswith(f"\nPage: {exports[0] / 'report.html'}\n")
    assert (exports[0] / "tradeoff.md").is_file()
    assert edgelip("report", exports[0], "--out", tmp_path / "joint").code == 0
    assert (tmp_path / "joint/report.html").is_file()
    done = edgelip("report", exports[0], exports[0])
    assert (done.code, done.line) == (2, f"edgelip: {exports[0]} is named twice. Name each export once.")


def test_bench_times_all_exports_in_one_sitting(edgelip: Edgelip, exports: list[Path], tmp_path: Path) -> None:
    command = ["bench", *exports, "--report", tmp_path / "joint", "--launches", "2", "--seconds", "0.02"]
    done = edgelip(*command, "--json")
    assert done.code == 0, done.line
    table = json.loads(done.out)
    assert table == json.loads((tmp_path / "joint/tradeoff.json").read_text())
    for row in table["rows"]:
        assert row["latency_p50_ms"] < 500
        assert (row["sitting"], row["num_launches"], row["top1_pct"], row["latency_ratio"]) == (None, 2, 93.0, 1.0)
    assert table["header"]["measured_at"] > HEADER["measured_at"]
    assert json.loads((exports[0] / "tradeoff.json").read_text())["rows"][0]["latency_p50_ms"] == 500


def test_bench_refuses_exports_that_changed_or_ran_elsewhere(
    edgelip: Edgelip, exports: list[Path], tmp_path: Path
) -> None:
    command = ["bench", *exports, "--report", tmp_path / "joint"]
    done = edgelip(*command, "--engine", "openvino")
    assert done.code == 2
    assert "was measured on engine 'ort', not 'openvino'. Export it with --set bench.engine=openvino." in done.line
    done = edgelip(*command, "--predict", "t4")
    assert (done.code, done.line) == (
        2,
        "edgelip: --predict and --precision take bundles; --report takes exports as they were measured.",
    )
    table = exports[1] / "tradeoff.json"
    row = Ledger.from_json(table.read_text()).rows[0].to_json() | {"bundle_sha256": "ab" * 32}
    table.write_text(Ledger.from_rows(HEADER, [row]).to_json())
    done = edgelip(*command)
    assert done.code == 2
    assert (
        "holds no bundle of its row 'dense' (sha256 abababababab): it has changed since. Export it again." in done.line
    )
