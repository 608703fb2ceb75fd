"""The page's views of one thing at a time: bars of steps, layers, words, sheets, drift."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgelip.errors import UsageError
from edgelip.registry import require
from edgelip.report.columns import text_of
from edgelip.report.from_results import names_of
from edgelip.report.history import Drift, Series
from edgelip.report.history_text import sittings_text, unit_of
from edgelip.report.ledger import Ledger
from edgelip.report.metrics import METRICS, metric
from edgelip.report.page_table import Heading, Line, Table, heading, number_cell, text_cell
from edgelip.report.results import ResultRow
from edgelip.report.strict import is_number

SPLIT = tuple(f"{step}_p50_ms" for step in ("decode", "mouth", "crop", "normalise", "copy", "model", "label"))
COLD = tuple(f"cold_{step}_ms" for step in ("imports", "bundle", "engine", "first"))
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_SHEET_CHARACTERS = 4 << 20


@dataclass(frozen=True)
class Part:
    """kind: number of its colour. start, share: % of the longest bar."""

    label: str
    text: str
    kind: int
    start: float
    share: float


@dataclass(frozen=True)
class Bar:
    name: str
    badge: str
    total: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Bars:
    """Stacked bars on one scale. legend: (number of the colour, label)."""

    title: str
    note: str
    legend: tuple[tuple[int, str], ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Detail:
    """A view of one row: its name, one sentence, and a table or a picture (base64 PNG)."""

    name: str
    summary: str
    table: Table | None = None
    png: str | None = None


def stacked_bars(ledger: Ledger, figures: Sequence[str], total: str, *, title: str, note: str) -> Bars | None:
    """A bar for each row that has one of the figures, in ms; None if no row has."""
    found = [(row, {name: _above_0(row.value(name)) for name in figures}) for row in ledger.shown_rows()]
    found = [(row, parts) for row, parts in found if any(parts.values())]
    longest = max((math.fsum(parts.values()) for _, parts in found), default=0.0)
    if not longest:
        return None
    bars = []
    for row, parts in found:
        start, drawn = 0.0, []
        for kind, (name, value) in enumerate(parts.items()):
            if value:
                share = 100 * value / longest
                drawn.append(Part(_step(name), _ms(value), kind, start, share))
                start += share
        own = row.value(total)
        bars.append(Bar(row.variant, row.badge or "no badge", "" if own is None else _ms(own), tuple(drawn)))
    present = {name for _, parts in found for name, value in parts.items() if value}
    legend = tuple((kind, _step(name)) for kind, name in enumerate(figures) if name in present)
    return Bars(title, note, legend, tuple(bars))


def layer_views(rows: Sequence[ResultRow]) -> list[Detail]:
    """Raises UsageError for layers that do not fit."""
    headings = (
        heading("part", is_text=True), heading("time, ms"), heading("share, %"), heading("compute, GMAC"),
        heading("int8, %"), heading("speed, G/s"), heading("ceiling, %"), heading("limits", is_text=True),
    )  # fmt: skip
    views = []
    for name, row, layers in _details(rows, "layers"):
        values = [_fields(layer, row, "layers", text=("name",), numbers=("ms",)) for layer in layers]
        longest = max((_above_0(each["ms"]) for each in values), default=0.0) or 1.0
        lines = tuple(
            Line(
                (
                    text_cell(each["name"]),
                    number_cell(each["ms"], 3, share=100 * _above_0(each["ms"]) / longest),
                    number_cell(_optional(each, "share_pct", row), 1),
                    number_cell(_optional(each, "gmac", row), 3),
                    number_cell(_optional(each, "int8_pct", row), 0),
                    number_cell(_optional(each, "gops", row), 1),
                    number_cell(_optional(each, "ceiling_pct", row), 0),
                    text_cell(str(each.get("limits") or "")),
                )
            )
            for each in values
        )
        total = math.fsum(each["ms"] for each in values)
        views.append(Detail(name, f"{len(lines)} parts, {text_of(total, 2)} ms together", Table("", headings, lines)))
    return views


def word_views(rows: Sequence[ResultRow]) -> list[Detail]:
    """Accuracy of each word with its Wilson 95 % interval, the worst first. Raises UsageError for words that do not."""
    headings = (
        heading("word", is_text=True), heading("clips"), Heading("right"), heading("top-1, %"),
        Heading("low, %", "Lower end of the Wilson 95 % interval."),
        Heading("high, %", "Upper end of the Wilson 95 % interval."), heading("taken for", is_text=True),
    )  # fmt: skip
    views = []
    for name, row, words in _details(rows, "words"):
        values = [_fields(word, row, "words", text=("word",), numbers=("clips", "right")) for word in words]
        for each in values:
            if not 0 <= each["right"] <= each["clips"] or each["clips"] < 1:
                raise _unfit(row, "words", f"{each['word']!r}: {each['right']} right of {each['clips']} clips")
        values.sort(key=lambda each: (each["right"] / each["clips"], each["word"]))
        lines = tuple(_word_line(each, row) for each in values)
        wrong = sum(each["right"] < each["clips"] for each in values)
        views.append(Detail(name, f"{len(lines)} words, {wrong} with errors", Table("", headings, lines)))
    return views


def sheet_views(rows: Sequence[ResultRow]) -> list[Detail]:
    """Raises UsageError for a sheet that is no PNG in base64, or a huge one."""
    views = []
    for name, row in _named(rows):
        sheet = row.details.get("sheet_png")
        if sheet is None:
            continue
        if not isinstance(sheet, str) or len(sheet) > _MOST_SHEET_CHARACTERS:
            raise _unfit(row, "sheet_png", f"{type(sheet).__name__} of {len(str(sheet)):,} characters")
        try:
            content = base64.b64decode(sheet, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _unfit(row, "sheet_png", f"text that is not base64 ({error})") from error
        if not content.startswith(_PNG):
            raise _unfit(row, "sheet_png", "a picture that is no PNG")
        views.append(Detail(name, "clips as the network sees them", png=base64.b64encode(content).decode()))
    return views


def drift_table(drift: Drift) -> Table:
    """One line a figure over the sittings; what became worse or moved stands first."""
    texts = ("variant", "target", "scenario", "figure")
    headings = (
        *(heading(text, is_text=True) for text in texts), Heading("first"), Heading("last"), Heading("change, %"),
        Heading("sittings"), Heading("verdict", is_text=True), Heading("what changed between", is_text=True),
    )  # fmt: skip
    order = {"worse": 0, "moved": 1, "better": 2}
    series = sorted(drift.series, key=lambda each: order.get(each.verdict, 3))
    lines = tuple(
        Line(
            (
                text_cell(f"{each.variant} on {each.device}"),
                text_cell(each.target),
                text_cell(each.scenario),
                text_cell(_figure_text(each)),
                number_cell(each.points[0].value / unit_of(each)[1], 3),
                number_cell(each.points[-1].value / unit_of(each)[1], 3),
                number_cell(each.change_pct, 1),
                number_cell(len(each.points), 0),
                text_cell(each.verdict),
                text_cell("; ".join(each.reasons)),
            )
        )
        for each in series
        if each.points
    )
    left_out = f" Left out, not finished: {', '.join(drift.left_out)}." if drift.left_out else ""
    return Table("Drift", headings, lines, f"{sittings_text(drift)} since {drift.since}.{left_out} {drift.note}")


def _word_line(word: Mapping[str, Any], row: ResultRow) -> Line:
    clips, right, taken = int(word["clips"]), int(word["right"]), word.get("taken_for") or ()
    try:
        others = "; ".join(f"{other} {int(count)}" for other, count in taken)
    except (TypeError, ValueError) as error:
        raise _unfit(row, "words", f"{word['word']!r} taken for {str(taken)[:60]!r}") from error
    test = require("scipy.stats", extra="report").binomtest(right, clips)
    ends = test.proportion_ci(method="wilson")
    share = 100 * right / clips
    return Line(
        (
            text_cell(word["word"]),
            number_cell(clips, 0),
            number_cell(right, 0),
            number_cell(share, 1, share=share),
            number_cell(100 * float(ends.low), 1),
            number_cell(100 * float(ends.high), 1),
            text_cell(others),
        )
    )


def _figure_text(series: Series) -> str:
    known = metric(series.figure)
    label = series.figure if known is None else known.label
    unit, _ = unit_of(series)
    return f"{label}, {unit}" if unit else label


def _ms(value: float) -> str:
    return f"{text_of(value, 0 if value >= 100 else 2 if value >= 1 else 3)} ms"


def _step(name: str) -> str:
    return METRICS[name].label.removesuffix(" p50")


def _above_0(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) and value > 0 else 0.0


def _named(rows: Sequence[ResultRow]) -> list[tuple[str, ResultRow]]:
    names = names_of(rows)
    return [(names[row.variant, row.target.label], row) for row in rows]


def _details(rows: Sequence[ResultRow], key: str) -> list[tuple[str, ResultRow, Sequence[Any]]]:
    found: list[tuple[str, ResultRow, Sequence[Any]]] = []
    for name, row in _named(rows):
        values = row.details.get(key)
        if values is None:
            continue
        if not isinstance(values, (list, tuple)):
            raise _unfit(row, key, f"a {type(values).__name__}")
        if values:
            found.append((name, row, values))
    return found


def _fields(entry: Any, row: ResultRow, key: str, *, text: Sequence[str], numbers: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise _unfit(row, key, f"an entry that is a {type(entry).__name__}")
    for name in text:
        if not isinstance(entry.get(name), str):
            raise _unfit(row, key, f"{name} {entry.get(name)!r}")
    for name in numbers:
        if not is_number(entry.get(name)):
            raise _unfit(row, key, f"{name} {entry.get(name)!r}")
    return entry


def _optional(entry: Mapping[str, Any], name: str, row: ResultRow) -> float | None:
    value = entry.get(name)
    if value is not None and not is_number(value):
        raise _unfit(row, "layers", f"{name} {value!r}")
    return value


def _unfit(row: ResultRow, key: str, got: str) -> UsageError:
    expected = {
        "layers": "a list of tables with name and ms",
        "words": "a list of tables with word, clips >= 1, right <= clips and taken_for",
        "sheet_png": "a PNG in base64 of at most 4 MB",
    }[key]
    return UsageError(
        f"{row.variant}, {row.scenario}: details have {key} with {got}; expected {expected}. Measure that row again."
    )
