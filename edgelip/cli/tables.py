"""`edgelip list`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgelip.registry import lookup

if TYPE_CHECKING:
    from edgelip.models.census import BackboneDetails

TABLES = {
    "backbones": "edgelip.models.catalogue:BACKBONES",
    "stages": "edgelip.compress:STAGES",
    "engines": "edgelip.runtime.engines.engine:ENGINES",
    "devices": "edgelip.deploy.target:device_rows",
}
DEVICE_COLUMNS = ("device", "title", "compute", "precisions", "engines")
COLUMNS = ("backbone", "parameters", "GMAC", "published GMAC", "fp32 MB", "LRW top-1 %", "source")
NOTE = (
    "GMAC: one clip of 29 x 88 x 88 (audio: 18,560 samples; signs: 29 frames), 500 words. The published code also\n"
    "computes positions that it cuts off, and empty channels of a PHM stem. LRW top-1: as published, not repeated here."
)


def table_text(table: str, *, as_json: bool) -> str:
    """The entries of a table, a line each, or as JSON. Raises UsageError if there is no such table."""
    names = lookup(TABLES, table, kind="table")
    if table == "devices":
        rows = names()
        if as_json:
            return json.dumps([dict(zip(DEVICE_COLUMNS, row, strict=True)) for row in rows], indent=1)
        return "\n".join(aligned([DEVICE_COLUMNS, *rows]))
    if table == "backbones":
        from edgelip.models.census import describe

        details = [describe(name) for name in names]
        return json.dumps([each.to_json() for each in details], indent=1) if as_json else _backbones_text(details)
    entries = {name: (lookup(names, name, kind=table).__doc__ or "").strip().splitlines()[0] for name in names}
    return json.dumps(entries, indent=1) if as_json else "\n".join(f"{k:12} {v}" for k, v in entries.items())


def _backbones_text(details: list[BackboneDetails]) -> str:
    rows = [COLUMNS]
    for each in details:
        top1 = "" if each.published_top1_pct is None else f"{each.published_top1_pct:.1f}"
        published = "" if each.published_gmac is None else f"{each.published_gmac:.3f}"
        numbers = (f"{each.parameters:,}", f"{each.macs / 1e9:.3f}", published, f"{each.fp32_mb:.1f}", top1)
        rows.append((each.name, *numbers, each.source))
    return "\n".join([*aligned(rows, figures=True), "", NOTE])


def aligned(rows: Sequence[Sequence[str]], *, figures: bool = False) -> list[str]:
    """Columns padded to equal width; figures: those between the first and the last stand right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for first, *middle, last in rows:
        pad = str.rjust if figures else str.ljust
        cells = [first.ljust(widths[0]), *(pad(text, width) for text, width in zip(middle, widths[1:], strict=True))]
        lines.append("  ".join([*cells, last]))
    return lines
