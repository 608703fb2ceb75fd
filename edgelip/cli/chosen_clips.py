"""The clips that stages and bundles are given: evenly spread ones of a split."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from edgelip.cli.clip_source import ClipSource
from edgelip.cli.disjoint import refuse_test_clips
from edgelip.compress.stage import LabelledClips
from edgelip.data.readers.samples import Split
from edgelip.data.stores.store import Store
from edgelip.runtime.clip import network_input

CALIBRATION_CLIPS = 512
PROBE_CLIPS = 512  # to score choices of a stage on


def calibration_clips(clips: ClipSource) -> LabelledClips:
    """Clips of the training split."""
    return _labelled(clips, "train", CALIBRATION_CLIPS)


def probe_clips(clips: ClipSource) -> LabelledClips:
    """Clips of the validation split."""
    return _labelled(clips, "val", PROBE_CLIPS)


def refuse_calibration_on_test(clips: ClipSource) -> None:
    """Raises ClipError if a clip of `calibration_clips` is a test clip. Makes the test split if need be."""
    train = clips.store("train")
    refuse_test_clips(train, spread(train, CALIBRATION_CLIPS), clips.store("test"))


def spread(store: Store, num_clips: int) -> np.ndarray:
    """Indices of evenly spread clips of a store."""
    return np.unique(np.linspace(0, len(store) - 1, num_clips).astype(int))


def _labelled(clips: ClipSource, split: Split, num_clips: int) -> LabelledClips:
    store = clips.store(split)
    chosen = spread(store, num_clips)
    frames_BTHW = np.ascontiguousarray(store.frames[chosen])
    return LabelledClips(
        torch.from_numpy(network_input(frames_BTHW, clips.spec)),
        torch.from_numpy(np.asarray(store.labels[chosen], dtype=np.int64)),
        hashlib.sha256(frames_BTHW.tobytes()).hexdigest(),
    )
