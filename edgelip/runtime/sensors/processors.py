"""What the kernel counts of the processors: time in use, time taken away, clocks, slow-downs. None where it is silent.

Counters run since the start of the machine: the difference of two readings belongs to the time between them. Every
function takes the root of the file system, so that a test can build a machine; cpus are numbers of processors.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Collection, Dict, FrozenSet, List, NamedTuple, Optional

from edgelip.runtime.sensors.sysfs import ROOT, read_number, read_text

_LONGEST = 4 << 20  # /proc/stat and /proc/cpuinfo of a server with many processors
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_MIB = (os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096) / (1 << 20)


class ProcessorTimes(NamedTuple):
    """Seconds, summed over processors. busy_s: all work of this machine; stolen_s: what the hypervisor gave others."""

    busy_s: float
    stolen_s: float


def allowed_cpus() -> FrozenSet[int]:
    """The processors that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return frozenset(affinity(0) if affinity else range(os.cpu_count() or 1))


def processor_times(cpus: Collection[int], root: Path = ROOT) -> Optional[ProcessorTimes]:
    """Counters of /proc/stat over `cpus`, in steps of 10 ms each."""
    busy = stolen = 0
    lines = (read_text(root / "proc/stat", max_bytes=_LONGEST) or "").splitlines()
    found = re.compile(r"cpu(\d+)((?: \d+){4,})$")
    matches = [match for match in map(found.match, lines) if match and int(match.group(1)) in cpus]
    for match in matches:
        ticks = [int(field) for field in match.group(2).split()]  # user nice system idle iowait irq softirq steal
        busy += sum(ticks[:3]) + sum(ticks[5:7])
        stolen += sum(ticks[7:8])
    return ProcessorTimes(busy / _TICKS_PER_S, stolen / _TICKS_PER_S) if matches else None


def waited_s(root: Path = ROOT) -> Optional[float]:
    """Time in which something on this machine was ready and had no processor (pressure stall information, 'some')."""
    found = re.search(r"^some .*total=(\d{1,19})$", read_text(root / "proc/pressure/cpu") or "", re.MULTILINE)
    return int(found.group(1)) / 1e6 if found else None


def held_by_quota_s(root: Path = ROOT) -> Optional[float]:
    """Time in which the control group of this process, a container, had used up its share and was not let run."""
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        unified = hierarchy == "0"
        if unified or "cpu" in controllers.split(","):
            folder = root / "sys/fs/cgroup" / ("" if unified else controllers) / group.lstrip("/")
            found = re.search(r"^throttled_(usec|time) (\d{1,19})$", read_text(folder / "cpu.stat") or "", re.MULTILINE)
            if found:
                return int(found.group(2)) / (1e6 if found.group(1) == "usec" else 1e9)
    return None


def involuntary_switches(root: Path = ROOT) -> Optional[int]:
    """How often a thread of this process that is still alive was taken off its processor while it had work."""
    tasks = sorted((root / "proc/self/task").glob("[0-9]*/status"))
    counts = [
        re.search(r"^nonvoluntary_ctxt_switches:\s*(\d{1,19})$", read_text(path) or "", re.MULTILINE)
        for path in tasks or [root / "proc/self/status"]
    ]
    known = [int(count.group(1)) for count in counts if count]
    return sum(known) if known else None


def swapped_mib(root: Path = ROOT) -> Optional[float]:
    """How much of this process lies in swap."""
    found = re.search(r"^VmSwap:\s*(\d{1,19}) kB$", read_text(root / "proc/self/status") or "", re.MULTILINE)
    return int(found.group(1)) / 1024 if found else None


def swap_traffic_mib(root: Path = ROOT) -> Optional[float]:
    """What the whole machine has moved to swap and back."""
    pages = re.findall(r"^pswp(?:in|out) (\d{1,19})$", read_text(root / "proc/vmstat") or "", re.MULTILINE)
    return sum(map(int, pages)) * _PAGE_MIB if pages else None


def fastest_mhz(cpus: Collection[int], root: Path = ROOT) -> Optional[float]:
    """The highest clock among `cpus` now: while one of them works and the others rest, that of the one that works.

    Without cpufreq, as in most virtual machines, what /proc/cpuinfo says.
    """
    folder = root / "sys/devices/system/cpu"
    khz = [read_number(folder / f"cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus]
    rates = [rate / 1000 for rate in khz if rate]
    if not rates:
        # The folder of a processor is a link to its policy, which a container may not show.
        policies = [read_number(path) for path in sorted(folder.glob("cpufreq/policy[0-9]*/scaling_cur_freq"))]
        rates = [rate / 1000 for rate in policies if rate]
    if not rates:
        text = read_text(root / "proc/cpuinfo", max_bytes=_LONGEST) or ""
        rates = [float(rate) for rate in re.findall(r"^cpu MHz\s*:\s*(\d{1,6}(?:\.\d{1,6})?)$", text, re.MULTILINE)]
    return max(rates) if rates else None


def slow_down_counts(root: Path = ROOT) -> Dict[str, int]:
    """How often an x86 processor slowed itself for its temperature, by 'core' and 'package'; empty on others."""
    found: Dict[str, List[int]] = {}
    for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count"):
        count = read_number(path)
        if count is not None:
            found.setdefault(path.name.replace("_throttle_count", ""), []).append(int(count))
    return {kind: sum(counts) for kind, counts in sorted(found.items())}


def load_average(root: Path = ROOT) -> Optional[float]:
    """Runnable processes over the last minute, all of the machine."""
    found = re.match(r"(\d{1,9}\.\d{1,4}) ", read_text(root / "proc/loadavg") or "")
    return float(found.group(1)) if found else None
