"""Sign networks of some 10 thousand parameters, and clips of landmarks for them."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import lively
from torch import Tensor, nn

from edgelip.models.classifier import ClipNetwork
from edgelip.models.zoo import build_classifier

POINTS, AXES, FRAMES, NUM_WORDS = 5, 2, 9, 6
LANDMARKS: dict[str, Any] = {"points": POINTS, "axes": AXES}
CONV: dict[str, Any] = {**LANDMARKS, "width": 16, "stages": 1, "blocks": 2, "kernel": 5, "num_heads": 2}
SIGN_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "simple": ("simple_islr", {**LANDMARKS, "width": 16}),
    "centred": ("sign_conv_transformer", CONV),
    "causal": ("sign_conv_transformer", {**CONV, "causal": True}),
}


def sign_network(name: str, *, seed: int = 0) -> ClipNetwork:
    """In eval mode, no value at its default."""
    family, options = SIGN_NETWORKS[name]
    network: ClipNetwork = lively(build_classifier(family, num_words=NUM_WORDS, options=options, seed=seed), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv1d) and module.bias is not None:
                module.bias.normal_(0, 0.3, generator=generator)
    return network


def landmark_clips(num_clips: int = 8, *, frames: int = FRAMES, seed: int = 0) -> Tensor:
    """Wandering points (N, 1, T, P, A); the last point is lost, 0, in the first third of the frames."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(num_clips, 1, 1, POINTS, AXES, generator=generator)
    steps = 0.2 * torch.randn(num_clips, 1, frames, POINTS, AXES, generator=generator)
    clips = start + steps.cumsum(dim=2)
    clips[:, :, : frames // 3, -1] = 0
    return clips
