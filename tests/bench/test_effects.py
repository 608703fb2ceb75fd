"""Effects against computations by other means."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from edgelip.bench.effects import Effect, block_ratios, mean_effect
from edgelip.runtime.errors import MeasurementError


def effect(ratio: float, low: float, high: float, **changes: float) -> Effect:
    return replace(Effect(ratio, low, high, 0.01, 0.01, 7, 1.0), **changes)


def test_the_interval_and_p_are_those_of_scipys_t_test() -> None:
    values_L = np.random.default_rng(0).normal(0.05, 0.02, 7)
    test = scipy.stats.ttest_1samp(values_L, 0)
    bounds = test.confidence_interval(0.95)
    found = mean_effect(values_L)
    assert (found.low, found.high) == pytest.approx((math.exp(bounds.low), math.exp(bounds.high)))
    assert found.p == found.p_family == pytest.approx(test.pvalue)
    assert found.ratio == pytest.approx(scipy.stats.gmean(np.exp(values_L)))
    assert found.between_launches_pct == pytest.approx(100 * np.std(values_L, ddof=1))


def test_an_effect_and_its_inverse_agree() -> None:
    values_L = np.array([0.01, 0.03, 0.02, 0.05, 0.01])
    there, back = mean_effect(values_L), mean_effect(-values_L)
    assert (1 / back.ratio, 1 / back.high, 1 / back.low, back.p) == pytest.approx(
        (there.ratio, there.low, there.high, there.p)
    )


def test_launches_without_any_spread_are_certain() -> None:
    assert (mean_effect([0.0] * 5).p, mean_effect([0.0] * 5).excludes_one) == (1.0, False)
    assert (mean_effect([0.1] * 5).p, mean_effect([0.1] * 5).excludes_one) == (0.0, True)
    with pytest.raises(MeasurementError, match="1 launch pairs with finite ratios; expected 2 or more"):
        mean_effect([0.1])
    with pytest.raises(MeasurementError, match="2 launch pairs with finite ratios"):
        mean_effect([0.1, math.inf])


def test_five_launches_with_heavy_tails_alarm_no_more_than_five_percent() -> None:
    rng = np.random.default_rng(0)
    heavy = 0.01 * rng.standard_t(2, (1500, 5))
    alarms = sum(mean_effect(values_L).excludes_one for values_L in heavy)
    assert scipy.stats.binomtest(alarms, 1500, 0.05, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (effect(1.05, 1.02, 1.08), "slower"),
        (effect(0.95, 0.92, 0.98), "faster"),
        (effect(1.02, 1.01, 1.03), "slower"),  # at the least effect
        (effect(1 / 1.02, 0.97, 0.99), "faster"),
        (effect(1.015, 1.01, 1.02), "no evidence"),  # surely there, too small
        (effect(1.05, 0.99, 1.11), "no evidence"),  # large, not sure
        (effect(1.05, 1.02, 1.08, p_family=0.06), "no evidence"),  # one of many
    ],
)
def test_a_verdict_needs_a_sure_effect_of_the_least_size(found: Effect, verdict: str) -> None:
    assert found.verdict(2.0) == verdict


def test_what_the_data_exclude_is_said() -> None:
    assert effect(1.0, 0.99, 1.03).excluded() == "a slowdown over 3.0 % and a gain over 1.0 %"
    assert effect(1.05, 1.02, 1.08).excluded() == "a slowdown under 2.0 % or over 8.0 %"
    assert effect(0.95, 0.92, 0.98).excluded() == "a gain under 2.0 % or over 8.0 %"


def test_blocks_are_joined_until_a_percentile_has_samples_enough() -> None:
    base = [np.full(30, 100 + index) for index in range(7)]
    other = [np.full(40, 2 * (100 + index)) for index in range(7)]
    assert block_ratios(base, other, 50) == pytest.approx([math.log(2)] * 7)
    assert len(block_ratios(base, other, 90)) == 2  # 3 of 30 are 64 or more; the seventh joins the last
    assert len(block_ratios(base, other, 90, fewest=100)) == 1
    assert block_ratios(base[:2], other[:2], 90) == []
    with pytest.raises(ValueError, match="shorter"):
        block_ratios(base, other[:2], 50)


def test_the_seventh_block_counts() -> None:
    base = [np.full(30, 100)] * 7
    other = [*[np.full(30, 100)] * 6, np.full(30, 1000)]
    assert block_ratios(base, other, 90) == pytest.approx([0, math.log(10)])
