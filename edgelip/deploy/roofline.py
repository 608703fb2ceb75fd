"""Roofline: the least time that each layer can take on a device by its datasheet. A prediction, never a measurement.

time = max(2 * multiply-adds / ceiling of their precision, bytes moved / memory bandwidth), layer after layer. Launches,
caches, clocks below the highest and other work of the device all make a real run slower.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgelip.deploy.layer_costs import LayerCost
from edgelip.deploy.target import Device, Figure
from edgelip.errors import UsageError

BASIS = "predicted, datasheet"
Bound = Literal["arithmetic", "memory"]


@dataclass(frozen=True)
class LayerPrediction:
    """The least time of one layer by each ceiling."""

    cost: LayerCost
    arithmetic_ms: float
    memory_ms: float

    @property
    def latency_ms(self) -> float:
        return max(self.arithmetic_ms, self.memory_ms)

    @property
    def bound(self) -> Bound:
        return "arithmetic" if self.arithmetic_ms > self.memory_ms else "memory"


@dataclass(frozen=True)
class Prediction:
    """A file on a device. ceilings: tera-operations a second of each precision that it computes in."""

    device: str
    processor: str
    model: str
    layers: tuple[LayerPrediction, ...]
    ceilings: dict[str, Figure]
    bandwidth: Figure

    @property
    def latency_ms(self) -> float:
        return sum(layer.latency_ms for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.cost.macs for layer in self.layers)

    @property
    def memory_bound_pct(self) -> float:
        """Share of the predicted time in layers that memory binds."""
        bound_ms = sum(layer.latency_ms for layer in self.layers if layer.bound == "memory")
        return 100 * bound_ms / self.latency_ms if self.latency_ms else 0.0

    def sources(self) -> dict[str, str]:
        """Each ceiling with its unit and where it comes from."""
        units = {name: "TOPS" if name == "int8" else "TFLOPS" for name in self.ceilings}
        named = {name: f"{each.value:g} {units[name]} ({each.label})" for name, each in self.ceilings.items()}
        return {**named, "memory": f"{self.bandwidth.value:g} GB/s ({self.bandwidth.label})"}


def predict(costs: Sequence[LayerCost], device: Device, *, model: str) -> Prediction:
    """The least time of each of `costs` on `device`; model: name of the file that they come from.

    Raises UsageError if the datasheet has no number for the memory, or none for a precision that a layer computes in.
    """
    known, bandwidth = device.datasheet.ceilings(), device.datasheet.memory_gbps
    has = ", ".join(known) or "none"
    if bandwidth is None:
        raise UsageError(f"{device.label} has no memory_gbps in its datasheet; nothing can be predicted. Add it there.")
    used = {cost.precision: known.get(cost.precision) for cost in costs if cost.precision is not None}
    for precision, figure in used.items():
        if figure is None:
            raise UsageError(
                f"{device.label} has no datasheet ceiling for {precision}, in which {model} computes; has {has}."
            )
    ceilings = {precision: figure for precision, figure in used.items() if figure is not None}
    layers = tuple(
        LayerPrediction(
            cost=cost,
            arithmetic_ms=2 * cost.macs / (ceilings[cost.precision].value * 1e9) if cost.precision else 0.0,
            memory_ms=(cost.weight_bytes + cost.activation_bytes) / (bandwidth.value * 1e6),
        )
        for cost in costs
    )
    return Prediction(device.label, device.processor, model, layers, ceilings, bandwidth)


def prediction_json(prediction: Prediction) -> str:
    """Everything, for machines; the names of predicted values say what they are."""
    layers = [
        {
            **asdict(layer.cost),
            "basis": BASIS,
            "predicted_datasheet_arithmetic_ms": layer.arithmetic_ms,
            "predicted_datasheet_memory_ms": layer.memory_ms,
            "predicted_datasheet_latency_ms": layer.latency_ms,
            "predicted_datasheet_bound": layer.bound,
        }
        for layer in prediction.layers
    ]
    whole: dict[str, Any] = {
        "schema_version": 1,
        "basis": BASIS,
        "device": prediction.device,
        "processor": prediction.processor,
        "model": prediction.model,
        "macs": prediction.macs,
        "predicted_datasheet_latency_ms": prediction.latency_ms,
        "predicted_datasheet_memory_bound_pct": prediction.memory_bound_pct,
        "ceilings": {name: figure.model_dump() for name, figure in prediction.ceilings.items()},
        "memory_gbps": prediction.bandwidth.model_dump(),
        "layers": layers,
    }
    return json.dumps(whole, indent=1)


def prediction_text(prediction: Prediction) -> str:
    """A table of the layers, their sum and the sources of the ceilings."""
    rows = [("layer", "operators", "in", "MMAC", "weights KiB", "moved KiB", "least ms", "bound by")]
    for layer in prediction.layers:
        cost = layer.cost
        rows.append(
            (
                cost.name,
                " ".join(cost.operators),
                cost.precision or "",
                f"{cost.macs / 1e6:.2f}" if cost.macs else "",
                f"{cost.weight_bytes / 1024:.1f}" if cost.weight_bytes else "",
                f"{cost.activation_bytes / 1024:.1f}",
                f"{layer.latency_ms:.4f}",
                layer.bound,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    aligned = [
        "  ".join(text.rjust(width) if 3 <= column <= 6 else text.ljust(width) for column, (text, width) in cells)
        for cells in ([*enumerate(zip(row, widths, strict=True))] for row in rows)
    ]
    memory_pct = prediction.memory_bound_pct
    ceilings = "; ".join(f"{name} {text}" for name, text in prediction.sources().items())
    return "\n".join(
        [
            f"{prediction.model} on the {prediction.processor} of {prediction.device}, one clip [{BASIS}]",
            *(line.rstrip() for line in aligned),
            f"at least {prediction.latency_ms:.4f} ms [{BASIS}]: {prediction.macs / 1e6:.2f} MMAC; "
            f"memory binds {memory_pct:.0f} % of the time, arithmetic {100 - memory_pct:.0f} %",
            f"ceilings: {ceilings}",
        ]
    )
