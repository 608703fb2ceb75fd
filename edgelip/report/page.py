"""The trade-off report as one HTML file that asks nothing of any network.

The plot is 200 lines of ours rather than plotly 7.1 (MIT), measured in Chromium on the same six points: plotly's page
has 4.82 MB and loads in 2.0 to 2.6 s, then in 0.3 to 0.7 s from the cache. This one with seven rows, all tables and
pictures has 0.25 MB, 0.4 s and 0.2 s. plotly also needs styles allowed inline, where ours are allowed by hash, and
leaves dark mode, focus by keyboard and a phone's width to be written all the same.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from edgelip.registry import require
from edgelip.report.columns import DEFINITIONS, unmeasured_of
from edgelip.report.history import Drift
from edgelip.report.ledger import HERE, Ledger
from edgelip.report.page_plot import plot_data
from edgelip.report.page_table import Table, heading, heat_table, hover_lines, ledger_table, plain_lines
from edgelip.report.page_views import (
    COLD,
    SPLIT,
    drift_table,
    layer_views,
    sheet_views,
    stacked_bars,
    word_views,
)
from edgelip.report.page_words import BADGE_TEXTS
from edgelip.report.results import ResultRow

_FILES = files("edgelip.report") / "page_files"


def page_html(ledger: Ledger, rows: Sequence[ResultRow] = (), *, drift: Drift | None = None) -> str:
    """The whole page; the same values give the same text.

    rows: the results behind the ledger, for layers, words, sheets and commands; none for an export.
    Raises MissingError without jinja2, UsageError for details of a row that do not fit.
    """
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)  # fmt: skip
    style, script = _text("page.css"), _text("plot.js") + _text("tables.js")
    shown = environment.from_string(_text("page.html.j2")).render(
        **_content(ledger, rows, drift),
        style=style, script=script, style_hash=_csp_hash(style), script_hash=_csp_hash(script),
    )  # fmt: skip
    # A name read from JSON may hold half a surrogate pair, which no file can.
    return str(shown).encode("utf-8", "replace").decode()


def _content(ledger: Ledger, rows: Sequence[ResultRow], drift: Drift | None) -> dict[str, Any]:
    plot = plot_data(ledger, hover_lines(ledger))
    counts = Counter(row.badge or "no badge" for row in ledger.rows)
    return {
        "ledger": ledger,
        "header": ledger.header,
        "counted": _counted(ledger),
        "device": _device(ledger),
        "badges": [(badge, text, counts.pop(badge, 0)) for badge, text in BADGE_TEXTS.items()],
        "other_badges": sorted(counts.items()),
        "invalid": [row for row in ledger.shown_rows() if not row.is_valid],
        "plot": plot,
        "table": ledger_table(ledger),
        "unmeasured": unmeasured_of(ledger),
        "bars": [bars for bars in _bars(ledger) if bars is not None],
        "heat": heat_table(ledger),
        "layers": layer_views(rows),
        "words": word_views(rows),
        "sheets": sheet_views(rows),
        "drift": None if drift is None else drift_table(drift),
        "facts": _facts(ledger, rows),
        "environment": _flat(ledger.header.environment),
        "definitions": DEFINITIONS,
    }


def _bars(ledger: Ledger) -> list[Any]:
    return [
        stacked_bars(
            ledger, SPLIT, "end_to_end_p50_ms", title="From frames to word",
            note="The p50 of each step; the figure at the right is the p50 of the whole, which is not their sum.",
        ),
        stacked_bars(
            ledger, COLD, "cold_start_ms", title="Cold start",
            note="A fresh process until its first answer; the figure at the right is the whole.",
        ),
    ]  # fmt: skip


def _device(ledger: Ledger) -> str:
    environment = ledger.header.environment
    found = [str(environment[name]) for name in ("device_model", "cpu", "machine") if environment.get(name)]
    named = [device for device in ledger.devices if device != HERE or not found]
    return " · ".join(dict.fromkeys([*named, *found]))


def _counted(ledger: Ledger) -> str:
    rows, variants = len(ledger.rows), len({row.variant.partition(" @ ")[0] for row in ledger.rows})
    text = f"{variants:,} variant{'' if variants == 1 else 's'}"
    return text if rows == variants else f"{text} in {rows:,} rows"


def _facts(ledger: Ledger, rows: Sequence[ResultRow]) -> Table:
    """How each row can be repeated: of the results, or of the ledger where there are none."""
    names = ("variant", "where", "scenario", "badge", "launches", "measured at", "command", "bundle sha256")
    texts: list[tuple[str | None, ...]] = [
        (row.variant, row.target.label, row.scenario, row.badge, str(row.num_launches), row.measured_at, row.command,
         row.bundle_sha256)
        for row in rows
    ] or [
        (row.variant, row.target or " ".join(filter(None, (row.engine, row.precision))), None, row.badge,
         None if row.num_launches is None else str(row.num_launches), ledger.header.measured_at,
         row.command or ledger.header.command, row.bundle_sha256)
        for row in ledger.rows
    ]  # fmt: skip
    return Table("Rows", tuple(heading(name, is_text=True) for name in names), plain_lines(texts))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Name and text of each leaf: 'versions numpy', '2.4'."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, Mapping) and value:
            found += _flat(value, name)
        else:
            found.append((name, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))
    return found


def _text(name: str) -> str:
    return (_FILES / name).read_text("utf-8")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
