"""The clips below a folder, at the scale of half a million: their names from the folders alone, no look at any file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from edgelip.data.clip_files import ENDINGS, ending_of
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError


@dataclass(frozen=True, eq=False)
class Walk:
    """clips: paths below the root, with slashes, sorted. others: how many files have each other ending.

    folders: names directly below the root, sorted, left out ones too.
    unusable: what cannot be entered or is no file, by its path below the root.
    """

    clips: tuple[str, ...]
    others: Counter[str]
    folders: tuple[str, ...]
    unusable: dict[str, UnusableClip] = field(default_factory=dict)


def walk(root: Path, *, only: Collection[str] | None = None) -> Walk:
    """Every clip below `root`, in folders of any depth. Hidden files and folders are left out, links are followed.

    only: names of folders directly below the root; others are not entered.
    Raises UsageError if the root is no folder, or one that may not be listed.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder; expected one with clips. Check the path.")
    clips: list[str] = []
    found = Walk((), Counter(), ())
    top: list[str] = []
    linked: set[str] = set()
    folders = [""]
    while folders:
        folder = folders.pop()
        below, new = _list(root, folder, found, linked, top=top if folder == "" else None, only=only)
        folders += below
        clips += new
    clips.sort()
    return Walk(tuple(clips), found.others, tuple(sorted(top)), found.unusable)


def _list(
    root: Path, folder: str, found: Walk, linked: set[str], *, top: list[str] | None, only: Collection[str] | None
) -> tuple[list[str], list[str]]:
    """Folders and clips in one folder, as paths below the root."""
    prefix = f"{folder}/" if folder else ""
    below, clips = [], []
    try:
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                ending = ending_of(name)
                if entry.is_dir():
                    if not name.isprintable():
                        found.unusable[ascii(prefix + name)[1:-1]] = _unprintable(entry)
                        continue
                    if top is not None:
                        top.append(name)
                        if only is not None and name not in only:
                            continue
                    if not entry.is_symlink() or _new_link(entry.path, linked):
                        below.append(prefix + name)
                elif ending not in ENDINGS:
                    found.others[ending or name] += 1
                elif (problem := _problem(entry)) is not None:
                    found.unusable[ascii(prefix + name)[1:-1]] = problem
                else:
                    clips.append(prefix + name)
    except OSError as error:
        if folder == "":
            raise UsageError(f"{root} cannot be listed ({error.strerror}). Make it readable.") from error
        found.unusable[folder] = UnusableClip(
            f"{root}/{folder} cannot be listed ({error.strerror}): its clips are left out. Make it readable.",
            reason="unreadable",
        )
    return below, clips


def _problem(entry: os.DirEntry[str]) -> UnusableClip | None:
    """Why this is no file to open: a name that no list can hold, a link to nothing, a pipe that would block."""
    if not entry.name.isprintable():
        return _unprintable(entry)
    if entry.is_file():
        return None
    if entry.is_symlink() and not Path(entry.path).exists():
        return UnusableClip(f"{entry.path} is a link to a file that is not there. Mend the link.", reason="missing")
    return UnusableClip(f"{entry.path} is neither file nor folder; expected a clip. Remove it.", reason="unreadable")


def _unprintable(entry: os.DirEntry[str]) -> UnusableClip:
    return UnusableClip(
        f"{entry.path!a} has a character in its name that cannot be printed. Rename it.", reason="unreadable"
    )


def _new_link(path: str, linked: set[str]) -> bool:
    """Whether a linked folder is to be entered: once, and not one that it lies in, which would never end."""
    target, here = os.path.realpath(path), os.path.realpath(Path(path).parent)
    if target in linked or here == target or here.startswith(target.rstrip("/") + "/"):
        return False
    linked.add(target)
    return True
