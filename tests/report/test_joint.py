from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from edgelip.errors import UsageError
from edgelip.report.joint import joint_ledger
from edgelip.report.ledger import Ledger
from edgelip.report.plot import png_from_ledger
from edgelip.report.tradeoff import markdown_text, terminal_text

sys.path.insert(0, str(Path(__file__).parent))
from test_ledger import HEADER, make_row

ENVIRONMENT = {
    "machine": "x86_64", "cpu": "Two-core CPU", "load_average": 0.25, "board": {"model": None},
    "engine_settings": {"onnxruntime": "1.31.1", "model": "model.fp32.onnx, not built"},
}  # fmt: skip


def export(recipe: str, *, at: str = "2026-11-21T20:00:00+00:00", scale: float = 1.0, **header: Any) -> Ledger:
    """A table of two rows, times multiplied by `scale`."""
    environment = copy.deepcopy(ENVIRONMENT) | header.pop("environment", {})
    rows = [
        make_row("dense", sitting=None, latency_p50_ms=2.0 * scale, file_bytes=int(100_000 * scale)),
        make_row("small", sitting=None, latency_p50_ms=1.0 * scale, file_bytes=int(9_000 * scale), top1_pct=92.0),
    ]
    fields = {**HEADER, "recipe": recipe, "measured_at": at, "environment": environment, **header}
    return Ledger.from_rows(fields, rows)


def test_rows_of_one_sitting_share_a_front_over_all_three() -> None:
    joined = joint_ledger({"a": export("a"), "b": export("b", scale=3)}, command="edgelip report a b")
    assert [row.variant for row in joined.rows] == ["a/dense", "a/small", "b/dense", "b/small"]
    assert joined.sittings == (None,)
    assert joined.header.recipe == "a, b"
    text = markdown_text(joined)
    assert "On the Pareto front of top-1, file size and latency p50: a/dense, a/small." in text
    assert "ratios and drops are to the first row of the same recipe" in text
    assert "sitting" not in terminal_text(joined)
    assert Ledger.from_json(joined.to_json()) == joined


def test_rows_of_different_sittings_are_marked_and_their_times_not_ranked() -> None:
    later = export("b", at="2026-11-22T09:00:00+00:00", scale=0.5)
    joined = joint_ledger({"a": export("a"), "b": later}, command="edgelip report a b")
    assert [row.sitting for row in joined.rows] == ["A", "A", "B", "B"]
    for text in (markdown_text(joined), terminal_text(joined)):
        assert "Pareto front of top-1 and file size: b/dense, b/small. Latency is left out" in " ".join(text.split())
        assert "edgelip bench --report" in text
    notes = " ".join(joined.header.notes)
    assert "Sitting B: b, 2026-11-22T09:00:00+00:00, load average 0.25." in notes
    assert "Absolute times of different sittings do not compare" in notes
    assert "sitting" in terminal_text(joined)
    assert png_from_ledger(joined)[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_set": "ef" * 32}, "b and a read different test clips: .* do not compare. Give their recipes the same"),
        ({"test_set": None}, "the table of b does not say which test clips it read: .* Export again"),
        ({"environment": {"cpu": "other"}}, "b was measured with cpu other, a with Two-core CPU; .* bench --report"),
        ({"environment": {"board": {"model": "Pi"}}}, "b was measured with board Pi, a with None"),
        ({"environment": {"engine_settings": {"onnxruntime": "1.30"}}}, "with onnxruntime 1.30, a with 1.31.1"),
    ],
)
def test_tables_that_do_not_compare_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        joint_ledger({"a": export("a"), "b": export("b", **change)}, command="")


@pytest.mark.parametrize(("key", "value"), [("engine", "openvino"), ("threads", 2)])
def test_other_engines_and_threads_are_refused(key: str, value: Any) -> None:
    other = Ledger.from_rows(export("b").header.to_json(), [make_row("dense", **{key: value})])
    with pytest.raises(UsageError, match=f"b was measured with {key} {value}, a with (ort|1); their times do not"):
        joint_ledger({"a": export("a"), "b": other}, command="")


def test_one_table_is_no_joint_table() -> None:
    with pytest.raises(UsageError, match="a joint table of 1 tables; expected at least 2 exports"):
        joint_ledger({"a": export("a")}, command="")


def test_rows_of_two_devices_are_refused_by_name() -> None:
    rows = [{**make_row("dense"), "device": "orin-nx-8"}]
    other = Ledger.from_rows(export("b").header.to_json(), rows)
    message = r"a, b holds rows of 2 devices: here, orin-nx-8\. Figures of different devices do not compare; choose one"
    with pytest.raises(UsageError, match=message):
        joint_ledger({"a": export("a"), "b": other}, command="")
