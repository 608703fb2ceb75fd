"""Raw samples of a measurement as whole nanoseconds: in a .npz beside it, named with its hash, or inline as JSON."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence, Tuple

import numpy as np

from edgelip.runtime.arrays import open_array
from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.plain_files import read_plain

SAMPLES_LIMIT_BYTES = 512 << 20  # of one file, packed, and of all its arrays, unpacked
_LARGEST_NS = 10**15  # eleven days
_MOST_NAMES = 32
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.npz")
_ENTRY = ("file", "sha256", "counts")

Samples = Dict[str, Tuple[int, ...]]


def packed_samples(samples_ns: Mapping[str, Sequence[int]], name: str) -> Tuple[bytes, Dict[str, Any]]:
    """Content of the .npz called `name`, and what the measurement says of it: file, sha256, bytes, counts."""
    stream = io.BytesIO()
    arrays: Dict[str, Any] = {key: np.asarray(samples, np.int64) for key, samples in samples_ns.items()}
    np.savez_compressed(stream, **arrays)
    content = stream.getvalue()
    counts = {key: len(samples) for key, samples in samples_ns.items()}
    digest = hashlib.sha256(content).hexdigest()
    return content, {"file": name, "sha256": digest, "bytes": len(content), "counts": counts}


def unpacked_samples(folder: Path, entry: Any) -> Samples:
    """The samples that `entry` names, from a file in `folder` that nobody vouches for.

    Raises MeasurementError if it is not the file that was written, BundleError if it is none.
    """
    name, sha256, counts = (entry.get(key) if isinstance(entry, Mapping) else None for key in _ENTRY)
    if not (isinstance(name, str) and _FILE.fullmatch(name) and isinstance(sha256, str)):
        raise MeasurementError(f"its samples lie in {ascii(name)[:80]}; expected a plain name that ends in .npz")
    if not isinstance(counts, Mapping) or len(counts) > _MOST_NAMES:
        raise MeasurementError(f"its samples have the counts {ascii(counts)[:80]}; expected a number for each name")
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        raise MeasurementError(f"its samples have the counts {ascii(counts)[:80]}; expected whole numbers")
    num_bytes = 8 * sum(counts.values())
    if num_bytes > SAMPLES_LIMIT_BYTES:
        raise MeasurementError(f"its samples unpack to {num_bytes} bytes; expected {SAMPLES_LIMIT_BYTES} at most")
    content = read_plain(folder / name, limit_bytes=SAMPLES_LIMIT_BYTES)
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise MeasurementError(f"{name} has changed: sha256 {got[:8]}.., the measurement says {sha256[:8]}..")
    found: Samples = {}
    for key, count in counts.items():
        try:
            with open_array(content, [str(key)]) as stream:
                if stream.dtype != np.int64 or stream.shape != (count,):
                    raise ValueError(f"is {stream.dtype} {stream.shape}; expected int64 ({count},)")
                found[str(key)] = tuple(stream.read(limit_bytes=SAMPLES_LIMIT_BYTES).tolist())
        except ValueError as error:
            raise MeasurementError(f"{name}: {ascii(key)[:60]} {error}") from error
    return samples_from_json(found)


def samples_from_json(values: Any) -> Samples:
    """Samples by name. Raises MeasurementError unless all are whole nanoseconds, from 0 to eleven days."""
    if not isinstance(values, Mapping) or len(values) > _MOST_NAMES:
        raise MeasurementError(f"measurement has the samples_ns {ascii(values)[:80]}; expected lists by name.")
    found: Samples = {}
    for name, samples in values.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise MeasurementError(f"measurement has samples called {ascii(name)[:60]}; expected a word like latency.")
        whole = isinstance(samples, (list, tuple)) and all(type(each) is int for each in samples)
        if not whole or (samples and not 0 <= min(samples) <= max(samples) <= _LARGEST_NS):
            raise MeasurementError(f"measurement has {name} that are not all whole nanoseconds. Measure again.")
        found[name] = tuple(samples)
    return found
