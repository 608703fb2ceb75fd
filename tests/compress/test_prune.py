from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import OPTIONS, PRUNE, QAT, TOOLS, WORDS, classifier, clips, dense_checkpoint, nudge, tools_of
from torch import nn

from edgelip.compress.channel_graph import kept_channels
from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, stage_from_config
from edgelip.compress.prune import Prune, epochs_of_steps
from edgelip.compress.stage import FineTuning
from edgelip.errors import CheckpointError, StageError
from edgelip.models.census import count_macs, count_parameters
from edgelip.models.zoo import build_classifier


def prune(**fields: Any) -> tuple[nn.Module, dict[str, Any]]:
    return stage_from_config({"stage": "prune", **fields}).prepare(classifier(), TOOLS)


def layers(model: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def test_pruning_removes_half_of_every_layers_channels() -> None:
    model, record = prune(pruning_ratio=0.5, round_to=8)
    dense = layers(classifier())
    for name, module in layers(model).items():
        shapes = [tuple(t.shape) for t in (module.weight, dense[name].weight)]  # type: ignore[misc]
        out, dense_out = shapes[0][0], shapes[1][0]
        assert out == (len(WORDS) if name == "head" else dense_out // 2), name
        if not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            into = shapes[1][1] if name == "frontend.stem.conv" else shapes[1][1] // 2
            assert shapes[0][1] == into, name  # the stem reads five frames, pruned or not
            assert record["widths"].get(name, [out, into]) == [out, into]
    ratio = count_parameters(model) / count_parameters(classifier())
    assert 0.25 < ratio < 0.35
    # 6 frames: the stem loses half, as its input stays; all between loses three quarters; the head loses half.
    stem, between = 10 * 10 * 16 * 125, 9 * 4864 + 4 * 14336 + 12288
    assert count_macs(model, clips(1)) == 6 * (stem // 2 + between // 4) + 16 * 6
    assert model(clips(2)).shape == (2, len(WORDS))


@pytest.mark.parametrize(("ratio", "multiple"), [(0.3, 4), (0.5, 4), (0.6, 8), (0.2, 1)])
def test_kept_widths_are_multiples(ratio: float, multiple: int) -> None:
    model, _ = prune(pruning_ratio=ratio, round_to=multiple)
    widths = [m.weight.shape[0] for name, m in layers(model).items() if name != "head"]  # type: ignore[union-attr, operator, index]
    assert all(width % multiple == 0 and width > 0 for width in widths)
    assert min(widths) < 16


def test_the_kept_channels_are_those_of_the_dense_model() -> None:
    model, _ = prune(**{key: value for key, value in PRUNE.items() if key != "stage"})
    kept, dense = layers(model)["frontend.stem.conv"].weight, layers(classifier())["frontend.stem.conv"].weight
    found = [any(torch.equal(row, other) for other in dense) for row in kept]  # type: ignore[union-attr]
    assert all(found)
    assert len(found) == 8


def test_pruning_that_removes_nothing_is_refused() -> None:
    with pytest.raises(StageError) as caught:
        prune(pruning_ratio=0.01, round_to=32)
    assert str(caught.value) == (
        "Pruning 1% in multiples of 32 removes no channel of this model. Raise pruning_ratio or lower round_to."
    )


def test_restoring_gives_the_pruned_shapes_and_never_grows_a_layer() -> None:
    stage = stage_from_config(PRUNE)
    assert isinstance(stage, Prune)
    model, record = stage.prepare(classifier(), TOOLS)
    fresh = build_classifier(
        "small", num_words=len(WORDS),
        options={"stem_width": 16, "trunk_widths": [16, 32], "temporal_width": 32, "temporal_blocks": 2},
    )  # fmt: skip
    restored = stage.restore(fresh, record)
    assert {k: v.shape for k, v in restored.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert str(restored) == str(model)
    with pytest.raises(StageError, match=r"Pruning head from \[6, 16\] to \[6, 32\] channels is no pruning\."):
        stage.restore(restored, {"widths": {"head": [6, 32]}})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"pruning_ratio": 0.4, "macs_ratio": 0.5},
            "pruning_ratio 0.4 (channels that go) and macs_ratio 0.5 (multiply-adds that stay) are two goals; give one",
        ),
        (
            {"steps": 3},
            "steps = 3 are each tuned, and tune.epochs is 2; give at least as many epochs, or fewer steps",
        ),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config({"stage": "prune", **fields})
    assert text in str(caught.value)


@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("ranking", ["even", "global"])
def test_a_target_in_multiply_adds_is_met(target: float, ranking: str) -> None:
    model, _ = prune(macs_ratio=target, round_to=1, ranking=ranking)
    left = count_macs(model, clips(1)) / count_macs(classifier(), clips(1))
    assert left == pytest.approx(target, abs=0.02)


def test_a_target_that_cannot_be_met_names_the_nearest() -> None:
    with pytest.raises(StageError) as caught:
        prune(macs_ratio=0.6, round_to=16)
    narrowest, _ = prune(pruning_ratio=0.5, round_to=16)  # in sixteens, only layers of 32 can shrink, to half
    left = count_macs(narrowest, clips(1)) / count_macs(classifier(), clips(1))
    assert str(caught.value) == (
        "No pruning in multiples of 16 leaves 60% of the multiply-adds; the nearest that can be reached is "
        f"{left:.1%}. Change macs_ratio, or lower round_to."
    )
    assert left > 0.7
    with pytest.raises(StageError, match=r"leaves 1% of the multiply-adds; the nearest that can be reached is \d+"):
        prune(macs_ratio=0.01, round_to=8)


def silent_channels() -> nn.Module:
    """A classifier whose first stem channels have large weights and no effect: their norm gives zero."""
    model = classifier()
    with torch.no_grad():
        model.frontend.stem.conv.weight[:8] *= 100  # type: ignore[operator, union-attr, index]
        model.frontend.stem.norm.weight[:8] = 0  # type: ignore[operator, union-attr, index]
        model.frontend.stem.norm.bias[:8] = 0  # type: ignore[operator, union-attr, index]
    return model


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_only_gradients_tell_large_weights_from_those_that_matter(importance: str) -> None:
    stage = stage_from_config({"stage": "prune", "pruning_ratio": 0.5, "round_to": 8, "importance": importance})
    dense = silent_channels()
    model, _ = stage.prepare(silent_channels(), TOOLS)
    kept, loud = model.frontend.stem.conv.weight, dense.frontend.stem.conv.weight[8:]  # type: ignore[index, union-attr]
    assert torch.equal(kept, loud) == (importance == "taylor")  # type: ignore[arg-type]


def test_a_global_ranking_spares_the_layers_that_matter() -> None:
    dense = classifier()
    with torch.no_grad():  # an inner layer that nothing reads: it may shrink to an eighth
        dense.temporal.blocks[1].conv2.conv.weight.zero_()  # type: ignore[union-attr, index, operator]
    fields = {"stage": "prune", "pruning_ratio": 0.25, "round_to": 1, "importance": "taylor", "ranking": "global"}
    model, record = stage_from_config(fields).prepare(dense, TOOLS)
    assert model.temporal.blocks[1].conv1.conv.weight.shape[0] == 4  # type: ignore[union-attr, index]
    assert record["widths"]["temporal.blocks.1.conv1.conv"][0] == 4


def test_a_part_is_removed_and_tuned_as_often_as_asked() -> None:
    seen: list[tuple[int, int]] = []
    parent = classifier()

    def finetune(student: nn.Module, *, teacher: nn.Module, tuning: FineTuning, train_norms: bool) -> nn.Module:
        assert teacher is parent
        assert train_norms
        seen.append((tuning.epochs, student.temporal.blocks[0].conv1.conv.weight.shape[0]))  # type: ignore[union-attr, index]
        return nudge(student)

    stage = stage_from_config(
        {"stage": "prune", "pruning_ratio": 0.5, "round_to": 1, "steps": 3, "tune": {"epochs": 4}}
    )
    tools = tools_of(clips(4), finetune=finetune)
    model, record = stage.apply(parent, tools)
    # 32 channels, of which 0.5^(1/3), 0.5^(2/3) and 0.5 are kept
    assert seen == [(1, 25), (1, 20), (2, 16)]
    restored = stage.restore(classifier(), record)
    restored.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(restored(clips()), model(clips()))
    assert stage.label == "pruned 50% in 3 steps"


def test_steps_to_a_target_in_multiply_adds_end_there() -> None:
    dense, left = count_macs(classifier(), clips(1)), []

    def finetune(student: nn.Module, **_: Any) -> nn.Module:
        left.append(count_macs(student, clips(1)) / dense)
        return nudge(student)

    stage = stage_from_config({"stage": "prune", "macs_ratio": 0.4, "round_to": 1, "steps": 2, "tune": {"epochs": 2}})
    stage.apply(classifier(), tools_of(clips(4), finetune=finetune))
    assert left == pytest.approx([0.4**0.5, 0.4], abs=0.02)
    assert stage.label == "pruned to 40% of MACs in 2 steps"


def test_epochs_are_divided_with_more_for_the_last() -> None:
    assert epochs_of_steps(7, 3) == [2, 2, 3]
    assert epochs_of_steps(3, 3) == [1, 1, 1]
    assert epochs_of_steps(0, 1) == [0]


def test_a_quantised_model_cannot_be_pruned() -> None:
    quantised, _ = stage_from_config(QAT).prepare(classifier(), TOOLS)
    with pytest.raises(StageError, match=r"this model is quantised\. Prune first\."):
        stage_from_config(PRUNE).prepare(quantised, TOOLS)


def test_a_layer_of_another_kind_is_refused_by_name() -> None:
    model = classifier()
    model.output = nn.Bilinear(2, 2, 2)
    with pytest.raises(StageError, match=r"cuts convolutions, linear and PHM layers; output is a Bilinear\. Prune"):
        stage_from_config(PRUNE).prepare(model, TOOLS)


@pytest.mark.parametrize(
    ("name", "widths", "text"),
    [
        ("small", [], r"A pruning record has widths \[\]; expected a table of layers"),
        ("small", {"trunk.nowhere": [8, 8]}, r"names 'trunk.nowhere', which is no layer of this model"),
        ("small", {"trunk": [8, 8]}, r"names 'trunk', which is no layer of this model"),
        ("small", {"frontend.stem.conv": [0, 5]}, r"Pruning frontend.stem.conv from \[16, 5\] to \[0, 5\]"),
        ("small", {"frontend.stem.conv": [17, 5]}, r"from \[16, 5\] to \[17, 5\] channels is no pruning"),
        ("small", {"frontend.stem.conv": [8]}, r"from \[16, 5\] to \[8\] channels is no pruning"),
        ("small", {"frontend.stem.conv": [8.0, 5]}, r"channels is no pruning"),
        ("small", {"frontend.stem.conv": [True, 5]}, r"channels is no pruning"),
        ("small", {"frontend.stem.conv": "85"}, r"channels is no pruning"),
        ("small", {"frontend.stem.norm": [8, 16]}, r"frontend.stem.norm gives as many channels as it takes"),
        ("dctcn_phm2", {"trunk.blocks.0.conv1.conv": [5, 8]}, r"conv1.conv has 2 by 2 blocks, which divide its"),
    ],
)  # fmt: skip
def test_a_record_that_fits_no_model_is_refused(name: str, widths: Any, text: str) -> None:
    family, options = FAMILIES.get(name, ("small", OPTIONS))
    model = build_classifier(family, num_words=6, options=options)
    with pytest.raises(StageError, match=text):
        stage_from_config(PRUNE).restore(model, {"widths": widths})


def test_a_checkpoint_with_such_a_record_is_refused() -> None:
    made = apply_stage(dense_checkpoint(), stage_from_config({**PRUNE, "tune": {"epochs": 0}}), tools_of(clips(2)))
    assert model_from_checkpoint(made)(clips(1)).shape == (1, 6)
    entry = {**made.architecture.stages[-1], "record": {"widths": {"head": [6, 10**9]}}}
    stages = (*made.architecture.stages[:-1], entry)
    with pytest.raises(CheckpointError, match="Pruning head from"):
        model_from_checkpoint(replace(made, architecture=replace(made.architecture, stages=stages)))


def test_a_network_that_the_library_cannot_follow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_pruning

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("integer division or modulo by zero")

    monkeypatch.setattr(torch_pruning.DependencyGraph, "build_dependency", fail)
    with pytest.raises(StageError) as caught:
        prune()
    assert str(caught.value) == (
        "Torch-Pruning cannot follow the channels of this network (ZeroDivisionError). Leave stage 'prune' out, or "
        "take another backbone."
    )


@pytest.mark.parametrize("mistake", ["values", "shapes"])
def test_a_wrong_dependency_is_found_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    from edgelip.compress import prune as module

    def wrong(model: nn.Module, removed: Any) -> Any:
        kept = kept_channels(model, removed)
        name = "frontend.stem.conv"
        if mistake == "shapes":
            return {name: kept[name]}
        others = torch.arange(16)[torch.isin(torch.arange(16), kept[name].rows, invert=True)]
        return {**kept, "frontend.stem.norm": replace(kept["frontend.stem.norm"], rows=others)}

    monkeypatch.setattr(module, "kept_channels", wrong)
    with pytest.raises(StageError, match="the pruned network does not compute what the whole one does without"):
        prune(pruning_ratio=0.5, round_to=8)
