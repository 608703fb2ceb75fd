"""What ONNX files say to a file of clips, kept by content, under a time limit; a killed pass goes on where it stopped.

Axes: N clips, B clips of a batch, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.cache import Cache, step_key
from edgelip.errors import MeasurementError
from edgelip.files import write_atomic
from edgelip.progress import Progress
from edgelip.runtime.arrays import open_array
from edgelip.runtime.clip import ClipSpec, network_input
from edgelip.runtime.engines.engine import Engine, open_engine

ENGINE = "ort"
SOURCES = ("deploy/blame", "runtime/clip.py", "runtime/landmarks.py", "runtime/engines")
PACKAGES = ("onnxruntime", "onnx", "numpy")
_PART, _BATCH = 64, 16  # clips kept together, and run together
_KEPT, _VALUE = "kept.npy", "value.json"


class _TimeIsUp(Exception):
    """Ends a pass between two parts."""


class Deadline:
    """A time limit. minutes None never ends."""

    def __init__(self, minutes: float | None) -> None:
        self._end_s = None if minutes is None else time.monotonic() + 60 * minutes

    def half(self) -> Deadline:
        """That which ends when half of the time left has passed."""
        if self._end_s is None:
            return self
        return Deadline(max(0.0, self._end_s - time.monotonic()) / 120)

    @property
    def passed(self) -> bool:
        return self._end_s is not None and time.monotonic() >= self._end_s


@dataclass(frozen=True)
class Clips:
    """Where the clips are: an .npz with `frames`, how many, its sha256, and what a network takes of them."""

    path: Path
    num_clips: int
    sha256: str
    spec: ClipSpec

    def frames(self, chosen: Sequence[int]) -> np.ndarray:
        """Some stored clips (at least one), (B, T, H, W) or (B, T, P, A), in the order of their numbers."""
        found = []
        with open_array(self.path, ["frames"]) as stream:
            start = 0
            for batch in stream.batches(_PART):
                found.append(batch[[clip - start for clip in sorted(chosen) if start <= clip < start + len(batch)]])
                start += len(batch)
                if start > max(chosen):
                    break
        frames_BTHW: np.ndarray = np.concatenate(found)
        return frames_BTHW


class Scorer:
    """Runs files in ONNX Runtime and keeps what they say in `cache`."""

    def __init__(self, cache: Cache, clips: Clips, *, num_words: int, threads: int, progress: Progress) -> None:
        self.cache, self.clips, self.threads, self.progress = cache, clips, threads, progress
        self._num_words = num_words

    def logits(self, content: bytes, *, name: str) -> np.ndarray:
        """float32 (N, V) of all clips, whatever time it takes."""
        found = self._passed(content, "logits", lambda logits_BV: logits_BV, name, Deadline(None))
        assert found is not None
        return found

    def said(self, content: bytes, *, name: str, deadline: Deadline) -> np.ndarray | None:
        """The word of each clip, as indices (N,); None if time is up before: what is done stays for the next time."""
        return self._passed(content, "said", lambda logits_BV: logits_BV.argmax(axis=1), name, deadline)

    def _passed(
        self, content: bytes, kind: str, keep: Callable[[np.ndarray], np.ndarray], name: str, deadline: Deadline
    ) -> np.ndarray | None:
        """What `keep` leaves of the logits of all clips."""
        key = self._key(kind, content, {})
        done = self.cache.finished(key)
        if done is not None:
            return _loaded(done / _KEPT)
        if deadline.passed:
            return None
        try:
            with self.cache.making(key) as work:
                self._run(content, work, keep, name, deadline)
                parts = sorted(work.glob("part-*.npy"))
                kept = np.concatenate([_loaded(part) for part in parts])
                np.save(work / _KEPT, kept)
                for part in parts:
                    part.unlink()
        except _TimeIsUp:
            return None
        return kept

    def probe(self, content: bytes, clips_B1THW: np.ndarray) -> np.ndarray:
        """float32 (B, V) of network inputs; what they were made of must follow from the clips and their number."""
        key = self._key("probe", content, {"probe": len(clips_B1THW)})
        done = self.cache.finished(key)
        if done is None:
            with self.cache.making(key) as work, self._engine(content) as engine:
                np.save(work / _KEPT, _in_batches(engine, clips_B1THW))
            done = self.cache.folder / key
        return _loaded(done / _KEPT)

    def value(self, kind: str, contents: Sequence[bytes], config: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """What `make` gives, as JSON holds it, kept by these files, the clips and `config`."""
        key = self._key(kind, b"".join(hashlib.sha256(content).digest() for content in contents), config)
        done = self.cache.finished(key)
        if done is None:
            with self.cache.making(key) as work:
                write_atomic(work / _VALUE, json.dumps(make()) + "\n")
            done = self.cache.folder / key
        return json.loads((done / _VALUE).read_text())

    def _key(self, kind: str, content: bytes, config: Mapping[str, Any]) -> str:
        inputs = [hashlib.sha256(content).hexdigest(), self.clips.sha256]
        return step_key(
            kind, {**config, "clip": self.clips.spec.to_json()}, sources=SOURCES, inputs=inputs, packages=PACKAGES
        )

    def _run(
        self, content: bytes, work: Path, keep: Callable[[np.ndarray], np.ndarray], name: str, deadline: Deadline
    ) -> None:
        """Write the missing parts into `work`. Raises _TimeIsUp between two of them."""
        total, spec = self.clips.num_clips, self.clips.spec
        there = {part.name for part in work.glob("part-*.npy")}
        task = self.progress.task(name, total=total, unit="clips", done=min(total, _PART * len(there)))
        with self._engine(content) as engine, open_array(self.clips.path, ["frames"]) as stream, task as shown:
            for number, frames_BTHW in enumerate(stream.batches(_PART)):
                part = work / f"part-{number:06d}.npy"
                if part.name in there:
                    continue
                if deadline.passed:
                    raise _TimeIsUp
                kept = keep(_in_batches(engine, network_input(frames_BTHW, spec)))
                beside = part.with_suffix(".writing")
                with beside.open("wb") as file:
                    np.save(file, kept)
                beside.replace(part)
                shown.advance(len(frames_BTHW))

    def _engine(self, content: bytes) -> Engine:
        with tempfile.TemporaryDirectory(prefix="edgelip-blame-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(content)
            return open_engine(ENGINE, path, threads=self.threads, num_words=self._num_words)


def _loaded(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, allow_pickle=False)
    return array


def _in_batches(engine: Engine, clips_B1THW: np.ndarray) -> np.ndarray:
    parts = [engine.infer(clips_B1THW[start : start + _BATCH]) for start in range(0, len(clips_B1THW), _BATCH)]
    logits_BV: np.ndarray = np.concatenate(parts)
    if not np.isfinite(logits_BV).all():
        raise MeasurementError("the file gives scores that are not finite on these clips. Export it again.")
    return logits_BV
