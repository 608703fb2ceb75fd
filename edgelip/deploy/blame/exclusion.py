"""What to write into a recipe so that the stages between two bundles leave layers alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Lineage = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Exclusion:
    """A line of TOML for one stage; what it excludes already stands there too. None: it takes no such line."""

    stage: str
    toml: str | None


def exclusions(reference: Lineage, suspect: Lineage, layers: Sequence[str]) -> list[Exclusion]:
    """One for each stage that the suspect's lineage has beyond the reference's, in their order.

    Putting a layer back undoes all of them at it: the figures hold for all lines together.
    """
    shared = 0
    for ours, theirs in zip(reference, suspect, strict=False):
        if (ours.get("stage"), ours.get("config")) != (theirs.get("stage"), theirs.get("config")):
            break
        shared += 1
    return [Exclusion(str(entry.get("stage")), _line(entry, layers)) for entry in suspect[shared:]]


def _line(entry: Mapping[str, Any], layers: Sequence[str]) -> str | None:
    stage, config = entry.get("stage"), entry.get("config")
    if not isinstance(config, Mapping):
        return None
    if stage in ("qat", "ptq"):
        return f"float_layers = {json.dumps(list(dict.fromkeys([*_names(config.get('float_layers')), *layers])))}"
    if stage == "store":
        before = config.get("layers")
        bits = {**(before if isinstance(before, Mapping) else {}), **dict.fromkeys(layers, 32)}
        pairs = ", ".join(f"{json.dumps(str(name))} = {json.dumps(value)}" for name, value in bits.items())
        return f"layers = {{ {pairs} }}"
    if stage in ("phm", "low_rank"):
        patterns = [name for name in _names(config.get("layers")) if name not in layers]
        left_out = [f"!{name}" for name in layers if any(fnmatchcase(name, pattern) for pattern in patterns)]
        return f"layers = {json.dumps([*patterns, *left_out])}" if patterns else None
    return None


def _names(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, (list, tuple)) else []
