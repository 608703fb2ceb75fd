from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
import scipy.stats

from edgelip.bench import statistics
from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.measurement import MINIMUM_COUNT


@pytest.mark.parametrize("percent", MINIMUM_COUNT)
def test_minimum_counts_follow_from_the_binomial_rule(percent: float) -> None:
    count = statistics.minimum_count(percent)
    assert count == MINIMUM_COUNT[percent]
    above = 1 - percent / 100
    assert scipy.stats.binom.cdf(1, count, above) <= 0.01 < scipy.stats.binom.cdf(1, count - 1, above)


def test_minimum_counts_are_those_that_loadgen_ends_at() -> None:
    # MLCommons LoadGen names 64 queries for p90 and 662 for p99 (mlcommons/endpoints#417); the rest of the facts.
    counts = [statistics.minimum_count(percent) for percent in (50, 90, 95, 99, 99.9)]
    assert counts == [11, 64, 130, 662, 6636]


@pytest.mark.parametrize("count", [63, 64, 661, 5000])
def test_early_stopping_drops_what_the_beta_distribution_allows(count: int) -> None:
    """The same by another road: P[Bin(q, p) <= t] is the regularised incomplete beta function of 1 - p."""
    allowed = [t for t in range(1, count) if scipy.special.betainc(count - t, t + 1, 0.9) <= 0.01]
    assert bool(allowed) == (count >= 64)
    if allowed:
        dropped = max(allowed) - 1
        assert statistics.early_stopping_estimate(list(range(count)), 90) == count - 1 - dropped


@pytest.mark.parametrize("percent", ["0.1", "25", "50", "90", "99.9", "100"])
@pytest.mark.parametrize("count", [1, 2, 10, 101, 1000])
def test_percentile_is_the_inverted_distribution_function(count: int, percent: str) -> None:
    samples = np.random.default_rng(count).permutation(count).astype(float)
    found = statistics.percentile(samples.tolist(), float(percent))
    assert found == sorted(samples)[math.ceil(Fraction(percent) * count / 100) - 1]
    if percent != "99.9":  # 99.9 % of 1000 is 999.0000000000001 to numpy
        assert found == np.percentile(samples, float(percent), method="inverted_cdf")


def test_order_statistic_interval_covers_whatever_the_distribution() -> None:
    rng = np.random.default_rng(0)
    for draw, true in ((rng.standard_cauchy, 0.0), (rng.exponential, math.log(2)), (rng.normal, 0.0)):
        covered = []
        for _ in range(500):
            found = statistics.order_statistic_interval(draw(size=40).tolist(), 50)
            covered.append(found.low <= true <= found.high)
        assert 0.93 <= np.mean(covered) <= 0.99  # 96.2 % by the binomial


def test_early_stopping_takes_the_highest_sample_at_the_minimum_count() -> None:
    assert statistics.early_stopping_estimate(list(range(64)), 90) == 63
    with pytest.raises(MeasurementError, match=r"p90 of 63 samples; expected at least 64\. Measure longer\."):
        statistics.early_stopping_estimate(list(range(63)), 90)


@pytest.mark.parametrize(("count", "percent"), [(11, 50), (100, 90), (1000, 90), (700, 99), (5000, 50)])
def test_early_stopping_is_the_search_that_its_rule_describes(count: int, percent: float) -> None:
    t = max(t for t in range(1, count) if scipy.stats.binom.cdf(t, count, 1 - percent / 100) <= 0.01)
    samples = np.random.default_rng(0).permutation(count).astype(float).tolist()
    kept = sorted(samples)[: count - (t - 1)]
    assert statistics.early_stopping_estimate(samples, percent) == kept[-1]


def test_early_stopping_bounds_the_percentile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    true = -math.log(0.1)  # p90 of the exponential
    above = [statistics.early_stopping_estimate(rng.exponential(size=80).tolist(), 90) >= true for _ in range(1000)]
    assert np.mean(above) >= 0.98


@pytest.mark.parametrize(("count", "percent"), [(10, 50), (100, 50), (200, 90)])
def test_order_statistic_interval_covers_by_the_binomial(count: int, percent: float) -> None:
    found = statistics.order_statistic_interval([float(rank) for rank in range(1, count + 1)], percent)
    low, high = round(found.low), round(found.high)
    binom = scipy.stats.binom(count, percent / 100)
    assert binom.cdf(high - 1) - binom.cdf(low - 1) >= 0.95  # P[low <= Bin < high]
    assert max(binom.cdf(low - 1), binom.sf(high - 1)) <= 0.025
    assert low <= found.value <= high


def test_order_statistic_interval_of_a_median_of_ten_is_from_the_second_to_the_ninth() -> None:
    # Ranks 2 and 9: 1 - 2 (1 + 10) / 2^10 = 97.9 %; ranks 3 and 8 would have 89.1 %.
    found = statistics.order_statistic_interval([float(rank) for rank in range(1, 11)], 50)
    assert (found.low, found.high) == (2.0, 9.0)
    with pytest.raises(MeasurementError, match="interval of p90 from 20 samples; expected more"):
        statistics.order_statistic_interval([1.0] * 20, 90)


