"""Named whole configurations of a word classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError

from edgelip.errors import RecipeError
from edgelip.models.blocks import initialise
from edgelip.models.classifier import WordClassifier
from edgelip.models.frontend import StackedFrontend
from edgelip.models.residual import ResidualTrunk
from edgelip.models.tcn import TemporalNet
from edgelip.recipe import Strict, explain
from edgelip.registry import lookup

BACKBONES: dict[str, str] = {
    "small": "edgelip.models.zoo:Small",
}


class Small(Strict):
    """3-D stem, a basic block per width, dilated temporal net: 0.6 M parameters, sized for training on 2 CPU cores."""

    stem_width: int = Field(16, ge=1, le=1024)
    stem_kernel: int = Field(5, ge=1, le=15)
    trunk_widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field((32, 64, 128), min_length=1, max_length=8)
    temporal_width: int = Field(128, ge=1, le=4096)
    temporal_blocks: int = Field(3, ge=1, le=8)
    dropout: float = Field(0.1, ge=0, lt=1)

    def build(self, num_words: int) -> WordClassifier:
        trunk = ResidualTrunk(self.stem_width, self.trunk_widths)
        temporal = TemporalNet(
            self.trunk_widths[-1], self.temporal_width, num_blocks=self.temporal_blocks, dropout=self.dropout
        )
        return WordClassifier(
            frontend=StackedFrontend(self.stem_width, kernel=self.stem_kernel),
            trunk=trunk,
            temporal=temporal,
            head=torch.nn.Linear(self.temporal_width, num_words),
        )


def build_classifier(backbone: str, *, num_words: int, options: Mapping[str, Any], seed: int = 0) -> WordClassifier:
    """A freshly initialised classifier: the same weights for the same seed. Raises RecipeError on an unknown option."""
    family = lookup(BACKBONES, backbone, kind="backbone")
    try:
        configuration = family.model_validate(dict(options))
    except ValidationError as error:
        raise RecipeError(f"model.options of backbone {backbone!r}: {explain(error, family)}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: WordClassifier = configuration.build(num_words)
        initialise(model)
    return model
