"""The trade-off table of a ledger: for the terminal, as Markdown, CSV and JSON, and with its plot as files.

Renders what was measured and nothing else: the same ledger gives the same text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgelip.files import write_atomic
from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.pareto import pareto_front
from edgelip.report.plot import png_from_ledger

NOTHING = "—"


@dataclass(frozen=True)
class Column:
    """heading: with its unit; cell: a row's text; brief: heading in the terminal, None if it is not shown there."""

    heading: str
    cell: Callable[[LedgerRow], str]
    brief: str | None = None
    is_text: bool = False


def _number(name: str, digits: int = 0) -> Callable[[LedgerRow], str]:
    return lambda row: _text(getattr(row, name), digits)


def _thousands(name: str, per: float) -> Callable[[LedgerRow], str]:
    def cell(row: LedgerRow) -> str:
        value = getattr(row, name)
        return _text(None if value is None else value / per, 0 if value and value >= 1000 * per else 1)

    return cell


def _interval(name: str, low: str, high: str, digits: int) -> Callable[[LedgerRow], str]:
    def cell(row: LedgerRow) -> str:
        value, ends = getattr(row, name), (getattr(row, low), getattr(row, high))
        if value is None or None in ends:
            return _text(value, digits)
        return f"{_text(value, digits)} [{_text(ends[0], digits)}, {_text(ends[1], digits)}]"

    return cell


def _word(name: str) -> Callable[[LedgerRow], str]:
    return lambda row: getattr(row, name) or NOTHING


def _text(value: float | None, digits: int = 0) -> str:
    if value is None:
        return NOTHING
    text = f"{value:,.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text  # no -0.0


def _p_value(row: LedgerRow) -> str:
    if row.mcnemar_p is None:
        return NOTHING
    return "< 0.001" if row.mcnemar_p < 0.001 else f"{row.mcnemar_p:.3f}"


_LATENCY_P50 = _interval("latency_p50_ms", "latency_p50_low_ms", "latency_p50_high_ms", 2)
_LATENCY_P90 = _interval("latency_p90_ms", "latency_p90_low_ms", "latency_p90_high_ms", 2)
_RATIO = _interval("latency_ratio", "latency_ratio_low", "latency_ratio_high", 2)
_TOP1 = _interval("top1_pct", "top1_low_pct", "top1_high_pct", 1)
_TOP5 = _interval("top5_pct", "top5_low_pct", "top5_high_pct", 1)
_DROP = _interval("top1_drop_points", "top1_drop_low_points", "top1_drop_high_points", 2)

_SITTING = Column("sitting", _word("sitting"), is_text=True)

SECTIONS: Mapping[str, tuple[Column, ...]] = {
    "Size": (
        Column("method", _word("method"), is_text=True),
        Column("parameters, k", _thousands("parameters", 1e3), "params, k"),
        Column("compute, MMAC", _thousands("macs", 1e6)),
        Column("file, kB", _thousands("file_bytes", 1e3), "file, kB"),
        Column("resident weights, kB", _thousands("resident_weights_bytes", 1e3), "resident, kB"),
        Column("int8 share of MACs, %", _number("int8_coverage_pct", 1), "int8, %"),
    ),
    "Speed and memory": (
        Column("latency p50, ms", _LATENCY_P50, "p50, ms"),
        Column("latency p90, ms", _LATENCY_P90),
        Column("p50 to the first row, ratio", _RATIO),
        Column("cold start, ms", _number("cold_start_ms", 0)),
        Column("peak memory, MiB", _number("peak_memory_mib", 1), "peak, MiB"),
    ),
    "Accuracy": (
        Column("top-1, %", _TOP1, "top-1, %"),
        Column("top-5, %", _TOP5),
        Column("drop of top-1 to the first row, points", _DROP, "drop, points"),
        Column("McNemar p", _p_value),
        Column("clips", _number("num_clips")),
    ),
    "How measured": (
        Column("engine", _word("engine"), is_text=True),
        Column("precision", _word("precision"), is_text=True),
        Column("threads", _number("threads")),
        Column("launches", _number("num_launches")),
        Column("badge", _word("badge"), is_text=True),
        _SITTING,
        Column("bundle sha256", lambda row: (row.bundle_sha256 or NOTHING)[:12], is_text=True),
    ),
}

