from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgelip.errors import UsageError
from edgelip.report.ledger import Figure, LedgerRow
from edgelip.report.pick import JudgeBy, Limit, judge, pick, tied

sys.path.insert(0, str(Path(__file__).parent))
from test_ledger import make_row

P90 = Limit("latency_p90_ms", "latency p90", "at most", 3.05, "ms", digits=2)
TOP1 = Limit("top1_pct", "top-1", "at least", 92.5, "%")
SIZE = Limit("file_bytes", "file", "at most", 50_000, "kB", per=1e3)


def row(variant: str, drop: tuple[float, float] = (-0.1, 0.1), **changes: Any) -> LedgerRow:
    figures = changes.pop("figures", {})
    values = make_row(variant, top1_drop_low_points=drop[0], top1_drop_high_points=drop[1], **changes)
    return replace(LedgerRow.from_json(values), figures=figures)


def test_the_most_accurate_of_those_that_fit_is_picked() -> None:
    rows = [
        row("dense", (0.0, 0.0), top1_pct=93.0),
        row("better", (-2.0, -1.0), top1_pct=94.5),
        row("best", (-4.0, -2.5), top1_pct=96.0, file_bytes=999_999),
    ]
    found = pick(rows, [replace(SIZE, limit=200_000)])
    assert (found.variant, found.runner_up) == ("better", "dense")
    assert found.reason == "the highest accuracy of those that fit: top-1 94.5 %."
    assert found.runner_up_reason == "top-1 93.0 %, 1.5 points lower"
    assert found.excluded[0].reasons == ("file 1,000.0 kB > 200.0 kB",)
    assert found.limits == ("file 100.0 kB <= 200.0 kB",)


def test_accuracies_without_evidence_of_a_difference_give_way_to_size_then_speed() -> None:
    rows = [
        row("dense", (0.0, 0.0), top1_pct=93.0),
        row("small", (-0.2, 1.0), top1_pct=92.6, file_bytes=25_000),
        row("small-slow", (-0.2, 1.0), top1_pct=92.7, file_bytes=25_000, latency_p50_ms=9.0),
        row("worse", (0.5, 2.0), top1_pct=91.8, file_bytes=1_000),
    ]
    found = pick(rows, [])
    assert (found.variant, found.runner_up) == ("small", "small-slow")
    assert found.reason == (
        "top-1 92.6 % is no evidence of a difference to the 93.0 % of dense on the same clips, and it is 4.00 times "
        "smaller (file)."
    )
    assert found.runner_up_reason == (
        "top-1 92.7 %, no evidence of a difference; the picked one is faster (p50 2.00 against 9.00 ms)"
    )


def test_ties_are_by_paired_drops_of_one_recipe_else_by_wilson_intervals() -> None:
    assert tied(row("a", (0.1, 0.5)), row("b", (0.4, 0.9)))
    assert not tied(row("a", (0.1, 0.5)), row("b", (0.6, 0.9)))
    assert tied(row("r/a", (0.1, 0.5)), row("s/b", (0.6, 0.9)))  # to different first rows
    bare = {"top1_drop_low_points": None, "top1_low_pct": None}
    one = replace(row("a"), **bare)  # type: ignore[arg-type]
    assert tied(one, one)
    assert not tied(one, replace(one, top1_pct=93.1))


@pytest.mark.parametrize(
    ("judge_by", "fits", "text"),
    [
        ("bound", False, "latency p90 3.00 ms, upper bound 3.10 ms > 3.05 ms"),
        ("value", True, "latency p90 3.00 ms <= 3.05 ms"),
    ],
)
def test_a_bound_or_a_value_is_judged_and_named(judge_by: JudgeBy, fits: bool, text: str) -> None:
    judged = judge(row("a"), P90, judge_by)
    assert (judged.fits, judged.text) == (fits, text)
    lower = judge(row("a"), TOP1, judge_by)
    assert lower.text == (
        "top-1 93.0 %, lower bound 92.0 % < 92.5 %" if judge_by == "bound" else "top-1 93.0 % >= 92.5 %"
    )


