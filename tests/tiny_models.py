"""Classifiers of some 20 thousand parameters with no value at its default, and what the stages need around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgelip.compress.pipeline import apply_stage, stages_from_configs
from edgelip.compress.stage import FineTune, LabelledClips, Tools
from edgelip.models.checkpoint import Architecture, Checkpoint, checkpoint_from_model
from edgelip.models.classifier import ClipNetwork
from edgelip.models.zoo import build_classifier
from edgelip.runtime.clip import ClipSpec

WORDS = ("ABOUT", "BELOW", "CHEESE", "DEATH", "EARLY", "FAMILY")
SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)
OPTIONS: dict[str, Any] = {"stem_width": 16, "trunk_widths": [16, 32], "temporal_width": 32, "temporal_blocks": 2}
PHM = {"stage": "phm", "n": 4}
PRUNE = {"stage": "prune", "pruning_ratio": 0.5, "round_to": 8}
QAT = {"stage": "qat"}
# What the quickstart recipe deploys.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "phm": [PHM],
    "pruned": [PRUNE],
    "phm-int8": [PHM, QAT],
    "pruned-phm-int8": [PRUNE, PHM, QAT],
}


def clips(num_clips: int = 8, *, seed: int = 0) -> Tensor:
    """Smooth network inputs (N, 1, 6, 20, 20)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num_clips, 6, 5, 5, generator=generator)
    return nn.functional.interpolate(coarse, size=(20, 20), mode="bilinear")[:, None]


@torch.no_grad()
def lively(model: nn.Module, *, seed: int = 0) -> Any:
    """Give normalisations and biases values of their own, in place; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
        elif isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


def classifier(*, seed: int = 0) -> ClipNetwork:
    model: ClipNetwork = lively(build_classifier("small", num_words=len(WORDS), options=OPTIONS, seed=seed), seed=seed)
    return model


def dense_checkpoint() -> Checkpoint:
    entry = {"stage": "train", "config": {}, "record": {}}
    return checkpoint_from_model(classifier(), Architecture("small", OPTIONS, WORDS, SPEC.to_json(), (entry,)))


def nudge(student: nn.Module, **_: Any) -> nn.Module:
    """Fine-tuning that moves every weight a little, so that restoring cannot succeed by recomputing them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator))
    return student.eval()


def keep(student: nn.Module, **_: Any) -> nn.Module:
    """Fine-tuning that changes nothing."""
    return student


def tools_of(clips_B1THW: Tensor, *, finetune: FineTune = keep) -> Tools:
    """What stages are given: these clips, of two words in turn, for calibration and to score on."""
    labelled = LabelledClips(clips_B1THW, torch.arange(len(clips_B1THW)) % 2, "0" * 64)
    return Tools(finetune=finetune, calibration=lambda: labelled, probe=lambda: labelled)


TOOLS = tools_of(clips(16, seed=5), finetune=nudge)


def compressed(variant: str) -> Checkpoint:
    checkpoint = dense_checkpoint()
    for stage in stages_from_configs(VARIANTS[variant]):
        checkpoint = apply_stage(checkpoint, stage, TOOLS)
    return checkpoint
