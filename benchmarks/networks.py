"""The networks that the benchmarks time: built by name, with norms that have seen a clip, at full or toy size.

Needs torch only. Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgelip.errors import UsageError
from edgelip.models.catalogue import BACKBONES
from edgelip.models.efficientnet import Row
from edgelip.models.families import eflip, lip_tcn
from edgelip.registry import nearest

CLIP_THW = (29, 88, 88)
TOY_CLIP_THW = (6, 32, 32)
NUM_WORDS = 500
SETTLING_CLIPS = 4
TOY_ROWS = (Row(1, 3, 1, 8, 8, 1, "F"), Row(4, 3, 2, 8, 16, 1, "M"))


def video_backbones() -> list[str]:
    """Names of the catalogue that `build_network` takes."""
    return [
        name
        for name, backbone in BACKBONES.items()
        if backbone.family in ("lip_tcn", "eflip")
        and backbone.options.get("modality", "video") == "video"
        and not backbone.options.get("boundary", False)
    ]


def build_network(name: str, *, toy: bool = False, seed: int = 0) -> nn.Module:
    """A network of the catalogue on the CPU, in eval mode, freshly drawn; its norms know the statistics of noise clips.

    toy: the same family with few and narrow layers, for tests. Raises UsageError if there is no such video network.
    """
    if name not in video_backbones():
        raise UsageError(f"There is no network {name!r} to time. {nearest(name, video_backbones())}")
    backbone = BACKBONES[name]
    options: dict[str, Any] = {**backbone.options, **(_toy_options(name) if toy else {})}
    torch.manual_seed(seed)
    network = (eflip if backbone.family == "eflip" else lip_tcn)(num_words=NUM_WORDS, **options)
    settle_norms(network, example_clips(SETTLING_CLIPS, toy=toy, seed=seed))
    return network.eval()


def example_clips(num_clips: int, *, toy: bool = False, seed: int = 0) -> Tensor:
    """Noise of the size of a normalised clip: (B, 1, T, H, W) float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_clips, 1, *(TOY_CLIP_THW if toy else CLIP_THW), generator=generator)


@torch.no_grad()
def settle_norms(network: nn.Module, clips_B1THW: Tensor) -> None:
    """Set the running statistics to those of these clips, in place, so that logits depend on the clip."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches since the reset: one
    network.train()(clips_B1THW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _toy_options(name: str) -> dict[str, Any]:
    backbone = BACKBONES[name]
    if backbone.family == "eflip":
        return {"rows": TOY_ROWS, "last_width": 32, "num_heads": 2, "feedforward": 16, "tcn_width": 24, "tcn_blocks": 1}
    options: dict[str, Any] = {"branch_width": 16, "tcn_blocks": 1}
    if backbone.options["temporal"] == "dctcn":
        options |= {"reduced": 64, "block_config": (1, 1), "growth": (48, 48), "dilations": (1,)}
    if backbone.options.get("trunk", "resnet18") == "resnet18":
        options["trunk_widths"] = (16, 16, 16, 32)
    if backbone.options.get("phm") is not None:
        options["phm"] = {**backbone.options["phm"], "n": min(4, backbone.options["phm"]["n"])}
    return options
