"""Tables of the page as data: headings that tell what they mean, cells that know how they sort."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgelip.report.columns import NOTHING, Column, sections_of, text_of
from edgelip.report.ledger import VALID, Ledger, LedgerRow
from edgelip.report.metrics import ROBUST
from edgelip.report.page_words import definition

_ELSEWHERE = ("command", "reasons")  # sentences, which have their own place on the page
_HOVERED = 14  # rank of the last column of which a point of the plot tells
_HEAT_POINTS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # drops of top-1 from which a cell is coloured one step more


@dataclass(frozen=True)
class Cell:
    """sort: what orders it; None comes last in either order. level: 0 (good) to 6 of a heat table. share: of a bar."""

    text: str
    sort: float | str | None = None
    level: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Heading:
    """title: its definition. group: number of its group of columns."""

    text: str
    title: str = ""
    is_text: bool = False
    group: int = 0


@dataclass(frozen=True)
class Line:
    """A row of a table; the first cell names it."""

    cells: tuple[Cell, ...]
    badge: str = VALID
    reasons: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        return self.badge == VALID


@dataclass(frozen=True)
class Table:
    """groups: (title, number of columns) above the headings, none for a plain table."""

    title: str
    headings: tuple[Heading, ...]
    lines: tuple[Line, ...]
    note: str = ""
    groups: tuple[tuple[str, int], ...] = ()


def heading(text: str, *, is_text: bool = False, group: int = 0) -> Heading:
    return Heading(text, definition(text), is_text, group)


def text_cell(text: str | None) -> Cell:
    return Cell(text or NOTHING, text or None)


def number_cell(value: float | None, digits: int, *, level: int | None = None, share: float | None = None) -> Cell:
    """A dash for None; what is not finite is shown, and sorts last."""
    if value is None or not math.isfinite(value):
        return Cell(NOTHING if value is None else str(value))
    return Cell(text_of(value, digits), float(value), level, share)


def ledger_table(ledger: Ledger) -> Table:
    """The compression ledger: one line a row, every column of the trade-off table in its groups, not VALID last."""
    sections = {
        title: [column for column in columns if column.name not in _ELSEWHERE]
        for title, columns in sections_of(ledger).items()
    }
    headings = [heading("variant", is_text=True)]
    for number, columns in enumerate(sections.values(), start=1):
        headings += [heading(column.heading, is_text=column.is_text, group=number) for column in columns]
    columns = [column for section in sections.values() for column in section]
    lines = tuple(
        Line(
            (text_cell(row.variant), *(_cell(column, row) for column in columns)), row.badge or "no badge", row.reasons
        )
        for row in ledger.shown_rows()
    )
    groups = (("", 1), *((title, len(section)) for title, section in sections.items()))
    return Table("Compression ledger", tuple(headings), lines, groups=groups)


def hover_lines(ledger: Ledger) -> Callable[[LedgerRow], list[tuple[str, str]]]:
    """What a point of the plot shows: the figures that a terminal shows first, if they were measured."""
    columns = [column for section in sections_of(ledger).values() for column in section if column.rank <= _HOVERED]
    return lambda row: [(column.heading, text) for column in columns if (text := column.cell(row)) != NOTHING]


def heat_table(ledger: Ledger) -> Table | None:
    """Top-1 under each disturbance with its drop, coloured by the drop; None if no row was disturbed."""
    names = sorted({name for row in ledger.rows for name in row.figures if name.startswith(ROBUST)})
    conditions = [name.removeprefix(ROBUST).removesuffix("_pct") for name in names if name.endswith("_pct")]
    if not conditions:
        return None
    headings = [heading("variant", is_text=True), heading("top-1, %")]
    headings += [Heading(f"{each.replace('_', ' ')}, %", definition("top-1 at")) for each in conditions]
    lines = []
    for row in ledger.shown_rows():
        cells = [text_cell(row.variant), number_cell(row.value("top1_pct"), 1)]
        cells += [_heat_cell(row, condition) for condition in conditions]
        lines.append(Line(tuple(cells), row.badge or "no badge", row.reasons))
    note = "Top-1 on the same clips, disturbed; in brackets the drop against them undisturbed, in points."
    return Table("Robustness", tuple(headings), tuple(lines), note)


def plain_lines(texts: Sequence[Sequence[str | None]]) -> tuple[Line, ...]:
    return tuple(Line(tuple(text_cell(text) for text in row)) for row in texts)


def _cell(column: Column, row: LedgerRow) -> Cell:
    text = column.cell(row)
    if column.number is None:
        return text_cell(None if text == NOTHING else text)
    value = column.number(row)
    return Cell(text, None if value is None or not math.isfinite(value) else float(value))


def _heat_cell(row: LedgerRow, condition: str) -> Cell:
    value, drop = row.value(f"{ROBUST}{condition}_pct"), row.value(f"{ROBUST}{condition}_drop_points")
    clean = row.value("top1_pct")
    fall = drop if drop is not None or None in (value, clean) else (clean or 0.0) - (value or 0.0)
    level = None if fall is None else sum(fall >= least for least in _HEAT_POINTS)
    cell = number_cell(value, 1, level=level)
    return cell if drop is None else Cell(f"{cell.text} ({text_of(-drop, 1)})", cell.sort, level)
