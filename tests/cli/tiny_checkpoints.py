"""Files of some thousand parameters, of every kind that `predict` and `export` tell apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_families import EFFICIENT, FAMILIES
from tiny_models import SPEC, WORDS, lively
from torch import nn

from edgelip.models.checkpoint import Architecture, checkpoint_from_model, save_checkpoint
from edgelip.models.zoo import build_classifier

KINDS = FAMILIES | {"eflip_batch": ("eflip", EFFICIENT | {"attention": "batch"})}


def save_tiny(folder: Path, kind: str) -> tuple[Path, Any]:
    """A checkpoint with values of its own everywhere, and the model that it holds, in eval mode."""
    family, options = KINDS[kind]
    model: nn.Module = lively(build_classifier(family, num_words=len(WORDS), options=options))
    if family == "eflip":  # torch's own initialisation is so small that clips hardly differ
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3 if parameter.ndim > 1 else 1)
    spec = replace(SPEC, kind="audio") if kind.startswith("audio") else SPEC
    entry = {"stage": "train", "config": {}, "record": {}}
    architecture = Architecture(family, options, WORDS, spec.to_json(), (entry,))
    path = folder / f"{kind}.safetensors"
    save_checkpoint(checkpoint_from_model(model, architecture), path)
    return path, model
