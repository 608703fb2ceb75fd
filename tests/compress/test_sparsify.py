from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_models import OPTIONS, PHM, QAT, TOOLS, WORDS, classifier, clips, dense_checkpoint, keep, nudge, tools_of
from torch import Tensor, nn

from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, stage_from_config
from edgelip.compress.sparsify import Sparsify, mask_2_of_4
from edgelip.deploy.export import export_model
from edgelip.errors import CheckpointError, StageError
from edgelip.models.blocks import fold_norms
from edgelip.models.zero_masks import apply_masks, masked_layers
from edgelip.models.zoo import build_classifier
from edgelip.train.module import Schedule, WordTask

SPARSE = {"stage": "sparsify", "min_channels": 16}
STORED = {"stage": "sparsify", "pattern": "unstructured", "sparsity": 0.75, "min_channels": 16}


def is_2_of_4(weight: Tensor) -> bool:
    """Whether no four neighbours along the input channels hold more than two that are not zero."""
    if weight.ndim < 2 or weight.shape[1] % 4:
        return False
    fours = (weight != 0).movedim(1, -1).reshape(-1, 4)
    return bool((fours.sum(dim=1) <= 2).all())


def sparse(**fields: Any) -> tuple[Any, dict[str, Any]]:
    return stage_from_config({**SPARSE, **fields}).prepare(classifier(), TOOLS)


