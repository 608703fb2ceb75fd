from __future__ import annotations

import random
from dataclasses import replace
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.measurement import BADGES
from edgelip.runtime.validity import (
    GRAVITY,
    badge_words,
    gravest,
    judge,
    not_valid,
    notes,
    variation,
    window_medians,
)
from edgelip.runtime.watch import CLOCKS, SWAP, TEMPERATURES, Evidence

QUIET = Evidence(
    duration_s=10.0,
    threads=1,
    num_cpus=4,
    gpu=False,
    clocks_mhz={"cpu": (2000.0, 2050.0)},
    clocks_locked=True,
    throttled_by=(),
    temperatures_c=(40.0, 41.0),
    own_cpu_s=9.9,
    others_cpu_s=0.1,
    stolen_s=0.0,
    held_by_quota_s=None,
    waited_share=0.01,
    involuntary_switches=40,
    load_average=1.0,
    swapped_mib=0.0,
    swap_traffic_mib=0.0,
    gpu_processes=None,
    missing=(),
)


def judged(evidence: Evidence = QUIET, **changes: Any) -> tuple[str, tuple[str, ...]]:
    fields: dict[str, Any] = {
        "warm_up": {"stable": True, "duration_ms": 300.0},
        "latency_ns": [1_000_000] * 64,
        "cpu_share": 0.99,
        "fallback": None,
        "needed": 64,
    }
    return judge(evidence, **{**fields, **changes})


def test_undisturbed_run_is_valid() -> None:
    assert judged() == ("VALID", ())
    assert judged(warm_up={}) == ("VALID", ())
    assert judged(cpu_share=None) == ("VALID", ())
    assert judged(latency_ns=[], needed=0) == ("VALID", ())


@pytest.mark.parametrize(
    ("evidence", "changes", "badge", "reason"),
    [
        ({}, {"fallback": "1 Conv run on the CPU"}, "FALLBACK", "1 Conv run on the CPU"),
        ({}, {"latency_ns": [1] * 63}, "TOO-FEW", "63 samples; the percentile needs 64"),
        ({}, {"needed": 662}, "TOO-FEW", "64 samples; the percentile needs 662"),
        ({"throttled_by": ("power cap of the GPU",)}, {}, "THROTTLED", "slowed down: power cap of the GPU"),
        ({"missing": (SWAP,)}, {}, "UNCONTROLLED", "this machine does not tell its swap of this process"),
        ({"swapped_mib": 2.0}, {}, "UNCONTROLLED", "2.0 MiB of this process were swapped out"),
        ({"swap_traffic_mib": 5.5}, {}, "UNCONTROLLED", "this machine moved 5.5 MiB to swap or back"),
        ({"gpu_processes": (7, 9)}, {}, "UNCONTROLLED", "other processes on the GPU: 2 (number 7, 9)"),
        (
            {},
            {"warm_up": {"stable": False, "duration_ms": 10_000.0}},
            "NOISY",
            "latency was not steady after 10.0 s of warm-up",
        ),
        ({"clocks_mhz": {"cpu": (2000.0, 1500.0)}}, {}, "NOISY", "the clock of cpu moved between 1500 and 2000 MHz"),
        (
            {},
            {"cpu_share": 0.8},
            "NOISY",
            "for 20 % of the time the processor was taken by others, 4 involuntary switches a second",
        ),
        (
            {"threads": 4, "waited_share": 0.3},
            {},
            "NOISY",
            "for 30 % of the time something waited for a processor, 4 involuntary switches a second",
        ),
        (
            {"others_cpu_s": 8.0},
            {},
            "NOISY",
            "others used 20 % of 4 processors, 4 involuntary switches a second",
        ),
        ({"stolen_s": 1.0}, {}, "NOISY", "the hypervisor gave away 10 % of the processor time"),
        ({"held_by_quota_s": 1.0}, {}, "NOISY", "a quota held back 10 % of the processor time"),
        (
            {},
            {"latency_ns": [1_000_000] * 64 + [1_100_000] * 64},
            "NOISY",
            "the medians of windows of this run varied by 4.8 % (CoV); expected 2.5 % at most",
        ),
    ],
)
def test_each_disturbance_has_its_badge_and_its_reason(
    evidence: dict[str, Any], changes: dict[str, Any], badge: str, reason: str
) -> None:
    assert judged(replace(QUIET, **evidence), **changes) == (badge, (reason,))


