"""Bundles for `blame`: a float reference, int8 suspects of it with one planted fault each, and clips to judge by.

Axes: N clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tiny_models import SPEC, WORDS, classifier, dense_checkpoint, tools_of

from edgelip.cli.bundling import bundle_from_checkpoint
from edgelip.compress.pipeline import apply_stage, stage_from_config
from edgelip.models.checkpoint import Checkpoint
from edgelip.runtime.clip import network_input

BAD_LAYER = "trunk.blocks.1.conv2.conv"
CONFUSED = (1, 4)
CLIPS_OF_A_WORD = 15


@dataclass(frozen=True)
class Suspects:
    """Bundles by name: "dense" the reference, "bad" with a spoilt layer, "confused" with two words swapped."""

    folder: Path
    clips: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def write_suspects(folder: Path) -> Suspects:
    """Export them (some 10 s). Labels: the reference's own words, at most 15 clips of each: it gets all right."""
    frames_NTHW = _frames(400)
    clips_N1THW = torch.from_numpy(network_input(frames_NTHW, SPEC))
    dense = dense_checkpoint()
    model = classifier()
    with torch.no_grad():
        scores_NV = model(clips_N1THW)
        bias = dense.tensors["head.bias"] - scores_NV.mean(dim=0)
        said_N = (scores_NV - scores_NV.mean(dim=0)).argmax(dim=1).numpy()
    dense = replace(dense, tensors={**dense.tensors, "head.bias": bias})
    counts = np.bincount(said_N, minlength=len(WORDS))
    assert counts[list(CONFUSED)].min() >= CLIPS_OF_A_WORD, counts
    found = [np.flatnonzero(said_N == word)[:CLIPS_OF_A_WORD] for word in range(len(WORDS))]
    chosen = np.sort(np.concatenate(found))
    path = folder / "clips.npz"
    np.savez(path, frames=frames_NTHW[chosen], labels=said_N[chosen])
    rounded = apply_stage(dense, stage_from_config({"stage": "qat", "tune": {"epochs": 0}}), tools_of(clips_N1THW[:32]))
    tensors = rounded.tensors.items()
    spoilt = {key: value * 60 if key == f"{BAD_LAYER}.input.scale" else value for key, value in tensors}
    swapped = {key: _swapped(value) if key.startswith("head.layer.") else value for key, value in tensors}
    for name, checkpoint in (
        ("dense", dense),
        ("bad", replace(rounded, tensors=spoilt)),
        ("confused", replace(rounded, tensors=swapped)),
    ):
        _write(folder / name, checkpoint, frames_NTHW[chosen[:4]])
    return Suspects(folder, path)


def _write(folder: Path, checkpoint: Checkpoint, frames_NTHW: np.ndarray) -> None:
    bundle_from_checkpoint(folder, checkpoint, frames_NTHW, name=folder.name, data="noise", precisions=())


def _swapped(rows: torch.Tensor) -> torch.Tensor:
    order = list(range(len(rows)))
    first, second = CONFUSED
    order[first], order[second] = order[second], order[first]
    return rows[order].clone()


def _frames(num_clips: int) -> np.ndarray:
    """uint8 (N, T, H, W): smooth noise of different brightness and contrast."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(num_clips, SPEC.frames, 6, 6))
    contrast_N = rng.uniform(5, 60, num_clips)[:, None, None, None]
    grey_N = rng.uniform(60, 190, num_clips)[:, None, None, None]
    side = SPEC.stored_px // 6
    frames_NTHW = np.kron(coarse, np.ones((1, 1, side, side))) * contrast_N + grey_N
    return np.clip(frames_NTHW, 0, 255).astype(np.uint8)
