from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from made_runs import made_run
from scipy import stats

from edgelip.bench.figures import measurements_of, measurements_of_video, reasons_of
from edgelip.errors import MeasurementError
from edgelip.report.metrics import metric
from edgelip.runtime.measurement import MINIMUM_COUNT, BenchRun


def launches(count: int, samples: int, *, seed: int = 0) -> list[BenchRun]:
    rng = np.random.default_rng(seed)
    return [made_run(rng.lognormal(14.5, 0.1, samples) * scale) for scale in rng.normal(1, 0.02, count)]


def test_percentiles_are_the_mean_of_each_launchs_nearest_rank() -> None:
    runs = launches(5, 700)
    found = measurements_of(runs)
    for percent in (50, 90, 95, 99):
        each = [np.percentile(run.latency_ns, percent, method="inverted_cdf") / 1e6 for run in runs]
        figure = found[f"latency_p{percent}_ms"]
        assert figure.value == pytest.approx(np.mean(each))
        assert figure.num_samples == 3500
        assert figure.interval is not None
        low, high = stats.t.interval(0.95, 4, np.mean(each), stats.sem(each))  # between launches, samples exact
        assert figure.interval == pytest.approx((low, high), rel=0.01)
    assert found["latency_min_ms"].value == min(min(run.latency_ns) for run in runs) / 1e6
    assert found["latency_max_ms"].value == max(max(run.latency_ns) for run in runs) / 1e6


@pytest.mark.parametrize(("percent", "least"), MINIMUM_COUNT.items())
def test_a_percentile_stands_where_every_launch_has_the_samples(percent: float, least: int) -> None:
    name = f"latency_p{percent:g}_ms"
    enough, few = launches(2, least), launches(1, least - 1)
    assert name in measurements_of(enough)
    assert name not in measurements_of([*enough, *few])


def test_one_launch_has_the_interval_of_order_statistics() -> None:
    (run,) = launches(1, 200)
    found = measurements_of([run])["latency_p50_ms"].interval
    quantile = stats.quantile_test(np.array(run.latency_ns) / 1e6, p=0.5).confidence_interval(0.95)
    assert found == pytest.approx(tuple(quantile), rel=0.01)
    assert "latency_between_launches_pct" not in measurements_of([run])


def test_early_stopping_is_the_mean_of_the_launches_bounds() -> None:
    runs = launches(3, 300)
    # 300 samples: P[Bin(300, 0.1) <= 18] = 0.0090 and 19 is above 0.01, so 17 are dropped.
    assert stats.binom.cdf(18, 300, 0.1) <= 0.01 < stats.binom.cdf(19, 300, 0.1)
    bounds = [sorted(run.latency_ns)[300 - 18] / 1e6 for run in runs]
    found = measurements_of(runs)["latency_p90_early_ms"]
    assert found.value == pytest.approx(np.mean(bounds))
    assert found.value > measurements_of(runs)["latency_p90_ms"].value


def test_spread_between_launches_is_that_of_their_medians() -> None:
    runs = launches(5, 100)
    medians = [np.percentile(run.latency_ns, 50, method="inverted_cdf") for run in runs]
    found = measurements_of(runs)["latency_between_launches_pct"]
    assert found.value == pytest.approx(100 * stats.variation(medians, ddof=1))
    assert found.interval is not None
    low, high = found.interval
    assert low == pytest.approx(
        found.value * sqrt(4 / 11.143), rel=1e-3
    )  # chi-square, 4 degrees, 97.5 %: printed tables
    assert high == pytest.approx(found.value * sqrt(4 / 0.484), rel=1e-3)


