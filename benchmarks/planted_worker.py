"""`python -m edgelip.runtime` with one fault planted under it. Run by planted_faults.py.

    python benchmarks/planted_worker.py FAULT FOLDER bench BUNDLE ...

FAULT: fallback, throttled, neighbour or swap. FOLDER: an empty one, for files that the watch reads.
What was planted goes to stderr as a line 'planted: ...'.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import edgelip.runtime.bench as bench_module
from edgelip.runtime.__main__ import main as runtime_main
from edgelip.runtime.engines.ort import CPU
from edgelip.runtime.sensors.processors import swapped_mib
from edgelip.runtime.watch import Evidence, Watch

CUDA = "CUDAExecutionProvider"
_PAGED_OUT_MIB = 64
_MADV_PAGEOUT = 21  # Linux 5.4; Python names it from 3.13 on
_BUSY = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while os.getppid() == int(sys.argv[2]): pass
"""
_held: list[mmap.mmap] = []  # for the life of the process


class ChangedMachine:
    """A Watch of another root, whose files change between begin and end."""

    def __init__(self, root: Path, change: Callable[[], None], **settings: Any) -> None:
        self._watch, self._change = Watch(**{**settings, "root": root}), change

    def begin(self) -> None:
        self._watch.begin()

    def sample(self) -> None:
        self._watch.sample()

    def end(self) -> Evidence:
        self._change()
        return self._watch.end()


def watch_elsewhere(root: Path, change: Callable[[], None]) -> None:
    bench_module.Watch = lambda **settings: ChangedMachine(root, change, **settings)  # type: ignore[assignment,misc]


def plant_throttling(root: Path) -> str:
    """This machine's /proc, and clocks of a processor that gets too hot."""
    (root / "proc").symlink_to("/proc")
    cpu = root / "sys/devices/system/cpu/cpu0"
    for folder in ("cpufreq", "thermal_throttle"):
        (cpu / folder).mkdir(parents=True)
    clock, count = cpu / "cpufreq/scaling_cur_freq", cpu / "thermal_throttle/core_throttle_count"
    clock.write_text("2600000\n")
    count.write_text("0\n")

    def get_hot() -> None:
        clock.write_text("1200000\n")
        count.write_text("12\n")

    watch_elsewhere(root, get_hot)
    return "files of a clock that falls from 2600 to 1200 MHz and of 12 slow-downs"


def plant_swap(root: Path) -> str:
    """Pages of this process in swap: really, where the machine has swap."""
    block = mmap.mmap(-1, _PAGED_OUT_MIB << 20)
    block.write(os.urandom(1 << 20) * _PAGED_OUT_MIB)
    with contextlib.suppress(OSError, ValueError):  # an older kernel; what lies in swap is asked next
        block.madvise(_MADV_PAGEOUT)
    if swapped_mib():
        _held.append(block)
        return f"{_PAGED_OUT_MIB} MiB of this process, really paged out"
    (root / "proc/self").mkdir(parents=True)
    for name in ("stat", "loadavg", "pressure", "self/task", "self/cgroup"):
        (root / "proc" / name).symlink_to(Path("/proc") / name)
    status = Path("/proc/self/status").read_text().splitlines()
    swapped = ["VmSwap:\t   65536 kB" if line.startswith("VmSwap:") else line for line in status]
    (root / "proc/self/status").write_text("\n".join(swapped) + "\n")
    (root / "proc/vmstat").write_text("pswpin 0\npswpout 0\n")

    def swap_out() -> None:
        (root / "proc/vmstat").write_text("pswpin 512\npswpout 16384\n")

    watch_elsewhere(root, swap_out)
    return "this machine has no swap: files that tell of 64 MiB in swap"


def plant_neighbour(root: Path) -> str:
    """A real process that never rests, on the one processor that this one may use."""
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    command = [sys.executable, "-c", _BUSY, str(cpu), str(os.getpid())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return f"a busy process on processor {cpu}, to which this one is bound"


def plant_fallback(root: Path) -> str:
    """ONNX Runtime that claims CUDA for everything and runs it all on the CPU."""
    import onnxruntime

    real = onnxruntime.InferenceSession

    class Pretender(real):  # type: ignore[misc,valid-type]
        def __init__(self, path: str, options: Any, providers: Any) -> None:
            super().__init__(path, options, providers=[CPU])

        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

        def get_provider_graph_assignment_info(self) -> list[Any]:
            return [_Claimed(part) for part in super().get_provider_graph_assignment_info()]

    onnxruntime.InferenceSession = Pretender
    onnxruntime.get_available_providers = lambda: [CUDA, CPU]
    return f"an onnxruntime that says {CUDA} and computes on the CPU"


class _Claimed:
    """A part of a graph, said to be CUDA's."""

    ep_name = CUDA

    def __init__(self, part: Any) -> None:
        self.get_nodes = part.get_nodes


FAULTS: dict[str, Callable[[Path], str]] = {
    "fallback": plant_fallback,
    "throttled": plant_throttling,
    "neighbour": plant_neighbour,
    "swap": plant_swap,
}


def main(argv: Sequence[str]) -> int:
    fault, folder, *arguments = argv
    print(f"planted: {FAULTS[fault](Path(folder))}", file=sys.stderr)
    return runtime_main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
