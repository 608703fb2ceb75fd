"""Strict reading of stored tables: a misspelt key or a value of another kind is an error, not a silent gap."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgelip.errors import UsageError
from edgelip.registry import nearest


def check_keys(values: Any, known: Sequence[str], where: str, *, may_miss: Sequence[str] = ()) -> None:
    """Raises UsageError unless `values` is a table of the known keys, all of them but those that may miss."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} is a {type(values).__name__}; expected a table with {', '.join(known)}.")
    for key in values:
        if key not in known:
            raise UsageError(f"{where} has the unknown key {key!r}. {nearest(str(key), known)}")
    missing = [key for key in known if key not in values and key not in may_miss]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}; expected every key, None where not measured.")


def check_value(value: Any, kind: Any, what: str) -> None:
    """Raises UsageError unless `value` is of `kind`: int | None, float | None, str or str | None; no NaN."""
    if kind == (int | None):
        fits, expected = value is None or (isinstance(value, int) and not isinstance(value, bool)), "a whole number"
    elif kind == (float | None):
        fits, expected = value is None or is_number(value), "a finite number"
    else:
        fits, expected = isinstance(value, str) or (value is None and kind is not str), "text"
    if not fits:
        raise UsageError(f"{what} {value!r}; expected {expected}{'' if kind is str else ' or None'}.")


def check_sentences(values: Any, what: str) -> None:
    """Raises UsageError unless `values` is a list of texts."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(each, str) for each in values):
        raise UsageError(f"{what} {values!r}; expected a list of sentences.")


def is_number(value: Any) -> bool:
    """Finite, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def json_from_file(path: Path, *, largest_bytes: int, remedy: str) -> Any:
    """What a JSON file holds. Raises UsageError naming it if it cannot be read, is too large, cut or damaged."""
    try:
        with path.open("rb") as file:
            content = file.read(largest_bytes + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {_reason(error)}. {remedy}") from error
    if len(content) > largest_bytes:
        raise UsageError(f"{path} has more than the {largest_bytes:,} bytes that such a file has at most. {remedy}")
    try:
        values = json.loads(content)
        if rb"\ud" in content.lower():  # half a surrogate pair is JSON, but no text that can be written
            json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is cut or damaged ({error}). {remedy}") from error
    return values


def names_in(folder: Path) -> list[str]:
    """Names of what is in a folder, sorted. Raises UsageError if it is none or cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {_reason(error)}. Name another one.") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
