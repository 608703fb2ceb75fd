"""The columns of the compression ledger: sections, headings with units, how a cell is written, and definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.metrics import METRICS, ROBUST, metric

NOTHING = "—"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    name: of the figure, or of the field of the row. heading: with its unit. cell: a row's text. number: what to sort
    by, None for words. brief: heading in the terminal, None if it is never shown there; rank: the lower, the sooner it
    is shown there. is_core: shown even if no row has it.
    """

    name: str
    heading: str
    cell: Callable[[LedgerRow], str]
    number: Callable[[LedgerRow], float | None] | None = None
    brief: str | None = None
    rank: int = 99
    is_core: bool = False

    @property
    def is_text(self) -> bool:
        return self.number is None


def sections_of(ledger: Ledger) -> dict[str, tuple[Column, ...]]:
    """The sections in which something was measured, with the columns that a row fills and those always shown."""
    sections: dict[str, tuple[Column, ...]] = {}
    for title, columns in _all_sections(ledger).items():
        shown = [column for column in columns if column.is_core or _is_filled(column, ledger)]
        if any(_is_filled(column, ledger) for column in columns) or any(column.is_core for column in columns):
            sections[title] = tuple(shown)
    return sections


def unmeasured_of(ledger: Ledger) -> tuple[str, ...]:
    """Titles of the sections in which nothing was measured."""
    return tuple(
        title
        for title, columns in _all_sections(ledger).items()
        if not any(_is_filled(column, ledger) for column in columns)
    )


def text_of(value: float | None, digits: int = 0) -> str:
    """A number as in a table; a dash for None."""
    if value is None:
        return NOTHING
    text = f"{value:,.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text  # no -0.0


def _all_sections(ledger: Ledger) -> dict[str, tuple[Column, ...]]:
    conditions = sorted({name for row in ledger.rows for name in row.figures if name.startswith(ROBUST)})
    found = {title: (*columns,) for title, columns in SECTIONS.items()}
    found["Compression"] = tuple(_factor(name, ledger) for name in _COMPRESSED)
    found["Robustness"] = tuple(_figure(name) for name in conditions)
    return {title: found[title] for title in TITLES}


def _is_filled(column: Column, ledger: Ledger) -> bool:
    return any(column.cell(row) != NOTHING for row in ledger.rows)


# How a unit of metrics.METRICS is shown: its name, what it is divided by, digits behind the point.
_SHOWN: Mapping[str, tuple[str, float, int]] = {
    "numbers": ("k", 1e3, 1), "MAC": ("MMAC", 1e6, 1), "B": ("kB", 1e3, 1), "J": ("mJ", 1e-3, 2), "ms": ("ms", 1, 2),
    "MiB": ("MiB", 1, 1), "%": ("%", 1, 1), "points": ("points", 1, 2), "clips/s": ("clips/s", 1, 0), "h": ("h", 1, 1),
    "s/s": ("s/s", 1, 3), "nats": ("nats", 1, 4), "": ("", 1, 2),
}  # fmt: skip
_DIGITS = {"miss_pct": 2, "training_seeds": 0, "max_logit_difference": 4}


def _figure(name: str, brief: str | None = None, rank: int = 99, *, is_core: bool = False) -> Column:
    known = metric(name)
    assert known is not None, name
    unit, per, digits = _SHOWN[known.unit]
    digits = 0 if name.startswith("cold_") else _DIGITS.get(name, digits)
    heading = f"{known.label}, {'ratio' if name == 'latency_ratio' else unit}".removesuffix(", ")

    def cell(row: LedgerRow) -> str:
        figure = row.figure(name)
        if figure is None:
            return NOTHING
        places = 0 if per > 1 and figure.value >= 1000 * per else digits
        text = text_of(figure.value / per, places)
        if figure.low is None or figure.high is None:
            return text
        return f"{text} [{text_of(figure.low / per, places)}, {text_of(figure.high / per, places)}]"

    return Column(name, heading, cell, lambda row: row.value(name), brief, rank, is_core)


def _word(name: str, heading: str | None = None, *, is_core: bool = False) -> Column:
    return Column(name, heading or name, lambda row: getattr(row, name) or NOTHING, is_core=is_core)


def _count(name: str, heading: str) -> Column:
    return Column(name, heading, lambda row: text_of(getattr(row, name)), lambda row: getattr(row, name), is_core=True)


def _factor(name: str, ledger: Ledger) -> Column:
    """How many times smaller than the first row; of a joint table, than the first of the same recipe."""
    firsts: dict[str, LedgerRow] = {}
    for each in ledger.rows:
        firsts.setdefault(_recipe(each), each)

    def number(row: LedgerRow) -> float | None:
        first, own = firsts[_recipe(row)].value(name), row.value(name)
        return first / own if first and own else None

    return Column(f"{name}_factor", f"{METRICS[name].label}, x smaller", lambda row: text_of(number(row), 2), number)


def _recipe(row: LedgerRow) -> str:
    return row.variant.rpartition("/")[0]


def _p_value(row: LedgerRow) -> str:
    if row.mcnemar_p is None:
        return NOTHING
    return "< 0.001" if row.mcnemar_p < 0.001 else f"{row.mcnemar_p:.3f}"


_COMPRESSED = ("parameters", "macs", "file_bytes", "resident_weights_bytes", "peak_memory_mib")
SITTING = _word("sitting", is_core=True)

