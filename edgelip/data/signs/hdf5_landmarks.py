"""Signs in HDF5, one file a signer: a group a sign, with `feature` [3, T, 543] or [T, 543, 3] and `token` [1].

Links and storage that lead out of the file are refused: such a file could name any other on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.data.signs.parquet_landmarks import MAX_FRAMES
from edgelip.data.unusable import UnusableClip
from edgelip.registry import require
from edgelip.runtime.landmarks import NUM_POINTS

_MAX_GROUPS = 1_000_000
_EXPECTED = f"'feature' float (3, T, {NUM_POINTS}) or (T, {NUM_POINTS}, 3), T up to {MAX_FRAMES}"


def sign_tokens(path: Path) -> dict[str, int | UnusableClip]:
    """Token of every group, in the order of their names; what is wrong with those that cannot be used.

    Raises UnusableClip if the file as a whole cannot be read.
    """
    found: dict[str, int | UnusableClip] = {}
    with _opened(path) as file:
        if len(file) > _MAX_GROUPS:
            raise UnusableClip(f"{path} has {len(file)} groups; the limit is {_MAX_GROUPS}.", reason="too large")
        for name in sorted(file):
            try:
                found[name] = _token(path, file, name)
            except UnusableClip as error:
                found[name] = error
    return found


def read_hdf5(path: Path, group: str) -> np.ndarray:
    """Float32 (T, 543, 3) of one group; needs h5py. Raises UnusableClip naming file and group."""
    where = f"{path} group {group!r}"
    with _opened(path) as file:
        feature = _dataset(path, file, group, "feature")
        shape = tuple(feature.shape)
        channels_first = len(shape) == 3 and shape[0] == 3 and shape[2] == NUM_POINTS
        channels_last = len(shape) == 3 and shape[1:] == (NUM_POINTS, 3)
        num_frames = shape[1] if channels_first else shape[0] if channels_last else 0
        if feature.dtype.kind != "f" or not 1 <= num_frames <= MAX_FRAMES:
            raise UnusableClip(
                f"{where} has 'feature' {feature.dtype} {shape}; expected {_EXPECTED}.", reason="landmarks"
            )
        raw = np.asarray(feature[...], np.float32)
    return np.ascontiguousarray(raw.transpose(1, 2, 0)) if channels_first else raw


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    h5py = require("h5py", extra="signs")
    if not path.is_file():
        raise UnusableClip(f"{path} does not exist; expected an HDF5 file of one signer.", reason="missing")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except UnusableClip:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py makes of a damaged file
        said = " ".join(str(error).split())[:200]
        reason: Any = "unreadable" if isinstance(error, PermissionError) else "damaged"
        raise UnusableClip(f"{path} cannot be read as HDF5 ({said}). Copy it again.", reason=reason) from error


def _token(path: Path, file: Any, group: str) -> int:
    token = _dataset(path, file, group, "token")
    if token.dtype.kind not in "iu" or token.shape not in ((1,), ()):
        raise UnusableClip(
            f"{path} group {group!r} has 'token' {token.dtype} {token.shape}; expected one whole number (1,).",
            reason="landmarks",
        )
    return int(np.asarray(token[...]).reshape(()))


def _dataset(path: Path, file: Any, group: str, name: str) -> Any:
    """A plain dataset of a plain group. Raises UnusableClip for anything else, links above all."""
    h5py = require("h5py", extra="signs")
    where = f"{path} group {group!r}"
    parent = file
    for step, kind in ((group, h5py.Group), (name, h5py.Dataset)):
        link = parent.get(step, getlink=True) if "/" not in step else None
        if not isinstance(link, h5py.HardLink):
            what = "is no group of the file itself" if parent is file else f"has no {name!r} of its own"
            raise UnusableClip(f"{where} {what}; expected {_EXPECTED} and 'token'.", reason="landmarks")
        parent = parent.get(step)
        if not isinstance(parent, kind):
            raise UnusableClip(f"{where}: {step!r} is no {kind.__name__.lower()}.", reason="landmarks")
    if parent.external or parent.is_virtual:
        raise UnusableClip(f"{where}: {name!r} keeps its numbers in other files. Copy them in.", reason="outside")
    return parent
