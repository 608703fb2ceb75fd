"""Which layers go back to float: the ones that harm, no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import classifier, clips, tools_of
from torch import nn

from edgelip.compress import quantise
from edgelip.compress.fake_quant import QuantisedLayer
from edgelip.compress.mixed_precision import KEEP_DIVERGENCE, STEM, Budget, guarded_layers, layers_named
from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.quantise import quantisable
from edgelip.compress.sensitivity import Harm, harm, logits_of
from edgelip.errors import StageError
from edgelip.models.zoo import build_classifier

PTQ: dict[str, Any] = {"stage": "ptq"}
TOOLS = tools_of(clips(16, seed=5))
SENSITIVE = "trunk.blocks.1.conv2.conv"


def with_outlier(place: str = "trunk.blocks.1") -> nn.Module:
    """A classifier one of whose inner activations has a channel 500 times the others, undone by the next layer.

    The network computes what it did, but one scale for that tensor leaves the other channels two or three levels.
    """
    model = classifier()
    first, second = model.get_submodule(f"{place}.conv1"), model.get_submodule(f"{place}.conv2.conv")
    with torch.no_grad():
        first.norm.weight[3] *= 500  # type: ignore
        first.norm.bias[3] *= 500  # type: ignore
        second.weight[:, 3] /= 500  # type: ignore
    return model


def float_layers(model: nn.Module, **config: Any) -> tuple[list[str], nn.Module, dict[str, Any]]:
    made, record = stage_from_config({**PTQ, **config}).prepare(model, TOOLS)
    return record["float_layers"], made, record


def test_a_planted_sensitive_layer_is_found_and_no_other() -> None:
    probe = TOOLS.probe().clips_B1THW
    torch.testing.assert_close(logits_of(with_outlier(), probe), logits_of(classifier(), probe), rtol=1e-3, atol=1e-3)
    _, _, unplanted = float_layers(classifier())
    _, _, planted = float_layers(with_outlier())
    good, bad = unplanted["choice"]["after"]["sqnr_db"], planted["choice"]["after"]["sqnr_db"]
    assert bad < good - 8
    found, made, record = float_layers(with_outlier(), min_sqnr_db=good - 3)
    assert found == [SENSITIVE]
    assert record["choice"]["after"]["sqnr_db"] >= good - 3
    assert next(iter(record["choice"]["layers"])) == SENSITIVE
    assert isinstance(made.get_submodule(SENSITIVE), nn.Conv2d)
    assert isinstance(made.get_submodule("trunk.blocks.1.conv1.conv"), QuantisedLayer)


def test_a_budget_that_holds_costs_nothing() -> None:
    found, _, record = float_layers(classifier(), max_divergence=0.5, min_sqnr_db=3.0)
    assert found == []
    assert record["choice"]["budget"]["before"]["divergence"] < 0.5
    assert "layers" not in record["choice"]


def test_a_budget_of_divergence_is_kept() -> None:
    whole = float_layers(classifier())[2]["choice"]["after"]["divergence"]
    found, made, _ = float_layers(classifier(), max_divergence=whole / 3)
    probe = TOOLS.probe().clips_B1THW
    assert found
    assert harm(logits_of(made, probe), logits_of(classifier(), probe)).divergence <= whole / 3


def test_a_budget_that_no_int8_layer_meets_is_refused_with_the_nearest() -> None:
    with pytest.raises(StageError) as caught:
        float_layers(classifier(), min_sqnr_db=140.0)
    assert str(caught.value).startswith("The budget leaves no layer in int8: with ")
    assert " alone, SQNR " in str(caught.value)
    assert str(caught.value).endswith(" dB (limit 140). Raise the limit, or leave the stage out.")


def test_named_layers_stay_in_float_and_are_restored() -> None:
    found, made, record = float_layers(classifier(), float_layers=["trunk.*.shortcut.conv", "head"])
    assert found == [name for name in quantisable(classifier()) if "shortcut" in name and "trunk" in name] + ["head"]
    restored = stage_from_config(PTQ).restore(classifier(), record)
    restored.load_state_dict(made.state_dict())
    inputs = clips(4, seed=9)
    assert torch.equal(logits_of(restored.eval(), inputs), logits_of(made, inputs))
    assert isinstance(restored.get_submodule("head"), nn.Linear)


def test_an_unknown_layer_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(StageError) as caught:
        float_layers(classifier(), float_layers=["haed"])
    assert str(caught.value) == "No layer that int8 would round is called 'haed'. Did you mean 'head'?"


def test_no_layer_left_in_int8_is_an_error() -> None:
    with pytest.raises(StageError, match=r"^No layer is left in int8: float_layers takes them all\."):
        float_layers(classifier(), float_layers=["*"])


def test_patterns_name_each_layer_once() -> None:
    assert layers_named(["a.*", "a.b"], ("a.b", "a.c", "d")) == ("a.b", "a.c")


def test_stem_and_excitation_are_guarded() -> None:
    family, options = FAMILIES["eflip_token"]
    model = build_classifier(family, num_words=6, options=options)
    parts = guarded_layers(model, quantisable(model))
    assert parts[STEM] == ("frontend.stem.conv",)
    assert parts["squeeze-excitation"]
    assert all(".excite." in name for name in parts["squeeze-excitation"])
    mobile = [name for name in quantisable(model) if ".excite." in name]
    assert list(parts["squeeze-excitation"]) == mobile


def test_a_harmless_stem_runs_in_int8_and_the_record_says_why() -> None:
    found, _, record = float_layers(classifier())
    assert found == []
    assert 0 < record["choice"]["guarded"][STEM]["divergence"] <= KEEP_DIVERGENCE
    assert record["choice"]["guarded"][STEM]["limit"] == KEEP_DIVERGENCE


def test_a_stem_that_harms_stays_in_float_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "KEEP_DIVERGENCE", 1e-9)  # less than any rounding does
    found, made, record = float_layers(classifier())
    assert record["choice"]["guarded"][STEM]["divergence"] > 1e-9
    assert found == ["frontend.stem.conv"]
    assert isinstance(made.get_submodule("frontend.stem.conv"), nn.Conv2d)
    assert float_layers(classifier(), keep="int8")[0] == []
    assert float_layers(classifier(), keep="float")[0] == ["frontend.stem.conv"]


def test_a_budget_holds_where_both_limits_do() -> None:
    found = Harm(divergence=0.02, sqnr_db=25.0, flipped=0.0)
    assert Budget(0.03, 20.0).holds(found)
    assert not Budget(0.01, 20.0).holds(found)
    assert not Budget(0.03, 30.0).holds(found)
    assert Budget().holds(found)
    assert Budget(0.01, 30.0).excess(found) == "divergence 0.02 nats (limit 0.01), SQNR 25.0 dB (limit 30)"
