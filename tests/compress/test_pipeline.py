from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import PHM, PRUNE, QAT, TOOLS, VARIANTS, classifier, clips, compressed, dense_checkpoint, nudge

from edgelip.compress import STAGES
from edgelip.compress.pipeline import (
    apply_stage,
    model_from_checkpoint,
    rehearse,
    stage_from_config,
    stages_from_configs,
)
from edgelip.compress.stage import PHASES
from edgelip.errors import StageError
from edgelip.models.checkpoint import load_checkpoint, save_checkpoint
from edgelip.registry import lookup

REQUIRED: dict[str, dict[str, Any]] = {"low_rank": {"layers": ["head"], "rank": 4}}  # fields without a default


def named(*names: str) -> list[dict[str, Any]]:
    return [{"stage": name, **REQUIRED.get(name, {})} for name in names]


def test_stages_out_of_order_are_refused_with_the_right_order() -> None:
    with pytest.raises(StageError) as caught:
        stages_from_configs(named("qat", "phm"))
    assert str(caught.value) == "Stage 'phm' (structure) comes after 'qat' (numerics). Order them: phm, qat."
    with pytest.raises(StageError) as caught:
        stages_from_configs(named("phm", "prune", "qat"))
    assert str(caught.value) == (
        "Stage 'prune' (structure) comes after 'phm' (structure). Order them: prune, phm, qat."
    )


@pytest.mark.parametrize("names", [("phm", "phm"), ("phm", "qat", "phm")])
def test_a_repeated_stage_is_refused_as_such(names: Sequence[str]) -> None:
    with pytest.raises(StageError, match=r"Stage 'phm' applies once; the variant names it 2 times\. Keep one\."):
        stages_from_configs(named(*names))


def test_of_two_stages_one_order_is_accepted_and_of_two_that_quantise_none() -> None:
    kinds = [lookup(STAGES, name, kind="stage") for name in STAGES]
    for first, second in itertools.permutations(kinds, 2):
        if first.integer and second.integer:
            with pytest.raises(StageError) as caught:
                stages_from_configs(named(first.name, second.name))
            assert str(caught.value) == (
                f"{first.name!r} and {second.name!r} both quantise; a model is quantised once. Keep one."
            )
        elif first.rank < second.rank:
            stages_from_configs(named(first.name, second.name))
        else:
            with pytest.raises(StageError, match=rf"Order them: {second.name}, {first.name}\.$"):
                stages_from_configs(named(first.name, second.name))


def test_all_stages_but_one_that_quantises_stand_in_the_order_of_the_table() -> None:
    order = [name for name in STAGES if name != "ptq"]
    assert [stage.name for stage in stages_from_configs(named(*order))] == order


def test_ranks_follow_the_phases() -> None:
    kinds = [lookup(STAGES, name, kind="stage") for name in STAGES]
    by_rank = [kind.phase for kind in sorted(kinds, key=lambda kind: kind.rank)]
    assert by_rank == sorted(by_rank, key=PHASES.index)
    ranks = [kind.rank for kind in kinds if not kind.integer]
    assert len(set(ranks)) == len(ranks)
    assert len({kind.rank for kind in kinds if kind.integer}) == 1  # either of them is the last step
    assert all(kind.name == name for kind, name in zip(kinds, STAGES, strict=True))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"stage": "phn"}, "There is no compression stage 'phn'. Did you mean 'phm'?"),
        ({"stage": 4}, f"There is no compression stage '4'. Known: {', '.join(STAGES)}."),
        ({"n": 4}, f"A stage needs a name: stage = one of {', '.join(STAGES)}; got {{'n': 4}}."),
        ({"stage": "phm", "m": 4}, "Stage 'phm': unknown key 'm'. Known: stage, tune, n, terms, layers, groups, head, "
         "execution, start, permute, budget_kb, stored_bits, choices, probe_clips."),
        ({"stage": "phm", "layer": ["a"]}, "Stage 'phm': unknown key 'layer'. Did you mean 'layers'?"),
        ({"stage": "qat", "tune": {"epoch": 1}}, "Stage 'qat': unknown key 'epoch' in [tune]. Did you mean 'epochs'?"),
        ({"stage": "phm", "n": 1}, "Stage 'phm': n: Input should be greater than or equal to 2 (got 1)."),
        (
            {"stage": "prune", "pruning_ratio": 1.0},
            "Stage 'prune': pruning_ratio: Input should be less than 1 (got 1.0).",
        ),
        ({"stage": "qat", "backend": "x"}, "Stage 'qat': backend: Input should be 'own' or 'nncf' (got 'x')."),
    ],
)  # fmt: skip
def test_a_wrong_stage_table_is_refused_with_the_nearest_name(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config(fields)
    assert str(caught.value) == text


@pytest.mark.parametrize("table", [PHM, PRUNE, QAT], ids=lambda table: table["stage"])
def test_a_stage_leaves_its_input_as_it_was(table: dict[str, Any]) -> None:
    model = classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shape = repr(model)
    made, _ = stage_from_config(table).apply(model, TOOLS)
    assert repr(model) == shape
    assert repr(made) != shape
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in made.parameters()}
    assert not shared


def test_a_stage_is_tuned_after_its_parent_and_not_at_all_for_zero_epochs() -> None:
    calls: list[tuple[bool, int]] = []
    parent = classifier()

    def finetune(student: torch.nn.Module, *, teacher: Any, tuning: Any, train_norms: bool) -> torch.nn.Module:
        assert teacher is parent
        calls.append((train_norms, tuning.epochs))
        return nudge(student)

    tools = replace(TOOLS, finetune=finetune)
    stage_from_config({**PHM, "tune": {"epochs": 3}}).apply(parent, tools)
    stage_from_config({**QAT, "tune": {"epochs": 1}}).apply(parent, tools)
    stage_from_config({**PHM, "tune": {"epochs": 0}}).apply(parent, tools)
    assert calls == [(True, 3), (False, 1)]


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_saved_variant_computes_the_same_bits(tmp_path: Path, variant: str) -> None:
    checkpoint = dense_checkpoint()
    model = model_from_checkpoint(checkpoint)
    for stage in stages_from_configs(VARIANTS[variant]):
        model, _ = stage.apply(model, TOOLS)  # type: ignore[assignment]
        checkpoint = apply_stage(checkpoint, stage, TOOLS)
    save_checkpoint(checkpoint, tmp_path / "m.safetensors")
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert [entry["stage"] for entry in loaded.architecture.stages] == [
        "train", *(table["stage"] for table in VARIANTS[variant])
    ]  # fmt: skip
    logits = model(clips())
    assert torch.equal(model_from_checkpoint(loaded)(clips()), logits)
    assert logits.std() > 0.05


def test_a_rehearsal_finds_a_stage_that_does_not_fit() -> None:
    clip = torch.zeros(1, 1, 6, 20, 20)
    rehearse(classifier(), stages_from_configs([PRUNE, PHM]), clip)
    with pytest.raises(StageError, match="PHM n=64 fits none"):
        rehearse(classifier(), stages_from_configs([{"stage": "phm", "n": 64}]), clip)


def test_the_variants_are_different_models() -> None:
    hashes = {variant: compressed(variant).sha256 for variant in VARIANTS}
    assert len(set(hashes.values())) == len(VARIANTS)
