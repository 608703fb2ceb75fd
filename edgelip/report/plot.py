"""The trade-off as a picture: top-1 against file size and against latency, with intervals and the Pareto front."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgelip.registry import require
from edgelip.report.labels import place_labels
from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.pareto import pareto_front

_FRONT, _BEHIND, _INVALID = "#1f4e9c", "#6b7785", "#b4531f"
_PX_PER_INCH = 144
_LEADER_PX = 28.0  # a name farther than this from its point gets a line to it
_MARKER_PX = 7.0
_MARKERS = "os^DvPX*"
_MANY_POINTS = 14  # so many have their names beside them; of more, only the front and the first rows
_WIDE_SPAN = 20.0  # largest value / smallest from which an axis is logarithmic
_DECADES_ONLY = 300.0  # the same from which its ticks are powers of ten


@dataclass(frozen=True)
class Panel:
    """One plot: `x` is the attribute on its horizontal axis, `scale` divides it, `low`, `high` its interval if any.

    is_time: rows of different sittings do not compare, so they have no common front.
    """

    x: str
    title: str
    scale: float = 1.0
    is_log: bool = False
    is_time: bool = False
    low: str | None = None
    high: str | None = None


PANELS = (
    Panel("file_bytes", "file size, kB", 1e3, is_log=True),
    Panel("latency_p50_ms", "latency p50, ms", is_time=True, low="latency_p50_low_ms", high="latency_p50_high_ms"),
)


def png_from_ledger(ledger: Ledger) -> bytes:
    """PNG bytes, the same for the same ledger and matplotlib. Raises MissingError without matplotlib."""
    matplotlib = require("matplotlib", extra="report")
    style = require("matplotlib.style", extra="report")
    figure_module = require("matplotlib.figure", extra="report")
    agg = require("matplotlib.backends.backend_agg", extra="report")
    buffer = io.BytesIO()
    with style.context("default"):  # not the user's matplotlibrc
        figure = figure_module.Figure(figsize=(12.5, 5.6), dpi=_PX_PER_INCH, layout="constrained")
        agg.FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(PANELS), sharey=True)
        shown = [
            _draw_points(ax, panel, ledger.shown_rows(), matplotlib.ticker)
            for ax, panel in zip(axes, PANELS, strict=True)
        ]
        axes[0].set_ylabel("top-1 word accuracy, %")
        figure.suptitle(_title(ledger), fontsize=11)
        figure.draw_without_rendering()  # settles the layout, so that labels can be placed in pixels
        figure.set_layout_engine("none")
        for ax, panel, rows in zip(axes, PANELS, shown, strict=True):
            _label_points(ax, panel, rows)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_points(ax: Any, panel: Panel, rows: tuple[LedgerRow, ...], ticker: Any) -> list[LedgerRow]:
    """Draw the rows that have both values, and return them."""
    shown = [row for row in rows if row.top1_pct is not None and (getattr(row, panel.x) or 0) > 0]
    front = _front(shown, panel)
    places = [_point(row, panel)[0] for row in shown] or [1.0]
    markers = dict(zip(_groups(rows), itertools.cycle(_MARKERS)))
    is_log = panel.is_log or max(places) / min(places) > _WIDE_SPAN
    apart = panel.is_time and _sittings(shown) > 1
    ax.set_xlabel(
        panel.title + (" (log scale)" if is_log else "") + (" (different sittings: no front)" if apart else "")
    )
    ax.grid(True, which="both", color="#e4e7eb", linewidth=0.7)
    ax.set_axisbelow(True)
    if is_log:
        ax.set_xscale("log")
        room = max((max(places) / min(places)) ** 0.16, 1.5)  # a single value needs some too
        ax.set_xlim(min(places) / room, max(places) * room)
        subs = (1, 2, 5) if max(places) / min(places) < _DECADES_ONLY else (1,)
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
        ax.xaxis.set_minor_formatter(ticker.NullFormatter())
    for row in shown:
        colour = _INVALID if not row.is_valid else _FRONT if row in front else _BEHIND
        x, y = _point(row, panel)
        ax.errorbar(
            x, y, xerr=_errors(x, *_ends(row, panel)), yerr=_errors(y, row.top1_low_pct, row.top1_high_pct),
            fmt=markers[_group(row)], markersize=6.5, color=colour, markerfacecolor=colour if row.is_valid else "white",
            ecolor=colour, elinewidth=1.1, capsize=2.5, alpha=0.95, zorder=3,
        )  # fmt: skip
    if front:
        ax.plot(
            *zip(*_corners(front, panel), strict=True),
            color=_FRONT, linewidth=1.3, alpha=0.55, zorder=2, label="Pareto front",
        )  # fmt: skip
    if len(markers) > 1:
        for group, marker in markers.items():
            ax.plot([], [], marker=marker, linestyle="", color=_BEHIND, label=group)
    if front or len(markers) > 1:
        ax.legend(loc="lower right", frameon=False, fontsize=9)
    if not shown:
        ax.text(0.5, 0.5, "nothing measured", transform=ax.transAxes, ha="center", va="center", color=_BEHIND)
    ax.margins(x=0.16, y=0.16)
    return shown


def _label_points(ax: Any, panel: Panel, rows: list[LedgerRow]) -> None:
    """Put each name where it covers no point, interval, line or other name, with a line to it if it is far."""
    if not rows:
        return
    renderer = ax.figure.canvas.get_renderer()
    drawn, rows = _drawn_boxes(ax, panel, rows), _named(rows, panel)
    points_px = ax.transData.transform([_point(row, panel) for row in rows])
    texts = [
        ax.annotate(_name(row), (0, 0), xycoords="figure pixels", fontsize=9, color="#20262e", zorder=5) for row in rows
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes_px = np.array([[extent.width, extent.height] for extent in extents])
    frame = np.array(ax.get_window_extent(renderer).extents)
    placed = place_labels(points_px, sizes_px, frame=frame, drawn=drawn)
    for text, extent, box, point_px in zip(texts, extents, placed, points_px, strict=True):
        text.set_position(box[:2] - (extent.x0, extent.y0))
        near = np.clip(point_px, box[:2], box[2:])
        if np.hypot(*(near - point_px)) > _LEADER_PX:
            ax.annotate(
                "", point_px, near, xycoords="figure pixels", textcoords="figure pixels",
                arrowprops={"arrowstyle": "-", "color": "#9aa3ad", "linewidth": 0.7}, zorder=1,
            )  # fmt: skip


def _drawn_boxes(ax: Any, panel: Panel, rows: list[LedgerRow]) -> list[np.ndarray]:
    """Pixel boxes of the markers, their intervals, the front and the legend."""
    lines = []
    for row in rows:
        x, y = _point(row, panel)
        (left, right), (low, high) = _ends(row, panel), (row.top1_low_pct, row.top1_high_pct)
        lines.append([(x if left is None else left, y), (x if right is None else right, y)])
        lines.append([(x, y if low is None else low), (x, y if high is None else high)])
    boxes = [_box_px(ax, line, margin_px=_MARKER_PX) for line in lines]
    front = _front(rows, panel)
    boxes += [_box_px(ax, pair, margin_px=1.0) for pair in itertools.pairwise(_corners(front, panel))]
    legend = ax.get_legend()
    if legend is not None:
        boxes.append(np.array(legend.get_window_extent(ax.figure.canvas.get_renderer()).extents))
    return boxes


def _box_px(ax: Any, points: Sequence[tuple[float, float]], *, margin_px: float) -> np.ndarray:
    points_px = ax.transData.transform(points)
    return np.concatenate([points_px.min(axis=0) - margin_px, points_px.max(axis=0) + margin_px])


def _named(rows: list[LedgerRow], panel: Panel) -> list[LedgerRow]:
    """The rows whose names stand beside them."""
    if len(rows) <= _MANY_POINTS:
        return rows
    firsts = {_group(row): row for row in reversed(rows)}
    front = _front(rows, panel)
    return [row for row in rows if row in front or row is firsts[_group(row)]]


def _groups(rows: Sequence[LedgerRow]) -> list[str]:
    return list(dict.fromkeys(_group(row) for row in rows))


def _group(row: LedgerRow) -> str:
    """The recipe of a row of a joint table, else nothing."""
    return row.variant.rpartition("/")[0]


def _sittings(rows: Sequence[LedgerRow]) -> int:
    return len({row.sitting for row in rows})


def _front(rows: list[LedgerRow], panel: Panel) -> list[LedgerRow]:
    if panel.is_time and _sittings(rows) > 1:
        return []
    return pareto_front([row for row in rows if row.is_valid], minimise=[panel.x], maximise=["top1_pct"])


def _name(row: LedgerRow) -> str:
    return row.variant if row.is_valid else f"{row.variant} ({row.badge or 'no badge'})"


def _corners(front: list[LedgerRow], panel: Panel) -> list[tuple[float, float]]:
    """The stairs through a front: from each point across to the next, then up."""
    points = sorted(_point(row, panel) for row in front)
    stairs = [corner for (_, low), (x, high) in itertools.pairwise(points) for corner in ((x, low), (x, high))]
    return [*points[:1], *stairs]


def _point(row: LedgerRow, panel: Panel) -> tuple[float, float]:
    return getattr(row, panel.x) / panel.scale, float(row.top1_pct or 0.0)


def _ends(row: LedgerRow, panel: Panel) -> tuple[float | None, float | None]:
    return (getattr(row, panel.low), getattr(row, panel.high)) if panel.low and panel.high else (None, None)


def _errors(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    if low is None or high is None:
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _title(ledger: Ledger) -> str:
    header, first = ledger.header, ledger.rows[0]
    cpu = header.environment.get("cpu")
    parts = [header.recipe, f"{header.test_clips:,} test clips" if header.test_clips else None, first.engine]
    return " · ".join(str(part) for part in [*parts, cpu, "bars: 95 % intervals"] if part)
