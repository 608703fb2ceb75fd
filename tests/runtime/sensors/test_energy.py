from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.errors import MeasurementError, MissingError, UsageError
from edgelip.runtime.sensors.energy import (
    Energy,
    PowerSampler,
    best_power_source,
    energy_from_samples,
    energy_of_loop,
    idle_power_w,
)
from edgelip.runtime.sensors.power import GPU_BOARD, PowerSource


class FakeSource(PowerSource):
    """Watts that rise by one with each reading; `read_times` lets a test wait for readings instead of sleeping."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.name, self.boundary, self.rank, self.min_period_s = "fake", "GPU board, fake", GPU_BOARD, 0.001
        self.num_readings, self._fails_at = 0, fails_at
        self.third = threading.Event()

    def read(self) -> float:
        self.num_readings += 1
        if self.num_readings == 3:
            self.third.set()
        if self._fails_at is not None and self.num_readings >= self._fails_at:
            raise MeasurementError("the fake sensor is gone.")
        return float(self.num_readings)


def _energy(times_s: list[float], watts: list[float], **more: object) -> Energy:
    return energy_from_samples(times_s, watts, boundary="b", period_s=0.1, **more)  # type: ignore[arg-type]


def test_energy_is_the_area_of_the_trapezoids() -> None:
    energy = _energy([0.0, 1.0, 3.0], [10.0, 20.0, 0.0])
    assert energy.gross_j == 15.0 + 20.0
    assert energy.mean_w == pytest.approx(35 / 3)
    assert (energy.duration_s, energy.num_samples, energy.above_idle_j) == (3.0, 3, None)


def test_readings_that_are_means_are_rectangles() -> None:
    assert _energy([0.0, 1.0, 3.0], [99.0, 20.0, 5.0], of_means=True).gross_j == 20.0 + 10.0


def test_idle_power_is_taken_off_over_the_whole_time() -> None:
    assert _energy([0.0, 2.0], [10.0, 10.0], idle_w=4.0).above_idle_j == 12.0


@given(st.floats(0.1, 1e3), st.lists(st.floats(1e-3, 10), min_size=1, max_size=20), st.booleans())
def test_constant_power_gives_power_by_time_however_it_is_sampled(
    watts: float, steps_s: list[float], means: bool
) -> None:
    times_s = [sum(steps_s[:count]) for count in range(len(steps_s) + 1)]
    energy = _energy(times_s, [watts] * len(times_s), of_means=means, idle_w=watts)
    assert energy.gross_j == pytest.approx(watts * times_s[-1])
    assert energy.above_idle_j == pytest.approx(0, abs=1e-6 * watts * times_s[-1])


@pytest.mark.parametrize(("times_s", "watts"), [([], []), ([0.0], [1.0]), ([0.0, 1.0], [1.0])])
def test_less_than_two_samples_are_no_energy(times_s: list[float], watts: list[float]) -> None:
    with pytest.raises(MeasurementError, match=r"\d times and \d powers were sampled; expected two or more each"):
        _energy(times_s, watts)


def test_times_that_do_not_rise_are_refused() -> None:
    with pytest.raises(MeasurementError, match=r"two power samples lie 0.0 s apart; expected times that rise"):
        _energy([1.0, 1.0], [1.0, 1.0])


def test_energy_of_one_run_is_a_share_of_the_whole() -> None:
    energy = _energy([0.0, 2.0], [10.0, 10.0], idle_w=4.0)
    assert energy.per_run(100) == (0.2, 0.12)
    assert _energy([0.0, 2.0], [10.0, 10.0]).per_run(1) == (20.0, None)
    with pytest.raises(UsageError, match="num_runs is 0; expected 1 or more"):
        energy.per_run(0)


def test_sampler_reads_before_during_and_after_the_work() -> None:
    source, clock = FakeSource(), iter(range(1, 1000))
    with PowerSampler(source, clock=lambda: float(next(clock))) as sampler:
        assert source.num_readings >= 1
        assert source.third.wait(10)
        during = source.num_readings
    energy = sampler.energy(idle_w=1.0)
    assert energy.num_samples == source.num_readings > during >= 3
    assert energy.duration_s == energy.num_samples - 1  # the clock counts samples
    assert energy.mean_w == pytest.approx((1 + energy.num_samples) / 2)
    assert json.loads(json.dumps(energy.to_json()))["boundary"] == "GPU board, fake"
    assert energy.period_s == 0.001


def test_sampler_leaves_no_thread_behind() -> None:
    with PowerSampler(FakeSource()):
        assert "edgelip-power" in {thread.name for thread in threading.enumerate()}
    assert "edgelip-power" not in {thread.name for thread in threading.enumerate()}


def test_sensor_that_fails_meanwhile_gives_no_energy() -> None:
    source = FakeSource(fails_at=3)
    with PowerSampler(source) as sampler:
        assert source.third.wait(10)
    with pytest.raises(MeasurementError, match="the fake sensor is gone"):
        sampler.energy()


def test_error_of_the_work_is_not_hidden_by_the_sensor() -> None:
    with pytest.raises(ZeroDivisionError), PowerSampler(FakeSource(fails_at=2)):
        raise ZeroDivisionError


def test_period_below_that_of_the_sensor_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"period_s is 0.0001, but fake gives a new value every 0.001 s; choose that or l"
    ):
        PowerSampler(FakeSource(), period_s=0.0001)


def test_idle_power_is_the_mean_while_nothing_runs() -> None:
    source = FakeSource()
    assert 1.0 <= idle_power_w(source, seconds=0.01) <= source.num_readings


def test_energy_of_a_loop_is_shared_by_its_clips_and_names_its_boundary() -> None:
    runs: list[int] = []
    lines: list[str] = []
    told = energy_of_loop(lambda: runs.append(1), FakeSource(), seconds=0.02, idle_seconds=0.01, say=lines.append)
    assert told["num_clips"] == len(runs) > 0
    assert told["gross_j_per_clip"] == pytest.approx(told["gross_j"] / len(runs))
    assert told["above_idle_j"] == pytest.approx(told["gross_j"] - told["idle_w"] * told["duration_s"])
    assert told["boundary"] == "GPU board, fake"
    assert lines == ["energy at GPU board, fake: idle for 0.01 s, running for 0.02 s, idle again"]


def test_energy_without_a_sensor_is_missing() -> None:
    with pytest.raises(MissingError, match=r"^no sensor of power answers on this machine\. .* Leave --energy out\.$"):
        best_power_source([])
