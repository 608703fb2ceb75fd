"""Traffic on a clock that stands still unless something takes time: every figure comes from a formula."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
from fake_path import AROUND_NS, CROP_NS, LABEL_NS, NORMALISE_NS, FakeTime, fake_path
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.clip_path import SPIN_NS, Clock
from edgelip.runtime.effort import Effort
from edgelip.runtime.errors import UsageError
from edgelip.runtime.scenarios import Scenario, make_scenario

MS = 1_000_000
FRAMES_NTHW = np.arange(3 * 4, dtype=np.uint8).reshape(3, 4, 1, 1)  # 3 clips of 4 frames, each frame its number


def scenario(name: str, path: Any, *, most: int | None = None, **settings: Any) -> Scenario:
    effort = Effort(**settings)
    effort.check(name)
    return make_scenario(name, path, FRAMES_NTHW, effort=effort, fps=25.0, most=most)


def streamed(service_ns: list[int], *, min_count: int | None = None, seconds: float = 0, rest_ns: int = 0) -> Any:
    """Streaming at 25 fps whose windows take `service_ns` from frames to word, later ones `rest_ns`."""
    inference_ns = chain((each - AROUND_NS for each in service_ns), repeat(rest_ns - AROUND_NS))
    loop = scenario("Streaming", fake_path(FakeTime(), inference_ns))
    return loop.run(Effort(seconds=seconds, min_count=min_count or len(service_ns)))


def test_a_stall_delays_the_windows_behind_it() -> None:
    service_ns = [5 * MS] * 20
    service_ns[10] = 100 * MS
    outcome = streamed(service_ns)
    samples = outcome.samples_ns()
    # Window 11 arrived 60 ms before the stall was over, window 12 25 ms before window 11 was done; 13 waits no more.
    assert [each // MS for each in samples["last_frame_to_word"][9:15]] == [5, 100, 65, 30, 5, 5]
    assert [each // MS for each in samples["late"][9:15]] == [0, 0, 60, 25, 0, 0]
    # What a closed loop would have reported of the same run: one slow clip, and nothing behind it.
    assert [each // MS for each in samples["end_to_end"][9:15]] == [5, 100, 5, 5, 5, 5]
    assert outcome.summary["missed"] == 2
    assert outcome.summary["miss_pct"] == 100 * 2 / 20
    assert outcome.summary["deadline_ms"] == 40
    assert outcome.summary["num_unserved"] == 0
    assert outcome.summary["real_time_factor"] == pytest.approx((19 * 5 + 100) / (20 * 40))


@given(st.lists(st.integers(AROUND_NS, 200 * MS), min_size=1, max_size=60))
def test_waiting_follows_lindleys_recursion(service_ns: list[int]) -> None:
    # W' = max(0, W + S - T): Lindley 1952, one server, arrivals every T.
    samples = streamed(service_ns).samples_ns()
    waited = 0
    for late, whole, service in zip(samples["late"], samples["last_frame_to_word"], service_ns, strict=True):
        assert (late, whole) == (waited, waited + service)
        waited = max(0, waited + service - 40 * MS)


def test_a_model_slower_than_the_hop_misses_every_window_even_those_it_never_reached() -> None:
    outcome = streamed([], min_count=1, seconds=1.0, rest_ns=50 * MS)
    assert outcome.summary["num_clips"] == 20  # 20 x 50 ms
    assert outcome.summary["num_windows"] == 25  # whose deadlines were over by then
    assert outcome.summary["num_unserved"] == 5
    assert outcome.summary["miss_pct"] == 100
    assert outcome.summary["real_time_factor"] == pytest.approx(50 / 40)
    assert outcome.samples_ns()["last_frame_to_word"][-1] == 1000 * MS - 19 * 40 * MS


def test_windows_slide_by_the_hop_over_the_frames_of_all_clips_and_begin_again() -> None:
    windows: list[list[int]] = []
    path = fake_path(FakeTime(), MS, lambda name, array: name == "crop" and windows.append(array.ravel().tolist()))
    scenario("Streaming", path, hop_frames=3).run(Effort(seconds=0, min_count=5))
    assert windows == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [9, 10, 11, 0], [0, 1, 2, 3]]


def test_a_hop_of_several_frames_has_that_much_time() -> None:
    outcome = scenario("Streaming", fake_path(FakeTime(), MS), fps=30.0, hop_frames=2).run(Effort(0, 10))
    assert outcome.summary["deadline_ms"] == pytest.approx(2000 / 30, abs=1e-6)
    assert outcome.summary["fps"] == 30.0


def test_streaming_runs_for_its_time_and_its_count() -> None:
    assert streamed([], min_count=3, seconds=1.0, rest_ns=MS).summary["num_clips"] == 26  # windows at 0, 40 .. 1000 ms
    assert streamed([], min_count=50, seconds=1.0, rest_ns=MS).summary["num_clips"] == 50


def test_processor_share_of_streaming_leaves_sleep_out() -> None:
    assert streamed([5 * MS] * 10).cpu_share == pytest.approx(1.0)


def test_traffic_for_energy_keeps_to_the_schedule_from_its_first_call() -> None:
    time = FakeTime()
    serve = scenario("Streaming", fake_path(time, 5 * MS - AROUND_NS)).paced()
    time.ns += 10**12  # the sensor has watched the machine idle
    begin_ns = time.ns
    for _ in range(4):
        serve()
    assert time.ns - begin_ns == 3 * 40 * MS + 5 * MS


def test_a_wait_sleeps_until_shortly_before_and_spins_the_rest() -> None:
    time = FakeTime()
    clock = Clock(time.tick, lambda: time.cpu_ns, time.sleep)
    at_ns = time.ns + 50 * MS
    spun_ns = clock.wait_until(at_ns)
    assert time.slept_s == [pytest.approx(0.048, abs=1e-5)]
    assert abs(spun_ns - SPIN_NS) < 10_000
    assert 0 <= time.ns - at_ns <= 1_000
    assert clock.wait_until(at_ns) == 0  # late already
    assert len(time.slept_s) == 1


def test_stages_of_a_single_clip_add_up() -> None:
    outcome = scenario("SingleStream", fake_path(FakeTime(), iter([7 * MS, 9 * MS]))).run(Effort(0, 2))
    samples = {name: list(each) for name, each in outcome.samples_ns().items()}
    assert samples == {
        "crop": [CROP_NS] * 2,
        "normalise": [NORMALISE_NS] * 2,
        "latency": [7 * MS, 9 * MS],
        "model": [7 * MS, 9 * MS],
        "label": [LABEL_NS] * 2,
        "end_to_end": [7 * MS + AROUND_NS, 9 * MS + AROUND_NS],
    }
    assert outcome.summary["clips_per_s"] == pytest.approx(2 / 0.016)
    assert outcome.summary["end_to_end_clips_per_s"] == pytest.approx(2 / (0.016 + 2 * AROUND_NS / 1e9))
    assert outcome.cpu_share == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("seconds", "min_count", "num_clips"), [(1.0, 64, 100), (1.0, 130, 130), (0.0, 7, 7), (1.001, 1, 101)]
)
def test_a_run_ends_when_time_and_count_are_both_reached(seconds: float, min_count: int, num_clips: int) -> None:
    loop = scenario("SingleStream", fake_path(FakeTime(), 10 * MS - AROUND_NS))
    assert loop.run(Effort(seconds, min_count)).summary["num_clips"] == num_clips


def test_a_query_is_one_inference_where_the_model_takes_it() -> None:
    shapes: list[int] = []
    path = fake_path(FakeTime(), 20 * MS, lambda name, array: name == "infer" and shapes.append(len(array)))
    outcome = scenario("MultiStream", path).run(Effort(0, 3))
    assert shapes == [8, 8, 8]
    assert list(outcome.samples_ns()["query"]) == [20 * MS] * 3
    assert (outcome.summary["clips_per_query"], outcome.summary["clips_per_inference"]) == (8, 8)
    assert outcome.summary["clips_per_s"] == pytest.approx(8 / 0.020)
    # The stages around it take their time once for the batch, the label once for a clip.
    whole_ns = CROP_NS + NORMALISE_NS + 20 * MS + 8 * LABEL_NS
    assert list(outcome.samples_ns()["query_end_to_end"]) == [whole_ns] * 3


def test_a_query_takes_as_long_as_its_slowest_clip_where_the_model_takes_one_at_a_time() -> None:
    path = fake_path(FakeTime(), iter([MS, 2 * MS, 3 * MS]))
    outcome = scenario("MultiStream", path, most=1, clips_per_query=3).run(Effort(0, 1))
    assert list(outcome.samples_ns()["query"]) == [6 * MS]  # the last one waits for the others
    assert outcome.summary["clips_per_inference"] == 1


def test_queries_take_all_clips_in_turn() -> None:
    queries: list[list[int]] = []
    path = fake_path(
        FakeTime(), MS, lambda name, array: name == "infer" and queries.append(array[:, 0].ravel().tolist())
    )
    scenario("MultiStream", path, clips_per_query=2).run(Effort(0, 3))
    assert queries == [[0, 4], [8, 0], [0, 4]]  # first frames; after the last clip comes the first


def test_offline_counts_clips_and_says_its_batch() -> None:
    loop = scenario("Offline", fake_path(FakeTime(), 80 * MS), batch=16, most=None)
    outcome = loop.run(Effort(0, 40))
    assert loop.batch == 16
    assert outcome.summary["num_clips"] == 48  # the least whole number of batches
    assert outcome.summary["clips_per_s"] == pytest.approx(16 / 0.080)
    assert outcome.summary["end_to_end_clips_per_s"] < outcome.summary["clips_per_s"]
    outcome = scenario("Offline", fake_path(FakeTime(), 80 * MS), most=4).run(Effort(0, 16))
    assert (outcome.summary["clips_per_query"], outcome.summary["clips_per_inference"]) == (16, 4)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("SingleStream", {"clips_per_query": 8}, "clips_per_query has no effect on SingleStream; it belongs to Multi"),
        ("Streaming", {"batch": 8}, "batch has no effect on Streaming; it belongs to Offline"),
        ("Offline", {"fps": 25.0}, "fps has no effect on Offline; it belongs to Streaming"),
        ("ColdStart", {"hop_frames": 1}, "hop_frames has no effect on ColdStart; it belongs to Streaming"),
        ("ColdStart", {"energy_s": 1.0}, "energy_s has no effect on ColdStart: it runs no loop"),
        (
            "Server",
            {},
            "There is no scenario 'Server'. Known: SingleStream, MultiStream, Offline, Streaming, ColdStart",
        ),
        ("Streaming", {"fps": 0.0}, "fps is 0.0; expected above 0, at most 1000"),
        ("Offline", {"batch": 0}, "batch is 0; expected 1 to 4096"),
    ],
)
def test_a_setting_without_effect_or_sense_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Effort(**settings).check(name)
    assert str(caught.value).startswith(message)


def test_options_of_the_command_line_say_the_effort() -> None:
    effort = Effort(seconds=60, min_count=1500, energy_s=30, fps=29.97, hop_frames=5)
    assert " ".join(effort.options("Streaming")) == (
        "--seconds 60 --min-count 1500 --warm-up-cap 10 --scenario Streaming --energy 30 --fps 29.97 --hop-frames 5"
    )
    assert " ".join(Effort().options()) == "--seconds 3 --min-count 64 --warm-up-cap 10"