def test_the_ratio_is_to_the_launches_beside() -> None:
    base = launches(4, 100)
    slower = [made_run([sample * 3 // 2 for sample in run.latency_ns]) for run in base]
    assert measurements_of(slower, base=base)["latency_ratio"].value == pytest.approx(1.5, rel=1e-6)
    assert measurements_of(base, base=base)["latency_ratio"].interval == (1.0, 1.0)
    assert "latency_ratio" not in measurements_of(slower[:2], base=base)


def test_cold_start_is_a_median_with_order_statistics() -> None:
    totals = [128.0, 120.0, 140.0, 131.0, 125.0, 122.0, 190.0, 127.0, 126.0, 124.0]
    runs = [
        made_run(scenario="ColdStart", samples_ns={}, cold_start_ms={"total": total, "engine": 20.0, "new_shape": None})
        for total in totals
    ]
    found = measurements_of(runs, dropped=runs[:3])
    assert found["cold_start_ms"].value == np.median(totals)
    assert found["cold_start_ms"].interval == (122.0, 140.0)  # ranks 2 and 9 of 10, 97.9 %
    assert found["cold_engine_ms"].value == 20.0
    assert found["cold_start_dropped_ms"].value == 128.0
    assert found["cold_start_dropped_ms"].interval is None
    assert "cold_new_shape_ms" not in found
    assert not any(name.startswith("latency") for name in found)


def test_throughput_of_launches_is_a_mean_with_students_interval() -> None:
    rates = [400.0, 410.0, 395.0]
    runs = [
        made_run(
            scenario="Offline", samples_ns={"query": [10**7] * 20}, summary={"clips_per_s": rate, "num_clips": 320}
        )
        for rate in rates
    ]
    found = measurements_of(runs)["clips_per_s"]
    assert found.value == pytest.approx(np.mean(rates))
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, np.mean(rates), stats.sem(rates)))
    assert found.num_samples == 960


def test_throughput_of_one_launch_has_the_interval_of_its_queries() -> None:
    queries = np.random.default_rng(3).normal(2e7, 1e6, 50).astype(int)
    rate = 16 * 1e9 / queries.mean()
    samples = {"query": queries, "query_end_to_end": 2 * queries}
    summary = {"clips_per_s": rate, "end_to_end_clips_per_s": rate / 2, "num_clips": 800}
    found = measurements_of([made_run(scenario="Offline", samples_ns=samples, summary=summary)])
    low, high = stats.t.interval(0.95, 49, queries.mean(), stats.sem(queries))
    assert found["clips_per_s"].interval == pytest.approx((16e9 / high, 16e9 / low))
    assert found["end_to_end_clips_per_s"].interval == pytest.approx((8e9 / high, 8e9 / low))
    assert (found["end_to_end_clips_per_s"].value, found["end_to_end_clips_per_s"].num_samples) == (rate / 2, 800)


def test_queries_and_their_early_stopping_belong_to_multi_stream() -> None:
    query = np.random.default_rng(4).normal(2e7, 1e6, 700).astype(int)
    run = made_run(
        scenario="MultiStream", samples_ns={"query": query}, summary={"clips_per_s": 400.0, "num_clips": 5600}
    )
    found = measurements_of([run])
    assert found["query_p99_ms"].value == np.percentile(query, 99, method="inverted_cdf") / 1e6
    assert found["query_p99_early_ms"].value >= found["query_p99_ms"].value


def test_missed_deadlines_are_a_share_with_wilsons_interval() -> None:
    summary = {"num_windows": 250, "missed": 5, "real_time_factor": 0.4, "num_clips": 250}
    run = made_run(scenario="Streaming", samples_ns={"last_frame_to_word": range(10**6, 10**6 + 250)}, summary=summary)
    found = measurements_of([run, run])
    assert found["miss_pct"].value == 2.0
    exact = stats.binomtest(10, 500).proportion_ci(method="wilson")
    assert found["miss_pct"].interval == pytest.approx((100 * exact.low, 100 * exact.high))
    assert found["real_time_factor"].value == pytest.approx(0.4)
    assert "last_frame_to_word_p95_ms" in found
    assert "last_frame_to_word_p99_ms" not in found


def test_memory_and_energy_are_medians_of_what_is_known() -> None:
    energy = {"gross_j_per_clip": 0.02, "above_idle_j_per_clip": None, "boundary": "RAPL package", "num_clips": 900}
    memory = {"rss_before_load": 40.0, "rss_after_load": 60.0, "rss_after_run": 65.0, "device_run": 3.0, "peak": None}
    runs = launches(2, 20)
    found = measurements_of([runs[0], made_run(runs[1].latency_ns, energy=energy, memory_mib=memory)])
    assert found["energy_gross_j"].value == 0.02
    assert "energy_above_idle_j" not in found
    assert found["rss_load_mib"].value == 20.0
    assert found["rss_run_mib"].value == 5.0
    assert found["device_memory_mib"].value == 3.0
    assert (found["peak_memory_mib"].value, found["peak_memory_mib"].num_samples) == (70.0, 1)
    assert "device_context_mib" not in found


def test_every_figure_is_known_with_its_unit() -> None:
    samples = {
        name: range(10**6, 10**6 + 700) for name in ("latency", "end_to_end", "crop", "normalise", "model", "label")
    }
    found = measurements_of([made_run(samples_ns=samples)] * 2, badge="NOISY")
    assert {"crop_p50_ms", "normalise_p50_ms", "model_p50_ms", "label_p50_ms"} <= set(found)
    for name, figure in found.items():
        known = metric(name)
        assert known is not None
        assert (figure.name, figure.unit, figure.badge) == (name, known.unit, "NOISY")


def test_a_videos_figures_are_medians() -> None:
    found = measurements_of_video({"decode": range(10**6, 10**6 + 11), "mouth": [5]})
    assert found["decode_p50_ms"].value == pytest.approx(1.000005)
    assert "mouth_p50_ms" not in found  # one repeat gives no median


def test_reasons_that_differ_in_numbers_are_one() -> None:
    runs = [
        made_run([1], reasons=("others took 7.5 % of the time", "swap")),
        made_run([1], reasons=("others took 12 % of the time",)),
        made_run([1]),
    ]
    assert reasons_of(runs) == ("others took 7.5 % of the time (2 of 3 launches)", "swap (1 of 3 launches)")
    assert reasons_of(runs[:1]) == ("others took 7.5 % of the time", "swap")


def test_runs_of_two_scenarios_are_no_row() -> None:
    with pytest.raises(MeasurementError, match=r"2 runs of \['Offline', 'SingleStream'\]; expected runs of one"):
        measurements_of([made_run([1]), made_run(scenario="Offline")])
    with pytest.raises(MeasurementError, match="0 runs of no scenario"):
        measurements_of([])
