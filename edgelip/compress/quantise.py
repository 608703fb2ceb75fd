"""Stage `qat`: training with the rounding of int8 inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from edgelip.compress import toolkit_quantise
from edgelip.compress.fake_quant import ActivationQuantiser, QuantisedAdd, QuantisedLayer
from edgelip.compress.stage import Record, Stage, StageConfig, Tools
from edgelip.errors import StageError
from edgelip.models.blocks import Add, fold_norms
from edgelip.models.hypercomplex import PHMLayer

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, PHMLayer)


class QuantiseConfig(StageConfig):
    """Who places and trains the quantisers, and on how many training clips their ranges are set."""

    stage: Literal["qat"] = "qat"
    backend: Literal["own", "nncf"] = "own"
    calibration_clips: int = Field(256, ge=1)


class QuantisationAwareTraining(Stage):
    """Folds batch normalisation, puts quantisers at every layer's input and weight, calibrates, trains.

    backend "own" is the default: it quantises PHM weights and stores int8. "nncf" leaves the placement to NNCF
    and takes dense layers only, since NNCF would leave PHM weights in float without a word.
    """

    name = "qat"
    phase = "numerics"
    rank: ClassVar[int] = 10
    config_model = QuantiseConfig
    trains_norms = False
    integer = True
    sources = ("compress/fake_quant.py", "compress/toolkit_quantise.py")

    @property
    def label(self) -> str:
        return "int8 QAT" + (" (NNCF)" if self.config.backend == "nncf" else "")

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        ours = any(isinstance(module, ActivationQuantiser) for module in model.modules())
        if ours or toolkit_quantise.is_toolkit_model(model):
            raise StageError("The model is quantised already; stage 'qat' applies once. Remove one of the two.")
        fold_norms(model)
        clips = tools.calibration().first(self.config.calibration_clips).clips_B1THW
        if self.config.backend == "nncf":
            return toolkit_quantise.quantise(model, clips)
        insert_quantisers(model)
        calibrate(model, clips)
        return model, {"backend": "own"}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        fold_norms(model.eval())
        if record["backend"] == "nncf":
            return toolkit_quantise.restore(model, record)
        insert_quantisers(model)
        return model


def insert_quantisers(model: nn.Module) -> None:
    """Wrap every weighted layer and every sum, in place."""
    targets = [(name, module) for name, module in model.named_modules() if isinstance(module, (*WEIGHTED, Add))]
    for name, module in targets:
        folder, _, leaf = name.rpartition(".")
        wrapped = QuantisedAdd() if isinstance(module, Add) else QuantisedLayer(module)
        setattr(model.get_submodule(folder), leaf, wrapped)


@torch.no_grad()
def calibrate(model: nn.Module, clips: torch.Tensor, *, batch_size: int = 32) -> None:
    """Set every activation range from network inputs (B, 1, T, H, W)."""
    quantisers = [module for module in model.modules() if isinstance(module, ActivationQuantiser)]
    for quantiser in quantisers:
        quantiser.observing = True
    for start in range(0, len(clips), batch_size):
        model(clips[start : start + batch_size])
    for quantiser in quantisers:
        quantiser.observing = False
        quantiser.settle()
