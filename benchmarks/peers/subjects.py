"""What all peers run: one ONNX file of a bundle, and the clips that the bundle keeps of its test split.

Axes: N clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelip.errors import EdgelipError
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input


@dataclass(frozen=True)
class Subject:
    """bundle: a copy without builds, so that our runner opens the ONNX file too. clips: network inputs, one file.

    clip_files: the same, a file each. logits: what the bundle says that the clips give. checkpoint: of these weights.
    """

    name: str
    bundle: Path
    clips: Path
    clip_files: tuple[Path, ...]
    logits: Path
    shape: tuple[int, ...]  # of one network input, (1, 1, T, H, W)
    checkpoint: Path | None
    threads: int = 1

    def model(self, engine: str) -> tuple[Path, str]:
        """The file that our runner gives to `engine`, and its precision. Raises BundleError if there is none."""
        found = Bundle.open(self.bundle).model_for(engine)
        return found.path, found.precision


def prepare(bundle_path: Path, folder: Path, *, checkpoints: Sequence[Path] = (), threads: int = 1) -> Subject:
    """Copy the bundle, write its clips as network inputs into `folder`, and find its checkpoint.

    Raises BundleError if the bundle is damaged.
    """
    bundle = Bundle.open(bundle_path)
    copied = folder / bundle.name
    copied.mkdir(parents=True)
    for name in ("manifest.json", *(entry.name for entry in bundle.manifest.files)):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle.path / name, copied / name)
    expected = bundle.expected()
    clips_N1THW = network_input(expected.frames_NTHW, bundle.manifest.clip).astype(np.float32, copy=False)
    inputs = folder / f"{bundle.name}-inputs"
    inputs.mkdir()
    np.save(inputs / "clips.npy", clips_N1THW)
    np.save(inputs / "logits.npy", expected.logits_NV)
    files = []
    for index in range(len(clips_N1THW)):
        files.append(inputs / f"clip{index:03}.npy")
        np.save(files[-1], clips_N1THW[index : index + 1])
    return Subject(
        name=bundle.name,
        bundle=copied,
        clips=inputs / "clips.npy",
        clip_files=tuple(files),
        logits=inputs / "logits.npy",
        shape=(1, *clips_N1THW.shape[1:]),
        checkpoint=_checkpoint_of(bundle, checkpoints),
        threads=threads,
    )


def _checkpoint_of(bundle: Bundle, candidates: Sequence[Path]) -> Path | None:
    """The candidate that holds the weights which the manifest names by their hash."""
    if not candidates:
        return None
    from edgelip.models.checkpoint import load_checkpoint

    for path in candidates:
        try:
            if load_checkpoint(path).sha256 == bundle.manifest.weights_sha256:
                return path
        except EdgelipError:
            continue  # another program's file, or a newer one: not this network's
    return None
