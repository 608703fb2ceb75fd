"""Sign networks through the stages, and as ONNX files: what is deployed computes what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_models import tools_of
from tiny_signs import AXES, FRAMES, POINTS, landmark_clips, sign_network
from torch import nn

from edgelip.bench.graph import input_name, int8_coverage
from edgelip.compress.channel_graph import channel_spaces
from edgelip.compress.fake_quant import QuantisedLayer
from edgelip.compress.mixed_precision import guarded_layers
from edgelip.compress.pipeline import stages_from_configs
from edgelip.compress.quantise import quantisable
from edgelip.deploy.export import TOLERANCE, Exported, export_model
from edgelip.models.census import count_parameters
from edgelip.models.channel_axes import permute
from edgelip.models.channel_streams import free_axes
from edgelip.models.hypercomplex import PHMLayer

CLIPS = landmark_clips(32)
TOOLS = tools_of(CLIPS)
PHM: dict[str, Any] = {"stage": "phm", "n": 4}
QAT: dict[str, Any] = {"stage": "qat"}
PTQ: dict[str, Any] = {"stage": "ptq"}
PRUNE: dict[str, Any] = {"stage": "prune", "pruning_ratio": 0.1, "round_to": 2}


def after(name: str, *stages: dict[str, Any]) -> nn.Module:
    network: nn.Module = sign_network(name)
    for stage in stages_from_configs(stages):
        network, _ = stage.prepare(network, TOOLS)
    return network.eval()


def exported(network: nn.Module) -> Exported:
    return export_model(network, CLIPS[:8], metadata={"variant": "signs"})


def kinds_of(network: nn.Module, kind: type[nn.Module]) -> set[str]:
    return {name for name, module in network.named_modules() if isinstance(module, kind)}


@pytest.mark.parametrize("name", [pytest.param("simple", marks=pytest.mark.slow), "causal"])
def test_a_float_file_computes_what_torch_computes(name: str) -> None:
    files = exported(sign_network(name)).files
    assert [file.precision for file in files] == ["fp32", "fp16"]
    assert all(file.max_difference <= TOLERANCE[file.precision] for file in files)


def test_an_int8_file_computes_what_torch_computes_in_int8(tmp_path: Path) -> None:
    network = after("centred", PHM, QAT)
    file = next(file for file in exported(network).files if "ort" in file.engines)
    assert (file.precision, file.max_difference <= file.tolerance) == ("int8", True)
    path = tmp_path / file.file_name
    path.write_bytes(file.content)
    coverage = int8_coverage(path, {input_name(path): CLIPS[:1].numpy()})
    assert coverage.int8_pct > 90  # the rest is attention between frames
    assert coverage.self_rounded == ()
    session = onnxruntime.InferenceSession(file.content, providers=["CPUExecutionProvider"])
    together = session.run(None, {"clips": CLIPS[:4].numpy()})[0]
    alone = np.concatenate([session.run(None, {"clips": clip[None]})[0] for clip in CLIPS[:4].numpy()])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["simple", "causal"])
def test_every_weighted_layer_is_rounded(name: str) -> None:
    network = after(name, PTQ)
    weighted = kinds_of(sign_network(name), nn.Linear) | kinds_of(sign_network(name), nn.Conv1d)
    assert kinds_of(network, QuantisedLayer) == weighted
    rounded, exact = network(CLIPS), sign_network(name)(CLIPS)
    assert (rounded - exact).square().mean() < 0.01 * exact.square().mean()


def test_phm_takes_the_pointwise_convolutions() -> None:
    network = after("centred", PHM)
    blocks = {f"temporal.blocks.{block}.{layer}" for block in (0, 1) for layer in ("expand", "project")}
    transformer = {"temporal.blocks.2.feedforward1", "temporal.blocks.2.feedforward2"}
    assert kinds_of(network, PHMLayer) == {*blocks, *transformer, "temporal.top"}
    assert count_parameters(network) < 0.75 * count_parameters(sign_network("centred"))


def test_pruning_cuts_inside_the_transformer_and_before_the_head_alone() -> None:
    """Channel attention convolves over neighbouring channels: none of them may leave."""
    transformer, top = channel_spaces(sign_network("centred"), CLIPS[:2])
    assert {layer for layer, _ in transformer.counts} == {f"temporal.blocks.2.feedforward{n}" for n in (1, 2)}
    assert {layer for layer, _ in top.counts} == {"temporal.top", "head"}
    cut = after("centred", PRUNE)
    assert count_parameters(cut) < count_parameters(sign_network("centred"))
    assert cut(CLIPS).isfinite().all()


@torch.no_grad()
def test_channels_of_the_transformer_may_change_places() -> None:
    network = sign_network("centred")
    before = network(CLIPS)
    (axis,) = free_axes(network)
    permute(network, axis, list(range(axis.size))[::-1])
    torch.testing.assert_close(network(CLIPS), before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_lost_point_is_no_step_in_the_file() -> None:
    """The mask of found coordinates is arithmetic, so that every engine has it: it must not round near zero."""
    network = sign_network("centred")
    session = onnxruntime.InferenceSession(exported(network).files[0].content, providers=["CPUExecutionProvider"])
    clips = torch.zeros(1, 1, FRAMES, POINTS, AXES)
    clips[:, :, 4:, 0] = 0.5  # comes into view, and stays where it is
    moved = clips.clone()
    moved[:, :, 4:, 0] += 1e-3 * torch.arange(FRAMES - 4)[:, None]
    for each in (clips, moved):
        found = session.run(None, {"clips": each.numpy()})[0]
        np.testing.assert_allclose(found, network(each).numpy(), atol=1e-5)


def test_channel_attention_is_guarded_as_squeeze_excitation_is() -> None:
    network = sign_network("centred")
    guarded = guarded_layers(network, quantisable(network))
    assert guarded["frontend"] == ("frontend.stem.conv",)
    assert guarded["squeeze-excitation"] == tuple(f"temporal.blocks.{block}.attend.mix" for block in (0, 1))
