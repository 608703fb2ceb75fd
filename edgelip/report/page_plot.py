"""What the page's plot draws: points, intervals and one Pareto front an axis, as data for `page_files/plot.js`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgelip.report.ledger import Figure, Ledger, LedgerRow
from edgelip.report.pareto import pareto_front

HEIGHT = "top1_pct"


@dataclass(frozen=True)
class Axis:
    """figure: its name in metrics.METRICS. is_time: figures of different sittings do not compare."""

    figure: str
    title: str
    scale: float = 1.0
    is_time: bool = False


AXES = (
    Axis("file_bytes", "file, kB", 1e3),
    Axis("latency_p50_ms", "latency p50, ms", is_time=True),
    Axis("latency_p90_ms", "latency p90, ms", is_time=True),
    Axis("energy_gross_j", "energy of a clip, gross, mJ", 1e-3, is_time=True),
    Axis("energy_above_idle_j", "energy of a clip above idle, mJ", 1e-3, is_time=True),
    Axis("parameters", "parameters, k", 1e3),
    Axis("resident_weights_bytes", "resident weights, kB", 1e3),
    Axis("peak_memory_mib", "peak memory, MiB"),
    Axis("macs", "compute, MMAC", 1e6),
)


def plot_data(ledger: Ledger, hover: Callable[[LedgerRow], list[tuple[str, str]]]) -> dict[str, Any]:
    """JSON-able: the axes that a row has a place on, and the rows with a top-1, numbered as in the table.

    hover: headings and texts that a row shows under the pointer.
    """
    rows = ledger.shown_rows()
    numbers = {row.variant: number for number, row in enumerate(rows)}
    shown = [row for row in rows if _figure(row, HEIGHT) is not None]
    points = []
    for row in shown:
        height = _figure(row, HEIGHT)
        assert height is not None
        places = {axis.figure: _place(row, axis) for axis in AXES}
        points.append(
            {
                "row": numbers[row.variant],
                "name": row.variant,
                "badge": row.badge or "no badge",
                "valid": row.is_valid,
                "y": {"value": height.value, "ends": _ends(height, 1.0)},
                "x": {name: place for name, place in places.items() if place is not None},
                "hover": hover(row),
            }
        )
    axes = [_axis(axis, shown, numbers) for axis in AXES if any(_place(row, axis) for row in shown)]
    return {"title": "top-1 word accuracy, %", "axes": axes, "points": points}


def _axis(axis: Axis, shown: list[LedgerRow], numbers: dict[str, int]) -> dict[str, Any]:
    placed = [row for row in shown if _place(row, axis)]
    apart = axis.is_time and len({row.sitting for row in placed}) > 1
    valid = [] if apart else [row for row in placed if row.is_valid]
    front = pareto_front(valid, minimise=[axis.figure], maximise=[HEIGHT], read=LedgerRow.value)
    front.sort(key=lambda row: (row.value(axis.figure), row.variant))
    return {
        "key": axis.figure,
        "title": axis.title,
        "front": [numbers[row.variant] for row in front],
        "names": [row.variant for row in front],
        "note": "Figures of different sittings do not compare: no front is drawn." if apart else "",
    }


def _place(row: LedgerRow, axis: Axis) -> dict[str, Any] | None:
    """Value and interval; None where nothing above 0 was measured, which a logarithmic axis has no place for."""
    found = _figure(row, axis.figure)
    if found is None or found.value <= 0:
        return None
    return {"value": found.value / axis.scale, "ends": _ends(found, axis.scale)}


def _figure(row: LedgerRow, name: str) -> Figure | None:
    found = row.figure(name)
    return found if found is not None and math.isfinite(found.value) else None


def _ends(figure: Figure, scale: float) -> list[float] | None:
    if figure.low is None or figure.high is None or not math.isfinite(figure.low + figure.high):
        return None
    return [figure.low / scale, figure.high / scale]
