"""A clip that cannot be used, and why, in a word that a table can count."""

from __future__ import annotations

from typing import Literal

from edgelip.errors import ClipError

Reason = Literal[
    "missing",  # no such file
    "unreadable",  # no permission, no video, no array
    "damaged",  # cut off, empty or broken inside
    "too large",
    "too short",
    "no face",
    "landmarks",  # of the wrong shape, length or kind
    "size",  # not the size or rate that the contract asks for
    "span",  # word outside of its file
    "annotation",  # missing, or not of LRW's form
    "outside",  # a path or link that leaves the data root
    "row",  # a line of a manifest that says nothing usable
]


class UnusableClip(ClipError):
    """Reported, counted and skipped where many clips are prepared; fatal where there is one.

    The message says what, got, expected, remedy and names the file, as any ClipError's.
    """

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[object, ...]:  # workers in other processes raise it
        return (_unusable, (str(self), self.reason))


def one_frame(source: str) -> UnusableClip:
    """A picture where a word is expected."""
    return UnusableClip(
        f"{source} has 1 frame; expected 2 or more, since words are read from movement. Give the whole video.",
        reason="too short",
    )


def _unusable(message: str, reason: Reason) -> UnusableClip:
    return UnusableClip(message, reason=reason)
