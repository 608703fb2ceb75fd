"""Quantisation without training: what it takes, refuses and records."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import PRUNE, QAT, TOOLS, classifier, clips, dense_checkpoint, nudge
from torch import nn

from edgelip.compress.calibration import calibrate, correct_biases
from edgelip.compress.fake_quant import QuantisedLayer
from edgelip.compress.pipeline import (
    apply_stage,
    model_from_checkpoint,
    rehearse,
    stage_from_config,
    stages_from_configs,
)
from edgelip.compress.quantise import insert_quantisers
from edgelip.compress.sensitivity import logits_of
from edgelip.compress.stage import LabelledClips, Tools
from edgelip.compress.stored_layer import Bits, StoredLayer
from edgelip.errors import CheckpointError, StageError
from edgelip.models.blocks import fold_norms
from edgelip.models.checkpoint import Checkpoint
from edgelip.models.zoo import build_classifier

PTQ: dict[str, Any] = {"stage": "ptq"}


def calibrating_on(labels: list[int], *, sha256: str = "f" * 64) -> Tools:
    given = LabelledClips(clips(len(labels)), torch.tensor(labels), sha256)
    return Tools(finetune=nudge, calibration=lambda: given, probe=lambda: given)


def test_nothing_is_trained() -> None:
    made = apply_stage(dense_checkpoint(), stage_from_config(PTQ), TOOLS)  # its fine-tuning moves every weight
    untrained, _ = stage_from_config(PTQ).prepare(model_from_checkpoint(dense_checkpoint()), TOOLS)
    inputs = clips(4, seed=9)
    assert torch.equal(logits_of(model_from_checkpoint(made), inputs), logits_of(untrained, inputs))


@pytest.mark.parametrize("tune", [{"epochs": 1}, {"learning_rate": 1e-3}])
def test_training_is_refused(tune: dict[str, Any]) -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config({**PTQ, "tune": tune})
    epochs = tune.get("epochs", 2)
    assert f"it trains nothing, but tune.epochs is {epochs}; leave tune out, or use 'qat'" in str(caught.value)
    assert stage_from_config({**PTQ, "tune": {"epochs": 0}}).label == "int8 PTQ"


def test_calibration_is_recorded() -> None:
    _, record = stage_from_config({**PTQ, "calibration_clips": 3}).prepare(
        classifier(), calibrating_on([0, 0, 1, 1, 2, 3], sha256="ab" * 32)
    )
    assert record["calibration"] == {"sha256": "ab" * 32, "drawn": 6, "clips": 3, "words": 3}  # clips 0, 2 and 5


def test_calibration_clips_of_one_word_are_refused() -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config(PTQ).prepare(classifier(), calibrating_on([4, 4, 4]))
    assert str(caught.value) == (
        "Stage 'ptq' calibrates on 3 clips of one word; expected two words at least: others may reach further. Raise "
        "calibration_clips, or check the training split."
    )


def test_an_empty_calibration_set_is_refused() -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config(QAT).prepare(classifier(), calibrating_on([]))
    assert str(caught.value) == (
        "Stage 'qat' has no clip to calibrate on; expected clips of two words at least. Check the training split."
    )


@pytest.mark.parametrize("stage", [PTQ, {**PTQ, "keep": "float"}, {**PTQ, "min_sqnr_db": 90.0}, QAT])
def test_an_untrained_network_is_rehearsed(stage: dict[str, Any]) -> None:
    options = {"stem_width": 16, "trunk_widths": [16], "temporal_width": 16, "temporal_blocks": 1}
    model = build_classifier("small", num_words=3, options=options).eval()
    rehearse(model, [stage_from_config(stage)], torch.zeros(1, 1, 4, 16, 16))


@pytest.mark.parametrize(("first", "second"), [("ptq", "ptq"), ("ptq", "qat"), ("qat", "ptq")])
def test_quantising_twice_is_refused_whatever_the_kinds(first: str, second: str) -> None:
    once, _ = stage_from_config({"stage": first}).prepare(classifier(), TOOLS)
    with pytest.raises(StageError) as caught:
        stage_from_config({"stage": second}).prepare(once, TOOLS)
    assert str(caught.value) == (
        f"The model is quantised already; stage '{second}' applies once. Remove one of the two."
    )
    with pytest.raises(StageError, match=r"applies once|a model is quantised once"):
        stages_from_configs([{"stage": first}, {"stage": second}])


def test_pruning_after_quantising_is_refused() -> None:
    with pytest.raises(StageError) as caught:
        stages_from_configs([PTQ, PRUNE])
    assert str(caught.value) == ("Stage 'prune' (structure) comes after 'ptq' (numerics). Order them: prune, ptq.")
    once, _ = stage_from_config(PTQ).prepare(classifier(), TOOLS)
    with pytest.raises(StageError, match="quantised"):
        stage_from_config(PRUNE).prepare(once, TOOLS)


@pytest.mark.parametrize(
    "setting",
    [
        {"float_layers": ["head"]},
        {"keep": "float"},
        {"max_divergence": 0.1},
        {"min_sqnr_db": 3.0},
        {"correct_biases": True},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_setting_that_nncf_cannot_keep_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(StageError, match=r"quantises every layer that it can and takes no .*; use \"own\""):
        stage_from_config({**PTQ, "backend": "nncf", **setting})


@torch.no_grad()
def test_biases_are_corrected_by_the_mean_error_of_each_channel() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3))
    inputs = torch.randn(16, 3, 6, 6) + 0.5
    exact = model(inputs)
    insert_quantisers(model)
    calibrate(model, inputs)
    layer: Any = model[0]
    layer.input.scale.mul_(8)  # coarse, so that the mean shifts
    shift_before = (model(inputs) - exact).mean(dim=(0, 2, 3))
    correct_biases(model, inputs, batch_size=5)
    shift_after = (model(inputs) - exact).mean(dim=(0, 2, 3))
    step = layer.input.scale * layer.layer.weight.abs().flatten(1).amax(1) / 127
    # The bias is rounded to whole steps before and after.
    assert (shift_after.abs() <= 1.01 * step).all()
    assert shift_before.abs().max() > 3 * shift_after.abs().max()


def test_layers_in_few_bits_are_wrapped_whole() -> None:
    model = classifier()
    fold_norms(model)
    conv = model.get_submodule("trunk.blocks.0.conv1.conv")
    model.set_submodule("trunk.blocks.0.conv1.conv", StoredLayer(conv, Bits(dense=4)))
    insert_quantisers(model)
    wrapped = model.get_submodule("trunk.blocks.0.conv1.conv")
    assert isinstance(wrapped, QuantisedLayer)
    assert isinstance(wrapped.layer, StoredLayer)
    assert wrapped.layer.layer is conv


def damaged(**record: Any) -> Checkpoint:
    """A PTQ checkpoint whose record says something else."""
    made = apply_stage(dense_checkpoint(), stage_from_config(PTQ), TOOLS)
    stages = deepcopy(made.architecture.stages)
    stages[-1]["record"].update(record)
    return replace(made, architecture=replace(made.architecture, stages=stages))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"float_layers": ["trunk"]}, "leaves 'trunk' in float, which is no layer"),
        ({"outputs": ["trunk.blocks"]}, "'trunk.blocks' is no quantised layer and no ReLU"),
        ({"calibration": {"sha256": "| x"}}, "record of the calibration clips holds"),
        ({"calibration": 3}, "record of the calibration clips holds 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_hostile_record_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        model_from_checkpoint(damaged(**record))


def test_a_record_of_before_outputs_were_rounded_is_restored() -> None:
    model = classifier()
    restored = stage_from_config(QAT).restore(model, {"backend": "own"})
    assert sum(isinstance(module, QuantisedLayer) for module in restored.modules()) == 12
