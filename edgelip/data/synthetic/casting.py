"""Who performs which clip of a procedural set: every word meets every performer equally often.

Axes: B clips, S performers of a split.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgelip.data.synthetic.hashing import combine

_ORDER_KEY = 3


def performers(indices_B: Tensor, *, num_words: int, num_performers: int, seed: int, split_key: int) -> Tensor:
    """Number of the performer of each clip within its split; the word of clip i is i modulo the number of words."""
    repetition_B, labels_B = indices_B // num_words, indices_B % num_words
    place_B = (repetition_B + labels_B * num_performers // num_words) % num_performers
    key = torch.tensor([seed], device=indices_B.device)
    scores_S = combine(key, _ORDER_KEY, split_key, torch.arange(num_performers, device=indices_B.device))
    return torch.argsort(scores_S, stable=True)[place_B]
