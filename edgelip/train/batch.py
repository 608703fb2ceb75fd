"""What a network is given in training: varied, normalised clips, and all that says which of their frames count.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor, nn

from edgelip.errors import UsageError
from edgelip.models.classifier import inside_word


@final
@dataclass(frozen=True, eq=False)
class NetworkBatch:
    """Clips float32 (B, 1, T, H, W), in any order of length; points x coordinates in place of H x W for landmarks.

    boundaries_B2: first and last frame of the word, inclusive.
    lengths_B: leading frames of each clip that count, 1..T; None means all. Frames beyond are 0 after normalisation,
    as in the published code; networks that see padding "as published" see those zeros, the others see nothing there.
    """

    clips: Tensor
    boundaries_B2: Tensor
    lengths_B: Tensor | None = None

    def logits(self, network: nn.Module) -> Tensor:
        """Logits (B, V). A network whose `boundary` is true is told which frames are the word's."""
        given = [self.clips] if self.lengths_B is None else [self.clips, self.lengths_B]
        if not getattr(network, "boundary", False):
            return network(*given)  # type: ignore[no-any-return]
        inside_BT1 = inside_word(self.boundaries_B2, self.clips.shape[2]).to(self.clips.dtype)
        return network(*given, boundaries_BT1=inside_BT1)  # type: ignore[no-any-return]

    def word_logits(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Logits (B, V) of the whole clips, and of the word's own frames alone."""
        given = [self.clips, self.boundaries_B2]
        if self.lengths_B is not None:
            given.append(self.lengths_B)
        return network.word_logits(*given)  # type: ignore[no-any-return, operator]


def refuse_variable_length(network: nn.Module) -> None:
    """Raises UsageError for a network that cannot train on clips of several lengths."""
    if getattr(network, "boundary", False):
        raise UsageError(
            "variable_length is on and the network takes word boundaries, which are those of the uncropped clip; "
            "expected one or the other. Set train.variable_length = false, or model.options.boundary = false."
        )
    if not getattr(network, "takes_lengths", False):
        raise UsageError(
            "variable_length is on and the network takes no lengths: it knows clips of full length only. "
            "Set train.variable_length = false, or choose a backbone that takes lengths."
        )


def refuse_whole_words(boundaries_N2: np.ndarray, num_frames: int) -> None:
    """Raises UsageError if every word fills its clip: a window that holds the word is the clip then."""
    if (boundaries_N2 == (0, num_frames - 1)).all():
        raise UsageError(
            f"variable_length is on and has no effect: the word fills all {num_frames} frames of each of the "
            f"{len(boundaries_N2)} clips. Prepare clips that say where their word lies, or set "
            "train.variable_length = false."
        )