def test_launch_interval_is_centred_on_the_launches() -> None:
    launches = [[level + offset for offset in (-0.1, 0.0, 0.1)] for level in (1.0, 2.0, 3.0, 4.0, 5.0)]
    found = statistics.launch_percentile(launches, 50)
    assert found.value == 3.0
    assert found.low < 2.0 < 4.0 < found.high
    assert statistics.launch_percentile(launches, 50) == found
    with pytest.raises(MeasurementError, match="there are no launches"):
        statistics.launch_percentile([], 50)


def test_one_launch_has_the_interval_of_its_samples() -> None:
    samples = np.random.default_rng(0).normal(size=1000)
    found = statistics.launch_percentile([samples], 50)
    by_order = statistics.order_statistic_interval(samples.tolist(), 50)
    assert found.low == pytest.approx(by_order.low, abs=0.02)
    assert found.high == pytest.approx(by_order.high, abs=0.02)


def test_launch_interval_covers_although_launches_are_few() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(600):
        levels = np.exp(rng.normal(0, 0.02, 5))  # 2 % between launches: as measured on a busy machine
        launches = [level * rng.lognormal(0, 0.01, 60) for level in levels]
        found = statistics.launch_percentile(launches, 50, seed=seed)
        covered.append(found.low <= 1.0 <= found.high)
    assert 0.91 <= np.mean(covered) <= 0.98  # 0.85 with a plain percentile interval


def test_launch_ratio_pairs_launches() -> None:
    rng = np.random.default_rng(0)
    drift = [1.0, 1.5, 0.7, 2.0, 1.1]  # the machine's mood, the same for both of a pair
    base = [level * rng.lognormal(0, 0.01, 200) for level in drift]
    half = [0.5 * level * rng.lognormal(0, 0.01, 200) for level in drift]
    found = statistics.launch_ratio(half, base, 50)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.01
    assert statistics.launch_ratio(base, half, 50).value == pytest.approx(1 / found.value)
    with pytest.raises(MeasurementError, match="4 launches against 5; expected pairs"):
        statistics.launch_ratio(half[:4], base, 50)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (1, 1), (2200, 2500), (440, 500)])
def test_wilson_interval_is_scipys(hits: int, trials: int) -> None:
    expected = scipy.stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    found = statistics.wilson_interval(hits, trials)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value == hits / trials
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_interval_at_88_percent_is_the_width_of_the_facts() -> None:
    for trials, points in ((500, 2.9), (2500, 1.3), (25_000, 0.4)):
        found = statistics.wilson_interval(round(0.88 * trials), trials)
        assert 100 * (found.high - found.low) / 2 == pytest.approx(points, abs=0.06)
    with pytest.raises(MeasurementError, match="0 hits of 0 trials"):
        statistics.wilson_interval(0, 0)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (40, 41), (700, 900), (0, 2000)])
def test_mcnemar_is_scipys_binomial_test(first: int, second: int) -> None:
    total = first + second
    expected = scipy.stats.binomtest(first, total).pvalue if total else 1.0
    assert statistics.mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_mcnemar_is_the_tail_of_the_binomial_by_hand() -> None:
    # 25 lost and none gained: 2 / 2^25. 5 against 15: 2 (1 + 20 + 190 + 1140 + 4845 + 15504) / 2^20.
    assert statistics.mcnemar_p(25, 0) == 2 / 2**25
    assert statistics.mcnemar_p(5, 15) == statistics.mcnemar_p(15, 5) == 2 * 21_700 / 2**20


