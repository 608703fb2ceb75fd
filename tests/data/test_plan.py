from __future__ import annotations

from pathlib import Path

import pytest
from small_data_set import SPEC, write_samples

from edgelip.data import plan as module
from edgelip.data.clip_maker import CropMaker
from edgelip.data.plan import Plan, duration, measured_rate

PLAN = Plan({"train": 900, "test": 100}, {"train": 128, "test": 0}, 267_464, 10.0, 24, 2, 10**9)


def test_a_plan_counts_what_is_missing() -> None:
    assert (PLAN.num_missing, PLAN.needs_bytes, PLAN.seconds(872)) == (872, 872 * 267_464, 43.6)
    assert PLAN.text(scale_to=538_766).splitlines() == [
        "split      clips      made     room       time",
        "train        900       128   241 MB       39 s",
        "test         100         0    27 MB      5.0 s",
        "all        1,000       128   267 MB       44 s",
        "rate: 10.0 clips/s a worker (24 clips timed here, not written), 2 worker(s)",
        "disk: 233 MB to write, 1.0 GB free",
        "538,766 clips of this kind: 144 GB, 7.5 h",
    ]


def test_times_of_a_cluster_are_those_of_one_worker() -> None:
    cluster = Plan({"train": 900}, {"train": 0}, 267_464, 10.0, 24, 0, 10**9)
    assert cluster.seconds(900) == 90
    assert "the workers of the cluster; times are for one" in cluster.text()


def test_nothing_left_to_make_has_no_rate() -> None:
    done = Plan({"train": 9}, {"train": 9}, 100, None, 0, 2, 10**9)
    assert "rate: not measured, nothing is left to make" in done.text()
    assert (done.seconds(0), done.text().count("unknown")) == (0, 0)
    assert measured_rate([], CropMaker(SPEC)) == (None, 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0.44, "0.4 s"), (12.2, "12 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h")],
)
def test_durations_are_in_the_unit_that_people_use(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_rate_is_measured_on_a_few_clips_of_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = write_samples(tmp_path, 30)
    for sample in samples[10:15]:
        sample.path.unlink()  # takes its time too
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: 0.1 * next(clock))
    rate, num_timed = measured_rate(samples, CropMaker(SPEC))
    assert num_timed == 15  # five in each of three places
    assert rate == pytest.approx(num_timed / (0.1 * (num_timed + 1)))
    slow = iter(range(1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: 5.0 * next(slow))
    assert measured_rate(samples, CropMaker(SPEC)) == (0.1, 1)
