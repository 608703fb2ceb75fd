from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgelip.errors import UsageError
from edgelip.report.from_results import ledger_from_rows, names_of
from edgelip.report.ledger import Figure, Ledger
from edgelip.report.tradeoff import markdown_text

sys.path.insert(0, str(Path(__file__).parent))
from result_rows import ENVIRONMENT, FIGURES, SITTING, TARGET, measured, result_row


def test_all_kinds_of_rows_of_a_variant_become_one() -> None:
    rows = [result_row(scenario=kind) for kind in reversed(FIGURES)]
    (row,) = ledger_from_rows(SITTING, rows).rows
    assert (row.variant, row.badge, row.reasons, row.num_launches, row.num_clips) == ("dense", "VALID", (), 5, 7000)
    assert (row.engine, row.precision, row.threads, row.device) == ("ort", "fp32", 1, "here")
    assert (row.file_bytes, row.macs) == (100_000, 1_000_000)
    assert isinstance(row.file_bytes, int)
    assert row.figure("latency_p90_ms") == Figure(3.0, 2.8, 3.2)
    assert row.figure("latency_p99_ms") == Figure(4.0, 3.5, 5.0)
    assert row.figure("top1_pct") == Figure(90.0, 88.0, 92.0)
    assert row.command == "edgelip bench quick.toml --only dense"


def test_a_figure_comes_from_its_own_scenario() -> None:
    (row,) = ledger_from_rows(SITTING, [result_row(scenario=kind) for kind in FIGURES]).rows
    assert row.figure("clips_per_s") == Figure(500.0, 490.0, 510.0)  # Offline, not MultiStream
    assert row.figure("cold_start_ms") == Figure(300.0, 290.0, 310.0)  # ColdStart before SingleStream
    assert row.figure("peak_memory_mib") == Figure(60.0, 59.0, 61.0)  # SingleStream, not MultiStream
    (row,) = ledger_from_rows(SITTING, [result_row(), result_row(scenario="MultiStream")]).rows
    assert (row.value("clips_per_s"), row.value("cold_start_ms")) == (None, 400.0)


def test_a_percentile_below_its_count_is_a_dash() -> None:
    few = {"latency_p99_ms": measured("latency_p99_ms", 4.0, num_samples=661)}
    (row,) = ledger_from_rows(SITTING, [replace(result_row(), measurements={**result_row().measurements, **few})]).rows
    assert row.figure("latency_p99_ms") is None
    assert row.figure("latency_p90_ms") is not None


def test_the_badge_is_the_gravest_and_names_its_parts() -> None:
    rows = [
        result_row(scenario="Static"),
        result_row(badge="NOISY"),
        result_row(scenario="Streaming", badge="THROTTLED"),
        result_row(scenario="Offline", badge="UNCONTROLLED", reasons=()),
    ]
    (row,) = ledger_from_rows(SITTING, rows).rows
    assert row.badge == "THROTTLED"
    assert row.reasons == (
        "SingleStream NOISY: clocks moved by 9 %", "Offline UNCONTROLLED", "Streaming THROTTLED: clocks moved by 9 %"
    )  # fmt: skip


def test_targets_of_a_variant_are_told_apart_and_the_first_variant_is_first() -> None:
    two = replace(TARGET, threads=2)
    rows = [
        result_row("a", measured_at="2026-11-20T10:00:30+00:00"),
        result_row("phm4", measured_at="2026-11-20T10:00:20+00:00"),
        result_row("phm4", target=two, measured_at="2026-11-20T10:00:10+00:00"),
        result_row("dense", measured_at="2026-11-20T10:08:00+00:00"),
    ]
    ledger = ledger_from_rows(SITTING, rows)
    assert [row.variant for row in ledger.rows] == ["dense", "phm4 @ ort fp32 2t", "phm4 @ ort fp32 1t", "a"]
    assert names_of(rows)["phm4", "ort fp32 2t"] == "phm4 @ ort fp32 2t"


def test_the_target_that_ratios_are_to_is_the_first_row() -> None:
    half = replace(TARGET, precision="fp16")
    rows = [
        result_row(target=half, figures={"latency_ratio": (0.9, 0.8, 1.0)}),
        result_row(figures={"latency_ratio": (1.0, 1.0, 1.0)}, measured_at="2026-11-20T10:09:00+00:00"),
    ]
    assert [row.precision for row in ledger_from_rows(SITTING, rows).rows] == ["fp32", "fp16"]


def test_what_rows_say_beside_figures_reaches_the_table() -> None:
    rows = [
        result_row(scenario="Static", details={"method": "PHM n=4"}),
        result_row(environment={**ENVIRONMENT, "energy_boundary": "VDD_IN"}),
        result_row(scenario="Accuracy", details={"test_set": "ab" * 32, "speakers": 20}),
    ]
    ledger = ledger_from_rows(SITTING, rows)
    assert (ledger.rows[0].method, ledger.rows[0].energy_boundary) == ("PHM n=4", "VDD_IN, SingleStream")
    header = ledger.header
    assert (header.test_set, header.speakers, header.test_clips) == ("ab" * 32, 20, 7000)
    assert (header.recipe, header.measured_at) == ("quick", SITTING.started_at)
    assert Ledger.from_json(ledger.to_json()) == ledger
    assert "VDD_IN, SingleStream" in markdown_text(ledger)


def test_a_sitting_that_was_cut_short_says_so() -> None:
    ledger = ledger_from_rows(replace(SITTING, finished_at=None), [result_row()])
    assert "The sitting was cut short or is still going on: rows are missing." in ledger.header.notes


def test_rows_of_two_devices_need_one_to_be_named() -> None:
    rows = [result_row(), result_row(target=replace(TARGET, device="orin-nx-8"))]
    with pytest.raises(
        UsageError, match=r"holds rows of 2 devices: here, orin-nx-8\. .* choose one with --device NAME"
    ):
        ledger_from_rows(SITTING, rows)
    assert ledger_from_rows(SITTING, rows, device="orin-nx-8").devices == ("orin-nx-8",)
    with pytest.raises(UsageError, match=r"has no row of 'orin-nx-9'\. Did you mean 'orin-nx-8'\?"):
        ledger_from_rows(SITTING, rows, device="orin-nx-9")


def test_rows_that_do_not_make_a_table_are_refused() -> None:
    with pytest.raises(UsageError, match=r"sitting of 2026-11-20T10:00:00\+00:00 holds no results\. `edgelip bench"):
        ledger_from_rows(SITTING, [])
    with pytest.raises(
        UsageError, match=r"dense on ort fp32 1t has rows of 2 bundles \(bb.*, denseaaaaaaa\): it changed"
    ):
        ledger_from_rows(SITTING, [result_row(), result_row(scenario="Static", bundle_sha256="b" * 64)])
    with pytest.raises(
        UsageError, match=r"dense on ort fp32 1t has 2 rows of SingleStream; expected one\. Remove one\."
    ):
        ledger_from_rows(SITTING, [result_row(), result_row()])
