"""The standard shape of a word classifier: frontend, trunk, temporal net, mean over frames, linear head.

Axes: B clips, T frames, H rows, W columns, C channels, F trunk features, G temporal features, V words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelip.errors import ShapeError


class ClipNetwork(nn.Module):
    """Clips in, one score a word out.

    frontend: (B, 1, T, H, W) -> (B*T, C, h, w); trunk: -> (B*T, F); temporal: (B, F, T), mask -> (B, G, T);
    head: G -> V; output: what follows the head (log-softmax where the published net gives log-probabilities).
    boundary: the net takes a 0/1 indicator of the word's frames as one more feature, after the trunk's.
    as_published: the temporal net sees the frames beyond a clip's length, as in the published code. Otherwise the
    result of a clip depends on nothing but its first `length` frames.
    takes_lengths: False for nets that know clips of full length only.
    """

    def __init__(
        self,
        *,
        frontend: nn.Module,
        trunk: nn.Module,
        temporal: nn.Module,
        head: nn.Linear,
        output: nn.Module | None = None,
        boundary: bool = False,
        as_published: bool = False,
        takes_lengths: bool = True,
    ) -> None:
        super().__init__()
        self.frontend, self.trunk, self.temporal, self.head = frontend, trunk, temporal, head
        self.output = output or nn.Identity()
        self.boundary, self.as_published, self.takes_lengths = boundary, as_published, takes_lengths

    def forward(
        self, clips_B1THW: Tensor, lengths_B: Tensor | None = None, boundaries_BT1: Tensor | None = None
    ) -> Tensor:
        """logits (B, V). lengths_B: valid leading frames of each clip, 1..T; none means all.

        boundaries_BT1: 1.0 in the word's frames, 0.0 elsewhere; needed by, and only by, boundary nets.
        """
        self._check(clips_B1THW, lengths_B, boundaries_BT1)
        clips_B1THW, mask_B1T = self._masked(clips_B1THW, lengths_B)
        temporal_BGT = self._temporal_features(clips_B1THW, mask_B1T, boundaries_BT1)
        return self.output(self.head(mean_over_frames(temporal_BGT, mask_B1T)))  # type: ignore[no-any-return]

    def features(self, clips_B1THW: Tensor) -> Tensor:
        """What the trunk makes of each frame: (B, T, F)."""
        num_clips, _, num_frames = clips_B1THW.shape[:3]
        return self.trunk(self.frontend(clips_B1THW)).reshape(num_clips, num_frames, -1)  # type: ignore[no-any-return]

    def word_logits(
        self, clips_B1THW: Tensor, boundaries_B2: Tensor, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, V) of the whole clips, and of the word's own frames alone, for training.

        boundaries_B2: first and last frame of the word, inclusive. lengths_B: as of `forward`.
        """
        inside_BT1 = inside_word(boundaries_B2, clips_B1THW.shape[2]).to(clips_B1THW.dtype)
        clips_B1THW, mask_B1T = self._masked(clips_B1THW, lengths_B)
        temporal_BGT = self._temporal_features(clips_B1THW, mask_B1T, inside_BT1 if self.boundary else None)
        whole = mean_over_frames(temporal_BGT, mask_B1T)
        word = mean_over_frames(temporal_BGT, inside_BT1.transpose(1, 2))
        return self.output(self.head(whole)), self.output(self.head(word))

    def _masked(self, clips_B1THW: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Clips without what lies beyond their length, unless as published, and the mask (B, 1, T)."""
        if lengths_B is None:
            return clips_B1THW, None
        mask_B1T = length_mask(lengths_B, clips_B1THW.shape[2]).to(clips_B1THW.dtype)
        if not self.as_published:  # Not a product: padding may hold anything, and 0 x nan is nan.
            clips_B1THW = clips_B1THW.masked_fill(mask_B1T[..., None, None] == 0, 0.0)
        return clips_B1THW, mask_B1T

    def _temporal_features(self, clips_B1THW: Tensor, mask_B1T: Tensor | None, boundaries_BT1: Tensor | None) -> Tensor:
        """(B, G, T); unspecified beyond the length."""
        features_BTF = self.features(clips_B1THW)
        if boundaries_BT1 is not None:
            features_BTF = torch.cat([features_BTF, boundaries_BT1.to(features_BTF.dtype)], dim=2)
        features_BFT = features_BTF.transpose(1, 2)
        if mask_B1T is None or self.as_published:
            return self.temporal(features_BFT, None)  # type: ignore[no-any-return]
        return self.temporal(features_BFT * mask_B1T, mask_B1T)  # type: ignore[no-any-return]

    def _check(self, clips_B1THW: Tensor, lengths_B: Tensor | None, boundaries_BT1: Tensor | None) -> None:
        if clips_B1THW.ndim != 5 or clips_B1THW.shape[1] != 1:
            raise ShapeError(f"clips have shape {tuple(clips_B1THW.shape)}; expected (B, 1, T, H, W).")
        num_clips, _, num_frames = clips_B1THW.shape[:3]
        if lengths_B is not None and not self.takes_lengths:
            raise ShapeError(
                "This network, as published, knows clips of full length only; it takes no lengths. "
                "Import the checkpoint with --corrected for clips of several lengths."
            )
        if lengths_B is not None and lengths_B.shape != (num_clips,):
            raise ShapeError(f"lengths have shape {tuple(lengths_B.shape)}; expected {(num_clips,)}, one a clip.")
        if self.boundary != (boundaries_BT1 is not None):
            needs = "needs" if self.boundary else "takes no"
            raise ShapeError(f"This network {needs} word boundaries: 0/1 of shape (B, T, 1) for each frame.")
        if boundaries_BT1 is not None and boundaries_BT1.shape != (num_clips, num_frames, 1):
            wanted = (num_clips, num_frames, 1)
            raise ShapeError(f"word boundaries have shape {tuple(boundaries_BT1.shape)}; expected {wanted}.")


def length_mask(lengths_B: Tensor, num_frames: int) -> Tensor:
    """True in the first `length` frames of each clip: (B, 1, T)."""
    frames_T = torch.arange(num_frames, device=lengths_B.device)
    return (frames_T < lengths_B[:, None])[:, None]


def inside_word(boundaries_B2: Tensor, num_frames: int) -> Tensor:
    """True from the first to the last frame of each word, inclusive: (B, T, 1)."""
    frames_T = torch.arange(num_frames, device=boundaries_B2.device)
    inside_BT = (frames_T >= boundaries_B2[:, :1]) & (frames_T <= boundaries_B2[:, 1:])
    return inside_BT[:, :, None]


def mean_over_frames(features_BGT: Tensor, mask_B1T: Tensor | None) -> Tensor:
    """Mean over the frames where the mask is 1, over all without one: (B, G)."""
    if mask_B1T is None:
        return features_BGT.mean(dim=2)
    return (features_BGT * mask_B1T).sum(dim=2) / mask_B1T.sum(dim=2)
