from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import PHM, PRUNE, TOOLS, WORDS, classifier, clips
from torch import nn

from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.prune import Prune
from edgelip.errors import StageError
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


def test_a_phm_model_cannot_be_pruned() -> None:
    phm, _ = stage_from_config(PHM).prepare(classifier(), TOOLS)
    with pytest.raises(StageError, match=r"this model has PHM layers\. Prune first\."):
        stage_from_config(PRUNE).prepare(phm, TOOLS)


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
