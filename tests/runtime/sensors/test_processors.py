from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_board import write_tree
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.sensors import processors

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
STAT = """cpu  1100 10 100 5000 70 3 20 9 0 0
cpu0 1000 0 0 2000 50 1 10 9 0 0
cpu1 100 10 100 3000 20 2 10 0 0 0
intr 123 4 5
"""


def test_times_are_summed_over_the_processors_that_count(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/stat": STAT})
    assert processors.processor_times([0], tmp_path) == pytest.approx((1011 * TICK_S, 9 * TICK_S))
    assert processors.processor_times([0, 1], tmp_path) == pytest.approx((1233 * TICK_S, 9 * TICK_S))
    assert processors.processor_times([5], tmp_path) is None


def test_waiting_for_a_processor_is_read_in_seconds(tmp_path: Path) -> None:
    text = "some avg10=3.61 avg60=3.63 avg300=3.07 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7"
    assert processors.waited_s(write_tree(tmp_path, {"proc/pressure/cpu": text})) == 1.5


@pytest.mark.parametrize(
    ("cgroup", "folder", "line", "held_s"),
    [
        ("0::/box/job", "box/job", "nr_throttled 3\nthrottled_usec 250000", 0.25),
        ("5:cpu,cpuacct:/job\n0::/", "cpu,cpuacct/job", "nr_throttled 3\nthrottled_time 250000000", 0.25),
        ("0::/box/job", "elsewhere", "throttled_usec 1", None),
    ],
)
def test_quota_of_a_container_is_read_from_either_version(
    tmp_path: Path, cgroup: str, folder: str, line: str, held_s: float | None
) -> None:
    root = write_tree(tmp_path, {"proc/self/cgroup": cgroup, f"sys/fs/cgroup/{folder}/cpu.stat": line})
    assert processors.held_by_quota_s(root) == held_s


def test_switches_are_those_of_all_threads(tmp_path: Path) -> None:
    lines = "voluntary_ctxt_switches:\t900\nnonvoluntary_ctxt_switches:\t{}"
    root = write_tree(tmp_path, {"proc/self/status": lines.format(5)})
    assert processors.involuntary_switches(root) == 5
    write_tree(root, {"proc/self/task/7/status": lines.format(5), "proc/self/task/8/status": lines.format(30)})
    assert processors.involuntary_switches(root) == 35


def test_swap_is_read_of_the_process_and_of_the_machine(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/status": "VmRSS:\t 100 kB\nVmSwap:\t   2048 kB\nThreads:\t1",
            "proc/vmstat": "nr_free_pages 5\npswpin 100\npswpout 412\npgmajfault 9",
        },
    )
    assert processors.swapped_mib(root) == 2.0
    assert processors.swap_traffic_mib(root) == pytest.approx(512 * os.sysconf("SC_PAGE_SIZE") / 2**20)


def test_clock_is_that_of_the_fastest_processor_that_counts(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    write_tree(tmp_path, {"proc/cpuinfo": "processor : 0\ncpu MHz\t\t: 2596.152\nprocessor : 1\ncpu MHz : 800.000"})
    assert processors.fastest_mhz([0, 1], tmp_path) == 2596.152
    write_tree(tmp_path, {f"{cpu}/cpufreq/policy0/scaling_cur_freq": "1420800"})
    assert processors.fastest_mhz([0, 1], tmp_path) == 1420.8
    write_tree(tmp_path, {f"{cpu}/cpu{n}/cpufreq/scaling_cur_freq": str(n * 10**6) for n in (1, 2, 3)})
    assert processors.fastest_mhz([1, 2], tmp_path) == 2000


def test_slow_downs_are_counted_by_kind(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    files = {f"{cpu}/cpu{n}/thermal_throttle/core_throttle_count": str(n + 1) for n in (0, 1)}
    write_tree(tmp_path, {**files, f"{cpu}/cpu0/thermal_throttle/package_throttle_count": "7"})
    assert processors.slow_down_counts(tmp_path) == {"core": 3, "package": 7}


def test_machine_that_tells_nothing_gives_none(tmp_path: Path) -> None:
    assert processors.processor_times([0], tmp_path) is None
    assert processors.waited_s(tmp_path) is None
    assert processors.held_by_quota_s(tmp_path) is None
    assert processors.involuntary_switches(tmp_path) is None
    assert processors.swapped_mib(tmp_path) is None
    assert processors.swap_traffic_mib(tmp_path) is None
    assert processors.fastest_mhz([0], tmp_path) is None
    assert processors.load_average(tmp_path) is None
    assert processors.slow_down_counts(tmp_path) == {}


@given(st.text(max_size=300), st.sampled_from([STAT, "some total=1", "VmSwap: 1 kB", "pswpin 1", "0::/a"]))
def test_damaged_files_of_the_kernel_are_no_error(
    tmp_path_factory: pytest.TempPathFactory, noise: str, text: str
) -> None:
    root = tmp_path_factory.mktemp("machine")
    names = ("proc/stat", "proc/pressure/cpu", "proc/self/status", "proc/vmstat", "proc/self/cgroup", "proc/loadavg")
    write_tree(root, dict.fromkeys(names, "".join((text[: len(text) // 2], noise, text)).replace("\ud800", "")))
    for reader in (
        processors.waited_s,
        processors.held_by_quota_s,
        processors.involuntary_switches,
        processors.swapped_mib,
        processors.swap_traffic_mib,
        processors.load_average,
    ):
        reader(root)
    processors.processor_times([0, 1], root)


def test_this_machine_is_read() -> None:
    cpus = processors.allowed_cpus()
    times = processors.processor_times(cpus)
    assert times is not None
    assert times.busy_s > 0
    assert processors.swapped_mib() is not None
    assert processors.involuntary_switches() is not None
