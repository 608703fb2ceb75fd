"""Import of a tiny published DC-TCN: what is recognised, what contradicts, what is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import LRW, adam, tiny_dctcn, write, write_lightning
from torch import Tensor

from edgelip.errors import CheckpointError, UsageError
from edgelip.models.checkpoint import load_checkpoint, save_checkpoint
from edgelip.models.published.importer import Imported, import_published
from edgelip.models.zoo import build_classifier

JSON = {
    "backbone_type": "resnet",
    "relu_type": "prelu",
    "width_mult": 1.0,
    "densetcn_block_config": [2, 1],
    "densetcn_growth_rate_set": [8, 8],
    "densetcn_kernel_size_set": [3, 5],
    "densetcn_dilation_size_set": [1, 3],
    "densetcn_reduced_size": 32,
    "densetcn_se": True,
    "densetcn_dropout": 0.1,
    "use_boundary": False,
}
LAYER = "tcn.tcn_trunk.features.denseblock1.denselayer1"


def imported(tmp_path: Path, tensors: Mapping[str, Tensor], **options: Any) -> Imported:
    path = write(tmp_path / "ckpt.best.pth", tensors, optimiser=options.pop("optimiser", None))
    return import_published(path, lrw_words=LRW, **options)


def config(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value for key, value in (JSON | changes).items() if value != "absent"}))
    return path


def test_everything_that_tensors_show_is_recognised(tmp_path: Path) -> None:
    made = imported(tmp_path, tiny_dctcn(n=2))
    architecture = made.checkpoint.architecture
    assert architecture.backbone == "lip_tcn"
    wanted = {
        "modality": "video",
        "trunk": "resnet18",
        "trunk_widths": [4, 4, 4, 8],
        "activation": "prelu",
        "temporal": "dctcn",
        "kernels": [3, 5],
        "block_config": [2, 1],
        "growth": [8, 8],
        "dilations": [1, 2, 5],
        "reduced": 32,
        "excite": True,
        "dropout": 0.2,
        "boundary": False,
        "as_published": True,
    }
    assert {key: architecture.options[key] for key in wanted} == wanted
    phm = architecture.options["phm"]
    assert (phm["n"], phm["parts"], phm["channels"]) == (2, ["trunk", "temporal"], "exact")
    assert architecture.words == ("word_000", "word_001", "word_002")
    assert made.recognition.published == "vsr_phm"
    model = build_classifier("lip_tcn", num_words=3, options=architecture.options)
    model.load_state_dict(dict(made.checkpoint.tensors))
    assert made.num_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_json_gives_what_tensors_do_not_show(tmp_path: Path) -> None:
    options = imported(tmp_path, tiny_dctcn(), config=config(tmp_path)).checkpoint.architecture.options
    assert (options["dilations"], options["dropout"], options["phm"]) == ([1, 3], 0.1, None)
    swish = config(tmp_path, relu_type="swish")
    options = imported(tmp_path, tiny_dctcn(prelu=False), config=swish).checkpoint.architecture.options
    assert options["activation"] == "swish"


def test_relu_or_swish_must_be_said(tmp_path: Path) -> None:
    message = "the tensors do not show whether the activation is relu or swish, and "
    with pytest.raises(UsageError, match=message + "no JSON is given. Name it with --config"):
        imported(tmp_path, tiny_dctcn(prelu=False))
    with pytest.raises(UsageError, match=message + r".*config\.json has no relu_type\. Add it"):
        imported(tmp_path, tiny_dctcn(prelu=False), config=config(tmp_path, relu_type="absent"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("backbone_type", "shufflenet", "says backbone_type 'shufflenet'; the tensors show 'resnet'"),
        ("relu_type", "swish", "says relu_type 'swish'; the tensors hold slopes of prelu"),
        ("use_boundary", True, "says use_boundary True; the tensors show False"),
        ("densetcn_block_config", [3, 3], r"says densetcn_block_config \[3, 3\]; the tensors show \[2, 1\]"),
        ("densetcn_growth_rate_set", [8], r"says densetcn_growth_rate_set \[8\]; the tensors show \[8, 8\]"),
        ("densetcn_kernel_size_set", [3], r"says densetcn_kernel_size_set \[3\]; the tensors show \[3, 5\]"),
        ("densetcn_reduced_size", 64, "says densetcn_reduced_size 64; the tensors show 32"),
        ("densetcn_se", False, "says densetcn_se False; the tensors show True"),
        ("tcn_num_layers", 4, "says tcn_num_layers 4; the tensors hold a dctcn"),
        ("densetcn_sse", True, "unknown key 'densetcn_sse'. Did you mean 'densetcn_se'"),
        ("densetcn_dropout", 1.5, "densetcn_dropout: Input should be less than 1"),
    ],
)
def test_a_json_that_contradicts_the_tensors_is_refused(key: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        imported(tmp_path, tiny_dctcn(), config=config(tmp_path, **{key: value}))
    assert "config.json" in str(caught.value)


def test_no_slopes_contradict_a_json_of_prelu(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="says relu_type 'prelu'; the tensors hold no slopes of prelu"):
        imported(tmp_path, tiny_dctcn(prelu=False), config=config(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "holds a JSON list; expected an object"),
        ("[" * 100_000, "is no JSON"),
        (None, "There is no configuration"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        imported(tmp_path, tiny_dctcn(), config=path)


@pytest.mark.parametrize(
    ("n", "family", "message"),
    [
        (2, "mpc001", r"is a vsr_phm checkpoint \(it has PHM factors A and F\); got --family mpc001"),
        (None, "eflip", r"is a mpc001 checkpoint .*; got --family eflip"),
        (None, "vsr_ph", "There is no published family 'vsr_ph'. Did you mean 'vsr_phm'"),
    ],
)
def test_a_family_that_the_tensors_contradict_is_refused(
    n: int | None, family: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        imported(tmp_path, tiny_dctcn(n=n), family=family)


def test_a_dense_net_may_be_called_by_either_repository(tmp_path: Path) -> None:
    assert imported(tmp_path, tiny_dctcn()).recognition.published == "mpc001"
    assert imported(tmp_path, tiny_dctcn(), family="vsr_phm").recognition.published == "vsr_phm"


def test_tensors_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model that import knows \(first: fc\.weight\)"):
        imported(tmp_path, {"fc.weight": torch.ones(2, 2)})


def test_only_the_temporal_net_may_be_phm(tmp_path: Path) -> None:
    options = imported(tmp_path, tiny_dctcn(n=2, dense_trunk=True)).checkpoint.architecture.options
    assert options["phm"]["parts"] == ["temporal"]


def changed(tensors: dict[str, Tensor], key: str, shape: tuple[int, ...] | None) -> dict[str, Tensor]:
    return {
        name: torch.ones(shape) if name == key and shape is not None else value
        for name, value in tensors.items()
        if name != key or shape is not None
    }


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        (
            "trunk.layer1.0.conv1.A",
            (4, 4, 4),
            r"trunk\.layer1\.0\.conv1\.A has shape \(4, 4, 4\), n=4, but .*F has shape",
        ),
        ("trunk.layer1.0.conv1.A", (2, 2, 3), r"conv1\.A has shape \(2, 2, 3\); expected \(n, n, n\)"),
        ("trunk.layer1.0.conv1.A", (0, 0, 0), r"conv1\.A has shape \(0, 0, 0\); expected \(n, n, n\)"),
        ("trunk.layer1.0.conv1.F", None, r"conv1\.A has no trunk\.layer1\.0\.conv1\.F beside it"),
        (
            "trunk.layer1.0.conv2.F",
            (2, 3, 2, 3, 3),
            r"1 of another shape \(trunk\.layer1\.0\.conv2\.F is \(2, 3, 2, 3, 3\)",
        ),
        (f"{LAYER}.downsample.bias", None, r"has no tensor .*denselayer1\.downsample\.bias"),
        ("trunk.layer2.0.bn1.weight", (), r"has no tensor trunk\.layer2\.0\.bn1\.weight, or an empty one"),
        ("tcn.tcn_output.bias", (4,), r"tcn\.tcn_output\.bias is \(4,\), expected \(3,\)"),
        ("tcn.tcn_output.weight", (0, 48), "the head has 0 classes; expected 1 to 100000"),
        ("tcn.tcn_output.weight", (), "has no tensor tcn.tcn_output.weight, or an empty one"),
        (f"{LAYER}.cbcr0_0.net.0.F", (2, 2), r"has a weight of shape \(2, 2\); expected a 1-D convolution"),
        (f"{LAYER}.cbcr0_0.net.0.F", (2, 2, 16, 4), "cannot be built: .*kernels .* must be odd"),
        ("trunk.layer3.1.bn1.bias", None, r"1 missing \(trunk\.layer3\.1\.bn1\.bias\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    key: str, shape: tuple[int, ...] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        imported(tmp_path, changed(tiny_dctcn(n=2), key, shape))
    assert "ckpt.best.pth" in str(caught.value)


def test_layers_of_different_n_are_named(tmp_path: Path) -> None:
    tensors = tiny_dctcn(n=2)
    key = "trunk.layer4.1.conv2"
    tensors |= {f"{key}.A": torch.ones(4, 4, 4), f"{key}.F": torch.ones(4, 2, 2, 3, 3)}
    with pytest.raises(CheckpointError, match=r"layer1\.0\.conv1\.A has n=2, but trunk\.layer4\.1\.conv2\.A has n=4"):
        imported(tmp_path, tensors)


def test_a_key_that_nobody_knows_is_never_dropped(tmp_path: Path) -> None:
    tensors = tiny_dctcn() | {"tcn.position": torch.ones(29), "trunk.layer1.0.bn1.waight": torch.ones(4)}
    with pytest.raises(CheckpointError, match=r"2 left over \(tcn\.position; trunk\.layer1\.0\.bn1\.waight\)"):
        imported(tmp_path, tensors)


def test_a_misspelt_key_is_named_with_its_nearest(tmp_path: Path) -> None:
    tensors = {key.replace("layer3.1.bn1.bias", "layer3.1.bn1.bais"): value for key, value in tiny_dctcn().items()}
    nearest = r"1 missing \(trunk\.layer3\.1\.bn1\.bias, nearest trunk\.layer3\.1\.bn1\.bais\); 1 left over"
    with pytest.raises(CheckpointError, match=nearest):
        imported(tmp_path, tensors)


def test_long_lists_are_cut_after_five_with_the_count(tmp_path: Path) -> None:
    tensors = {key: value for key, value in tiny_dctcn().items() if not key.startswith("trunk.layer3.1.")}
    with pytest.raises(CheckpointError, match=r"14 missing \(trunk\.blocks\.5\.conv1\.conv\.weight; .*; and 9 more\)"):
        imported(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"numbered \[1, 3\]; expected 1, 2, \.\.\. without a gap"):
        imported(tmp_path, {key.replace("denseblock2", "denseblock3"): v for key, v in tiny_dctcn().items()})


def test_missing_counters_are_set_to_zero_if_all_are_missing(tmp_path: Path) -> None:
    fewer = {key: value for key, value in tiny_dctcn().items() if not key.endswith("num_batches_tracked")}
    made = imported(tmp_path, fewer)
    assert "the file has no num_batches_tracked; set to 0" in made.notes
    assert made.checkpoint.tensors["frontend.stem.norm.num_batches_tracked"] == 0
    assert imported(tmp_path, tiny_dctcn()).checkpoint.tensors["frontend.stem.norm.num_batches_tracked"] == 5
    fewer["frontend3D.1.num_batches_tracked"] = torch.tensor(1)
    with pytest.raises(CheckpointError, match=r"\d+ missing"):
        imported(tmp_path, fewer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_and_it_is_said(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tiny_dctcn().items()}
    made = imported(tmp_path, tensors)
    assert f"weights stored as {str(dtype)[6:]} were converted to float32" in made.notes
    weight = made.checkpoint.tensors["head.weight"]
    assert torch.equal(weight, tensors["tcn.tcn_output.weight"].to(torch.float32))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((3,), float("nan")), r"head|tcn_output\.bias has 3 values of 3 that are nan or infinite"),
        (torch.tensor([0.0, float("inf"), 0.0]), r"tcn_output\.bias has 1 values of 3 that are nan or infinite"),
        (torch.tensor([1e300, 0.0, 0.0], dtype=torch.float64), r"tcn_output\.bias has 1 values of 3"),
        (torch.ones(3, dtype=torch.int8), r"tcn_output\.bias is int8; expected float32"),
        (torch.ones(3, dtype=torch.complex64), r"tcn_output\.bias is complex64; expected float32"),
    ],
)
def test_values_that_cannot_be_weights_are_refused(value: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        imported(tmp_path, tiny_dctcn() | {"tcn.tcn_output.bias": value})


def test_a_counter_that_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"num_batches_tracked is float32; expected a whole number"):
        imported(tmp_path, tiny_dctcn() | {"frontend3D.1.num_batches_tracked": torch.tensor(0.5)})


def test_behaviour_is_published_or_corrected_and_said(tmp_path: Path) -> None:
    made = imported(tmp_path, tiny_dctcn())
    assert made.behaviour == (
        "as published: the temporal net sees padding, so a padded clip gives another result than alone",
    )
    made = imported(tmp_path, tiny_dctcn(), corrected=True)
    assert made.checkpoint.architecture.options["as_published"] is False
    assert made.behaviour[0].startswith("corrected: padding is hidden from the temporal net")


def test_the_lineage_says_where_the_weights_come_from(tmp_path: Path) -> None:
    made = imported(tmp_path, tiny_dctcn())
    (entry,) = made.checkpoint.architecture.stages
    assert entry["stage"] == "import"
    assert entry["record"] == {}
    assert entry["config"].pop("sha256") != made.checkpoint.sha256
    assert entry["config"] == {
        "published": "mpc001",
        "file": "ckpt.best.pth",
        "epochs": 80,
        "best_accuracy_pct": 86.5,
        "corrected": False,
        "ema": False,
    }
    save_checkpoint(made.checkpoint, tmp_path / "out.safetensors")
    assert load_checkpoint(tmp_path / "out.safetensors").architecture.stages == (dict(entry),)


def test_the_average_takes_parameters_only(tmp_path: Path) -> None:
    tensors = tiny_dctcn()
    average = {f"model.{key}": torch.full_like(value, 2) for key, value in tensors.items()}
    path = write_lightning(
        tmp_path / "epoch=9.ckpt",
        tensors,
        callbacks={"EMACallback": {"state_dict_ema": average}},
        optimizer_states=[adam(tensors)],
    )
    made = import_published(path, lrw_words=LRW, averaged=True)
    assert torch.equal(made.checkpoint.tensors["head.bias"], torch.full((3,), 2.0))
    mean = made.checkpoint.tensors["frontend.stem.norm.running_mean"]
    assert torch.equal(mean, tensors["frontend3D.1.running_mean"])
    assert made.checkpoint.optimiser is None
    assert made.optimiser == "left out: it belongs to the raw parameters, not to their average"
    assert import_published(path, lrw_words=LRW).checkpoint.optimiser is not None


def test_an_average_that_is_absent_or_partial_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no averaged parameters \(EMACallback\)\. Leave --ema out"):
        imported(tmp_path, tiny_dctcn(), averaged=True)
    average = {"model.tcn.tcn_output.bias": torch.ones(3)}
    path = write_lightning(tmp_path / "a.ckpt", tiny_dctcn(), callbacks={"EMACallback": {"state_dict_ema": average}})
    with pytest.raises(CheckpointError, match=r"averaged parameters do not pair up with the raw ones: \d+ missing"):
        import_published(path, lrw_words=LRW, averaged=True)
