"""The files of a board, and an NVIDIA driver without a GPU behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1420800",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1728000",
    "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "50031",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "99000",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "critical",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "104500",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal",
    "sys/class/hwmon/hwmon0/name": "soctherm_oc",
    "sys/class/hwmon/hwmon0/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon0/oc3_event_cnt": "2",
}


def rails(chip: int, *channels: tuple[str, int, int], name: str = "ina3221", interval_ms: int = 33) -> dict[str, str]:
    """Files of one power monitor: its channels as label, mV, mA."""
    folder = f"sys/class/hwmon/hwmon{chip}"
    files = {f"{folder}/name": name, f"{folder}/update_interval": str(interval_ms)}
    for position, (label, millivolts, milliamperes) in enumerate(channels, start=1):
        if label:
            files[f"{folder}/in{position}_label"] = label
        files[f"{folder}/in{position}_input"] = str(millivolts)
        files[f"{folder}/curr{position}_input"] = str(milliamperes)
    return files


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


class FakeNvml:
    """libnvidia-ml with one GPU. power_mw None: NOT_SUPPORTED, as on a Jetson; held_ns: by power and by heat."""

    def __init__(
        self, *, power_mw: int | None = 71_500, init_code: int = 0, reasons: int = 0, power_code: int = 3
    ) -> None:
        self.power_mw, self.init_code, self.reasons, self.power_code = power_mw, init_code, reasons, power_code
        self.clock_mhz, self.held_ns, self.closed = 1980, [0, 0], 0
        self.computing: list[int] | None = []
        self.drawing: list[int] | None = []

    def nvmlInit_v2(self) -> int:
        return self.init_code

    def nvmlShutdown(self) -> int:
        self.closed += 1
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        return _set(count, 1)

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        return _set(handle, 1 + index.value)

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, length: Any) -> int:
        buffer.value = b"NVIDIA H200"
        return 0

    def nvmlSystemGetDriverVersion(self, buffer: Any, length: Any) -> int:
        buffer.value = b"580.65.06"
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:
        return _set(major, 9) or _set(minor, 0)

    def nvmlDeviceGetPowerUsage(self, handle: Any, power: Any) -> int:
        return self.power_code if self.power_mw is None else _set(power, self.power_mw)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, celsius: Any) -> int:
        return _set(celsius, 41)

    def nvmlDeviceGetClockInfo(self, handle: Any, clock: Any, mhz: Any) -> int:
        return _set(mhz, self.clock_mhz)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, reasons: Any) -> int:
        return _set(reasons, self.reasons)

    def nvmlDeviceGetViolationStatus(self, handle: Any, policy: int, time: Any) -> int:
        time._obj.held_ns = self.held_ns[policy]
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, rows: Any) -> int:
        return _list(self.computing, count, rows)

    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, handle: Any, count: Any, rows: Any) -> int:
        return _list(self.drawing, count, rows)

    def nvmlDeviceGetHandleByPciBusId_v2(self, address: Any, handle: Any) -> int:
        return _set(handle, 3) if address.value == b"0000:02:00.0" else 6

    def nvmlDeviceGetIndex(self, handle: Any, index: Any) -> int:
        return _set(index, handle.value - 1)


def _list(pids: list[int] | None, count: Any, rows: Any) -> int:
    if pids is None:
        return 3
    for row, pid in zip(rows, pids, strict=False):
        row.pid = pid
    return _set(count, len(pids))


def _set(reference: Any, value: int) -> int:
    """Write through what ctypes.byref gave."""
    reference._obj.value = value
    return 0
