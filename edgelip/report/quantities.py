"""Quantities as people write them: 40ms, 4MB, 12mJ, 86%."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgelip.errors import UsageError
from edgelip.report.strict import is_number

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([^\d.\s].*?)?\s*", re.ASCII)
MILLISECONDS: Mapping[str, float] = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
BYTES: Mapping[str, float] = {
    "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30,
}  # fmt: skip
MEBIBYTES: Mapping[str, float] = {unit: size / 2**20 for unit, size in BYTES.items()}
JOULES: Mapping[str, float] = {"uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0}
PERCENT: Mapping[str, float] = {"%": 1.0}


def quantity_from_text(text: str, units: Mapping[str, float], *, option: str) -> float:
    """The number in the unit whose factor is 1. Raises UsageError, naming `option`, without a number or one of `units`.

    A unit is never guessed, but a percentage may lack its sign where it cannot be a share: 86, but neither 1 nor 0.86.
    """
    found = _NUMBER.fullmatch(text)
    examples = ", ".join(f"{40 if units is not PERCENT else 86}{unit}" for unit in units)
    if found is None:
        raise UsageError(f"{option} is {text!r}; expected a number with its unit, such as {examples}.")
    value, unit = float(found[1]), found[2]
    if unit is None:
        if units is PERCENT and (value > 1 or value == 0):
            unit = "%"
        else:
            meant = f"{value:g}%, or {100 * value:g}% of a share" if units is PERCENT else examples
            raise UsageError(f"{option} is {text!r} without a unit; write {meant}.")
    if unit not in units:
        raise UsageError(f"{option} is {text!r}: the unit {unit!r} is none of {', '.join(units)}.")
    if units is PERCENT and value > 100:
        raise UsageError(f"{option} is {text!r}; expected at most 100%.")
    result = value * units[unit]
    if not is_number(result):
        raise UsageError(f"{option} is {text!r}; expected a number that is not so large.")
    return result
