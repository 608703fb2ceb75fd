"""Tables of names: one literal dict a folder, "name": "package.module:Object", imported when looked up."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from edgelip.errors import MissingError, UsageError

MOST_LISTED = 30  # a large network has some 200 layers


def nearest(name: str, known: Iterable[str]) -> str:
    """End of an error message: the nearest known name, or all of them.

    A pattern with a "*" is compared with the patterns of dotted names too: "trunk.*" of "trunk.conv".
    """
    known = list(known)
    close = difflib.get_close_matches(name, [*known, *(_patterns(known) if "*" in name else ())], n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    more = len(known) - MOST_LISTED
    return "Known: " + ", ".join(known[:MOST_LISTED]) + (f" and {more} more." if more > 0 else ".")


def _patterns(names: Iterable[str]) -> Iterable[str]:
    """What reaches all names of a folder: "a.*" and "a.b.*" of "a.b.c"."""
    parts = [name.split(".") for name in names]
    return dict.fromkeys(f"{'.'.join(part[:i])}.*" for part in parts for i in range(1, len(part)))


def lookup(table: Mapping[str, str], name: str, *, kind: str, others: Iterable[str] = ()) -> Any:
    """The object that `name` stands for. Raises UsageError naming the nearest entry if there is none.

    others: names that the caller knows beside those of the table.
    """
    if name not in table:
        raise UsageError(f"There is no {kind} {name!r}. {nearest(name, dict.fromkeys([*others, *table]))}")
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package. Raises MissingError with the extra that brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingError(
            f'{module} cannot be imported here ({error}). Install it: pip install "edgelip[{extra}]"'
        ) from error
