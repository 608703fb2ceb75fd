from __future__ import annotations

import json
from typing import Any

import pytest

from edgelip.errors import UsageError
from edgelip.report.ledger import Figure, Ledger, LedgerHeader, LedgerRow


def make_row(variant: str, **changes: Any) -> dict[str, Any]:
    """A whole row as the bench hands it over: 93 % top-1, 2 ms, 100 kB."""
    row: dict[str, Any] = {
        "variant": variant, "method": "dense fp32", "parameters": 900_000, "macs": 123_400_000, "file_bytes": 100_000,
        "resident_weights_bytes": 90_000, "peak_memory_mib": 61.26, "cold_start_ms": 412.4,
        "latency_p50_ms": 2.0, "latency_p50_low_ms": 1.9, "latency_p50_high_ms": 2.1,
        "latency_p90_ms": 3.0, "latency_p90_low_ms": 2.9, "latency_p90_high_ms": 3.1,
        "latency_ratio": 1.0, "latency_ratio_low": 0.98, "latency_ratio_high": 1.02,
        "top1_pct": 93.0, "top1_low_pct": 92.0, "top1_high_pct": 93.9,
        "top5_pct": 99.0, "top5_low_pct": 98.5, "top5_high_pct": 99.3,
        "top1_drop_points": 0.5, "top1_drop_low_points": -0.1, "top1_drop_high_points": 1.1,
        "mcnemar_p": 0.1, "int8_coverage_pct": 0.0, "num_clips": 2500, "num_launches": 5,
        "engine": "ort", "precision": "fp32", "threads": 1, "badge": "VALID", "bundle_sha256": "ab" * 32,
        "sitting": "A",
    }  # fmt: skip
    assert set(changes) <= set(row)
    return {**row, **changes}


HEADER = {
    "recipe": "quickstart.toml",
    "command": "edgelip export quickstart.toml",
    "environment": {"cpu": "Two-core CPU", "versions": {"numpy": "2.4", "onnxruntime": "1.24"}},
    "test_clips": 2500,
    "speakers": 100,
    "test_set": "cd" * 32,
    "measured_at": "2026-11-21T20:00:00+00:00",
    "notes": ["Synthetic mouths."],
}


def test_a_row_survives_json() -> None:
    values = make_row("dense", peak_memory_mib=None, method=None)
    assert LedgerRow.from_json(json.loads(json.dumps(values))).to_json() == values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paramters": 1}, r"ledger row 'x' has the unknown key 'paramters'\. Did you mean 'parameters'\?"),
        ({"parameters": 1.5}, r"ledger row 'x' has parameters 1\.5; expected a whole number or None\."),
        ({"threads": True}, r"ledger row 'x' has threads True; expected a whole number or None\."),
        ({"top1_pct": "93"}, r"ledger row 'x' has top1_pct '93'; expected a finite number or None\."),
        ({"top1_pct": float("nan")}, r"ledger row 'x' has top1_pct nan; expected a finite number or None\."),
        ({"engine": 3}, r"ledger row 'x' has engine 3; expected text or None\."),
        ({"variant": None}, r"ledger row None has variant None; expected text\."),
    ],
)
def test_a_row_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LedgerRow.from_json({**make_row("x"), **change})


def test_a_missing_key_is_refused_and_none_is_not() -> None:
    values = make_row("x")
    del values["macs"], values["badge"]
    with pytest.raises(
        UsageError, match=r"ledger row 'x' lacks macs, badge; expected every key, None where not measured"
    ):
        LedgerRow.from_json(values)
    with pytest.raises(UsageError, match=r"ledger row None is a list; expected a table with variant, method"):
        LedgerRow.from_json([])  # type: ignore[arg-type]
    assert LedgerRow.from_json({**values, "macs": None, "badge": None}).macs is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": {"latency_p49_ms": {"value": 1.0}}}, r"has the figure 'latency_p49_ms'; report/metrics\.py lists"),
        (
            {"figures": {"miss_pct": {"value": None}}},
            r"ledger row 'x', miss_pct, has the value None; expected a finite",
        ),
        (
            {"figures": {"miss_pct": {"value": 1, "low": "a"}}},
            r"miss_pct, has low 'a'; expected a finite number or None",
        ),
        ({"figures": {"miss_pct": 3}}, r"ledger row 'x', miss_pct, is a int; expected a table with value, low, high"),
        ({"figures": [1]}, r"ledger row 'x' has figures of kind list; expected a table\."),
        ({"reasons": "noisy"}, r"ledger row 'x' has reasons 'noisy'; expected a list of sentences\."),
        ({"device": 3}, r"ledger row 'x' has device 3; expected text or None\."),
    ],
)
def test_newer_keys_are_read_as_strictly(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LedgerRow.from_json({**make_row("x"), **change})


def test_any_figure_is_read_by_its_name_whatever_its_column() -> None:
    row = LedgerRow.from_json({**make_row("x"), "figures": {"latency_p99_ms": {"value": 4.0}}})
    assert row.figure("latency_p50_ms") == Figure(2.0, 1.9, 2.1)
    assert row.figure("latency_p99_ms") == Figure(4.0)
    assert row.value("file_bytes") == 100_000
    assert (row.figure("energy_gross_j"), row.value("variant")) == (None, None)


def test_a_header_may_be_partial_but_not_misspelt() -> None:
    assert LedgerHeader.from_json({}) == LedgerHeader()
    assert LedgerHeader.from_json(HEADER).to_json() == HEADER
    for change, message in (
        ({"recipes": "a"}, r"ledger header has the unknown key 'recipes'\. Did you mean 'recipe'\?"),
        ({"notes": "one"}, r"ledger header has notes 'one'; expected a list of sentences\."),
        ({"environment": "cpu"}, r"ledger header has environment 'cpu'; expected a table such as \{'cpu': \.\.\.\}\."),
        ({"test_clips": "many"}, r"ledger header has test_clips 'many'; expected a whole number or None\."),
    ):
        with pytest.raises(UsageError, match=message):
            LedgerHeader.from_json(change)


def test_a_ledger_survives_json_and_a_damaged_one_is_refused() -> None:
    ledger = Ledger.from_rows(HEADER, [make_row("b"), make_row("a", badge="NOISY")])
    text = ledger.to_json()
    assert Ledger.from_json(text) == ledger
    assert list(json.loads(text)) == ["schema_version", "header", "rows"]
    for damaged, message in (
        (text[:-5], r"the ledger is not JSON \(.*\)\. Measure again\."),
        (
            text.replace('"schema_version": 1', '"schema_version": 2'),
            r"schema version 2; expected 1\. Update edgelip\.",
        ),
        ("[]", r"ledger is a list; expected a table with schema_version, header, rows\."),
        ('{"schema_version": 1, "header": {}, "rows": {}}', r"the ledger has rows of kind dict; expected a list\."),
    ):
        with pytest.raises(UsageError, match=message):
            Ledger.from_json(damaged)


def test_a_ledger_needs_rows_of_distinct_names() -> None:
    with pytest.raises(UsageError, match=r"a ledger of 0 rows; expected at least 1 measured variant\."):
        Ledger.from_rows({}, [])
    with pytest.raises(UsageError, match=r"ledger has variant 'a' twice; expected distinct names\. Rename one\."):
        Ledger.from_rows({}, [make_row("a"), make_row("a")])


def test_rows_that_are_not_valid_are_shown_last() -> None:
    rows = [make_row("a", badge="NOISY"), make_row("b"), make_row("c", badge=None), make_row("d")]
    assert [row.variant for row in Ledger.from_rows({}, rows).shown_rows()] == ["b", "d", "a", "c"]
