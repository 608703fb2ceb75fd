"""The standard shape of a word classifier: frontend, trunk, temporal net, mean over frames, linear head.

Axes: B clips, T frames, H rows, W columns, C channels, V words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelip.errors import ShapeError


class WordClassifier(nn.Module):
    """Clips in, one score a word out.

    frontend: (B, 1, T, H, W) -> (B*T, C, h, w); trunk: -> (B*T, F); temporal: (B, F, T), mask -> (B, G, T);
    head: G -> V.
    The result of a clip depends on nothing but its first `length` frames.
    """

    def __init__(self, *, frontend: nn.Module, trunk: nn.Module, temporal: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.frontend, self.trunk, self.temporal, self.head = frontend, trunk, temporal, head

    def forward(self, clips_B1THW: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """logits (B, V). lengths_B: valid leading frames of each clip, 1..T; none means all."""
        if clips_B1THW.ndim != 5 or clips_B1THW.shape[1] != 1:
            raise ShapeError(f"clips have shape {tuple(clips_B1THW.shape)}; expected (B, 1, T, H, W).")
        if lengths_B is not None and lengths_B.shape != clips_B1THW.shape[:1]:
            wanted = tuple(clips_B1THW.shape[:1])
            raise ShapeError(f"lengths have shape {tuple(lengths_B.shape)}; expected {wanted}, one a clip.")
        mask_B1T = None
        if lengths_B is not None:
            frames_T = torch.arange(clips_B1THW.shape[2], device=clips_B1THW.device)
            mask_B1T = (frames_T < lengths_B[:, None])[:, None].to(clips_B1THW.dtype)
            # Not a product: padding may hold anything, and 0 x nan is nan.
            clips_B1THW = clips_B1THW.masked_fill(mask_B1T[..., None, None] == 0, 0.0)
        features_BCT = self._features(clips_B1THW, mask_B1T)
        if mask_B1T is None:
            return self.head(features_BCT.mean(dim=2))  # type: ignore[no-any-return]
        return self.head(features_BCT.sum(dim=2) / mask_B1T.sum(dim=2))  # type: ignore[no-any-return]

    def word_logits(self, clips_B1THW: Tensor, boundaries_B2: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, V) of the whole clips, and of the word's own frames alone, for training.

        boundaries_B2: first and last frame of the word, inclusive.
        """
        features_BCT = self._features(clips_B1THW, None)
        frames_T = torch.arange(features_BCT.shape[2], device=features_BCT.device)
        inside_BT = (frames_T >= boundaries_B2[:, :1]) & (frames_T <= boundaries_B2[:, 1:])
        inside_B1T = inside_BT[:, None].to(features_BCT.dtype)
        word_BC = (features_BCT * inside_B1T).sum(dim=2) / inside_B1T.sum(dim=2)
        return self.head(features_BCT.mean(dim=2)), self.head(word_BC)

    def _features(self, clips_B1THW: Tensor, mask_B1T: Tensor | None) -> Tensor:
        """(B, G, T), zero where the mask is."""
        num_clips, _, num_frames = clips_B1THW.shape[:3]
        features = self.trunk(self.frontend(clips_B1THW))
        features_BCT = features.reshape(num_clips, num_frames, -1).transpose(1, 2)
        if mask_B1T is not None:
            features_BCT = features_BCT * mask_B1T
        return self.temporal(features_BCT, mask_B1T)  # type: ignore[no-any-return]
