"""What gives scores to clips, a checkpoint in torch or a bundle in an engine: `predict` treats both alike.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelip.errors import CheckpointError, UsageError
from edgelip.models.checkpoint_files import is_checkpoint
from edgelip.runtime.clip import ClipSpec

if TYPE_CHECKING:
    from torch import nn

    from edgelip.models.checkpoint import Checkpoint
    from edgelip.runtime.recogniser import Recogniser

DEFAULT_ENGINE = "ort"
BATCH = 16


class Scorer(abc.ABC):
    """A classifier that takes network inputs: `with open_scorer(path) as scorer: scorer.scores(clips)`.

    any_length: takes clips of other numbers of frames than the contract's, and the length of each clip.
    boundary: needs an indicator of the word's frames with each clip.
    mixes_clips: a clip's scores depend on the other clips of its batch, so that a file must be one batch.
    """

    spec: ClipSpec
    words: tuple[str, ...]
    any_length = False
    boundary = False
    mixes_clips = False

    @abc.abstractmethod
    def scores(
        self, clips: np.ndarray, lengths_B: np.ndarray | None = None, boundaries_BT1: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 (B, V) of one batch. clips: float32 (B, 1, T, H, W), of audio (B, 1, samples).

        Raises UsageError if they do not fit the classifier, or its scores are not finite.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Free what is held; `scores` must not be called afterwards."""

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class BundleScorer(Scorer):
    """A bundle in an engine: clips of full length only."""

    def __init__(self, recogniser: Recogniser) -> None:
        manifest = recogniser.bundle.manifest
        self.spec, self.words, self._recogniser = manifest.clip, manifest.vocabulary, recogniser

    def scores(
        self, clips: np.ndarray, lengths_B: np.ndarray | None = None, boundaries_BT1: np.ndarray | None = None
    ) -> np.ndarray:
        assert lengths_B is None
        assert boundaries_BT1 is None
        return self._recogniser.scores(clips)

    def close(self) -> None:
        self._recogniser.close()


class CheckpointScorer(Scorer):
    """A checkpoint in torch on the CPU, in eval mode."""

    any_length = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        from edgelip.compress.pipeline import model_from_checkpoint

        self.spec = ClipSpec.from_json(checkpoint.architecture.clip)
        self.words = checkpoint.architecture.words
        self._model = model_from_checkpoint(checkpoint)
        self.boundary, self.mixes_clips = needs_boundaries(self._model), mixes_clips(self._model)

    def scores(
        self, clips: np.ndarray, lengths_B: np.ndarray | None = None, boundaries_BT1: np.ndarray | None = None
    ) -> np.ndarray:
        import torch

        arrays = [clips, lengths_B, *([boundaries_BT1] if self.boundary else [])]
        tensors = [None if array is None else torch.from_numpy(np.array(array)) for array in arrays]
        with torch.inference_mode():
            scores_BV: np.ndarray = self._model(*tensors).numpy()
        if not np.isfinite(scores_BV).all():
            raise CheckpointError("The checkpoint gives scores that are not finite. Train or import it again.")
        return scores_BV

    def close(self) -> None:
        del self._model


def open_scorer(path: Path, *, engine: str | None = None) -> Scorer:
    """The checkpoint (a file or a run folder) or bundle (a folder) at `path`; engine: of a bundle, "ort" if None.

    Raises UsageError if it is neither, is damaged, or `engine` is given for a checkpoint.
    """
    if path.is_dir() and not is_checkpoint(path):
        from edgelip.runtime.bundle import Bundle
        from edgelip.runtime.recogniser import Recogniser

        return BundleScorer(Recogniser(Bundle.open(path), engine=engine or DEFAULT_ENGINE))
    if not path.exists():
        raise UsageError(
            f"{path} does not exist; expected a checkpoint (file) or a bundle (folder with manifest.json)."
        )
    if not is_checkpoint(path):
        raise UsageError(
            f"{path} is a file, but no checkpoint of edgelip; expected one, or a bundle (folder with manifest.json). "
            "`edgelip import` makes checkpoints of published files."
        )
    if engine is not None:
        raise UsageError(f"--engine {engine} belongs to a bundle; the checkpoint {path} runs in torch. Leave it out.")
    from edgelip.models.checkpoint import load_checkpoint

    return CheckpointScorer(load_checkpoint(path))


def score_in_batches(
    scorer: Scorer,
    clips: np.ndarray,
    *,
    network_inputs: Callable[[np.ndarray], np.ndarray],
    lengths_B: np.ndarray | None = None,
    boundaries_BT1: np.ndarray | None = None,
) -> np.ndarray:
    """float32 (B, V) of all the clips, a batch at a time; network_inputs: makes a batch of clips what a net takes."""
    size = len(clips) if scorer.mixes_clips else BATCH
    parts = []
    for start in range(0, len(clips), size):
        rows = slice(start, start + size)
        lengths, boundaries = (None if each is None else each[rows] for each in (lengths_B, boundaries_BT1))
        parts.append(scorer.scores(network_inputs(clips[rows]), lengths, boundaries))
    return np.concatenate(parts)


def needs_boundaries(model: nn.Module) -> bool:
    """Does the network take an indicator of the word's frames?"""
    return bool(getattr(model, "boundary", False))


def mixes_clips(model: nn.Module) -> bool:
    """Does a clip's result depend on its batch mates, as in the published EfLip?"""
    from edgelip.models.transformer import Attention

    return any(isinstance(module, Attention) and module.mode == "batch" for module in model.modules())
