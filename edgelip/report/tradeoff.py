"""The trade-off table of a ledger: for the terminal, as Markdown, CSV and JSON, and with its plot as files.

Renders what was measured and nothing else: the same ledger gives the same text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgelip.files import write_atomic
from edgelip.report.columns import DEFINITIONS, NOTHING, SITTING, Column, sections_of, text_of, unmeasured_of
from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.metrics import end_name
from edgelip.report.pareto import pareto_front
from edgelip.report.plot import png_from_ledger

_SHORTEST_NAME = 24  # columns of the terminal that the variants have at least, if they are as long
_LISTS = ("reasons", "figures")


def terminal_text(ledger: Ledger, *, width: int = 100) -> str:
    """The main columns that fit, as a plain table of at most `width` characters a line; the rest is in the files."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", overflow="fold")
    columns = _fitting(ledger, width)
    for column in columns:
        table.add_column(Text(_heading(column)), justify="right", no_wrap=True)
    for row in ledger.shown_rows():
        cells = [Text(_two_lines(column.cell(row))) for column in columns]
        name = row.variant if row.is_valid else f"{row.variant}\n{row.badge or 'no badge'}"
        table.add_row(Text(name), *cells)
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table)
    console.print(Text(front_sentence(ledger)), soft_wrap=False)
    for row in ledger.shown_rows():
        for reason in row.reasons:
            console.print(Text(f"{row.variant}: {reason}"), soft_wrap=False)
    return "\n".join(line.rstrip() for line in buffer.getvalue().strip("\n").splitlines()) + "\n"


def _fitting(ledger: Ledger, width: int) -> list[Column]:
    """The columns of lowest rank that fit beside the names, in the order of the sections."""
    known = [column for section in sections_of(ledger).values() for column in section if column.brief]
    names = max(len(word) for row in ledger.rows for word in (row.variant, row.badge or "no badge"))
    left = width - min(max(names, len("variant")), _SHORTEST_NAME) - 3
    if len(ledger.sittings) > 1:
        left -= len("sitting") + 2
    chosen = []
    for column in sorted(known, key=lambda column: column.rank):
        texts = [_heading(column), *(_two_lines(column.cell(row)) for row in ledger.rows)]
        needed = max(len(line) for text in texts for line in text.splitlines()) + 2
        if needed <= left:
            chosen.append(column)
            left -= needed
    return [column for column in known if column in chosen] + ([SITTING] if len(ledger.sittings) > 1 else [])


def _heading(column: Column) -> str:
    return str(column.brief or column.heading).replace(", ", ",\n")


def _two_lines(cell: str) -> str:
    """The interval below the value: nine columns with theirs beside them do not fit in 100 characters."""
    value, _, interval = cell.partition(" [")
    return f"{value}\n{interval.rstrip(']').replace(', ', '..')}" if interval else value


def markdown_text(ledger: Ledger) -> str:
    """Every column that was measured, in tables with units in the headings, and the definitions."""
    header, lines = ledger.header, ["# Trade-off table", ""]
    for name, value in (("Recipe", header.recipe), ("Command", header.command), ("Measured at", header.measured_at)):
        lines.append(f"- {name}: {_code(value)}")
    lines.append(f"- Test set: {text_of(header.test_clips)} clips of {text_of(header.speakers)} speakers")
    lines += [f"- {_plain(key)}: {_plain(_flat(value))}" for key, value in header.environment.items()]
    lines += ["", _plain(front_sentence(ledger)), ""]
    for title, columns in sections_of(ledger).items():
        lines += [f"## {title}", "", _table_line(["variant", *(column.heading for column in columns)])]
        lines.append(_table_line(["---", *("---" if column.is_text else "---:" for column in columns)]))
        for row in ledger.shown_rows():
            name = row.variant if row.is_valid else f"{row.variant} ({row.badge or 'no badge'})"
            lines.append(_table_line([name, *(column.cell(row) for column in columns)]))
        lines.append("")
    unmeasured = unmeasured_of(ledger)
    if unmeasured:
        lines += [f"Not measured here: {', '.join(unmeasured).lower()}.", ""]
    lines += ["## Definitions", "", *(f"- {sentence}" for sentence in DEFINITIONS)]
    lines += [f"- {_plain(note)}" for note in header.notes]
    return "\n".join(lines) + "\n"


