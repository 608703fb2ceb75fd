"""Where a deployed file's time goes: by layer and by part of the network, held against what the machine can do.

A kernel belongs to the layer whose weight was used last before it in the file: a convolution takes with it what follows
it up to the next one. Kernels that an engine puts in by itself belong to the layer of the kernel before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelip.bench.ceiling import Ceiling
from edgelip.bench.kernels import Kernel, Timeline
from edgelip.registry import require
from edgelip.runtime.errors import MeasurementError

BETWEEN = "between kernels"
_NEAR = 0.6  # share of a ceiling from which on it is what limits
_MUCH = 0.3  # share of a part's time that is worth a word


@dataclass(frozen=True)
class LayerWork:
    """What one layer computes and moves for one clip; `group` is its part of the network, such as "trunk"."""

    name: str
    macs: int = 0
    moved_bytes: int = 0  # weights and activations, each once
    channelwise: bool = False  # a depthwise convolution: each weight meets one channel only

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Part:
    """A layer, or a group of them, in one run of one clip.

    multiplying_us: of the kernels that multiply; the others activate, pool, copy, reorder and convert.
    """

    name: str
    time_us: float
    multiplying_us: float
    num_kernels: int
    macs: int
    integer_macs: int
    channelwise_macs: int
    moved_bytes: int

    def gops(self) -> float:
        """1e9 operations a second over all its time, a multiply-add being two."""
        return 2e-3 * self.macs / self.time_us if self.time_us else 0.0

    def ceiling_pct(self, ceiling: Ceiling) -> float:
        """Time that its products would take at the ceiling, as a share of what all of it takes."""
        return 100 * self.compute_us(ceiling) / self.time_us if self.time_us else 0.0

    def compute_us(self, ceiling: Ceiling) -> float:
        real = self.macs - self.integer_macs
        return 2e-3 * (self.integer_macs / ceiling.int8_gops + real / ceiling.fp32_gflops)

    def memory_us(self, ceiling: Ceiling) -> float:
        return 1e-3 * self.moved_bytes / ceiling.memory_gb_s

    def limits(self, ceiling: Ceiling) -> str:
        """What keeps it from the ceiling, read off its numbers."""
        if not self.time_us or not self.macs:
            return "multiplies nothing"
        found = []
        other = 1 - self.multiplying_us / self.time_us
        if other >= _MUCH:
            found.append(f"{100 * other:.0f} % of its time in kernels that do not multiply")
        if 0 < self.integer_macs < 0.9 * self.macs:
            found.append(f"{100 * (1 - self.integer_macs / self.macs):.0f} % of its products in float")
        if self.channelwise_macs >= _MUCH * self.macs:
            found.append("depthwise: a weight serves one channel only")
        compute, memory = self.compute_us(ceiling), self.memory_us(ceiling)
        if memory > compute and memory >= _MUCH * self.time_us:
            intensity, ridge = 2 * self.macs / self.moved_bytes, 2 * self.macs / self.moved_bytes * memory / compute
            found.append(f"memory: {intensity:.0f} operations a byte, where this machine wants {ridge:.0f}")
        if self.time_us / max(1, self.num_kernels) < 30 and compute < _NEAR * self.time_us:
            found.append(f"small kernels: {self.time_us / self.num_kernels:.0f} us each")
        if not found and compute >= _NEAR * self.time_us:
            found.append("arithmetic: near the ceiling")
        return "; ".join(found) or f"kernels reach {100 * compute / self.time_us:.0f} % of the ceiling"


def layers_of_nodes(model_path: Path, layers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The layer that each node of a file belongs to; layers: outputs of each, by its name.

    Raises MeasurementError if an output is not in the file.
    """
    onnx: Any = require("onnx", extra="onnx")

    graph = onnx.load(str(model_path), load_external_data=False).graph
    starts = {output: name for name, outputs in layers.items() for output in outputs}
    made = {output for node in graph.node for output in node.output}
    lost = next((output for output in starts if output not in made), None)
    if lost is not None or not starts:
        raise MeasurementError(
            f"{model_path.name} makes no value {lost!r}, which the manifest calls layer {starts.get(lost or '')!r}. "
            "Export the bundle again."
        )
    constants = {tensor.name for tensor in graph.initializer}
    found: dict[str, str] = {}
    waiting: list[Any] = []  # what builds weights, until the layer that reads it
    last = next(starts[output] for node in graph.node for output in node.output if output in starts)
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
            waiting.append(node)
            continue
        last = next((starts[output] for output in node.output if output in starts), last)
        found[node.name] = last
    readers = {name: node for node in graph.node for name in node.input}
    for node in reversed(waiting):
        reader = readers.get(node.output[0])
        found[node.name] = found.get(reader.name, last) if reader is not None else last
    return found


def parts_of(
    timeline: Timeline, layer_of: Mapping[str, str], work: Sequence[LayerWork], *, by_group: bool
) -> list[Part]:
    """The layers, or the groups, in the order of the file, and the time between kernels as the last part."""
    works = {layer.name: layer for layer in work}
    sums: dict[str, dict[str, float]] = {}

    def add(layer: str, **amounts: float) -> None:
        key = LayerWork(layer).group if by_group else layer
        entry = sums.setdefault(key, dict.fromkeys(_AMOUNTS, 0.0))
        for name, amount in amounts.items():
            entry[name] += amount

    integer: set[str] = set()
    last = work[0].name
    placed: list[tuple[str, Kernel]] = []
    for kernel in timeline.kernels:
        last = next((layer_of[node] for node in reversed(kernel.nodes) if node in layer_of), last)
        placed.append((last, kernel))
        if kernel.integer:
            integer.add(last)
    for layer in work:
        macs = layer.macs
        add(
            layer.name,
            macs=macs,
            integer_macs=macs * (layer.name in integer),
            channelwise_macs=macs * layer.channelwise,
            moved_bytes=layer.moved_bytes,
        )
    for name, kernel in placed:
        multiplies = kernel.time_us * (name in works and _multiplies(kernel))
        add(name, time_us=kernel.time_us, multiplying_us=multiplies, num_kernels=1)
    parts = [Part(name, **{key: _typed(key, value) for key, value in entry.items()}) for name, entry in sums.items()]
    gap = max(0.0, timeline.run_us - sum(kernel.time_us for kernel in timeline.kernels))
    return [*parts, Part(BETWEEN, gap, 0.0, 0, 0, 0, 0, 0)]


_AMOUNTS = ("time_us", "multiplying_us", "num_kernels", "macs", "integer_macs", "channelwise_macs", "moved_bytes")
_MULTIPLYING_WORDS = ("Conv", "Gemm", "MatMul", "FullyConnected")


def _typed(key: str, value: float) -> Any:
    return value if key.endswith("_us") else round(value)


def _multiplies(kernel: Kernel) -> bool:
    return any(word in kernel.kernel.split()[0] for word in _MULTIPLYING_WORDS)
