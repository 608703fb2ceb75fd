"""What happened to the machine while something was measured: read before and after, never in between.

A sampler beside a latency run takes a part of a core. So the watch reads counters, whose difference covers all of the
time between, and states, which it sees at both ends and wherever `sample` is called between two windows.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Tuple

from edgelip.runtime.errors import EdgelipError
from edgelip.runtime.sensors import board_state, processors
from edgelip.runtime.sensors.board_state import hottest_c
from edgelip.runtime.sensors.nvml import gpu_use, load_nvml
from edgelip.runtime.sensors.slowing import limits_mhz, slowed_by, slowing_counts
from edgelip.runtime.sensors.sysfs import ROOT

# What a machine may not tell.
SWAP, PROCESSOR_TIMES, GPU_PROCESSES = "swap of this process", "times of the processors", "processes on the GPU"
CLOCKS, TEMPERATURES = "clocks", "temperatures"


@dataclass(frozen=True)
class Evidence:
    """The machine between `begin` and `end`; None for what it does not tell, which `missing` names.

    clocks_mhz: by clock, 'cpu' being the fastest processor that this process may use, one value a reading in order.
    clocks_locked: False if they float. throttled_by: every limit that acted. temperatures_c: the hottest zone, one a
    reading. Of the processors that this process may use: others_cpu_s, what other processes computed there; stolen_s,
    what the hypervisor gave away; held_by_quota_s, when a container's share was used up; waited_share, the share of the
    time in which anything on the machine was ready and had none. involuntary_switches: of this process' threads.
    swapped_mib: of this process at the end. swap_traffic_mib: of the machine meanwhile. gpu_processes: other ones.
    """

    duration_s: float
    threads: int
    num_cpus: int
    gpu: bool
    clocks_mhz: Mapping[str, Tuple[float, ...]]
    clocks_locked: Optional[bool]
    throttled_by: Tuple[str, ...]
    temperatures_c: Tuple[float, ...]
    own_cpu_s: float
    others_cpu_s: Optional[float]
    stolen_s: Optional[float]
    held_by_quota_s: Optional[float]
    waited_share: Optional[float]
    involuntary_switches: Optional[int]
    load_average: Optional[float]
    swapped_mib: Optional[float]
    swap_traffic_mib: Optional[float]
    gpu_processes: Optional[Tuple[int, ...]]
    missing: Tuple[str, ...]

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Counters:
    at_s: float
    own_cpu_s: float
    times: Optional[processors.ProcessorTimes]
    waited_s: Optional[float]
    held_by_quota_s: Optional[float]
    involuntary_switches: Optional[int]
    swap_traffic_mib: Optional[float]


class Watch:
    """`begin()` right before what is timed, `end()` right after it; `sample()` between two windows of a long run."""

    def __init__(
        self,
        *,
        threads: int = 1,
        gpu: bool = False,
        root: Path = ROOT,
        cpus: Optional[Collection[int]] = None,
        nvml: Optional[Any] = None,
        gpu_bus_id: Optional[str] = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        """threads: of the engine. gpu: it computes on the GPU at PCI address `gpu_bus_id`, default CUDA's first.

        The rest is for tests: root of the file system, the processors that this process may use, NVML's library, and
        the two clocks in seconds.
        """
        self._threads, self._gpu, self._root = threads, gpu, root
        self._gpu_bus_id = gpu_bus_id or (_cuda_device() if gpu and root == ROOT else None)
        self._cpus = processors.allowed_cpus() if cpus is None else frozenset(cpus)
        self._library = nvml if nvml is not None else load_nvml() if gpu and root == ROOT else None
        self._clock, self._cpu_clock = clock, cpu_clock
        self._clocks_mhz: Dict[str, List[float]] = {}
        self._temperatures_c: List[float] = []
        self._throttled_by: List[str] = []
        self._gpu_processes: Optional[Tuple[int, ...]] = None
        self._before: Optional[_Counters] = None

    def begin(self) -> None:
        """Read everything once, and forget what an earlier `begin` saw. Takes some milliseconds."""
        self._clocks_mhz, self._temperatures_c, self._throttled_by, self._gpu_processes = {}, [], [], None
        self._limits_mhz = limits_mhz(self._root)
        self._counts = self._slowing_counts()
        self.sample()
        self._before = self._counters()

    def sample(self) -> None:
        """Look at clocks, temperatures and throttling once more. Takes some milliseconds: not inside what is timed."""
        # The clocks first: reading the rest is work too.
        rates: Dict[str, Optional[float]] = {"cpu": processors.fastest_mhz(self._cpus, self._root)}
        if self._gpu:
            rates.update((clock.name, clock.now_mhz) for clock in board_state.gpu_clocks(self._root))
            rates.update(self._gpu_clock_mhz())
        for name, rate in rates.items():
            if rate:
                self._clocks_mhz.setdefault(name, []).append(rate)
        temperature_c = hottest_c(self._root)
        if temperature_c is not None:
            self._temperatures_c.append(temperature_c)
        self._note(*slowed_by(self._root))

    def end(self) -> Evidence:
        """What happened since `begin`, which must have been called."""
        assert self._before is not None
        before, after = self._before, self._counters()
        self.sample()
        for cause, count in self._slowing_counts().items():
            more = count - self._counts.get(cause, 0.0)
            if more > 0:
                self._note(f"{cause}: {more:.3g}")
        for name, limit_mhz in limits_mhz(self._root).items():
            if limit_mhz < self._limits_mhz.get(name, limit_mhz):
                self._note(f"limit of {name} lowered from {self._limits_mhz[name]:.0f} to {limit_mhz:.0f} MHz")
        duration_s = max(1e-9, after.at_s - before.at_s)
        own_cpu_s = after.own_cpu_s - before.own_cpu_s
        others_cpu_s = stolen_s = None
        if before.times is not None and after.times is not None:
            others_cpu_s = max(0.0, after.times.busy_s - before.times.busy_s - own_cpu_s)
            stolen_s = after.times.stolen_s - before.times.stolen_s
        waited_s = _difference(before.waited_s, after.waited_s)
        switches = _difference(before.involuntary_switches, after.involuntary_switches)
        swapped_mib = processors.swapped_mib(self._root)
        known = {
            SWAP: swapped_mib,
            PROCESSOR_TIMES: others_cpu_s,
            GPU_PROCESSES: self._gpu_processes if self._gpu else (),
            CLOCKS: self._clocks_mhz or None,
            TEMPERATURES: self._temperatures_c or None,
        }
        return Evidence(
            duration_s=duration_s,
            threads=self._threads,
            num_cpus=len(self._cpus),
            gpu=self._gpu,
            clocks_mhz={name: tuple(rates) for name, rates in self._clocks_mhz.items()},
            clocks_locked=board_state.clocks_locked(self._root),
            throttled_by=tuple(self._throttled_by),
            temperatures_c=tuple(self._temperatures_c),
            own_cpu_s=own_cpu_s,
            others_cpu_s=others_cpu_s,
            stolen_s=stolen_s,
            held_by_quota_s=_difference(before.held_by_quota_s, after.held_by_quota_s),
            waited_share=None if waited_s is None else waited_s / duration_s,
            involuntary_switches=None if switches is None else max(0, int(switches)),  # a thread may have ended
            load_average=processors.load_average(self._root),
            swapped_mib=swapped_mib,
            swap_traffic_mib=_difference(before.swap_traffic_mib, after.swap_traffic_mib),
            gpu_processes=self._gpu_processes,
            missing=tuple(name for name, reading in known.items() if reading is None),
        )

    def _counters(self) -> _Counters:
        return _Counters(
            at_s=self._clock(),
            own_cpu_s=self._cpu_clock(),
            times=processors.processor_times(self._cpus, self._root),
            waited_s=processors.waited_s(self._root),
            held_by_quota_s=processors.held_by_quota_s(self._root),
            involuntary_switches=processors.involuntary_switches(self._root),
            swap_traffic_mib=processors.swap_traffic_mib(self._root),
        )

    def _slowing_counts(self) -> Dict[str, float]:
        counts = slowing_counts(self._root)
        use = gpu_use(self._library, self._gpu_bus_id)
        held_s = use.held_back_s if use else {}
        return {**counts, **{f"seconds of {cause} of the GPU": held for cause, held in held_s.items()}}

    def _gpu_clock_mhz(self) -> Dict[str, Optional[float]]:
        """The GPU's clock; what slows it and who shares it are noted."""
        use = gpu_use(self._library, self._gpu_bus_id)
        if use is None:
            return {}
        self._note(*(f"{cause} of the GPU" for cause in use.gpu.throttled_by))
        if use.process_ids is not None:
            others = other_processes(use.process_ids, own=os.getpid(), root=self._root)
            self._gpu_processes = tuple(sorted({*others, *(self._gpu_processes or ())}))
        return {"gpu": use.gpu.clock_mhz}

    def _note(self, *causes: str) -> None:
        self._throttled_by += [cause for cause in causes if cause not in self._throttled_by]


def other_processes(pids: Collection[int], *, own: int, root: Path = ROOT) -> Tuple[int, ...]:
    """`pids` of a GPU that this process uses, without this one.

    In a container the driver numbers processes as the host does, so that `own` is not among them: then one of them,
    which this machine does not know if there is such a one, is this process.
    """
    known = sorted(pids)
    if known and own not in known:
        known.sort(key=lambda pid: ((root / "proc" / str(pid)).exists(), pid))
        return tuple(sorted(known[1:]))
    return tuple(pid for pid in known if pid != own)


def _cuda_device() -> Optional[str]:
    """PCI address of the GPU that CUDA calls 0; None where its runtime is not to be had apart from the engine."""
    from edgelip.runtime.engines import cuda

    try:
        return cuda.open_cuda().bus_id()
    except EdgelipError:
        return None


def _difference(before: Optional[float], after: Optional[float]) -> Optional[float]:
    return None if before is None or after is None else after - before
