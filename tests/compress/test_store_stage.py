from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import PHM, QAT, TOOLS, classifier, clips, dense_checkpoint, lively, tools_of
from torch import nn

from edgelip.compress.pipeline import (
    apply_stage,
    model_from_checkpoint,
    rehearse,
    stage_from_config,
    stages_from_configs,
)
from edgelip.compress.stored_layer import Bits, StoredLayer
from edgelip.errors import CheckpointError, StageError
from edgelip.models.census import count_macs, count_parameters
from edgelip.models.zoo import build_classifier

INT4 = {"stage": "store", "blocks": 4, "dense": 8}


def hypercomplex() -> nn.Module:
    model, _ = stage_from_config(PHM).prepare(classifier(), TOOLS)
    lively(model)
    return model


def stored_bits(model: nn.Module) -> dict[str, Bits]:
    return {name: module.bits for name, module in model.named_modules() if isinstance(module, StoredLayer)}


def test_every_weighted_layer_is_stored_as_its_kind_says_and_norms_are_folded() -> None:
    model, record = stage_from_config({**INT4, "head": 4, "layers": {"trunk.*": 16, "trunk.blocks.1.*": 8}}).prepare(
        hypercomplex(), TOOLS
    )
    bits = stored_bits(model)
    assert bits["frontend.stem.conv"] == Bits(dense=8)
    assert bits["trunk.blocks.0.conv1.conv"] == Bits(factors=16, blocks=16)
    assert bits["trunk.blocks.1.conv1.conv"] == Bits(factors=8, blocks=8)  # of two patterns the later one
    assert bits["temporal.blocks.0.conv2.conv"] == Bits(factors=8, blocks=4)
    assert bits["head"] == Bits(dense=4)
    assert len(bits) == 12
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    assert json.loads(json.dumps(record)) == {
        "bits": {name: [own.factors, own.blocks, own.dense] for name, own in bits.items()}
    }


def test_what_is_given_no_bits_stays_as_it_is() -> None:
    model, _ = stage_from_config({"stage": "store", "blocks": 8, "factors": 16}).prepare(hypercomplex(), TOOLS)
    assert set(stored_bits(model).values()) == {Bits(factors=16, blocks=8)}
    assert isinstance(model.get_submodule("head"), nn.Linear)
    out, _ = stage_from_config({**INT4, "layers": {"head": 32}}).prepare(hypercomplex(), TOOLS)
    assert isinstance(out.get_submodule("head"), nn.Linear)


def test_a_checkpoint_gives_the_stored_model_again() -> None:
    checkpoint = dense_checkpoint()
    for stage in stages_from_configs([PHM, INT4]):
        checkpoint = apply_stage(checkpoint, stage, TOOLS)  # tune.epochs of store is 0: nothing is trained
    model = model_from_checkpoint(checkpoint)
    assert len(stored_bits(model)) == 12
    again = apply_stage(dense_checkpoint(), stage_from_config(PHM), TOOLS)
    direct, _ = stage_from_config(INT4).prepare(model_from_checkpoint(again), TOOLS)
    with torch.no_grad():
        assert torch.equal(model(clips()), direct.eval()(clips()))


def test_tuning_goes_through_the_rounding_and_is_restored() -> None:
    checkpoint = apply_stage(dense_checkpoint(), stage_from_config(PHM), TOOLS)
    untuned = model_from_checkpoint(apply_stage(checkpoint, stage_from_config(INT4), TOOLS))
    stage = stage_from_config({**INT4, "tune": {"epochs": 1}})
    tuned = apply_stage(checkpoint, stage, TOOLS)  # TOOLS moves every weight a little
    with torch.no_grad():
        assert not torch.equal(model_from_checkpoint(tuned)(clips()), untuned(clips()))
    assert not stage.trains_norms
    assert not stage.integer


@torch.no_grad()
def test_counts_are_those_of_the_network_before() -> None:
    before = hypercomplex()
    stored, _ = stage_from_config(INT4).prepare(hypercomplex(), TOOLS)
    norms = sum(p.numel() for m in before.modules() if "BatchNorm" in type(m).__name__ for p in m.parameters())
    added = sum(m.layer.bias.numel() for m in stored.modules() if isinstance(m, StoredLayer)) - 6  # of the folded norms
    assert count_parameters(stored) == count_parameters(before) - norms + added
    assert count_macs(stored, clips(1)) == count_macs(before, clips(1))