SECTIONS: Mapping[str, tuple[Column, ...]] = {
    "Size": (
        _word("method", is_core=True),
        _figure("parameters", "params, k", 10, is_core=True),
        _figure("macs", is_core=True),
        _figure("file_bytes", "file, kB", 0, is_core=True),
        _figure("bundle_bytes"),
        _figure("resident_weights_bytes", "resident, kB", 11, is_core=True),
        _figure("int8_coverage_pct", "int8, %", 12, is_core=True),
    ),
    "Speed": (
        _figure("latency_p50_ms", "p50, ms", 1, is_core=True),
        _figure("latency_p90_ms", "p90, ms", 13, is_core=True),
        *(_figure(f"latency_{each}_ms") for each in ("p95", "p99", "p99.9", "min", "max", "p90_early")),
        _figure("latency_ratio", is_core=True),
        _figure("latency_between_launches_pct"),
        _figure("query_p50_ms"),
        _figure("query_p90_ms"),
        _figure("query_p99_ms", "query p99, ms", 20),
        _figure("query_p99_early_ms"),
        _figure("clips_per_s", "clips /s", 14),
    ),
    "Frames to word": (
        _figure("end_to_end_p50_ms", "frames to word p50, ms", 15),
        *(_figure(f"end_to_end_{each}_ms") for each in ("p90", "p95", "p99")),
        *(_figure(f"{each}_p50_ms") for each in ("decode", "mouth", "crop", "normalise", "copy", "model", "label")),
        _figure("end_to_end_clips_per_s"),
    ),
    "Streaming": (
        *(_figure(f"last_frame_to_word_{each}_ms") for each in ("p50", "p90", "p95")),
        _figure("last_frame_to_word_p99_ms", "stream p99, ms", 17),
        _figure("last_frame_to_word_max_ms"),
        _figure("miss_pct", "missed, %", 5),
        _figure("real_time_factor"),
    ),
    "Cold start": (
        _figure("cold_start_ms", is_core=True),
        *(_figure(f"cold_{each}_ms") for each in ("imports", "bundle", "engine", "first", "new_shape")),
        _figure("cold_start_dropped_ms"),
    ),
    "Memory": (
        _figure("peak_memory_mib", "peak, MiB", 4, is_core=True),
        *(_figure(f"{each}_mib") for each in ("rss_load", "rss_run", "pss", "uss", "arena", "gpu_mapped")),
        *(_figure(f"{each}_mib") for each in ("available_drop", "device_memory", "device_context")),
    ),
    "Energy": (
        _figure("energy_gross_j", "energy, mJ", 6),
        _figure("energy_above_idle_j"),
        _word("energy_boundary", "energy of"),
    ),
    "Accuracy": (
        _figure("top1_pct", "top-1, %", 2, is_core=True),
        _figure("top5_pct", is_core=True),
        _figure("top1_drop_points", "drop, points", 3, is_core=True),
        Column("mcnemar_p", "McNemar p", _p_value, lambda row: row.mcnemar_p, is_core=True),
        *(_figure(name) for name in ("hard_top1_pct", "calibration_error_pct", "agreement_pct")),
        *(_figure(name) for name in ("max_logit_difference", "kl_nats")),
        _count("num_clips", "clips"),
    ),
    "How measured": (
        _word("engine", is_core=True),
        _word("precision", is_core=True),
        _count("threads", "threads"),
        _word("target"),
        _word("device"),
        _count("num_launches", "launches"),
        _word("badge", is_core=True),
        Column("reasons", "why", lambda row: "; ".join(row.reasons) or NOTHING),
        SITTING,
        _figure("training_hours"),
        _figure("training_seeds"),
        Column("bundle_sha256", "bundle sha256", lambda row: (row.bundle_sha256 or NOTHING)[:12], is_core=True),
        _word("command"),
    ),
}
TITLES = (
    "Size", "Compression", "Speed", "Frames to word", "Streaming", "Cold start", "Memory", "Energy", "Accuracy",
    "Robustness", "How measured",
)  # fmt: skip

DEFINITIONS = (
    "A dash: not measured, or fewer samples than the percentile needs (p50 11, p90 64, p95 130, p99 662, p99.9 6,636).",
    "Latency: one clip at a time (batch 1), from the tensor to the logits in a warm process; decoding, cropping and "
    "normalising are not in it. Percentiles are nearest-rank; intervals are 95 %, bootstrap over process launches and "
    "then over samples. Early stopping: an upper bound of the percentile at 99 % confidence. Query: several clips at "
    "once, until the last is done. Throughput: all clips at once.",
    "Frames to word: the same clips from frames to label, with cropping, normalising, copying and the label; decoding "
    "and finding the mouth where a video was measured.",
    "Streaming: open loop, a window a hop, counted from when the last frame was due to arrive. Deadlines missed: words "
    "later than the next hop.",
    "Cold start: imports, verification of the bundle, loading of the engine and the first answer in a fresh process, "
    "files already in the page cache, or not in memory where a column says so.",
    "Accuracy: measured on the deployed file through the deployed runtime; intervals are Wilson 95 %. Drop: top-1 of "
    "the first row minus that of the row, paired on the same clips, 95 % bootstrap; above 0 is worse. McNemar p: "
    "exact, two-sided.",
    "Parameters: stored numbers. MACs: of the unfolded weights. File: every byte needed to run. Resident weights: "
    "after the engine's load-time optimisation. Peak memory: high-water mark of a process that ran this row alone. "
    "A compression factor is of the column that it names. k, kB: 1,000; MiB: 1,048,576 bytes.",
    "Energy: of one clip, from a loop of them inside the boundary that is named; gross, and without what the machine "
    "draws idle.",
    "Badge: VALID, or why the latency of the row cannot be believed; such rows come last and stay off the front. A row "
    "of several measurements bears the gravest badge of them.",
)