def test_wilson_interval_is_that_of_the_textbook() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, trials, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)
    ):  # fmt: skip
        found = statistics.wilson_interval(hits, trials)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_mean_is_scipys_bootstrap() -> None:
    values_L = np.random.default_rng(0).normal(0.01, 0.02, 12)
    plain = statistics.bootstrap_mean(values_L, expanded=False)
    by_scipy = scipy.stats.bootstrap(
        (values_L,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (plain.low, plain.high) == pytest.approx((by_scipy.low, by_scipy.high), abs=5e-4)
    wider = statistics.bootstrap_mean(values_L)
    student = scipy.stats.ttest_1samp(values_L, 0).confidence_interval(0.95)
    assert wider.high - wider.low == pytest.approx(student.high - student.low, rel=0.06)
    assert plain.value == wider.value == values_L.mean()


def test_paired_difference_is_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    base_N = rng.random(2500) < 0.88
    other_N = base_N ^ (rng.random(2500) < 0.02)
    found = statistics.paired_accuracy_difference(other_N, base_N)
    change_N = other_N.astype(float) - base_N
    by_scipy = scipy.stats.bootstrap(
        (change_N,),
        np.mean,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(1),
        vectorized=True,
        batch=100,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((by_scipy.low, by_scipy.high), abs=5e-4)


def test_accuracy_counts_the_best_words() -> None:
    logits_NV = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [5, 5, 5, 5]], np.float32)
    labels_N = np.array([3, 2, 1])
    assert statistics.accuracy(logits_NV, labels_N).tolist() == [True, False, False]
    assert statistics.accuracy(logits_NV, labels_N, top=2).tolist() == [True, False, True]
    assert statistics.accuracy(logits_NV, labels_N, top=5).tolist() == [True, True, True]


def test_paired_difference_has_the_width_of_its_formula() -> None:
    rng = np.random.default_rng(0)
    base_N = rng.random(2500) < 0.88
    other_N = base_N ^ (rng.random(2500) < 0.02)
    found = statistics.paired_accuracy_difference(other_N, base_N)
    change_N = other_N.astype(int) - base_N.astype(int)
    half = 1.96 * change_N.std() / math.sqrt(2500)
    assert found.value == change_N.mean()
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.p == statistics.mcnemar_p(int((change_N > 0).sum()), int((change_N < 0).sum()))


def test_paired_difference_is_wider_when_speakers_fail_together() -> None:
    speakers_N = np.repeat(np.arange(50), 50)
    base_N = np.ones(2500, bool)
    other_N = ~np.isin(speakers_N, [3, 17])  # two mouths lost whole
    by_clip = statistics.paired_accuracy_difference(other_N, base_N)
    by_speaker = statistics.paired_accuracy_difference(other_N, base_N, speakers_N=speakers_N)
    assert by_clip.value == by_speaker.value == pytest.approx(-0.04)
    assert by_speaker.high - by_speaker.low > 3 * (by_clip.high - by_clip.low)
    names_N = np.array([f"speaker {number}" for number in speakers_N])
    assert statistics.paired_accuracy_difference(other_N, base_N, speakers_N=names_N) == by_speaker


def test_paired_difference_of_the_same_model_is_nothing() -> None:
    base_N = np.array([True, False, True])
    assert statistics.paired_accuracy_difference(base_N, base_N) == statistics.PairedDifference(0.0, 0.0, 0.0, 1.0)
    with pytest.raises(MeasurementError, match="3 clips against 2; expected the same clips in both"):
        statistics.paired_accuracy_difference(base_N, base_N[:2])


def test_pooled_difference_of_one_training_is_the_paired_one() -> None:
    rng = np.random.default_rng(0)
    base_N = rng.random(2500) < 0.88
    other_N = base_N ^ (rng.random(2500) < 0.02)
    pooled = statistics.pooled_accuracy_difference(other_N[None], base_N[None])
    paired = statistics.paired_accuracy_difference(other_N, base_N)
    assert (pooled.value, pooled.p) == (paired.value, paired.p)
    assert (pooled.low, pooled.high) == pytest.approx((paired.low, paired.high), abs=1e-3)


def test_pooled_difference_is_wider_when_trainings_differ() -> None:
    """Three trainings that lose 0, 2 and 4 % of their clips: as crossed sums of variance, clips and trainings."""
    base_TN = np.ones((3, 1000), bool)
    other_TN = base_TN.copy()
    other_TN[1, :20] = other_TN[2, :40] = False
    found = statistics.pooled_accuracy_difference(other_TN, base_TN)
    assert found.value == pytest.approx(-0.02)
    assert found.p == statistics.mcnemar_p(0, 60)
    between = np.var([0, -0.02, -0.04]) / 3
    within = np.var((other_TN.astype(float) - base_TN).mean(axis=0)) / 1000
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(between + within), rel=0.15)
    alone = statistics.paired_accuracy_difference(other_TN[1], base_TN[1])
    assert found.high - found.low > 1.5 * (alone.high - alone.low)


def test_pooled_difference_is_wider_when_speakers_fail_together() -> None:
    base_TN = np.ones((2, 2500), bool)
    speakers_N = np.repeat(np.arange(50), 50)
    other_TN = np.tile(~np.isin(speakers_N, [3, 17]), (2, 1))
    by_clip = statistics.pooled_accuracy_difference(other_TN, base_TN)
    by_speaker = statistics.pooled_accuracy_difference(other_TN, base_TN, speakers_N=speakers_N)
    assert by_clip.value == by_speaker.value == pytest.approx(-0.04)
    assert by_speaker.high - by_speaker.low > 3 * (by_clip.high - by_clip.low)


def test_pooled_difference_needs_the_same_trainings() -> None:
    with pytest.raises(MeasurementError, match=r"shape \(2, 4\) against \(1, 4\); expected the same trainings and cl"):
        statistics.pooled_accuracy_difference(np.ones((2, 4)), np.ones((1, 4)))