def test_what_was_not_measured_or_has_no_interval_is_said() -> None:
    assert judge(row("a", latency_p90_ms=None), P90, "bound").text == "latency p90 was not measured"
    bare = row("a", latency_p90_low_ms=None, latency_p90_high_ms=None)
    assert judge(bare, P90, "bound").text == "latency p90 3.00 ms (no interval) <= 3.05 ms"
    found = pick([row("a", latency_p90_ms=None)], [P90])
    assert (found.variant, found.nearest_miss, found.excluded[0].missed_by) == (None, None, None)


def test_the_worst_disturbance_is_judged() -> None:
    figures = {"robust_blur_pct": Figure(70.0, 60.0, 80.0), "robust_noise_pct": Figure(65.0, 64.0, 66.0),
               "robust_noise_drop_points": Figure(1.0, 0.0, 2.0)}  # fmt: skip
    limit = Limit("robust", "lowest top-1 under disturbance", "at least", 62.0, "%")
    judged = judge(row("a", figures=figures), limit, "bound")
    assert judged.text == "lowest top-1 under disturbance 70.0 %, lower bound 60.0 % < 62.0 %"
    assert judge(row("a"), limit, "bound").text == "lowest top-1 under disturbance was not measured"


def test_none_that_fits_names_every_limit_and_the_nearest_miss() -> None:
    rows = [
        row("far", file_bytes=500_000),
        row("near", file_bytes=51_000),
        replace(row("noisy", badge="NOISY", file_bytes=1), reasons=("SingleStream NOISY: clocks",)),
    ]
    found = pick(rows, [SIZE, replace(P90, limit=10)])
    assert (found.variant, found.nearest_miss, found.reason) == (None, "near", "none of 3 variants fits.")
    assert [each.missed_by for each in found.excluded] == [9.0, pytest.approx(0.02), None]
    assert found.excluded[2].reasons == ("its badge is NOISY (SingleStream NOISY: clocks)",)
    assert pick(rows, [SIZE], allow_invalid=True).variant == "noisy"
    assert pick(rows, [replace(SIZE, limit=0)]).nearest_miss == "near"


def test_a_pick_needs_rows() -> None:
    with pytest.raises(UsageError, match="a pick among 0 rows; expected at least 1 measured variant"):
        pick([], [])


@example([(50.0, 2, 0.0), (51.0, 1, 2.0), (52.0, 2, 0.0)], 2)  # the first ties with the last, the second does not
@given(
    st.lists(st.tuples(st.floats(50, 99), st.integers(1, 9), st.floats(0, 3)), min_size=1, max_size=6),
    st.integers(0, 9),
)
def test_a_pick_always_fits_and_nothing_that_fits_beats_it_in_all(
    values: list[tuple[float, int, float]], limit: int
) -> None:
    rows = [
        row(f"v{i}", (d - 0.5, d + 0.5), top1_pct=top1, top1_low_pct=top1, top1_high_pct=top1, file_bytes=size)
        for i, (top1, size, d) in enumerate(values)
    ]
    found = pick(rows, [replace(SIZE, limit=limit)])
    fitting = [each for each in rows if each.file_bytes is not None and each.file_bytes <= limit]
    assert {each.variant for each in found.excluded} == {each.variant for each in rows} - {f.variant for f in fitting}
    if not fitting:
        assert found.variant is None
        return
    (best,) = [each for each in fitting if each.variant == found.variant]
    for each in fitting:
        assert each.top1_pct is not None
        assert best.top1_pct is not None
        assert best.file_bytes is not None
        assert each.file_bytes is not None
        assert not (each.top1_pct > best.top1_pct and each.file_bytes < best.file_bytes and not tied(each, best))
