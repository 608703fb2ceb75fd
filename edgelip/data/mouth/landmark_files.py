"""68-point landmark files as LRW users have them, from nobody that need be trusted.

Read: a pickled list of one (68, 2) array or None a frame; the older .npz, `data[frame][person]["facial_landmarks"]`,
whose array of objects is a pickle again; .npy or .npz of (T, 68, 2) numbers, where a frame of nan alone is a lost one.
The kind is told by the content, not by the suffix. Axes: T frames, P = 68 points (x, y).
"""

from __future__ import annotations

import csv
import io
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgelip.data.mouth.alignment import NUM_POINTS
from edgelip.data.mouth.landmark_pickle import OddContent, RefusedPickle, Stored, plain_value
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError
from edgelip.runtime.arrays import open_array, open_member, read_header

LIMIT_BYTES = 32 << 20  # 3,000 frames take 3.3 MB
_MAX_FRAMES = 30_000
_NAMES = ("data", "landmarks", "arr_0")
_PERSON_KEY = "facial_landmarks"
_FAR_PX = 1e5
_PERSONS_LIMIT_BYTES = 256 << 20
_SUFFIXES = frozenset({".mp4", ".avi", ".mpg", ".mpeg", ".mkv", ".mov", ".webm", ".npz", ".npy", ".pkl", ".txt"})
_DAMAGED = (ValueError, struct.error, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
_EXPECTED = f"expected one array ({NUM_POINTS}, 2) or None a frame"


def read_landmarks(path: Path, *, person: int = 0) -> list[np.ndarray | None]:
    """One entry a frame: float64 (68, 2), or None where the face was lost.

    person: which face, in files that hold several. Raises UnusableClip, reason "landmarks", for what is no such file.
    """
    path = Path(path)
    try:
        return _frames(_content(path), person)
    except RefusedPickle as error:
        raise UnusableClip(
            f"{path} is a pickle that asks to run {error.wanted}; landmarks need no code, so nothing of it was run. "
            "If the file is yours, save the landmarks as numbers: numpy.save of an array (T, 68, 2).",
            reason="landmarks",
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnusableClip(f"{path} cannot be read: {reason}. Make it readable.", reason="landmarks") from error
    except ValueError as error:
        raise UnusableClip(
            f"{path} {error}. Track the face again or copy the file again.", reason="landmarks"
        ) from error


def read_persons(csv_path: Path) -> dict[str, int]:
    """Which face of each clip speaks, from rows `path,person_id`, a header or none; keys are paths without suffix."""
    csv_path = Path(csv_path)
    persons: dict[str, int] = {}
    try:
        if csv_path.stat().st_size > _PERSONS_LIMIT_BYTES:
            raise UsageError(
                f"{csv_path} is larger than {_PERSONS_LIMIT_BYTES >> 20} MB; expected rows path,person_id."
            )
        with csv_path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if not row or (number == 1 and row[-1].strip().lower() == "person_id"):
                    continue
                text = row[-1].strip()
                if len(row) != 2 or not (text.isascii() and text.isdigit() and len(text) < 5):
                    raise UsageError(
                        f"{csv_path} line {number} is {','.join(row)[:80]!r}; expected path,person_id, a number from 0."
                    )
                key = clip_key(row[0].strip())
                if persons.setdefault(key, int(text)) != int(text):
                    raise UsageError(f"{csv_path} line {number} gives {key!r} a second person. Keep one row.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{csv_path} cannot be read as rows path,person_id ({reason}).") from error
    if not persons:
        raise UsageError(f"{csv_path} has no rows; expected path,person_id.")
    return persons


def clip_key(relative: str) -> str:
    """What a clip is called in a list of persons: its path below the root, slashes, no suffix."""
    path = PurePosixPath(relative.replace("\\", "/"))
    return str(path.with_suffix("")) if path.suffix.lower() in _SUFFIXES else str(path)


def _content(path: Path) -> Any:
    if path.is_dir():
        raise ValueError(f"is a folder; {_EXPECTED}")
    num_bytes = path.stat().st_size
    if num_bytes > LIMIT_BYTES:
        raise ValueError(f"has {num_bytes} bytes; a landmark file has at most {LIMIT_BYTES}")
    content = path.read_bytes()
    if not content:
        raise ValueError(f"is empty; {_EXPECTED}")
    if not content.startswith((b"PK", b"\x93NUM")):
        return plain_value(content)
    try:
        return _array_in(content)
    except (RefusedPickle, OddContent):
        raise
    except _DAMAGED as error:
        raise ValueError(f"is no whole landmark file ({' '.join(str(error).split())[:120]})") from error


def _array_in(content: bytes) -> Any:
    """The array of a .npy or .npz; one of objects is a pickle behind its header."""
    with open_member(content, _NAMES) as stream:
        member = stream.read(LIMIT_BYTES + 1)
    if len(member) > LIMIT_BYTES:
        raise OddContent(f"unpacks to more than {LIMIT_BYTES} bytes; a landmark file has at most that")
    objects = io.BytesIO(member)
    if read_header(objects)[2].hasobject:
        return plain_value(objects.read())
    with open_array(member, _NAMES) as array:
        return array.read(limit_bytes=LIMIT_BYTES)


def _frames(value: Any, person: int) -> list[np.ndarray | None]:
    value = _settled(value)
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise ValueError(f"holds {_kind(value)}; {_EXPECTED}")
    if isinstance(value, np.ndarray) and value.shape[1:] != (NUM_POINTS, 2):
        raise ValueError(f"holds an array of shape {value.shape}; expected (frames, {NUM_POINTS}, 2)")
    if not 0 < len(value) <= _MAX_FRAMES:
        raise ValueError(f"holds {len(value)} frames; expected 1 to {_MAX_FRAMES}")
    return [_points(_of_person(_settled(entry), person), t) for t, entry in enumerate(value)]


def _of_person(entry: Any, person: int) -> Any:
    """The landmarks of one of the persons of a frame; None if it has fewer. An entry without persons is given back."""
    if isinstance(entry, dict):
        entry = [entry]
    if not isinstance(entry, (list, tuple)) or not entry or not isinstance(_settled(entry[0]), (dict, type(None))):
        return entry
    found = _settled(entry[person]) if person < len(entry) else None
    if found is None:
        return None
    if not isinstance(found, dict) or _PERSON_KEY not in found:
        raise ValueError(f"has a person without {_PERSON_KEY!r}; {_EXPECTED}")
    return _settled(found[_PERSON_KEY])


def _points(entry: Any, t: int) -> np.ndarray | None:
    if entry is None or (isinstance(entry, (list, tuple)) and not entry):
        return None
    array = entry if isinstance(entry, np.ndarray) else _array_of_lists(entry, t)
    if array.shape != (NUM_POINTS, 2) or array.dtype.kind not in "fiu":
        raise ValueError(f"has {array.dtype} {array.shape} in frame {t}; {_EXPECTED}")
    points_P2 = array.astype(np.float64)
    finite_P2 = np.isfinite(points_P2)
    if not finite_P2.any() and np.isnan(points_P2).all():
        return None
    if not finite_P2.all():
        point = int(np.flatnonzero(~finite_P2.all(axis=1))[0])
        raise ValueError(f"has point {point} of frame {t} at {points_P2[point].tolist()}; expected pixels, or None")
    if np.abs(points_P2).max() > _FAR_PX:
        raise ValueError(f"has points {np.abs(points_P2).max():.3g} px away in frame {t}; expected pixels of the video")
    return points_P2


def _array_of_lists(entry: Any, t: int) -> np.ndarray:
    rows = [_settled(row) for row in entry] if isinstance(entry, (list, tuple)) and len(entry) == NUM_POINTS else []
    pairs = [row.tolist() if isinstance(row, np.ndarray) and row.shape == (2,) else row for row in rows]
    if not pairs or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"has {_kind(entry)} in frame {t}; {_EXPECTED}")
    if not all(type(number) in (int, float) for pair in pairs for number in pair):
        raise ValueError(f"has values that are no numbers in frame {t}; {_EXPECTED}")
    try:
        return np.array([[float(x), float(y)] for x, y in pairs])
    except OverflowError:
        raise ValueError(f"has a number too large for a pixel in frame {t}; {_EXPECTED}") from None


def _settled(value: Any) -> Any:
    return value.value if isinstance(value, Stored) else value


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing" if value is None else f"something of type {type(value).__name__.lstrip('_').lower()}"
