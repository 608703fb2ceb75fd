"""Stage `prune`: whole channels are removed, so that tensors, file and work really shrink."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from edgelip.compress.stage import Record, Stage, StageConfig, Tools
from edgelip.errors import EdgelipError, StageError
from edgelip.models.hypercomplex import PHMLayer
from edgelip.registry import require

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PruneConfig(StageConfig):
    """How much to remove, from every layer alike."""

    stage: Literal["prune"] = "prune"
    pruning_ratio: float = Field(0.5, gt=0, lt=1)  # share of the channels that is removed
    round_to: int = Field(8, ge=1)  # kept channels, rounded down to a multiple of this: engines work in blocks of 8


class Prune(Stage):
    """Structured pruning by group magnitude through Torch-Pruning's dependency graph (Fang et al., CVPR 2023)."""

    name = "prune"
    phase = "structure"
    rank: ClassVar[int] = 1
    config_model = PruneConfig

    @property
    def label(self) -> str:
        return f"pruned {self.config.pruning_ratio:.0%}"

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        if any(isinstance(module, PHMLayer) for module in model.modules()):
            raise StageError("Stage 'prune' removes channels of dense layers; this model has PHM layers. Prune first.")
        torch_pruning = require("torch_pruning", extra="compress")
        whole, before, clip = deepcopy(model), _widths(model), tools.calibration().clips_B1THW[:1]
        heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
        try:
            with torch.enable_grad():  # the dependency graph is traced through autograd
                pruner = torch_pruning.pruner.BasePruner(
                    model,
                    clip,
                    importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                    pruning_ratio=self.config.pruning_ratio,
                    round_to=self.config.round_to,
                    ignored_layers=heads,
                )
                pruner.step()
            after = _widths(model)
            changed = {name: width for name, width in after.items() if width != before[name]}
            rebuilt = self.restore(whole, {"widths": changed})
            rebuilt.load_state_dict(model.state_dict())
            with torch.no_grad():
                same = torch.equal(rebuilt(clip), model(clip))
        except EdgelipError:
            raise
        except Exception as error:  # the library says in many ways that it cannot follow a network
            raise _cannot_follow(type(error).__name__) from error
        if not same:
            raise _cannot_follow("the pruned network cannot be rebuilt from its widths")
        if not changed:
            raise StageError(
                f"Pruning {self.config.pruning_ratio:.0%} in multiples of {self.config.round_to} removes no channel of "
                "this model. Raise pruning_ratio or lower round_to."
            )
        return model, {"widths": changed}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        before = _widths(model)
        for name, widths in record["widths"].items():
            if any(not 0 < new <= old for new, old in zip(widths, before[name], strict=True)):
                raise StageError(f"Pruning {name} from {before[name]} to {widths} channels is no pruning.")
            _resize(model.get_submodule(name), *widths)
        return model


def _cannot_follow(reason: str) -> StageError:
    return StageError(
        f"Torch-Pruning cannot follow the channels of this network ({reason}): channel shuffles and attention are "
        "beyond it. Leave stage 'prune' out, or take another backbone."
    )


def _widths(model: nn.Module) -> dict[str, list[int]]:
    """Output and input size of every layer that has one."""
    widths: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):
            widths[name] = [module.out_channels, module.in_channels]
        elif isinstance(module, nn.Linear):
            widths[name] = [module.out_features, module.in_features]
        elif isinstance(module, NORMS):
            widths[name] = [module.num_features, module.num_features]
        elif isinstance(module, nn.PReLU):
            widths[name] = [module.num_parameters, module.num_parameters]
    return widths


def _resize(layer: nn.Module, out_size: int, in_size: int) -> None:
    """Give a layer new channel counts, in place; its values are to be loaded."""

    def empty(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape))

    if isinstance(layer, CONVOLUTIONS):
        if layer.groups == layer.in_channels:  # depthwise
            layer.groups = in_size
        layer.out_channels, layer.in_channels = out_size, in_size
        layer.weight = empty(out_size, in_size // layer.groups, *layer.kernel_size)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = out_size, in_size
        layer.weight = empty(out_size, in_size)
    elif isinstance(layer, NORMS):
        layer.num_features = out_size
        layer.weight = empty(out_size)
        layer.running_mean, layer.running_var = torch.zeros(out_size), torch.ones(out_size)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = out_size
        layer.weight = empty(out_size)
    if getattr(layer, "bias", None) is not None:
        layer.bias = empty(out_size)
