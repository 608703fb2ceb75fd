"""Power of this machine, each number with the boundary inside which it was measured.

Boundaries by rank: module input > rails of the module > GPU board > CPU package. Numbers of two boundaries never share
a column: a module input holds memory, regulators and all rails, a CPU package neither memory nor GPU.
"""

from __future__ import annotations

import abc
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from edgelip.runtime.errors import MeasurementError, UsageError
from edgelip.runtime.sensors.nvml import NOT_SUPPORTED, Nvml, load_nvml
from edgelip.runtime.sensors.sysfs import ROOT, read_number, read_text, tool_line
from edgelip.runtime.sensors.tegrastats import sample_from_line

MODULE_INPUT, RAILS, GPU_BOARD, CPU_PACKAGE = range(4)  # ranks: the lowest says most
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")  # the module's input; every other rail is fed from it
# Fed from another rail of the same sum, so it is left out (AGX Orin; NVIDIA's forum, recalled).
_FED_FROM = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
_NVML_PERIOD_S = 0.1
_RAPL_PERIOD_S = 0.1  # the counter moves every millisecond; far above that, the jitter of reading is small
_HWMON_PERIOD_S = 0.1  # where the monitor does not tell its conversion time


class PowerSource(abc.ABC):
    """One sensor. name: short and unique on this machine; boundary: what is inside, as 'module input VDD_IN'."""

    name: str
    boundary: str
    rank: int
    min_period_s: float  # a shorter sampling period reads the same conversion twice
    reads_mean = False  # True: read() gives the mean since the last reading, not the power now

    @abc.abstractmethod
    def read(self) -> float:
        """Watts. Raises MeasurementError if the sensor does not answer."""


def total_of_rails(names: Iterable[str]) -> Tuple[str, int, Tuple[str, ...]]:
    """Boundary, rank and the rails to add: the module's input alone where it is among `names`, else the sum of them."""
    known = sorted(set(names))
    for total in TOTAL_RAILS:
        if total in known:
            return f"module input {total}", MODULE_INPUT, (total,)
    added = tuple(name for name in known if _FED_FROM.get(name) not in known)
    return "rails " + "+".join(added), RAILS, added


class RailsSource(PowerSource):
    """Power monitors of a Jetson (INA3221, on Thor also INA238) through hwmon: millivolts by milliamperes."""

    def __init__(self, rails: Mapping[str, Tuple[Path, Path]], *, min_period_s: float = _HWMON_PERIOD_S) -> None:
        """rails: name to the files of its voltage and its current."""
        self.name = "ina"
        self.boundary, self.rank, added = total_of_rails(rails)
        self.min_period_s = min_period_s
        self._files = {name: rails[name] for name in added}

    def read(self) -> float:
        total_w = 0.0
        for name, (voltage, current) in self._files.items():
            millivolts, milliamperes = read_number(voltage), read_number(current)
            if millivolts is None or milliamperes is None:
                raise MeasurementError(f"rail {name} gives no power ({voltage}); expected millivolts and milliamperes.")
            total_w += millivolts * milliamperes / 1e6
        return total_w


class TegrastatsSource(PowerSource):
    """A Jetson whose monitors hwmon does not show (JetPack 4): a line of tegrastats, started anew for each reading."""

    min_period_s = 1.0  # starting it takes a part of that

    def __init__(self, line: Callable[[], Optional[str]], rails: Iterable[str]) -> None:
        """line: gives what tegrastats prints; rails: the names in it."""
        self.name = "tegrastats"
        self.boundary, self.rank, self._added = total_of_rails(rails)
        self._line = line

    def read(self) -> float:
        rails = _tegrastats_rails(self._line())
        missing = [name for name in self._added if name not in rails]
        if missing:
            raise MeasurementError(f"tegrastats gives no power of {', '.join(missing)}; expected milliwatts.")
        return sum(rails[name] for name in self._added) / 1000


class RaplSource(PowerSource):
    """Energy counters of the processor packages (RAPL), Intel and AMD; they wrap around."""

    reads_mean = True

    def __init__(self, packages: Mapping[str, Path], *, clock: Callable[[], float] = time.monotonic) -> None:
        """packages: name to its folder. Raises MeasurementError if a counter cannot be read."""
        self.name, self.boundary, self.rank = "rapl", "CPU package, RAPL " + "+".join(sorted(packages)), CPU_PACKAGE
        self.min_period_s = _RAPL_PERIOD_S
        self._packages, self._clock = dict(packages), clock
        self._ranges_uj = {name: read_number(path / "max_energy_range_uj") for name, path in packages.items()}
        self._last, self._last_s = self._counters(), clock()

    def read(self) -> float:
        now, now_s = self._counters(), self._clock()
        if now_s <= self._last_s:
            raise MeasurementError("the RAPL counter was read twice at one time; expected some time between readings.")
        microjoules = sum(self._difference(name, now[name]) for name in now)
        elapsed_s = now_s - self._last_s
        self._last, self._last_s = now, now_s
        return microjoules / 1e6 / elapsed_s

    def _difference(self, name: str, now_uj: float) -> float:
        used_uj = now_uj - self._last[name]
        if used_uj >= 0:
            return used_uj
        range_uj = self._ranges_uj[name]
        if not range_uj:
            raise MeasurementError(f"the RAPL counter of {name} fell and gives no range; expected max_energy_range_uj.")
        return used_uj + range_uj

    def _counters(self) -> Dict[str, float]:
        counters = {name: read_number(path / "energy_uj") for name, path in self._packages.items()}
        known = {name: counter for name, counter in counters.items() if counter is not None}
        if len(known) < len(counters):
            raise MeasurementError(f"the RAPL counters of {sorted(set(counters) - set(known))} cannot be read.")
        return known


