"""`edgelip bench BUNDLE --layers`: where the time of a deployed file goes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgelip.bench.ceiling import Ceiling, measured_ceiling
from edgelip.bench.graph import input_name
from edgelip.bench.kernels import openvino_timeline, ort_timeline
from edgelip.bench.profile import BETWEEN, LayerWork, Part, layers_of_nodes, parts_of
from edgelip.cli.tables import aligned
from edgelip.errors import MeasurementError, UsageError
from edgelip.progress import Progress
from edgelip.registry import require
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.sensors.process import load_average

TIMELINES = {"ort": ort_timeline, "openvino": openvino_timeline}
COLUMNS = ("part", "ms", "share %", "GMAC", "int8 %", "G/s", "of ceiling %", "what limits it")
SLOWEST = 10


@dataclass(frozen=True)
class LayerProfile:
    """One clip through one file: its time, its parts and layers, and what the machine could do at best.

    groups: frontend, trunk and so on; layers: each by its own; both end with the time between kernels.
    """

    model: str
    engine: str
    threads: int
    run_us: float
    groups: Sequence[Part]
    layers: Sequence[Part]
    ceiling: Ceiling

    def to_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "engine": self.engine,
            "run_ms": self.run_us / 1e3,
            "ceiling": asdict(self.ceiling),
            "load_average": load_average(),
            "groups": [_json(part, self.ceiling) for part in self.groups],
            "layers": [_json(part, self.ceiling) for part in self.layers],
        }

    def rows(self) -> list[dict[str, object]]:
        """The layers as a row of results shows them; figures that a layer has not are None."""
        return [_row(part, self.run_us, self.ceiling) for part in self.layers]


def layers_text(bundle: Path, *, engine: str, precision: str | None, threads: int, as_json: bool) -> str:
    """Parts of the network and the slowest layers, with their share of the time and of the machine's ceiling.

    Raises what `layer_profile` raises.
    """
    profile = layer_profile(bundle, engine=engine, precision=precision, threads=threads, say=Progress().say)
    if as_json:
        return json.dumps(profile.to_json(), indent=1)
    run_us, ceiling = profile.run_us, profile.ceiling
    heading = f"{profile.model}, {engine}, {threads} threads, one clip: {run_us / 1e3:.2f} ms"
    named = [part for part in profile.layers if part.name != BETWEEN]
    slowest = sorted(named, key=lambda part: -part.time_us)[:SLOWEST]
    rows = [part_cells(part, run_us, ceiling) for part in profile.groups]
    lines = [heading, *aligned([COLUMNS, *rows], figures=True), "", f"slowest of {len(named)} layers"]
    lines += aligned([COLUMNS, *(part_cells(part, run_us, ceiling) for part in slowest)], figures=True)
    return "\n".join([*lines, "", _ceiling_text(ceiling), *_warning()])


def layer_profile(
    bundle: Path,
    *,
    engine: str,
    precision: str | None,
    threads: int,
    ceiling: Ceiling | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> LayerProfile:
    """Run a file with its kernels timed. ceiling: of this machine on so many threads, measured here if None.

    Raises UsageError for an engine that tells no times and for bundles without layer names, MeasurementError where its
    kernels do not bear the names of the file's nodes, MissingError without onnx or the engine.
    """
    require("onnx", extra="onnx")
    from edgelip.deploy.layer_names import layers_of

    if engine not in TIMELINES:
        raise UsageError(f"{engine} does not tell the times of its kernels; expected {' or '.join(TIMELINES)}.")
    opened = Bundle.open(bundle)
    model = opened.model_for(engine, precision)
    work, layer_of = layer_work(model.path, layers_of(opened, model.path.name))
    if ceiling is None:
        say(f"measuring the ceiling of {threads} threads")
        ceiling = measured_ceiling(threads)
    say(f"running {model.path.name} on {engine}")
    clip = network_input(opened.expected().frames_NTHW[:1], opened.manifest.clip)
    timeline = TIMELINES[engine](model.path, {input_name(model.path): clip}, threads=threads)
    layers = parts_of(timeline, layer_of, work, by_group=False)
    multiplying = [part for part in layers if part.macs]
    lost = [part for part in multiplying if not part.time_us]
    if 2 * len(lost) > len(multiplying):  # as after the casts that ONNX Runtime puts into an fp16 file
        raise MeasurementError(
            f"{engine} names the kernels of {model.path.name} otherwise: {len(lost)} of {len(multiplying)} layers "
            "would have no time. Look at the layers of a file in another precision."
        )
    return LayerProfile(
        f"{opened.name}/{model.path.name}",
        engine,
        threads,
        timeline.run_us,
        parts_of(timeline, layer_of, work, by_group=True),
        layers,
        ceiling,
    )


def layer_work(path: Path, layers: Mapping[str, Sequence[str]]) -> tuple[list[LayerWork], dict[str, str]]:
    """What each layer of a file computes, in its order, and the layer of each node; layers: outputs by name."""
    from edgelip.deploy.layer_costs import layer_costs, load_graph

    layer_of = layers_of_nodes(path, layers)
    graph = load_graph(path)
    grouped = {
        node.name
        for node in graph.graph.node
        if node.op_type == "Conv" and any(item.name == "group" and item.i > 1 for item in node.attribute)
    }
    macs, moved = dict.fromkeys(layers, 0), dict.fromkeys(layers, 0)
    for cost in layer_costs(graph):
        name = layer_of[cost.name]
        macs[name] += cost.macs
        moved[name] += cost.weight_bytes + cost.activation_bytes
    channelwise = {layer_of[name] for name in grouped}
    return [LayerWork(name, macs[name], moved[name], name in channelwise) for name in layers], layer_of


def part_cells(part: Part, run_us: float, ceiling: Ceiling) -> tuple[str, ...]:
    """One row of COLUMNS."""
    time = (part.name, f"{part.time_us / 1e3:.2f}", f"{100 * part.time_us / run_us:.1f}")
    if part.name == BETWEEN:
        return (*time, "", "", "", "", "the engine's own work on each node")
    int8_pct = 100 * part.integer_macs / part.macs if part.macs else 0.0
    speed = (f"{part.macs / 1e9:.3f}", f"{int8_pct:.0f}", f"{part.gops():.0f}", f"{part.ceiling_pct(ceiling):.0f}")
    return (*time, *speed, part.limits(ceiling))


def _json(part: Part, ceiling: Ceiling) -> dict[str, object]:
    figures = {"gops": part.gops(), "ceiling_pct": part.ceiling_pct(ceiling), "limits": part.limits(ceiling)}
    return {**asdict(part), **(figures if part.name != BETWEEN else {})}


def _row(part: Part, run_us: float, ceiling: Ceiling) -> dict[str, object]:
    time = {"name": part.name, "ms": part.time_us / 1e3, "share_pct": 100 * part.time_us / run_us}
    if part.name == BETWEEN:
        return {**time, "gmac": None, "int8_pct": None, "gops": None, "ceiling_pct": None, "limits": None}
    return {
        **time,
        "gmac": part.macs / 1e9,
        "int8_pct": 100 * part.integer_macs / part.macs if part.macs else 0.0,
        "gops": part.gops(),
        "ceiling_pct": part.ceiling_pct(ceiling),
        "limits": part.limits(ceiling),
    }


def _ceiling_text(ceiling: Ceiling) -> str:
    return (
        f"ceiling of {ceiling.threads} threads, measured: {ceiling.fp32_gflops:.0f} G/s in float32, "
        f"{ceiling.int8_gops:.0f} G/s in int8 (a multiply-add is two), {ceiling.memory_gb_s:.1f} GB/s"
    )


def _warning() -> list[str]:
    """The profile of a busy machine says little."""
    load, cores = load_average(), os.cpu_count() or 1
    return [f"load average {load:.1f} on {cores} cores: others were running"] if load and load > 1 + cores / 4 else []
