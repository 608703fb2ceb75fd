"""Each planted disturbance shows in the evidence: files of a machine that change between begin and end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_board import ORIN_NANO, FakeNvml, write_tree

from edgelip.runtime.engines import cuda
from edgelip.runtime.validity import judge
from edgelip.runtime.watch import (
    CLOCKS,
    GPU_PROCESSES,
    PROCESSOR_TIMES,
    SWAP,
    TEMPERATURES,
    Evidence,
    Watch,
    other_processes,
)

PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
CPU = "sys/devices/system/cpu"


def machine(**changes: str) -> dict[str, str]:
    """Files of a healthy PC with two processors. changes: by a short name."""
    files = {
        "stat": ("proc/stat", "cpu  0 0 0 0\ncpu0 1000 0 0 500 0 0 0 0 0 0\ncpu1 0 0 0 900 0 0 0 0 0 0"),
        "pressure": ("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000"),
        "status": ("proc/self/status", "VmSwap:\t0 kB\nnonvoluntary_ctxt_switches:\t10"),
        "vmstat": ("proc/vmstat", "pswpin 100\npswpout 100"),
        "load": ("proc/loadavg", "1.25 1.00 0.50 2/300 4100"),
        "clock": (f"{CPU}/cpu0/cpufreq/scaling_cur_freq", "3000000"),
        "limit": (f"{CPU}/cpufreq/policy0/scaling_max_freq", "3500000"),
        "lowest": (f"{CPU}/cpufreq/policy0/scaling_min_freq", "800000"),
        "slow_downs": (f"{CPU}/cpu0/thermal_throttle/core_throttle_count", "4"),
        "zone": ("sys/class/thermal/thermal_zone0/temp", "51000"),
        "trip": ("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive"),
        "trip_at": ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "95000"),
    }
    return {path: changes.get(name, text) for name, (path, text) in files.items()}


def observe(
    root: Path, *, after: dict[str, str], own_cpu_s: float = 9.9, seconds: float = 10.0, **kind: Any
) -> Evidence:
    """Evidence of a run of `seconds`, at the end of which the machine has the files `after`."""
    times, cpu_times = iter([0.0, seconds]), iter([0.0, own_cpu_s])
    watch = Watch(root=root, cpus=[0, 1], clock=lambda: next(times), cpu_clock=lambda: next(cpu_times), **kind)
    watch.begin()
    write_tree(root, after)
    return watch.end()


def badge_of(evidence: Evidence, **changes: Any) -> tuple[str, tuple[str, ...]]:
    fields: dict[str, Any] = {"cpu_share": 0.99, "fallback": None, "needed": 64, **changes}
    return judge(evidence, warm_up={"stable": True, "duration_ms": 300}, latency_ns=[1000] * 64, **fields)


# After 10 s of a single thread on processor 0, 100 ticks a second.
RAN = "cpu0 1990 0 0 510 0 0 0 0 0 0\ncpu1 0 0 0 1900 0 0 0 0 0 0"


def test_quiet_machine_is_valid_and_tells_all(tmp_path: Path) -> None:
    evidence = observe(write_tree(tmp_path, machine()), after=machine(stat=RAN))
    assert badge_of(evidence) == ("VALID", ())
    assert evidence.missing == ()
    assert evidence.clocks_mhz == {"cpu": (3000.0, 3000.0)}
    assert evidence.clocks_locked is False
    assert evidence.temperatures_c == (51.0, 51.0)
    assert evidence.others_cpu_s == pytest.approx(0.0)
    assert (evidence.load_average, evidence.involuntary_switches, evidence.waited_share) == (1.25, 0, 0.0)
    assert json.loads(json.dumps(evidence.to_json()))["clocks_mhz"] == {"cpu": [3000.0, 3000.0]}


@pytest.mark.parametrize(
    ("changes", "badge", "reason"),
    [
        (
            {"slow_downs": "7"},
            "THROTTLED",
            "slowed down: thermal slow-downs of a core: 3",
        ),
        ({"zone": "95500"}, "THROTTLED", "slowed down: thermal_zone0 at its passive temperature"),
        ({"limit": "2000000"}, "THROTTLED", "slowed down: limit of policy0 lowered from 3500 to 2000 MHz"),
        ({"clock": "2000000"}, "NOISY", "the clock of cpu moved between 2000 and 3000 MHz"),
        ({"status": "VmSwap:\t3072 kB"}, "UNCONTROLLED", "3.0 MiB of this process were swapped out"),
        ({"vmstat": "pswpin 612\npswpout 100"}, "UNCONTROLLED", "this machine moved 2.0 MiB to swap or back"),
        (
            {"stat": RAN.replace("cpu1 0", "cpu1 500")},
            "NOISY",
            "others used 25 % of 2 processors, 0 involuntary switches a second",
        ),
        (
            {"stat": RAN.replace("510 0 0 0 0", "510 0 0 0 120")},
            "NOISY",
            "the hypervisor gave away 12 % of the processor time",
        ),
    ],
)
def test_what_happens_in_between_is_found(tmp_path: Path, changes: dict[str, str], badge: str, reason: str) -> None:
    evidence = observe(write_tree(tmp_path, machine()), after=machine(**{"stat": RAN, **changes}))
    assert badge_of(evidence) == (badge, (reason,))


def test_a_slow_down_before_the_run_is_none_of_it(tmp_path: Path) -> None:
    root = write_tree(tmp_path, machine(slow_downs="900"))
    assert observe(root, after=machine(slow_downs="900", stat=RAN)).throttled_by == ()


def test_a_page_of_somebody_is_not_swapping(tmp_path: Path) -> None:
    evidence = observe(write_tree(tmp_path, machine()), after=machine(stat=RAN, vmstat="pswpin 101\npswpout 100"))
    assert badge_of(evidence)[0] == "VALID"


def test_a_state_that_only_a_sample_saw_is_kept(tmp_path: Path) -> None:
    root = write_tree(tmp_path, machine())
    watch = Watch(root=root, cpus=[0, 1])
    watch.begin()
    write_tree(root, machine(zone="96000", clock="2500000"))
    watch.sample()
    write_tree(root, machine())
    evidence = watch.end()
    assert evidence.throttled_by == ("thermal_zone0 at its passive temperature",)
    assert evidence.clocks_mhz["cpu"] == (3000.0, 2500.0, 3000.0)


def test_what_was_before_the_last_begin_is_none_of_it(tmp_path: Path) -> None:
    root = write_tree(tmp_path, machine(clock="800000", zone="96000"))  # clocks are low before the warm-up
    watch = Watch(root=root, cpus=[0, 1])
    watch.begin()
    write_tree(root, machine())
    watch.begin()
    evidence = watch.end()
    assert evidence.clocks_mhz == {"cpu": (3000.0, 3000.0)}
    assert evidence.throttled_by == ()


def test_over_current_on_a_jetson_is_throttling(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {**ORIN_NANO, **machine()})
    evidence = observe(root, after={**machine(stat=RAN), "sys/class/hwmon/hwmon0/oc1_event_cnt": "1"}, gpu=True)
    assert evidence.throttled_by == ("over-current events: 1",)
    assert evidence.clocks_mhz["17000000.gpu"] == (306.0, 306.0)


def test_raspberry_pi_that_was_short_of_voltage_meanwhile_is_throttled(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {**machine(), PI: "0"})
    assert observe(root, after={PI: "50000", **machine(stat=RAN)}).throttled_by == (
        "spells of under-voltage: 1",
        "spells of throttled: 1",
    )


@pytest.mark.parametrize(
    ("pids", "own", "others"),
    [
        ([], 5, ()),
        ([5], 5, ()),
        ([5, 7], 5, (7,)),
        ([4001], 5, ()),  # a container: this process by the host's number
        ([7, 4001], 5, (7,)),
    ],
)
def test_this_process_is_no_other_process(tmp_path: Path, pids: list[int], own: int, others: tuple[int, ...]) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    assert other_processes(pids, own=own, root=tmp_path) == others


def _gpu_evidence(root: Path, library: FakeNvml, change: Callable[[], object]) -> Evidence:
    watch = Watch(root=write_tree(root, machine()), cpus=[0, 1], gpu=True, nvml=library)
    watch.begin()
    change()
    return watch.end()


def test_gpu_is_watched_through_its_driver(tmp_path: Path) -> None:
    library = FakeNvml()
    library.computing = [os.getpid()]

    def change() -> None:
        library.computing, library.held_ns, library.clock_mhz = [os.getpid(), 4100], [0, 500_000_000], 1500

    evidence = _gpu_evidence(tmp_path, library, change)
    assert evidence.gpu_processes == (4100,)
    assert evidence.throttled_by == ("seconds of thermal slowdown of the GPU: 0.5",)
    badge, reasons = badge_of(evidence, cpu_share=None)
    assert badge == "THROTTLED"
    assert reasons == (
        "slowed down: seconds of thermal slowdown of the GPU: 0.5",
        "other processes on the GPU: 1 (number 4100)",
        "the clock of gpu moved between 1500 and 1980 MHz",
    )


def test_gpu_that_is_watched_is_the_one_that_cuda_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "open_cuda", lambda: SimpleNamespace(bus_id=lambda: "0000:02:00.0"))
    asked: list[int] = []
    library = FakeNvml()
    monkeypatch.setattr(library, "nvmlDeviceGetHandleByIndex_v2", lambda index, handle: asked.append(index.value) or 0)
    Watch(gpu=True, nvml=library).begin()
    assert set(asked) == {2}


def test_gpu_reasons_of_throttling_are_kept(tmp_path: Path) -> None:
    evidence = _gpu_evidence(tmp_path, FakeNvml(reasons=0x4), lambda: None)
    assert evidence.throttled_by == ("power cap of the GPU",)


def test_gpu_that_does_not_tell_who_uses_it_is_uncontrolled(tmp_path: Path) -> None:
    library = FakeNvml()
    library.computing = library.drawing = None
    evidence = _gpu_evidence(tmp_path, library, lambda: None)
    assert evidence.missing == (GPU_PROCESSES,)
    assert badge_of(evidence) == ("UNCONTROLLED", ("this machine does not tell its processes on the GPU",))


def test_machine_that_tells_nothing_says_what_is_missing(tmp_path: Path) -> None:
    evidence = observe(tmp_path, after={})
    assert evidence.missing == (SWAP, PROCESSOR_TIMES, CLOCKS, TEMPERATURES)
    badge, reasons = badge_of(evidence)
    assert badge == "UNCONTROLLED"
    assert reasons == (
        "this machine does not tell its swap of this process",
        "this machine does not tell its times of the processors",
    )


def test_cloud_machine_without_a_governor_can_be_valid(tmp_path: Path) -> None:
    hidden = ("cpufreq", "thermal")
    files = {path: text for path, text in machine().items() if not any(name in path for name in hidden)}
    ran = {path: text for path, text in machine(stat=RAN).items() if path in files}
    evidence = observe(write_tree(tmp_path, files), after=ran)
    assert evidence.missing == (CLOCKS, TEMPERATURES)
    assert badge_of(evidence) == ("VALID", ())


_BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"


@pytest.fixture
def one_cpu() -> Any:
    """A processor that this process is bound to for the test."""
    before = os.sched_getaffinity(0)
    cpu = min(before)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, before)


def test_real_neighbour_on_the_same_processor_is_seen(one_cpu: int) -> None:
    # Where the kernel shares the processor fairly, each has half of it. A third is enough to be far from none.
    with subprocess.Popen([sys.executable, "-c", _BUSY, str(one_cpu)], stdout=subprocess.PIPE) as neighbour:
        try:
            assert neighbour.stdout is not None
            neighbour.stdout.readline()  # it runs
            watch = Watch(threads=1)
            watch.begin()
            until_s, cpu_s = time.perf_counter() + 0.5, time.process_time()
            while time.perf_counter() < until_s:
                pass
            evidence = watch.end()
            cpu_share = (time.process_time() - cpu_s) / evidence.duration_s
        finally:
            neighbour.kill()
    assert evidence.num_cpus == 1
    assert evidence.others_cpu_s is not None
    assert evidence.others_cpu_s > evidence.duration_s / 6
    badge, reasons = badge_of(evidence, cpu_share=cpu_share)
    assert badge == "NOISY"
    assert any("of the time the processor was taken by others" in reason for reason in reasons)
    assert any("of 1 processors" in reason for reason in reasons)