class GpuSource(PowerSource):
    """A GPU's board through NVML; on GPUs since Ampere the driver gives the mean of the last second."""

    def __init__(self, nvml: Nvml, index: int) -> None:
        self.name, self.rank, self.min_period_s = f"gpu{index}", GPU_BOARD, _NVML_PERIOD_S
        self.boundary = f"GPU board, NVML ({nvml.gpu(index).name or index})"
        self._nvml, self._index = nvml, index

    def read(self) -> float:
        watts, code = self._nvml.power_w(self._index)
        if watts is None:
            raise MeasurementError(f"NVML gives no power of GPU {self._index} (code {code}); expected milliwatts.")
        return watts


def find_power_sources(
    root: Path = ROOT,
    *,
    nvml_library: Optional[Any] = None,
    tegrastats_line: Optional[Callable[[], Optional[str]]] = None,
    say: Callable[[str], None] = lambda line: None,
) -> List[PowerSource]:
    """Every sensor of power that answers here, the boundary that says most first.

    root, nvml_library, tegrastats_line: another tree, library and monitor, for a test. say: told of each sensor that is
    there and gives nothing.
    """
    found: List[PowerSource] = [*_jetson_source(root), *_rapl_source(root, say)]
    line = tegrastats_line or (_tegrastats_line if root == ROOT else None)
    if line is not None and not any(isinstance(source, RailsSource) for source in found):
        rails = _tegrastats_rails(line())
        found += [TegrastatsSource(line, rails)] if rails else []
    library = nvml_library or (load_nvml() if root == ROOT else None)
    if library is not None:
        found += _gpu_sources(library, say)
    return sorted(found, key=lambda source: (source.rank, source.name))


def _jetson_source(root: Path) -> List[PowerSource]:
    rails: Dict[str, Tuple[Path, Path]] = {}
    conversion_ms = 0.0
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon[0-9]*")):
        chip = read_text(folder / "name", max_bytes=64) or ""
        if chip not in ("ina3221", "ina238"):
            continue
        for channel in (1, 2, 3):  # the fourth and on are shunt voltages and their sum
            # Thor's INA238 has one channel without a label: it watches the input, which tegrastats calls VIN.
            label = read_text(folder / f"in{channel}_label", max_bytes=64) or ("VIN" if chip == "ina238" else "NC")
            files = folder / f"in{channel}_input", folder / f"curr{channel}_input"
            is_off = read_number(folder / f"in{channel}_enable") == 0
            if label != "NC" and not is_off and None not in [read_number(file) for file in files]:
                rails[label] = files
                conversion_ms = max(conversion_ms, read_number(folder / "update_interval") or 0.0)
    period_s = 2 * conversion_ms / 1000 or _HWMON_PERIOD_S
    return [RailsSource(rails, min_period_s=period_s)] if rails else []


def _tegrastats_line() -> Optional[str]:
    return tool_line("tegrastats", "--interval", "200")


def _tegrastats_rails(line: Optional[str]) -> Dict[str, float]:
    """Milliwatts now by rail; none where tegrastats does not answer or says something else."""
    try:
        return {name: rail.now_mw for name, rail in sample_from_line(line).rails.items()} if line else {}
    except UsageError:
        return {}


def _rapl_source(root: Path, say: Callable[[str], None]) -> List[PowerSource]:
    packages: Dict[str, Path] = {}
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*")):
        name = read_text(folder / "name", max_bytes=64) or ""
        if name.startswith("package"):  # core, uncore and dram are parts of it or other boundaries
            packages[name] = folder
    if not packages:
        return []
    try:
        return [RaplSource(packages)]
    except MeasurementError as error:
        say(f"{error} The kernel lets root alone read them: run as root, or make energy_uj readable.")
        return []


def _gpu_sources(library: Any, say: Callable[[str], None]) -> List[PowerSource]:
    sources: List[PowerSource] = []
    try:
        nvml = Nvml(library)
        for index in range(nvml.count()):
            watts, code = nvml.power_w(index)
            if watts is not None:
                sources.append(GpuSource(nvml, index))
            elif code == NOT_SUPPORTED:
                say(f"NVML does not support power of GPU {index} (NOT_SUPPORTED, as on every Jetson); use its rails.")
            else:
                say(f"NVML gives no power of GPU {index} (code {code}).")
    except (OSError, AttributeError) as error:
        say(f"NVML does not answer: {error}")
    return sources