DEFINITIONS = (
    "Latency: one clip at a time (batch 1), from the tensor to the logits in a warm process; decoding, cropping and "
    "normalising are not in it. p50 and p90 are nearest-rank percentiles; intervals are 95 %, bootstrap over process "
    "launches and then over samples.",
    "Cold start: imports, verification of the bundle, loading of the engine and the first answer in a fresh process, "
    "files already in the page cache.",
    "Accuracy: measured on the deployed file through the deployed runtime; intervals are Wilson 95 %. Drop: top-1 of "
    "the first row minus that of the row, paired on the same clips, 95 % bootstrap; above 0 is worse. McNemar p: "
    "exact, two-sided.",
    "Parameters: stored numbers. MACs: of the unfolded weights. File: every byte needed to run. Resident weights: "
    "after the engine's load-time optimisation. Peak memory: high-water mark of a process that ran this row alone. "
    "k, kB: 1,000; MiB: 1,048,576 bytes.",
    "Badge: VALID, or why the latency of the row cannot be believed; such rows come last and stay off the front.",
)


def terminal_text(ledger: Ledger, *, width: int = 100) -> str:
    """The main columns as a plain table of at most `width` characters a line; the rest is in the files."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", overflow="fold")
    columns = [column for section in SECTIONS.values() for column in section if column.brief]
    columns += [_SITTING] if len(ledger.sittings) > 1 else []
    for column in columns:
        table.add_column(Text(str(column.brief or column.heading).replace(", ", ",\n")), justify="right", no_wrap=True)
    for row in ledger.shown_rows():
        cells = [Text(_two_lines(column.cell(row))) for column in columns]
        name = row.variant if row.is_valid else f"{row.variant}\n{row.badge or 'no badge'}"
        table.add_row(Text(name), *cells)
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table)
    console.print(Text(_front_sentence(ledger)), soft_wrap=False)
    return "\n".join(line.rstrip() for line in buffer.getvalue().strip("\n").splitlines()) + "\n"


def _two_lines(cell: str) -> str:
    """The interval below the value: nine columns with theirs beside them do not fit in 100 characters."""
    value, _, interval = cell.partition(" [")
    return f"{value}\n{interval.rstrip(']').replace(', ', '..')}" if interval else value


def markdown_text(ledger: Ledger) -> str:
    """Every column, in four tables with units in the headings, and the definitions."""
    header, lines = ledger.header, ["# Trade-off table", ""]
    for name, value in (("Recipe", header.recipe), ("Command", header.command)):
        lines.append(f"- {name}: {_code(value)}")
    lines.append(f"- Test set: {_text(header.test_clips)} clips of {_text(header.speakers)} speakers")
    lines += [f"- {_plain(key)}: {_plain(_flat(value))}" for key, value in header.environment.items()]
    lines += ["", _plain(_front_sentence(ledger)), ""]
    for title, columns in SECTIONS.items():
        lines += [f"## {title}", "", _table_line(["variant", *(column.heading for column in columns)])]
        lines.append(_table_line(["---", *("---" if column.is_text else "---:" for column in columns)]))
        for row in ledger.shown_rows():
            name = row.variant if row.is_valid else f"{row.variant} ({row.badge or 'no badge'})"
            lines.append(_table_line([name, *(column.cell(row) for column in columns)]))
        lines.append("")
    lines += ["## Definitions", "", *(f"- {sentence}" for sentence in DEFINITIONS)]
    lines += [f"- {_plain(note)}" for note in header.notes]
    return "\n".join(lines) + "\n"


def csv_text(ledger: Ledger) -> str:
    """Raw numbers under their full names, empty where not measured; rows in the order of the tables."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [each.name for each in fields(LedgerRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_json() for row in ledger.shown_rows())
    return buffer.getvalue()


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


def _front_sentence(ledger: Ledger) -> str:
    valid = [row for row in ledger.rows if row.is_valid]
    several = len(ledger.sittings) > 1  # whose times do not compare
    minimise = ("file_bytes",) if several else ("file_bytes", "latency_p50_ms")
    front = pareto_front(valid, minimise=minimise, maximise=["top1_pct"])
    names = ", ".join(row.variant for row in front) or f"none with {'both' if several else 'all three'} measured"
    if not several:
        return f"On the Pareto front of top-1, file size and latency p50: {names}."
    return (
        f"On the Pareto front of top-1 and file size: {names}. Latency is left out: times of {len(ledger.sittings)} "
        "sittings do not compare. `edgelip bench --report FOLDER DIR DIR` measures all rows in one."
    )


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
