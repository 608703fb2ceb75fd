from __future__ import annotations

import pytest

from edgelip.errors import UsageError
from edgelip.models.catalogue import BACKBONES
from edgelip.task.backbones import available_backbones, backbone_details, why_unfit
from edgelip.task.classifier import WordClassifier


def test_backbones_that_read_video_are_listed() -> None:
    names = available_backbones()
    assert {"small", "dctcn_dense", "eflip_T"} <= set(names) <= set(BACKBONES)
    assert "audio_dctcn_dense" not in names
    assert "dctcn_boundary" not in names
    assert "simple_islr" not in names


def test_a_family_can_be_chosen() -> None:
    assert available_backbones(family="eflip") == [n for n in available_backbones() if n.startswith("eflip_")]
    with pytest.raises(UsageError, match=r"^There is no family 'eflp'\. Did you mean 'eflip'\?$"):
        available_backbones(family="eflp")


def test_options_decide_what_is_fit() -> None:
    assert why_unfit("dctcn_dense", {}) is None
    assert why_unfit("dctcn_dense", {"boundary": True}) is not None
    assert why_unfit("dctcn_boundary", {"boundary": False}) is None
    assert why_unfit("sign_conv_transformer", {}) == "reads landmarks, not video"
    assert why_unfit("dctcn_dense", {"modality": "audio"}) == "reads sound, not video"


def test_details_say_what_a_backbone_is() -> None:
    details = backbone_details("dctcn_phm4")
    assert {"name", "family", "options", "parameters", "gmac", "published_top1_pct", "source"} <= set(details)
    assert (details["name"], details["family"], details["published_top1_pct"]) == ("dctcn_phm4", "lip_tcn", 88.4)
    assert details["options"]["phm"]["n"] == 4
    dense = backbone_details("dctcn_dense")
    assert details["gmac"] == dense["gmac"]  # PHM changes what is stored, not what runs
    assert details["parameters"] < dense["parameters"] / 3


def test_details_count_what_a_classifier_holds() -> None:
    model = WordClassifier("small", words=[str(number) for number in range(500)])
    assert backbone_details("small")["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_details_of_an_unknown_name_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^There is no backbone 'smal'\. Did you mean 'small'\?$"):
        backbone_details("smal")
