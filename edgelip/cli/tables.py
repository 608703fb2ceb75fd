"""`edgelip list`."""

from __future__ import annotations

from edgelip.registry import lookup

TABLES = {
    "backbones": "edgelip.models.zoo:BACKBONES",
    "stages": "edgelip.compress:STAGES",
    "engines": "edgelip.runtime.engines.engine:ENGINES",
}


def entries(table: str) -> dict[str, str]:
    """First line of what each entry of a table is."""
    names: dict[str, str] = lookup(TABLES, table, kind="table")
    return {name: (lookup(names, name, kind=table).__doc__ or "").strip().splitlines()[0] for name in names}