@pytest.mark.parametrize("name", ["dctcn_phm2_f", "snv_tcn_phm2", "eflip_token", "dctcn_boundary_phm2", "audio_phm2"])
@torch.no_grad()
def test_every_family_can_be_stored_and_restored(name: str) -> None:
    family, tiny = FAMILIES[name]

    def fresh() -> nn.Module:
        return lively(build_classifier(family, num_words=6, options=tiny))  # type: ignore[no-any-return]

    fields: dict[str, Any] = {"stage": "store", "dense": 8} | ({"blocks": 8} if "phm" in name else {})
    made, record = stage_from_config(fields).prepare(fresh(), tools_of(torch.zeros(2, 1, 5, 24, 24)))
    restored = stage_from_config(fields).restore(fresh(), record)
    restored.load_state_dict(made.state_dict())
    kinds = [module.has_factors for module in made.modules() if isinstance(module, StoredLayer)]
    assert any(kinds) == ("phm" in name)
    if name.startswith(("audio", "dctcn_boundary")):
        return  # they take more than a clip
    inputs = torch.randn(2, 1, 5, 24, 24, generator=torch.Generator().manual_seed(0))
    exact, got = fresh().eval()(inputs), made.eval()(inputs)
    assert torch.equal(restored.eval()(inputs), got)
    assert 0 < float((got - exact).abs().max()) < 0.3 * float(exact.std())


def test_the_label_says_what_is_stored() -> None:
    def label(**fields: Any) -> str:
        return stage_from_config({"stage": "store", **fields}).label

    assert label(blocks=4, dense=8) == "int4 factors, int8 weights"
    assert label(dense=16) == "fp16 weights"
    assert label(blocks=8, head=4, dense=32) == "int8 factors, int4 head"
    assert label(layers={"head": 8}) == "few bits in 1 layer pattern"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Stage 'store' is told no bits. Set blocks, dense or head to 4, 8 or 16."),
        ({"dense": 32}, "Stage 'store' is told no bits. Set blocks, dense or head to 4, 8 or 16."),
        (
            {"blocks": 8, "dense": 8},
            "Stage 'store' sets blocks = 8, and the model has no PHM layer. Add stage 'phm', or set dense instead.",
        ),
        (
            {"dense": 8, "factors": 16},
            "Stage 'store' sets factors = 16, and the model has no PHM layer that is stored in fewer bits. "
            "Leave factors out.",
        ),
        ({"dense": 8, "layers": {"haed": 4}}, "No layer is called 'haed'. Did you mean 'head'?"),
        (
            {"dense": 8, "layers": {"*": 32}},
            "Stage 'store' leaves every layer as it is: its patterns exclude them all. Leave it out.",
        ),
    ],
)
def test_settings_without_effect_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config({"stage": "store", **fields}).prepare(classifier(), TOOLS)
    assert str(caught.value) == message


def test_factors_below_8_bits_and_odd_numbers_are_refused() -> None:
    with pytest.raises(StageError, match=r"factors.*8, 16 or 32"):
        stage_from_config({"stage": "store", "blocks": 4, "factors": 4})
    with pytest.raises(StageError, match=r"blocks.*4, 8, 16 or 32"):
        stage_from_config({"stage": "store", "blocks": 6})


def test_storing_twice_and_after_quantising_is_refused() -> None:
    with pytest.raises(StageError, match=r"^Stage 'store' applies once; the variant names it 2 times\. Keep one\.$"):
        stages_from_configs([INT4, INT4])
    with pytest.raises(StageError, match=r"^Stage 'store' \(numerics\) comes after 'qat' .* Order them: store, qat\.$"):
        stages_from_configs([QAT, INT4])
    once, _ = stage_from_config(INT4).prepare(hypercomplex(), TOOLS)
    with pytest.raises(StageError) as caught:
        stage_from_config(INT4).prepare(once, TOOLS)
    expected = "The weights are in few bits already; stage 'store' applies once. Remove one of the two."
    assert str(caught.value) == expected
    quantised, _ = stage_from_config(QAT).prepare(hypercomplex(), TOOLS)
    with pytest.raises(StageError) as caught:
        stage_from_config(INT4).prepare(quantised, TOOLS)
    expected = "The model is quantised already; weights are stored in few bits before. Order: store, qat."
    assert str(caught.value) == expected


def test_a_rehearsal_finds_a_stage_that_does_not_fit() -> None:
    stages = stages_from_configs([{"stage": "store", "blocks": 8}])
    with pytest.raises(StageError, match="the model has no PHM layer"):
        rehearse(classifier(), stages, clips(1))


@pytest.mark.parametrize(
    ("bits", "reason"),
    [
        ({"nowhere": [32, 32, 8]}, "names a layer 'nowhere' that the model has not"),
        ({"frontend.stem": [32, 32, 8]}, "names a layer 'frontend.stem' that the model has not"),
        ({"head": [32, 32]}, r"gives 'head' the bits \[32, 32\]; expected 3 numbers"),
        ({"head": [32, 32, 3]}, "dense = 3 bits; expected 4, 8, 16 or 32"),
        ({"head": [4, 8, 8]}, "Factors A in 4 bits"),
        ({"head": "888"}, "expected 3 numbers"),
    ],
)
def test_a_hostile_record_is_refused(bits: Any, reason: str) -> None:
    made = apply_stage(dense_checkpoint(), stage_from_config({"stage": "store", "dense": 8}), TOOLS)
    entry = {**made.architecture.stages[-1], "record": {"bits": bits}}
    forged = replace(made, architecture=replace(made.architecture, stages=(*made.architecture.stages[:-1], entry)))
    with pytest.raises(CheckpointError, match=reason):
        model_from_checkpoint(forged)
