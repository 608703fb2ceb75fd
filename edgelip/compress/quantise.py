"""Stages `ptq` and `qat`: int8 by calibration alone, and by training with the rounding of int8 inference."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from edgelip.compress import toolkit_quantise
from edgelip.compress.calibration import Ranges, calibrate, correct_biases
from edgelip.compress.fake_quant import ActivationQuantiser, QuantisedAdd, QuantisedLayer
from edgelip.compress.mixed_precision import (
    KEEP_DIVERGENCE,
    PART_CLIPS,
    Budget,
    Scorer,
    choose_float_layers,
    guarded_layers,
    layers_named,
)
from edgelip.compress.quantised_activation import curved_activations, insert_activations
from edgelip.compress.rounded_output import modules_behind, round_outputs, unrounded_outputs
from edgelip.compress.stage import FineTuning, LabelledClips, Record, Stage, StageConfig, Tools
from edgelip.compress.stored_layer import WEIGHTED, StoredLayer
from edgelip.errors import StageError
from edgelip.models.blocks import Add, fold_norms
from edgelip.registry import nearest


class QuantiseConfig(StageConfig):
    """Who places the quantisers, on how many training clips their ranges are set, and which layers stay in float.

    keep: "auto" leaves the 3-D stem, and squeeze-excitation, in float where rounding it alone harms; "float" leaves
    them so in any case, "int8" in none. Beyond that layers go back to float until the harm of rounding, before
    training, keeps max_divergence and min_sqnr_db, in order of the harm that each does.
    """

    backend: Literal["own", "nncf"] = "own"
    calibration_clips: int = Field(256, ge=2, le=512)
    ranges: Ranges = "quantile"  # of activations: what holds 99.99 % of the values, or what has the least squared error
    float_layers: tuple[str, ...] = ()  # names or patterns such as "trunk.blocks.0.*"
    keep: Literal["auto", "float", "int8"] = "auto"
    max_divergence: float | None = Field(None, gt=0)  # mean Kullback-Leibler divergence of the words, in nats
    min_sqnr_db: float | None = None  # of the logits

    @model_validator(mode="after")
    def _backend_can(self) -> QuantiseConfig:
        chosen = {
            "float_layers": bool(self.float_layers),
            "ranges": self.ranges != type(self).model_fields["ranges"].default,
            'keep = "float"': self.keep == "float",
            "max_divergence": self.max_divergence is not None,
            "min_sqnr_db": self.min_sqnr_db is not None,
            "correct_biases": getattr(self, "correct_biases", False),
        }
        for key in (key for key, is_set in chosen.items() if is_set and self.backend == "nncf"):
            raise ValueError(f'backend "nncf" quantises every layer that it can and takes no {key}; use "own"')
        return self


class TrainedConfig(QuantiseConfig):
    """As for both; training follows."""

    stage: Literal["qat"] = "qat"


class CalibratedConfig(QuantiseConfig):
    """As for both; nothing is trained."""

    stage: Literal["ptq"] = "ptq"
    ranges: Ranges = "error"  # logits' SQNR on a ShuffleNet-0.5x 27.1 dB, by quantile 25.8; on the small network equal
    tune: FineTuning = FineTuning(epochs=0)
    correct_biases: bool = False  # by the mean error of each layer's output on the calibration clips

    @model_validator(mode="after")
    def _trains_nothing(self) -> CalibratedConfig:
        if self.tune.epochs:
            raise ValueError(f"it trains nothing, but tune.epochs is {self.tune.epochs}; leave tune out, or use 'qat'")
        return self


class Quantisation(Stage):
    """Folds batch normalisation, rounds every layer's input and weight, and what engines want rounded behind it.

    backend "own" is the default: it quantises PHM weights and stores int8. "nncf" leaves the placement to NNCF
    and takes dense layers only, since NNCF would leave PHM weights in float without a word.
    """

    phase = "numerics"
    rank: ClassVar[int] = 10
    trains_norms = False
    integer = True
    sources = (
        "compress/calibration.py",
        "compress/fake_quant.py",
        "compress/magnitudes.py",
        "compress/mixed_precision.py",
        "compress/quantised_activation.py",
        "compress/rounded_output.py",
        "compress/sensitivity.py",
        "compress/stored_layer.py",
        "compress/toolkit_quantise.py",
    )

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        if is_quantised(model):
            raise StageError(
                f"The model is quantised already; stage {self.name!r} applies once. Remove one of the two."
            )
        fold_norms(model)
        given = tools.calibration()
        clips = self._calibration(given)
        if self.config.backend == "nncf":
            quantised, record = toolkit_quantise.quantise(model, clips.clips_B1THW)
        else:
            quantised, record = self._own(model, clips.clips_B1THW, tools)
        record["calibration"] = {
            "sha256": given.sha256,  # of all that the split gave, of which `clips` were taken evenly
            "drawn": len(given.labels_B),
            "clips": len(clips.labels_B),
            "words": len(set(clips.labels_B.tolist())),
        }
        return quantised, record

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        _check_calibration(record.get("calibration"))
        fold_norms(model.eval())
        if record["backend"] == "nncf":
            return toolkit_quantise.restore(model, record)
        # Checkpoints of before they were rounded, or left in float, do not hold these lists.
        activations, outputs = record.get("activations", ()), record.get("outputs", ())
        insert_quantisers(model, except_for=_checked(record.get("float_layers", ()), quantisable(model)))
        insert_activations(model, activations)
        round_outputs(model, outputs)
        return model

    def _calibration(self, given: LabelledClips) -> LabelledClips:
        """The clips to set ranges on, evenly taken. Raises StageError for too few to tell anything."""
        if len(given.labels_B) == 0:
            raise StageError(
                f"Stage {self.name!r} has no clip to calibrate on; expected clips of two words at least. Check the "
                "training split."
            )
        num_clips = min(self.config.calibration_clips, len(given.labels_B))
        chosen = torch.linspace(0, len(given.labels_B) - 1, num_clips).round().long()
        clips = LabelledClips(given.clips_B1THW[chosen], given.labels_B[chosen], given.sha256)
        if len(set(clips.labels_B.tolist())) < 2:
            raise StageError(
                f"Stage {self.name!r} calibrates on {num_clips} clips of one word; expected two words at least: others "
                "may reach further. Raise calibration_clips, or check the training split."
            )
        return clips

    def _own(self, dense: nn.Module, clips_B1THW: Tensor, tools: Tools) -> tuple[nn.Module, Record]:
        config, known = self.config, quantisable(dense)
        named = layers_named(config.float_layers, known)
        guarded = guarded_layers(dense, [name for name in known if name not in named])
        if config.keep == "float":
            named = (*named, *(layer for layers in guarded.values() for layer in layers))
        probe = tools.probe().clips_B1THW
        tools.say(f"{self.name}: ranges on {len(clips_B1THW)} clips, harm on {len(probe)} others at most")
        quantised, record = _quantised(dense, clips_B1THW, float_layers=named, ranges=config.ranges)
        if not bool(probe.any()):  # blank clips, of a rehearsal, show no harm
            return quantised, record
        budget = Budget(config.max_divergence, config.min_sqnr_db)
        scorer = Scorer(
            dense, quantised, units_of(quantised, clips_B1THW[:1]), probe if budget.is_set else probe[:PART_CLIPS]
        )
        chosen, figures = choose_float_layers(
            scorer,
            budget=budget,
            guarded=guarded if config.keep == "auto" else {},
            keep_divergence=KEEP_DIVERGENCE,
            say=tools.say,
        )
        if chosen:
            quantised, record = _quantised(dense, clips_B1THW, float_layers=(*named, *chosen), ranges=config.ranges)
        if getattr(config, "correct_biases", False):
            correct_biases(quantised, clips_B1THW)
        return quantised, {**record, "choice": {**figures, "after": scorer.figures_of(quantised)}}


class QuantisationAwareTraining(Quantisation):
    """int8 by training with its rounding."""

    name = "qat"
    config_model = TrainedConfig

    @property
    def label(self) -> str:
        return "int8 QAT" + (" (NNCF)" if self.config.backend == "nncf" else "")


class PostTrainingQuantisation(Quantisation):
    """int8 by ranges that calibration clips show; nothing is trained."""

    name = "ptq"
    config_model = CalibratedConfig

    @property
    def label(self) -> str:
        return "int8 PTQ" + (" (NNCF)" if self.config.backend == "nncf" else "")


def is_quantised(model: nn.Module) -> bool:
    """Whether a stage has put quantisers into a model."""
    ours = any(isinstance(module, ActivationQuantiser) for module in model.modules())
    return ours or toolkit_quantise.is_toolkit_model(model)


def quantisable(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers and sums that int8 rounds: weighted ones, as stored where they are in few bits."""
    inside = {f"{name}.layer" for name, module in model.named_modules() if isinstance(module, StoredLayer)}
    kinds = (StoredLayer, *WEIGHTED, Add)
    return tuple(name for name, module in model.named_modules() if isinstance(module, kinds) and name not in inside)