def test_of_each_four_neighbouring_inputs_the_two_larger_stay() -> None:
    weight = torch.tensor([[1.0, -4.0, 2.0, 3.0, 0.0, 0.0, -5.0, 6.0]])
    assert (mask_2_of_4(weight) * weight).tolist() == [[0, -4, 0, 3, 0, 0, -5, 6]]
    conv = torch.randn(6, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    kept = conv * mask_2_of_4(conv)
    assert is_2_of_4(kept)
    assert not is_2_of_4(conv)
    for fours, whole in zip(kept.split(4, dim=1), conv.split(4, dim=1), strict=True):  # tap by tap
        assert ((fours != 0).sum(dim=1) == 2).all()
        torch.testing.assert_close(fours.abs().sum(dim=1), whole.abs().sort(dim=1).values[:, 2:].sum(dim=1))


def test_layers_wide_enough_become_sparse_and_the_others_stay() -> None:
    model, record = sparse()
    dense = classifier()
    chosen = [
        *(f"trunk.blocks.{block}.{conv}.conv" for block in (0, 1) for conv in ("conv1", "conv2", "shortcut")),
        *(f"temporal.blocks.{block}.{conv}.conv" for block in (0, 1) for conv in ("conv1", "conv2")),
    ]
    assert sorted(record["layers"]) == sorted(chosen)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            whole = dense.get_submodule(name).weight
            if name in chosen:
                assert is_2_of_4(layer.weight)
                assert float((layer.weight == 0).float().mean()) == 0.5
            else:
                assert torch.equal(layer.weight, whole)  # type: ignore[arg-type]
    assert record["zeros"] * 2 == record["weights"]
    assert stage_from_config(SPARSE).label == "2:4 sparse"


def test_unstructured_zeros_are_the_smallest_of_each_layer() -> None:
    model, record = stage_from_config(STORED).prepare(classifier(), TOOLS)
    for name in record["layers"]:
        weight, whole = model.get_submodule(name).weight, classifier().get_submodule(name).weight
        gone = weight == 0
        assert float(gone.float().mean()) == pytest.approx(0.75, abs=1e-3)  # type: ignore[union-attr]
        assert whole[gone].abs().max() <= whole[~gone].abs().min()  # type: ignore[index, operator]
    assert stage_from_config(STORED).label == "75% zeros (file and speed as before)"


def test_training_keeps_the_zeros_of_copies_and_of_quantised_layers() -> None:
    model, record = sparse()
    quantised, _ = stage_from_config(QAT).prepare(deepcopy(model), TOOLS)
    for student, prefix in ((deepcopy(model), ""), (quantised, ".layer")):
        task = WordTask(student, spec=None, schedule=Schedule(epochs=1), num_steps=1)  # type: ignore[arg-type]
        optimiser = torch.optim.AdamW(student.train().parameters(), lr=0.05)
        for _ in range(3):
            loss = nn.functional.cross_entropy(student(clips(6)), torch.arange(6))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            moved = student.get_submodule(record["layers"][0] + prefix).weight
            assert not is_2_of_4(moved)  # type: ignore[arg-type]
            task.on_train_batch_end(None, None, 0)
        assert len(masked_layers(student)) == len(record["layers"])
        for name in record["layers"]:
            weight, before = student.get_submodule(name + prefix).weight, model.get_submodule(name).weight
            assert is_2_of_4(weight)  # type: ignore[arg-type]
            assert torch.equal(weight == 0, before == 0)  # type: ignore[arg-type]
            assert not torch.equal(weight, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("table", [SPARSE, STORED], ids=["2:4", "unstructured"])
@torch.no_grad()
def test_a_sparse_checkpoint_restores_its_zeros_and_its_mask(table: dict[str, Any]) -> None:
    def moving(student: nn.Module, **_: Any) -> nn.Module:
        nudge(student)
        apply_masks(student)
        return student

    made = apply_stage(dense_checkpoint(), stage_from_config(table), tools_of(clips(4), finetune=moving))
    model = model_from_checkpoint(made)
    before = {name: layer.weight.clone() for name, layer in masked_layers(model).items()}
    assert all((weight == 0).float().mean() >= 0.5 for weight in before.values())
    nudge(model)
    apply_masks(model)
    for name, layer in masked_layers(model).items():
        assert torch.equal(layer.weight == 0, before[name] == 0)


@torch.no_grad()
def test_the_deployed_file_holds_the_zeros_and_is_no_smaller(tmp_path: Path) -> None:
    model, record = sparse()
    fold_norms(folded := deepcopy(model))
    assert all(is_2_of_4(layer.weight) for layer in masked_layers(folded).values())
    files = {
        name: export_model(net, clips(2), metadata={}, precisions=()).files[0].content
        for name, net in (("sparse", model), ("dense", classifier()))
    }
    graph = onnx.load_from_string(files["sparse"]).graph
    weights = [torch.from_numpy(np.array(numpy_helper.to_array(each))) for each in graph.initializer]
    halved = [weight for weight in weights if weight.ndim >= 3 and is_2_of_4(weight)]
    assert len(halved) == len(record["layers"])
    assert len(files["sparse"]) == pytest.approx(len(files["dense"]), rel=1e-3)


def test_int8_weights_of_a_sparse_network_are_sparse() -> None:
    model, _ = sparse()
    quantised, _ = stage_from_config(QAT).prepare(model, TOOLS)
    found = 0
    for name, layer in quantised.named_modules():
        if masked_layers(layer).keys() == {"layer"}:
            weight, _ = layer.running_parameters()
            assert is_2_of_4(weight.detach()), name
            found += 1
    assert found == 10


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"min_channels": 256},
            "No layer with a dense weight has 256 input channels in fours; the widest of 12 has 32. "
            "Lower min_channels, or leave stage 'sparsify' out: sparse kernels pay from about 256.",
        ),
        ({"layers": ["nowhere.*"]}, "No dense layer is called 'nowhere.*'."),
        (
            {"layers": ["frontend.stem.conv"]},
            "frontend.stem.conv has 5 input channels; 2:4 sparsity takes them in fours. Leave it out of `layers`.",
        ),
        ({"sparsity": 0.5}, 'pattern "2:4" zeroes half of the weights; leave sparsity = 0.5 out'),
        (
            {"pattern": "unstructured", "sparsity": 1e-6},
            "A sparsity of 1e-06 zeroes no weight of these 10 layers. Raise sparsity.",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        sparse(**fields)
    assert text in str(caught.value)


def test_phm_layers_stay_dense_and_are_refused_by_name() -> None:
    model, _ = stage_from_config(PHM).prepare(classifier(), TOOLS)
    with pytest.raises(StageError, match=r"No dense layer is called 'temporal.*It is a PHM layer, whose factors stay"):
        stage_from_config({**SPARSE, "layers": ["temporal.blocks.0.conv1.conv"]}).prepare(model, TOOLS)


def test_a_model_is_made_sparse_once_and_before_it_is_quantised() -> None:
    model, _ = sparse()
    with pytest.raises(StageError, match=r"The model is sparse already; stage 'sparsify' applies once"):
        stage_from_config(SPARSE).prepare(model, TOOLS)
    quantised, _ = stage_from_config(QAT).prepare(classifier(), TOOLS)
    with pytest.raises(StageError, match=r"this model is quantised\. Sparsify first\."):
        stage_from_config(SPARSE).prepare(quantised, TOOLS)


@pytest.mark.parametrize("layers", [7, "head", ["head", "trunk"], [3], None])
def test_a_record_of_other_layers_is_refused(layers: Any) -> None:
    model = build_classifier("small", num_words=len(WORDS), options=OPTIONS)
    stage = stage_from_config(SPARSE)
    assert isinstance(stage, Sparsify)
    with pytest.raises(StageError, match=r"A sparsity record names .*, which are not all layers of this model"):
        stage.restore(model, {"layers": layers})
    made = apply_stage(dense_checkpoint(), stage, tools_of(clips(2), finetune=keep))
    made.architecture.stages[-1]["record"]["layers"] = layers  # type: ignore[index]
    with pytest.raises(CheckpointError, match="A sparsity record names"):
        model_from_checkpoint(made)
