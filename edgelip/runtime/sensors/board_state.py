"""What state the machine is in: power mode, clocks, thermal zones, throttling. Nothing is changed here.

Every function takes the root of the file system, so that a test can build a board.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from edgelip.runtime.sensors.sysfs import ROOT, read_number, read_text, run_tool

# devfreq folders of a Jetson's GPU: gm20b Nano, gp10b TX2, gv11b Xavier, ga10b Orin, gb10b and gpc Thor.
_GPU_DEVFREQ = re.compile(r"gpu|gm20b|gp10b|gv11b|ga10b|gb10b|gpc")
_PI_FLAGS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_PI_SINCE_BOOT = 16  # the same four bits, 16 higher: it has happened since the start
_THROTTLING_TRIPS = ("passive", "hot", "critical")  # the kernel slows, warns, switches off


@dataclass(frozen=True)
class PowerMode:
    """nvpmodel's mode: its number and its name, as 2 and 'MAXN_SUPER'."""

    number: Optional[int]
    name: Optional[str]


@dataclass(frozen=True)
class ClockRange:
    """Clocks of one CPU policy or of a GPU, in MHz; `lowest` and `highest` are the limits that hold now."""

    name: str
    governor: Optional[str]
    now_mhz: Optional[float]
    lowest_mhz: Optional[float]
    highest_mhz: Optional[float]

    @property
    def locked(self) -> Optional[bool]:
        """Whether both limits are the same, as jetson_clocks sets them; None if one is not known."""
        if self.lowest_mhz is None or self.highest_mhz is None:
            return None
        return self.lowest_mhz == self.highest_mhz


@dataclass(frozen=True)
class ThermalZone:
    """A thermal zone; trips_c: 'passive', 'hot' or 'critical' to the lowest temperature at which it acts."""

    name: str
    temperature_c: Optional[float]
    trips_c: Dict[str, float]

    @property
    def beyond(self) -> Tuple[str, ...]:
        """The trips that are reached: this machine slows itself."""
        now_c = self.temperature_c
        return () if now_c is None else tuple(kind for kind, trip_c in self.trips_c.items() if now_c >= trip_c)


def power_mode(root: Path = ROOT) -> Optional[PowerMode]:
    """nvpmodel's mode from its own status file, else from `nvpmodel -q`; None where there is no nvpmodel."""
    number = re.search(r"pmode:\s*(\d{1,4})", read_text(root / "var/lib/nvpmodel/status", max_bytes=4096) or "")
    if number:
        modes = mode_names(read_text(root / "etc/nvpmodel.conf", max_bytes=1 << 20) or "")
        return PowerMode(int(number.group(1)), modes.get(int(number.group(1))))
    if root != ROOT:
        return None  # the command would speak of this machine
    return power_mode_from_text(run_tool("nvpmodel", "-q") or "")


def power_mode_from_text(text: str) -> Optional[PowerMode]:
    """The mode in what `nvpmodel -q` prints: 'NV Power Mode: MAXN', then its number on a line of its own."""
    name = re.search(r"^NV Power Mode:\s*(\S{1,64})\s*$", text, re.MULTILINE)
    number = re.search(r"^\s*(\d{1,4})\s*$", text, re.MULTILINE)
    if not name and not number:
        return None
    return PowerMode(int(number.group(1)) if number else None, name.group(1) if name else None)


def mode_names(configuration: str) -> Dict[int, str]:
    """Numbers to names of the modes in /etc/nvpmodel.conf."""
    found = re.findall(r"<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=(\S{1,64})\s*>", configuration)
    return {int(number): name for number, name in found}


def cpu_clocks(root: Path = ROOT) -> List[ClockRange]:
    """Each CPU frequency policy, kHz in the kernel's files."""
    folders = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"))
    return [_clock_range(folder, "scaling_{}_freq", "scaling_governor", per_mhz=1e3) for folder in folders]


def gpu_clocks(root: Path = ROOT) -> List[ClockRange]:
    """Each clock of a Jetson's GPU, Hz in the kernel's files; none on other machines (NVML tells those)."""
    folders = sorted((root / "sys/class/devfreq").glob("*"))
    return [
        _clock_range(folder, "{}_freq", "governor", per_mhz=1e6)
        for folder in folders
        if _GPU_DEVFREQ.search(folder.name)
    ]


def clocks_locked(root: Path = ROOT) -> Optional[bool]:
    """True if every CPU and GPU clock is fixed, as after jetson_clocks; None if one of them does not tell."""
    states = [clock.locked for clock in (*cpu_clocks(root), *gpu_clocks(root))]
    if not states or None in states:
        return None
    return all(states)


def thermal_zones(root: Path = ROOT) -> List[ThermalZone]:
    """Every thermal zone with its name; one that is powered down has no temperature."""
    zones = []
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone[0-9]*")):
        trips: Dict[str, float] = {}
        for path in sorted(folder.glob("trip_point_[0-9]*_type")):
            kind = read_text(path, max_bytes=64)
            at_mc = read_number(path.with_name(path.name.replace("_type", "_temp")))
            if kind in _THROTTLING_TRIPS and at_mc is not None and at_mc > 0:  # 0 or below: switched off
                trips[kind] = min(at_mc / 1000, trips.get(kind, at_mc / 1000))
        now_mc = read_number(folder / "temp")
        name = read_text(folder / "type", max_bytes=64) or folder.name
        zones.append(ThermalZone(name, None if now_mc is None else now_mc / 1000, trips))
    return zones


def hottest_c(root: Path = ROOT) -> Optional[float]:
    """Temperature of the hottest thermal zone."""
    known_c = [zone.temperature_c for zone in thermal_zones(root) if zone.temperature_c is not None]
    return max(known_c) if known_c else None


def over_current_events(root: Path = ROOT) -> Optional[int]:
    """How often a Jetson has throttled on over-current since its start; None where it does not count."""
    counts = [read_number(path) for path in (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def pi_throttling(root: Path = ROOT) -> Optional[Dict[str, List[str]]]:
    """What holds a Raspberry Pi back, `now` and `since_boot`; None on another machine."""
    text = read_text(root / "sys/devices/platform/soc/soc:firmware/get_throttled", max_bytes=64)
    if text is None and root == ROOT:
        text = run_tool("vcgencmd", "get_throttled")
    return pi_throttling_from_text(text or "")


def pi_throttling_from_text(text: str) -> Optional[Dict[str, List[str]]]:
    """The flags in 'throttled=0x50005', or in the bare hexadecimal number of the kernel's file."""
    found = re.match(r"\s*(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})\s*$", text)
    if not found:
        return None
    bits = int(found.group(1), 16)
    return {
        "now": [name for bit, name in _PI_FLAGS.items() if bits >> bit & 1],
        "since_boot": [name for bit, name in _PI_FLAGS.items() if bits >> bit + _PI_SINCE_BOOT & 1],
    }


def _clock_range(folder: Path, pattern: str, governor: str, *, per_mhz: float) -> ClockRange:
    now, lowest, highest = (read_number(folder / pattern.format(name)) for name in ("cur", "min", "max"))
    return ClockRange(
        name=folder.name,
        governor=read_text(folder / governor, max_bytes=64) or None,
        now_mhz=None if now is None else now / per_mhz,
        lowest_mhz=None if lowest is None else lowest / per_mhz,
        highest_mhz=None if highest is None else highest / per_mhz,
    )