def insert_quantisers(model: nn.Module, *, except_for: Collection[str] = ()) -> None:
    """Wrap every weighted layer and every sum but the named ones, in place."""
    for name in quantisable(model):
        if name not in except_for:
            module = model.get_submodule(name)
            model.set_submodule(name, QuantisedAdd() if isinstance(module, Add) else QuantisedLayer(module))


def units_of(model: nn.Module, clip_B1THW: Tensor) -> dict[str, dict[str, nn.Module]]:
    """What stands in a quantised model for each layer that it rounds, and for what rounds that layer's result alone."""
    behind = modules_behind(model, clip_B1THW)
    names = [name for name, module in model.named_modules() if isinstance(module, (QuantisedLayer, QuantisedAdd))]
    return {name: {place: model.get_submodule(place) for place in (name, *behind.get(name, ()))} for name in names}


def _quantised(
    dense: nn.Module, clips_B1THW: Tensor, *, float_layers: Collection[str], ranges: Ranges
) -> tuple[nn.Module, Record]:
    """A calibrated int8 copy of a network with its norms folded, and what `restore` needs."""
    model, example = deepcopy(dense), clips_B1THW[:1]
    places = _all_rounded(dense, example)
    insert_quantisers(model, except_for=float_layers)
    if not any(isinstance(module, QuantisedLayer) for module in model.modules()):
        raise StageError("No layer is left in int8: float_layers takes them all. Name fewer, or leave the stage out.")
    activations = curved_activations(model, example)
    insert_activations(model, activations)
    # Not where only a layer left in float reads it: its input would be rounded after all.
    outputs = tuple(dict.fromkeys(place for layer, place in places.items() if layer not in float_layers))
    round_outputs(model, outputs)
    calibrate(model, clips_B1THW, ranges=ranges)
    record = {"activations": list(activations), "outputs": list(outputs), "float_layers": list(float_layers)}
    return model, {"backend": "own", **record}


def _all_rounded(dense: nn.Module, example: Tensor) -> dict[str, str]:
    """Where results need rounding of their own if every layer runs in int8, by layer."""
    model = deepcopy(dense)
    insert_quantisers(model)
    insert_activations(model, curved_activations(model, example))
    return unrounded_outputs(model, example)


def _check_calibration(told: Any) -> None:
    """Raises StageError for a record of calibration clips that is none: bundles repeat it."""
    counts = ("clips", "drawn", "words")
    if told is not None and not (
        isinstance(told, Mapping)
        and {*told} == {"sha256", *counts}
        and re.fullmatch("[0-9a-f]{64}|", str(told["sha256"]))
        and all(type(told[count]) is int and told[count] > 0 for count in counts)
    ):
        raise StageError(f"The record of the calibration clips holds {told!s:.80}; expected a sha256 and counts.")


def _checked(names: Any, known: Collection[str]) -> tuple[str, ...]:
    """Names of a record. Raises StageError for one that is none of the model's."""
    for name in names:
        if name not in known:
            raise StageError(
                f"The record leaves {name!r} in float, which is no layer of this model. {nearest(str(name), known)}"
            )
    return tuple(names)
