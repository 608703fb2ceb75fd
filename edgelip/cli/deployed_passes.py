"""Passes of deployed files over files of clips, each in a fresh process, kept so that a killed sitting goes on.

Axes: N clips, V words.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.isolate import Subject, deployed_run
from edgelip.cache import Cache, step_key
from edgelip.files import write_atomic
from edgelip.runtime.bundle import Bundle

_SOURCES = ("runtime/clip.py", "runtime/engines", "runtime/landmarks.py", "runtime/packed", "runtime/recogniser.py")
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
_LOGITS, _SETTINGS = "logits.npy", "settings.json"


@dataclass(frozen=True)
class Said:
    """logits_NV: float32; settings: of the engine that computed them."""

    logits_NV: np.ndarray
    settings: Mapping[str, Any]


class Passes:
    """What files say to clips. threads: of each process. say: takes a line of progress after each pass."""

    def __init__(self, folder: Path, *, threads: int, say: Callable[[str], None]) -> None:
        self._cache, self._threads, self._say = Cache(folder), threads, say
        self._started_s, self._clips_done, self._clips_due = time.monotonic(), 0, 0

    def key(self, bundle: Bundle, subject: Subject, clips: Mapping[str, Any], *, sources: tuple[str, ...] = ()) -> str:
        """Name of a pass. clips: all that tells which they are; sources: files of the package that made them."""
        config = {
            "bundle": bundle.sha256,
            "engine": subject.engine,
            "precision": subject.precision,
            "options": dict(subject.options),
            "threads": self._threads,
            "clips": dict(clips),
        }
        return step_key("logits", config, sources=(*_SOURCES, *sources), packages=_PACKAGES)

    def kept(self, key: str) -> Said | None:
        """What a pass left, if it was finished; a damaged one is removed."""
        folder = self._cache.finished(key)
        if folder is None:
            return None
        try:
            settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            return Said(np.load(folder / _LOGITS, allow_pickle=False), settings)
        except (OSError, ValueError, EOFError):
            shutil.rmtree(folder, ignore_errors=True)
            return None

    def drop_unfinished(self) -> None:
        """Remove what killed calls left half done; only while the folder is claimed."""
        self._cache.drop_unfinished()

    def announce(self, sizes: Mapping[str, int]) -> None:
        """Say what is to come: how many clips each pass is over, by its key."""
        due = {key: size for key, size in sizes.items() if self._cache.finished(key) is None}
        self._clips_due += sum(due.values())
        kept = f", {len(sizes) - len(due)} kept from before" if len(due) < len(sizes) else ""
        later = "; the first tells how long they take" if due else ""
        passes = "pass" if len(due) == 1 else "passes"
        self._say(f"accuracy: {len(due)} {passes} over {sum(due.values()):,} clips in all{kept}{later}")

    def run(self, key: str, subject: Subject, clips: Path, num_clips: int, *, name: str) -> Said:
        """What the file says to the clips, kept or computed. Raises what the process raised, with its message."""
        known = self.kept(key)
        if known is not None:
            return known
        with self._cache.making(key) as work:
            logits_NV, settings = deployed_run(replace(subject, threads=self._threads), clips)
            np.save(work / _LOGITS, logits_NV)
            write_atomic(work / _SETTINGS, json.dumps(settings))
        self._clips_done += num_clips
        self._say(f"{name}: {num_clips} clips{self._time_left()}")
        return Said(logits_NV, settings)

    def _time_left(self) -> str:
        due = self._clips_due - self._clips_done
        if due <= 0:
            return ""
        seconds = (time.monotonic() - self._started_s) / self._clips_done * due
        return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"
