"""The parity table as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("variant", "engine", "model", "max difference", "limit", "same word as torch", "agrees")
NOTE = (
    "max difference: of a logit to torch's on the clips in the bundle, |difference| / max(1, |logit|). Same word: on "
    "the whole test set; fp32 must give all, the others 99 %."
)


def parity_markdown(rows: Sequence[Mapping[str, Any]], not_run: Mapping[str, str]) -> str:
    """Rows as edgelip.bench.parity.ParityRow.to_json gives them; not_run: engine to reason."""
    lines = ["# Engines against torch", "", _line(COLUMNS), _line(["---"] * 3 + ["---:"] * 3 + ["---"])]
    for row in rows:
        words = f"{row['num_same_words']:,} of {row['num_clips']:,}"
        cells = [row["variant"], row["engine"], row["model"]]
        cells += [f"{row['max_difference']:.1e}", f"{row['limit']:.2g}", words, "yes" if row["agrees"] else "**no**"]
        lines.append(_line(cells))
    lines += ["", NOTE]
    if not_run:
        lines += ["", "Not run on this machine:", ""]
        lines += [f"- `{engine}`: {reason}" for engine, reason in not_run.items()]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
