from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgelip.errors import UsageError
from edgelip.report.history import NOTE, Drift, History, Series
from edgelip.report.history_text import drift_text
from edgelip.report.page_views import drift_table
from edgelip.report.results import ResultRow

sys.path.insert(0, str(Path(__file__).parent))
from result_rows import ENVIRONMENT, SITTING, measured, result_row


def drift_of(*rows: ResultRow, environment: dict[str, Any] | None = None) -> Drift:
    """A sitting a row, a day each."""
    history = History()
    for day, row in enumerate(rows, start=1):
        history.add(f"sitting-{day}", [row], environment=environment or {})
    return history.drift(since="2026-11-01", num_sittings=len(rows))


def series_of(drift: Drift, figure: str) -> Series:
    (found,) = [each for each in drift.series if each.figure == figure]
    return found


def p50(value: float, half: float = 0.1, **changes: Any) -> ResultRow:
    return result_row(figures={"latency_p50_ms": (value, value - half, value + half)}, **changes)


def test_a_figure_is_marked_where_its_intervals_part() -> None:
    series = series_of(drift_of(p50(2.0), p50(2.1), p50(3.0), p50(3.1)), "latency_p50_ms")
    assert [point.moved for point in series.points] == [False, False, True, False]
    assert series.verdict == "worse"
    assert series.change_pct == pytest.approx(55.0)
    assert series.reasons == ()
    assert series_of(drift_of(p50(2.0), p50(1.0)), "latency_p50_ms").verdict == "better"
    assert series_of(drift_of(p50(2.0), p50(2.2)), "latency_p50_ms").verdict == "no evidence"


def test_sittings_that_are_not_valid_are_shown_and_not_judged() -> None:
    series = series_of(drift_of(p50(2.0), p50(9.0, badge="NOISY"), p50(2.0)), "latency_p50_ms")
    assert [(point.badge, point.moved) for point in series.points] == [
        ("VALID", False), ("NOISY", False), ("VALID", False)
    ]  # fmt: skip
    assert series.verdict == "no evidence"
    assert series_of(drift_of(p50(9.0, badge="NOISY")), "latency_p50_ms").verdict == "none valid"
    assert series_of(drift_of(p50(9.0)), "latency_p50_ms").verdict == "one sitting"


def test_what_changed_beside_is_named() -> None:
    newer = {**ENVIRONMENT, "system": "Linux 6.2", "engine_settings": {"onnxruntime": "1.31.0", "model": "other"}}
    series = series_of(drift_of(p50(2.0), p50(3.0, environment=newer, bundle_sha256="b" * 64)), "latency_p50_ms")
    assert series.reasons == (
        "bundle denseaaaaaaa -> bbbbbbbbbbbb", "onnxruntime 1.30.0 -> 1.31.0", "system Linux 6.1 -> Linux 6.2"
    )  # fmt: skip
    gone = {key: value for key, value in ENVIRONMENT.items() if key != "governor"}
    series = series_of(drift_of(p50(2.0), p50(3.0, environment=gone)), "latency_p50_ms")
    assert series.reasons == ("governor performance -> unknown",)
    series = series_of(drift_of(p50(2.0), p50(3.0, environment=gone), environment=ENVIRONMENT), "latency_p50_ms")
    assert series.reasons == ()


def test_a_change_that_was_taken_back_is_named_where_it_moved_the_figure() -> None:
    newer = {**ENVIRONMENT, "engine_settings": {"onnxruntime": "1.31.0"}}
    drift = drift_of(p50(2.0), p50(3.0, environment=newer), p50(2.0))
    series = series_of(drift, "latency_p50_ms")
    there, back = "onnxruntime 1.30.0 -> 1.31.0", "onnxruntime 1.31.0 -> 1.30.0"
    assert [point.reasons for point in series.points] == [(), (there,), (back,)]
    assert (series.verdict, series.reasons) == ("no evidence", ())
    assert f"3.00 [2.90, 3.10] * {there}\n" in drift_text(drift)


def test_what_a_file_is_needs_no_interval_and_other_figures_do() -> None:
    static = [result_row(scenario="Static", figures={"file_bytes": size}) for size in (100_000, 100_001)]
    assert series_of(drift_of(*static), "file_bytes").verdict == "worse"
    energy = [result_row(figures={"energy_gross_j": joules}) for joules in (0.02, 0.04)]
    assert series_of(drift_of(*energy), "energy_gross_j").verdict == "no interval"
    misses = [result_row(scenario="Streaming", figures={"miss_pct": (value, value, value)}) for value in (0.0, 1.0)]
    assert series_of(drift_of(*misses), "miss_pct").change_pct is None


def test_series_are_told_apart_and_percentiles_need_their_count() -> None:
    history = History()
    few = result_row("few")
    history.add("a", [result_row(), result_row("phm4"), result_row(scenario="Streaming")], environment={})
    few = ResultRow(**{**vars(few), "measurements": {"latency_p90_ms": measured("latency_p90_ms", 1, num_samples=63)}})
    history.add("b", [few], environment={})
    drift = history.drift(since="x", num_sittings=2)
    assert {(each.variant, each.scenario) for each in drift.series} == {
        ("dense", "SingleStream"), ("phm4", "SingleStream"), ("dense", "Streaming")
    }  # fmt: skip


def test_no_results_at_all_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"no results since 2026-11-01\. Name an earlier day, or measure: edgelip bench"
    ):
        History().drift(since="2026-11-01", num_sittings=0)


def test_the_text_shows_points_change_reasons_and_who_judges() -> None:
    newer = {**ENVIRONMENT, "engine_settings": {"onnxruntime": "1.31.0"}}
    drift = drift_of(p50(2.0), p50(5.0, badge="NOISY"), p50(3.0, environment=newer))
    text = drift_text(drift)
    assert "3 sittings since 2026-11-01." in text
    assert "dense @ ort fp32 1t on here" in text
    assert "  SingleStream: latency p50, ms: +50.0 % worse; changed: onnxruntime 1.30.0 -> 1.31.0\n" in text
    assert "    2026-11-20T10:01  5.00 [4.90, 5.10]  NOISY\n" in text
    assert "    2026-11-20T10:01  3.00 [2.90, 3.10] *\n" in text
    assert "energy, gross, mJ: +0.0 % no interval" in text
    assert "1 of 4 figures moved between their first and last valid sitting." in text
    assert NOTE in " ".join(text.split())
    assert json.loads(json.dumps(drift.to_json()))["series"][0]["points"][1]["badge"] == "NOISY"


def test_a_long_history_is_cut_to_what_tells_and_fits_100_columns() -> None:
    rows = [p50(2.0 + (number % 2)) for number in range(40)]
    settings = {f"setting_{number}": "a long value" for number in range(9)}
    rows[-1] = p50(3.0, environment={**ENVIRONMENT, "engine_settings": settings})
    text = drift_text(drift_of(*rows))
    assert "    and 32 more, all in --json" in text
    assert max(map(len, text.splitlines())) <= 100
    assert SITTING.started_at not in text


def test_one_sitting_is_one_and_the_page_shows_the_units_of_the_text() -> None:
    drift = replace(drift_of(p50(2.0), p50(3.0)), num_sittings=1)
    assert drift_text(drift).startswith("1 sitting since 2026-11-01.\n")
    table = drift_table(drift)
    assert table.note.startswith("1 sitting since 2026-11-01. ")
    assert "energy, gross, mJ" in {line.cells[3].text for line in table.lines}
