"""Tables that say one thing of each clip, such as `path,speaker`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from edgelip.data.clip_files import ENDINGS, ending_of
from edgelip.errors import ClipError

_MAX_BYTES = 256 << 20


def read_clip_table(path: Path, column: str) -> dict[str, str]:
    """`column` of each clip, by its path below the root without the ending: `ABOUT/test/ABOUT_00001`.

    Two fields a line; a first line `path,<column>` is a header. Raises ClipError naming the line that cannot be used.
    """
    path = Path(path)
    table: dict[str, str] = {}
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ClipError(f"{path} has {path.stat().st_size} bytes; a table of clips has at most {_MAX_BYTES}.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row or (reader.line_num == 1 and [cell.strip() for cell in row] == ["path", column]):
                    continue
                where = f"{path} line {reader.line_num}"
                if len(row) != 2 or not row[0].strip() or not row[1].strip():
                    raise ClipError(f"{where} is {','.join(row)[:80]!r}; expected path,{column}. Correct it.")
                clip, value = stem_of(row[0].strip()), row[1].strip()
                if table.setdefault(clip, value) != value:
                    raise ClipError(f"{where} gives {clip} the {column} {value!r}; it had {table[clip]!r}. Remove one.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ClipError(f"{path} cannot be read as CSV ({reason}). Expected lines path,{column}.") from error
    if not table:
        raise ClipError(f"{path} is empty; expected lines path,{column}.")
    return table


def stem_of(name: str) -> str:
    """The path of a clip without its ending, with slashes."""
    name = name.replace("\\", "/").removeprefix("./")
    ending = ending_of(name)
    return name[: -len(ending)] if ending in ENDINGS else name


def unmatched(table: Mapping[str, object], clips: set[str], path: Path) -> list[str]:
    """A note where lines of a table name no clip, or clips are not in it."""
    strange, silent = len(table.keys() - clips), len(clips - table.keys())
    notes = [f"{path}: {strange} of {len(table)} lines name no clip that was found"] if strange else []
    return notes + ([f"{path}: {silent} of {len(clips)} clips are not in it"] if silent else [])