def test_reasons_are_all_kept_gravest_first() -> None:
    evidence = replace(
        QUIET, throttled_by=("throttled",), swapped_mib=1.0, clocks_mhz={"cpu": (2000.0, 1000.0)}, others_cpu_s=30.0
    )
    badge, reasons = judged(evidence, fallback="1 Gemm run on the CPU", latency_ns=[1] * 5)
    assert badge == "FALLBACK"
    assert [reason.split()[0] for reason in reasons] == ["1", "5", "slowed", "1.0", "the", "others"]


def test_single_outliers_do_not_make_a_cpu_run_noisy() -> None:
    # A tenth of the samples preempted for ten times their length, spread over the run.
    latency_ns = [10_000_000 if index % 10 == 0 else 1_000_000 for index in range(640)]
    assert variation(latency_ns) > 1
    assert judged(latency_ns=latency_ns) == ("VALID", ())


def test_several_threads_may_wait_for_each_other() -> None:
    assert judged(replace(QUIET, threads=4), cpu_share=2.2) == ("VALID", ())
    assert judged(replace(QUIET, gpu=True), cpu_share=0.3) == ("VALID", ())


def test_a_run_shorter_than_the_kernels_steps_is_not_judged_by_them() -> None:
    assert judged(replace(QUIET, duration_s=0.1, others_cpu_s=0.3)) == ("VALID", ())


def test_two_windows_are_the_least_that_vary() -> None:
    assert judged(latency_ns=[1] * 16 + [9] * 15, needed=11) == ("VALID", ())
    assert judged(latency_ns=[1] * 16 + [9] * 16, needed=11)[0] == "NOISY"


@given(st.integers(0, 400))
def test_windows_hold_every_sample_once(count: int) -> None:
    samples = [random.Random(count).randrange(1, 9)] * count
    windows = window_medians(samples)
    assert len(windows) == min(10, count // 16)
    assert windows == [samples[0]] * len(windows) if count else windows == []


def test_variation_is_that_of_the_formula() -> None:
    assert variation([90, 110]) == pytest.approx(0.1)
    assert variation([5]) == variation([]) == variation([0, 0]) == 0.0
    samples = [random.Random(0).gauss(100, 3) for _ in range(500)]
    centre = mean(samples)
    assert variation(samples) == pytest.approx((sum((x - centre) ** 2 for x in samples) / 500) ** 0.5 / centre)


def test_notes_tell_of_clocks_whatever_the_badge() -> None:
    assert notes(QUIET) == ("clocks are locked", "others used 0.2 % of 4 processors")
    assert notes(replace(QUIET, clocks_locked=False))[0] == "clocks float"
    told = notes(replace(QUIET, clocks_locked=None, missing=(CLOCKS, TEMPERATURES), others_cpu_s=None))
    assert told == (
        "it is not known whether clocks are locked",
        "this machine does not tell its clocks and temperatures",
    )


def test_gravity_orders_every_badge() -> None:
    assert sorted(GRAVITY) == sorted(BADGES)
    assert gravest(["VALID", "NOISY", "THROTTLED", "NOISY"]) == "THROTTLED"
    assert gravest([]) == "VALID"


def test_comparison_of_invalid_rows_says_so() -> None:
    assert not_valid([]) is None
    spoilt = [badge_words("phm4", "NOISY", "a", "b"), badge_words("pruned", "TOO-FEW")]
    assert not_valid(spoilt) == "This comparison is not valid because phm4 is NOISY (a; b); pruned is TOO-FEW."
    assert not_valid(spoilt[1:], what="control") == "This control is not valid because pruned is TOO-FEW."
