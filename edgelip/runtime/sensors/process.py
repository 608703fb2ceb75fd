"""What this process and this machine report about themselves: memory, processor, load. None where they say nothing."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Dict, FrozenSet, List, Optional, Union

from edgelip.runtime.sensors.sysfs import ROOT, read_number, read_text

_STATUS = Path("/proc/self/status")
_CPU = Path("/sys/devices/system/cpu")
_LONGEST = 4 << 20  # /proc/cpuinfo of a server with many processors

Reading = Union[str, int, float, None]


def process_memory_mib() -> Dict[str, Optional[float]]:
    """Resident memory now (`rss`), its peak since the last reset (`peak`), and what was swapped out (`swap`)."""
    names = {"VmRSS:": "rss", "VmHWM:": "peak", "VmSwap:": "swap"}
    found: Dict[str, Optional[float]] = dict.fromkeys(names.values())
    for line in _lines(_STATUS):
        fields = line.split()
        if fields and fields[0] in names:
            found[names[fields[0]]] = int(fields[1]) / 1024
    return found


def reset_peak_memory() -> bool:
    """Let the peak begin at what is resident now; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def shared_memory_mib(root: Path = ROOT) -> Dict[str, Optional[float]]:
    """Memory of this process where shared pages are split among those that share them (`pss`) or left out (`uss`)."""
    fields = _kilobytes(root / "proc/self/smaps_rollup")
    private = [fields[name] for name in ("Private_Clean", "Private_Dirty") if name in fields]
    pss = fields.get("Pss")
    return {"pss": None if pss is None else pss / 1024, "uss": sum(private) / 1024 if private else None}


def available_memory_mib(root: Path = ROOT) -> Optional[float]:
    """What could still be taken without swapping; its fall is a model's memory where CPU and GPU share theirs."""
    available = _kilobytes(root / "proc/meminfo").get("MemAvailable")
    return None if available is None else available / 1024


def gpu_mapped_memory_mib(root: Path = ROOT, *, pid: Optional[int] = None) -> Optional[float]:
    """What a Jetson's driver has mapped for process `pid`, this one by default; None without root or on other machines.

    Rows are client, process, pid, size as '1234K' (recalled, L4T 35 and 36).
    """
    wanted = str(os.getpid() if pid is None else pid)
    text = read_text(root / "sys/kernel/debug/nvmap/iovmm/clients")
    rows = [line.split() for line in (text or "").splitlines()]
    sizes = [row[-1][:-1] for row in rows if len(row) >= 4 and row[-2] == wanted and row[-1].endswith("K")]
    known = [int(size) / 1024 for size in sizes if size.isdigit()]
    return sum(known) if known else None


def process_age_ms() -> Optional[float]:
    """Milliseconds since this process was started, to the kernel's tick (10 ms)."""
    stat = "".join(_lines(Path("/proc/self/stat")))
    try:
        ticks = int(stat.rpartition(")")[2].split()[19])  # field 22; the name before may hold blanks
        booted_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return (booted_s - ticks / os.sysconf("SC_CLK_TCK")) * 1000
    except (AttributeError, IndexError, ValueError, OSError):
        return None


def clock_mhz() -> Optional[float]:
    """Mean frequency of the processors now."""
    scaling = [read_number(path) for path in sorted(_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    rates: List[float] = [khz / 1000 for khz in scaling if khz is not None]
    if not rates:
        rates = [float(line.partition(":")[2]) for line in _lines(Path("/proc/cpuinfo")) if line.startswith("cpu MHz")]
    return sum(rates) / len(rates) if rates else None


def temperature_c() -> Optional[float]:
    """The hottest thermal zone."""
    zones = [read_number(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    known = [millidegrees / 1000 for millidegrees in zones if millidegrees is not None]
    return max(known) if known else None


def load_average() -> Optional[float]:
    """Runnable processes over the last minute, all of the machine."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def cpu_features() -> FrozenSet[str]:
    """Instruction sets as the kernel names them, such as 'avx512_vnni' or 'asimddp'."""
    return frozenset(_cpuinfo("flags", "Features").split())


def environment() -> Dict[str, Reading]:
    """The machine that a measurement was taken on."""
    affinity = getattr(os, "sched_getaffinity", None)
    governor = "".join(_lines(_CPU / "cpu0/cpufreq/scaling_governor")).strip()
    features = cpu_features()
    total = _kilobytes(Path("/proc/meminfo")).get("MemTotal")
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": _cpuinfo("model name", "Model", "Hardware") or platform.processor() or None,
        "device": "".join(_lines(Path("/proc/device-tree/model"))).strip("\0 \n") or None,
        "num_cpus": os.cpu_count(),
        "num_cpus_allowed": len(affinity(0)) if affinity else None,
        "int8_dot_product": next((name for name in ("avx512_vnni", "avx_vnni", "asimddp") if name in features), None),
        "governor": governor or None,
        "memory_mib": None if total is None else total / 1024,
    }


def _kilobytes(path: Path) -> Dict[str, int]:
    """Fields of a file with lines such as 'MemTotal:  16384 kB'."""
    found: Dict[str, int] = {}
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(":")
        number = value.split()
        if number and number[0].isdigit():
            found[name] = int(number[0])
    return found


def _cpuinfo(*names: str) -> str:
    found: Dict[str, str] = {}
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, text = line.partition(":")
        found.setdefault(name.strip(), text.strip())
    return next((found[name] for name in names if found.get(name)), "")


def _lines(path: Path) -> List[str]:
    return (read_text(path, max_bytes=_LONGEST) or "").splitlines()
