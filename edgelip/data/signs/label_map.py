"""`sign_to_prediction_index_map.json`: the number of each sign."""

from __future__ import annotations

import json
from pathlib import Path

from edgelip.errors import ClipError

LABEL_MAP = "sign_to_prediction_index_map.json"
_MAX_BYTES = 8 << 20


def read_label_map(path: Path) -> tuple[str, ...]:
    """The signs in label order. Raises ClipError unless the file gives each sign one number of 0 .. their count - 1."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ClipError(f"{path} has {path.stat().st_size} bytes; a label map has at most {_MAX_BYTES}.")
        numbers = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ClipError):
            raise
        said = getattr(error, "strerror", None) or str(error)[:100]
        raise ClipError(f"{path} cannot be read as JSON ({said}). Copy it again.") from error
    whole = isinstance(numbers, dict) and all(type(number) is int for number in numbers.values())
    if not whole or not numbers or sorted(numbers.values()) != list(range(len(numbers))):
        raise ClipError(f'{path} is no label map; expected {{"TV": 0, "after": 1, ...}}, each number once from 0.')
    if not all(sign and sign.isprintable() for sign in numbers):
        raise ClipError(f"{path} has a sign without a printable name; expected words.")
    return tuple(sorted(numbers, key=lambda sign: numbers[sign]))
