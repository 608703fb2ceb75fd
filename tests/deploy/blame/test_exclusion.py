"""The lines to paste into a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from edgelip.deploy.blame.exclusion import Exclusion, exclusions

TRAIN = {"stage": "train", "config": {}}


@pytest.mark.parametrize(
    ("stage", "config", "line"),
    [
        ("qat", {"float_layers": []}, 'float_layers = ["a.b", "head"]'),
        ("ptq", {}, 'float_layers = ["a.b", "head"]'),
        ("qat", {"float_layers": ["s", "head"]}, 'float_layers = ["s", "head", "a.b"]'),
        ("store", {"layers": {"x.*": 8}}, 'layers = { "x.*" = 8, "a.b" = 32, "head" = 32 }'),
        ("phm", {"layers": ["a.*", "c"]}, 'layers = ["a.*", "c", "!a.b"]'),
        ("low_rank", {"layers": ["head", "c"]}, 'layers = ["c"]'),
        ("phm", {"layers": None}, None),  # a rule chose them
        ("low_rank", {"layers": ["head"]}, None),  # nothing would be left
        ("prune", {"pruning_ratio": 0.5}, None),
        ("qat", 3, None),
    ],
)
def test_a_stage_gets_the_names_of_its_layers(stage: str, config: Any, line: str | None) -> None:
    assert exclusions([TRAIN], [TRAIN, {"stage": stage, "config": config}], ["a.b", "head"]) == [Exclusion(stage, line)]


def test_every_stage_between_the_two_bundles_is_told() -> None:
    phm, qat = {"stage": "phm", "config": {"layers": ["*"]}}, {"stage": "qat", "config": {}}
    both = exclusions([TRAIN], [TRAIN, phm, qat], ["a"])
    assert [(each.stage, each.toml) for each in both] == [
        ("phm", 'layers = ["*", "!a"]'),
        ("qat", 'float_layers = ["a"]'),
    ]
    assert [each.stage for each in exclusions([TRAIN, phm], [TRAIN, phm, qat], ["a"])] == ["qat"]
    other = {"stage": "phm", "config": {"layers": ["b"]}}
    assert [each.stage for each in exclusions([TRAIN, other], [TRAIN, phm, qat], ["a"])] == ["phm", "qat"]
    assert exclusions([TRAIN, qat], [TRAIN, qat], ["a"]) == []
