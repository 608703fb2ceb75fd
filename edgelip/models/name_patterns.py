"""Layers chosen by patterns on their names: "trunk.*", and "!*.shortcut.*" for those to leave out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from edgelip.errors import UsageError
from edgelip.registry import nearest


def matching(patterns: Sequence[str], names: Iterable[str], *, what: str = "layer") -> list[str]:
    """The names that a pattern fits and no pattern after "!" does, in the order of the patterns.

    Raises UsageError for a pattern that fits nothing, and where "!" leaves nothing out or nothing over.
    """
    known = list(names)
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    if not wanted:
        raise UsageError(f'{list(patterns)} only leaves out. Name what is taken before it, as in ["*", "!head"].')
    chosen: dict[str, None] = {}
    for pattern in wanted:
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(f"No {what} is called {pattern!r}. {nearest(pattern, known)}")
        chosen.update(dict.fromkeys(found))
    for pattern in unwanted:
        left_out = [name for name in chosen if fnmatchcase(name, pattern)]
        if not left_out:
            raise UsageError(f"'!{pattern}' leaves out no {what} of those named. {nearest(pattern, chosen)}")
        for name in left_out:
            del chosen[name]
    if not chosen:
        raise UsageError(f"{list(patterns)} name no {what}. Name one, or leave out less.")
    return list(chosen)
