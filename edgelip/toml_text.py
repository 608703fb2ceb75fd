"""TOML from plain values: what tomllib reads back as it was. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_from_tree(tree: Mapping[str, Any]) -> str:
    """A document: plain values first, then a table for each mapping; deeper mappings stand inline.

    Values: strings, whole numbers, finite floats, booleans, lists and mappings of them.
    """
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    blocks = ["".join(f"{_key(key)} = {_value(value)}\n" for key, value in plain.items())] if plain else []
    for name, table in tables.items():
        lines = [f"[{_key(name)}]\n", *(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())]
        blocks.append("".join(lines))
    return "\n".join(blocks)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    assert isinstance(value, (list, tuple)), f"{type(value).__name__} has no form in TOML"
    return "[" + ", ".join(_value(item) for item in value) + "]"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