def csv_text(ledger: Ledger) -> str:
    """Raw numbers under their full names, empty where not measured; rows in the order of the tables."""
    measured = dict.fromkeys(name for row in ledger.rows for name in sorted(row.figures))
    own = [each.name for each in fields(LedgerRow) if each.name not in _LISTS]
    extra = [name for each in measured for name in (each, end_name(each, "low"), end_name(each, "high"))]
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, [*own, "reasons", *(name for name in extra if name not in own)], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(_csv_row(row) for row in ledger.shown_rows())
    return buffer.getvalue()


def _csv_row(row: LedgerRow) -> dict[str, Any]:
    values = {key: value for key, value in row.to_json().items() if key not in _LISTS}
    values["reasons"] = "; ".join(row.reasons)
    for name, figure in row.figures.items():
        values |= {name: figure.value, end_name(name, "low"): figure.low, end_name(name, "high"): figure.high}
    return values


def write_report(ledger: Ledger, folder: Path, *, stem: str = "tradeoff") -> tuple[Path, ...]:
    """Write `<stem>.md`, `.csv`, `.json` and `.png` into `folder`, each whole or not at all, and return their paths.

    Raises MissingError (exit 4) if the folder cannot be written or matplotlib is absent; the texts are written first.
    """
    written = []
    for suffix, render in _FILES.items():
        path = Path(folder) / f"{stem}.{suffix}"
        write_atomic(path, render(ledger))
        written.append(path)
    return tuple(written)


_FILES: Mapping[str, Callable[[Ledger], str | bytes]] = {
    "md": markdown_text,
    "csv": csv_text,
    "json": Ledger.to_json,
    "png": png_from_ledger,
}


def front_of(ledger: Ledger) -> tuple[list[LedgerRow], tuple[str, ...]]:
    """The valid rows that nothing beats, and the figures that this was judged by.

    Energy is one of them where all rows that have the others have it; times of several sittings are none.
    """
    several = len(ledger.sittings) > 1
    names: tuple[str, ...] = ("top1_pct", "file_bytes", *(() if several else ("latency_p50_ms",)))
    rows = [row for row in ledger.rows if row.is_valid and all(row.value(name) is not None for name in names)]
    if rows and not several and all(row.value("energy_gross_j") is not None for row in rows):
        names = (*names, "energy_gross_j")
    return pareto_front(rows, minimise=names[1:], maximise=names[:1], read=LedgerRow.value), names


def front_sentence(ledger: Ledger) -> str:
    """Which rows are on the Pareto front, and of what."""
    front, names = front_of(ledger)
    several = len(ledger.sittings) > 1  # whose times do not compare
    measured = f"{'both' if several else 'all three'} measured"
    complete = any(all(row.value(name) is not None for name in names) for row in ledger.rows)
    listed = ", ".join(row.variant for row in front) or (
        f"none, no row with {measured} is VALID" if complete else f"none with {measured}"
    )
    of = [_OBJECTIVES[name] for name in names]
    sentence = f"On the Pareto front of {', '.join(of[:-1])} and {of[-1]}: {listed}."
    if not several and complete and not front:
        lasting = pareto_front(ledger.rows, minimise=["file_bytes"], maximise=["top1_pct"])
        return f"{sentence} Of top-1 and file size, whatever the machine did: {', '.join(r.variant for r in lasting)}."
    if not several:
        return sentence
    return (
        f"{sentence} Latency is left out: times of {len(ledger.sittings)} sittings do not compare. "
        "`edgelip bench --report FOLDER DIR DIR` measures all rows in one."
    )


_OBJECTIVES = {
    "top1_pct": "top-1", "file_bytes": "file size", "latency_p50_ms": "latency p50", "energy_gross_j": "energy",
}  # fmt: skip


def _table_line(cells: list[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: object) -> str:
    return " ".join(str(text).split())


def _code(text: str | None) -> str:
    return NOTHING if text is None else f"`{_plain(text)}`"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(each)}" for key, each in value.items())
    return NOTHING if value is None else str(value)
