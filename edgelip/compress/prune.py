"""Stage `prune`: whole channels are removed, so that tensors, file and work really shrink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from edgelip.compress.channel_cuts import CUTTABLE, cut, model_widths, shrink, silence
from edgelip.compress.channel_graph import Space, cannot_follow, channel_spaces, kept_channels, network_inputs
from edgelip.compress.fake_quant import QuantisedLayer
from edgelip.compress.prune_plan import (
    TOLERANCE,
    MacsModel,
    Step,
    Whole,
    even_steps,
    gradients_of,
    ranked_steps,
    removed_channels,
    steps_for_macs,
    steps_for_ratio,
)
from edgelip.compress.stage import FineTuning, Record, Stage, StageConfig, Tools
from edgelip.compress.stored_layer import StoredLayer
from edgelip.compress.toolkit_quantise import is_toolkit_model
from edgelip.errors import StageError, UnreachableError
from edgelip.models.census import count_macs
from edgelip.models.hypercomplex import densified

DEFAULT_RATIO = 0.5
TAYLOR_CLIPS = 128
AGREEMENT = 1e-3  # of the cut network with the whole one at zero, scaled by the largest logit


class PruneConfig(StageConfig):
    """How much is removed, and by what.

    pruning_ratio: share of the channels that goes, half if neither is given; macs_ratio: share of the multiply-adds
    that stays, within 2 % of those before. One of the two.
    round_to: kept channels are a multiple of this, the nearest: ONNX Runtime computes in blocks of 16, and a layer of 8
    channels can take longer than one of 16 (benchmarks/pruned_speed.py).
    importance: norms of the weights ("magnitude"), or what the loss on training clips loses to first order ("taylor").
    ranking: all layers lose the same share ("even"), or what is least important for the work it costs goes first,
    wherever it is ("global").
    steps: times that a part is removed and the rest tuned; the epochs of `tune` are divided among them.
    """

    stage: Literal["prune"] = "prune"
    pruning_ratio: float | None = Field(None, gt=0, lt=1)
    macs_ratio: float | None = Field(None, gt=0, lt=1)
    round_to: int = Field(16, ge=1, le=1024)
    importance: Literal["magnitude", "taylor"] = "magnitude"
    ranking: Literal["even", "global"] = "even"
    steps: int = Field(1, ge=1, le=20)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pruning_ratio is not None and self.macs_ratio is not None:
            raise ValueError(
                f"pruning_ratio {self.pruning_ratio:g} (channels that go) and macs_ratio {self.macs_ratio:g} "
                "(multiply-adds that stay) are two goals; give one"
            )
        if self.steps > max(1, self.tune.epochs):
            raise ValueError(
                f"steps = {self.steps} are each tuned, and tune.epochs is {self.tune.epochs}; give at least as many "
                "epochs, or fewer steps"
            )
        return self


class Prune(Stage):
    """Structured pruning along Torch-Pruning's dependency graph (Fang et al., CVPR 2023), of PHM layers too.

    A target in multiply-adds counts them as `count_macs` does: of the network that runs, PHM layers being dense in it.
    """

    name = "prune"
    phase = "structure"
    rank: ClassVar[int] = 1
    config_model = PruneConfig
    sources = ("compress/channel_cuts.py", "compress/channel_graph.py", "compress/prune_plan.py")

    @property
    def label(self) -> str:
        config = self.config
        to_macs = config.macs_ratio is not None
        goal = f"pruned to {config.macs_ratio:.0%} of MACs" if to_macs else f"pruned {self._ratio:.0%}"
        return goal if config.steps == 1 else f"{goal} in {config.steps} steps"

    @property
    def _ratio(self) -> float:
        return DEFAULT_RATIO if self.config.pruning_ratio is None else float(self.config.pruning_ratio)

    def apply(self, parent: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        """Remove a part and tune, `steps` times, after the parent each time. Raises StageError if it does not fit."""
        student, steps, whole = deepcopy(parent).eval(), self.config.steps, None
        for step, epochs in enumerate(epochs_of_steps(self.config.tune.epochs, steps), start=1):
            whole = self._remove(student, tools, whole, part=step / steps)
            if epochs:
                tuning: FineTuning = self.config.tune.model_copy(update={"epochs": epochs})
                student = tools.finetune(student, teacher=parent, tuning=tuning, train_norms=self.trains_norms)
        return student.eval(), _record(parent, student)

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        before = deepcopy(model)
        self._remove(model, tools, None, part=1.0)
        return model, _record(before, model)

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        shrink(model, record["widths"])
        return model

    def _remove(self, model: nn.Module, tools: Tools, whole: Whole | None, *, part: float) -> Whole:
        """Go a part of the way to the goal, in place, from where the parts before left the model.

        Returns what there was before the first part, which has none to be told. part: share of the way in logarithms,
        so that equal parts remove equal shares of what is left.
        """
        refuse_unprunable(model)
        labelled, gradients = tools.calibration(), None
        clip = labelled.first(1).clips_B1THW
        if self.config.importance == "taylor":
            some = labelled.first(TAYLOR_CLIPS)
            gradients = gradients_of(densified(model), some.clips_B1THW, some.labels_B)
        spaces = channel_spaces(model, clip, gradients)
        macs = MacsModel(model, clip, spaces)
        whole = whole or Whole(count_macs(model, clip), {space.kind: len(space.sets) for space in spaces})
        removed = removed_channels(self._chosen(spaces, macs, whole, part), spaces)
        if part == 1 and not removed and sum(len(space.sets) for space in spaces) == sum(whole.sets.values()):
            raise StageError(self._without_effect())
        kept, silent = kept_channels(model, removed), deepcopy(model)
        silence(silent, kept)
        cut(model, kept)
        if not _agree(model, silent, clip):
            raise cannot_follow("the pruned network does not compute what the whole one does without those channels")
        return whole

    def _chosen(self, spaces: Sequence[Space], macs: MacsModel, whole: Whole, part: float) -> Sequence[Step]:
        config, ranked = self.config, self.config.ranking == "global"
        if ranked:
            steps = ranked_steps(spaces, config.round_to, whole, macs)
        else:
            steps = even_steps(spaces, config.round_to, whole)
        if config.macs_ratio is None:
            ratio = 1 - (1 - self._ratio) ** part
            if ranked:
                return steps_for_ratio(steps, spaces, whole, ratio=ratio)
            return [step for step in steps if step.order <= ratio]
        chosen, left = steps_for_macs(steps, spaces, whole, macs, target=config.macs_ratio**part)
        if part == 1 and abs(left - config.macs_ratio) > TOLERANCE:
            raise UnreachableError(
                f"No pruning in multiples of {config.round_to} leaves {config.macs_ratio:.0%} of the multiply-adds; "
                f"the nearest that can be reached is {left:.1%}. Change macs_ratio, or lower round_to."
            )
        return chosen

    def _without_effect(self) -> str:
        config = self.config
        if config.macs_ratio is None:
            goal, remedy = f"{self._ratio:.0%}", "Raise pruning_ratio"
        else:
            goal, remedy = f"to {config.macs_ratio:.0%} of the multiply-adds", "Lower macs_ratio"
        return (
            f"Pruning {goal} in multiples of {config.round_to} removes no channel of this model. {remedy} or lower "
            "round_to."
        )


def epochs_of_steps(epochs: int, steps: int) -> list[int]:
    """A fair share for each; the last ones, which remove what matters more, take what is over."""
    return [epochs * (step + 1) // steps - epochs * step // steps for step in range(steps)]


def refuse_unprunable(model: nn.Module) -> None:
    """Raises StageError for a quantised model, and for layers that no channels can be cut from."""
    wrapped = any(isinstance(module, (QuantisedLayer, StoredLayer)) for module in model.modules())
    if wrapped or is_toolkit_model(model):
        raise StageError("Stage 'prune' removes channels of float layers; this model is quantised. Prune first.")
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)) and not isinstance(module, (*CUTTABLE, nn.LayerNorm)):
            raise StageError(
                f"Stage 'prune' cuts convolutions, linear and PHM layers; {name} is a {type(module).__name__}. "
                "Prune first."
            )


def _record(before: nn.Module, after: nn.Module) -> Record:
    old = model_widths(before)
    return {"widths": {name: widths for name, widths in model_widths(after).items() if widths != old[name]}}


@torch.no_grad()
def _agree(one: nn.Module, other: nn.Module, clip_B1THW: Tensor) -> bool:
    try:
        first, second = (model(*network_inputs(model, clip_B1THW)) for model in (one, other))
    except RuntimeError:  # torch's word for shapes that do not meet
        return False
    return bool((first - second).abs().max() <= AGREEMENT * second.abs().max().clamp_min(1.0))
