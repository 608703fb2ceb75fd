"""The table of names: examples of every row, and nothing that is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelip.models.published.names import Renamed, is_buffer, renamed

FEATURES = "tcn.tcn_trunk.features"


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("frontend3D.1.running_var", "frontend.stem.norm.running_var"),
        ("frontend3D.2.weight", "frontend.act.weight"),
        ("trunk.layer1.0.conv1.weight", "trunk.blocks.0.conv1.conv.weight"),
        ("trunk.layer2.1.conv2.A", "trunk.blocks.3.conv2.conv.A"),
        ("trunk.layer4.0.downsample.0.F", "trunk.blocks.6.shortcut.conv.F"),
        ("trunk.layer4.0.downsample.1.bias", "trunk.blocks.6.shortcut.norm.bias"),
        ("trunk.layer3.1.bn2.num_batches_tracked", "trunk.blocks.5.conv2.norm.num_batches_tracked"),
        ("trunk.layer3.0.relu1.weight", "trunk.blocks.4.act1.weight"),
        ("trunk.conv1.weight", "frontend.stem.conv.weight"),
        ("trunk.bn1.bias", "frontend.stem.norm.bias"),
        ("trunk.relu.weight", "frontend.act.weight"),
        ("trunk.0.4.banch1.0.weight", "trunk.units.4.left_depthwise.conv.weight"),
        ("trunk.0.4.banch1.3.bias", "trunk.units.4.left_pointwise.norm.bias"),
        ("trunk.0.15.banch2.0.weight", "trunk.units.15.right_reduce.conv.weight"),
        ("trunk.0.15.banch2.4.weight", "trunk.units.15.right_depthwise.norm.weight"),
        ("trunk.0.15.banch2.5.weight", "trunk.units.15.right_expand.conv.weight"),
        ("trunk.1.1.running_mean", "trunk.last.norm.running_mean"),
        (f"{FEATURES}.transition0.conv.bnd", "temporal.transitions.0.project.conv.bnd"),
        (f"{FEATURES}.transition3.prelu.weight", "temporal.transitions.3.act.weight"),
        (f"{FEATURES}.denseblock4.denselayer3.cbcr0_se_2.fc.0.S", "temporal.blocks.3.layers.2.first.2.excite.reduce.F"),
        (f"{FEATURES}.denseblock1.denselayer1.cbcr0_se_0.fc.2.A", "temporal.blocks.0.layers.0.first.0.excite.expand.A"),
        (f"{FEATURES}.denseblock2.denselayer1.cbcr0_1.net.0.bias", "temporal.blocks.1.layers.0.first.1.conv.conv.bias"),
        (
            f"{FEATURES}.denseblock2.denselayer1.cbcr1_1.net.1.bias",
            "temporal.blocks.1.layers.0.second.1.conv.norm.bias",
        ),
        (f"{FEATURES}.denseblock2.denselayer2.cbcr1_0.net.3.weight", "temporal.blocks.1.layers.1.second.0.act.weight"),
        (f"{FEATURES}.denseblock2.denselayer2.downsample.F", "temporal.blocks.1.layers.1.shortcut.F"),
        (f"{FEATURES}.denseblock2.denselayer2.relu_final.weight", "temporal.blocks.1.layers.1.act.weight"),
        (f"{FEATURES}.norm5.weight", "temporal.norm.weight"),
        ("tcn.mb_ms_tcn.network.3.cbcr0_2.conv.weight", "temporal.blocks.3.first.2.conv.conv.weight"),
        ("tcn.mb_ms_tcn.network.3.cbcr1_0.batchnorm.bias", "temporal.blocks.3.second.0.conv.norm.bias"),
        ("tcn.mb_ms_tcn.network.3.cbcr1_0.non_lin.weight", "temporal.blocks.3.second.0.act.weight"),
        ("tcn.mb_ms_tcn.network.0.cbcr0_1.conv.0.weight", "temporal.blocks.0.first.1.depthwise.conv.weight"),
        ("tcn.mb_ms_tcn.network.0.cbcr0_1.conv.3.weight", "temporal.blocks.0.first.1.depthwise_act.weight"),
        ("tcn.mb_ms_tcn.network.0.cbcr0_1.conv.5.running_var", "temporal.blocks.0.first.1.conv.norm.running_var"),
        ("tcn.mb_ms_tcn.network.0.cbcr0_1.conv.6.weight", "temporal.blocks.0.first.1.act.weight"),
        ("tcn.mb_ms_tcn.network.0.downsample.A", "temporal.blocks.0.shortcut.A"),
        ("tcn.mb_ms_tcn.network.0.relu_final.weight", "temporal.blocks.0.act.weight"),
        ("tcn.tcn_trunk.network.1.conv2.bias", "temporal.blocks.1.conv2.conv.bias"),
        ("tcn.tcn_trunk.network.1.net.5.bias", "temporal.blocks.1.conv2.conv.bias"),
        ("tcn.tcn_trunk.network.1.net.6.running_var", "temporal.blocks.1.conv2.norm.running_var"),
        ("tcn.tcn_trunk.network.1.net.3.weight", "temporal.blocks.1.act1.weight"),
        ("tcn.tcn_trunk.network.1.relu.weight", "temporal.blocks.1.act.weight"),
        ("tcn.tcn_output.bias", "head.bias"),
        ("frontend_3d.conv3d.bn.weight", "frontend.stem.norm.weight"),
        ("frontend_3d.efnet.blocks.4.block.fused_point_wise.0.weight", "trunk.blocks.4.project.conv.weight"),
        ("frontend_3d.efnet.blocks.20.block.depth_wise.1.bias", "trunk.blocks.20.depthwise.norm.bias"),
        ("frontend_3d.efnet.blocks.20.block.se.fc2.bias", "trunk.blocks.20.excite.expand.bias"),
        ("frontend_3d.efnet.stage_7.pointwise.weight", "trunk.last.weight"),
        ("transformer_encoder.self_attn.in_proj_bias", "temporal.attention.in_projection.bias"),
        ("transformer_encoder.linear2.weight", "temporal.feedforward2.weight"),
        ("tcn_block.tcn_layers.2.conv_block.6.weight", "temporal.blocks.2.act2.weight"),
        ("tcn_block.tcn_layers.2.conv_block.8.weight", "temporal.blocks.2.act.weight"),
        ("fc_layer.weight", "head.weight"),
    ],
)
def test_a_published_name_becomes_ours(published: str, ours: str) -> None:
    assert renamed(published) == Renamed(ours)


def test_three_dimensional_stems_lose_the_axis_of_their_one_input() -> None:
    assert renamed("frontend3D.0.weight") == Renamed("frontend.stem.conv.weight", squeeze=1)
    assert renamed("frontend3D.0.F") == Renamed("frontend.stem.conv.F", squeeze=2)
    assert renamed("frontend3D.0.A") == Renamed("frontend.stem.conv.A")
    assert renamed("frontend_3d.conv3d.conv3d.weight") == Renamed("frontend.stem.conv.weight", squeeze=1)


@pytest.mark.parametrize(
    "name",
    [
        "position",
        "trunk.layer5.0.conv1.weight",
        "trunk.layer1.0.conv1.weight.x",
        "tcn.tcn_trunk.network.0.net.2.weight",
    ],
)
def test_an_unknown_name_is_not_guessed(name: str) -> None:
    assert renamed(name) is None


def test_every_published_name_has_its_own_place(golden: Path) -> None:
    folders = sorted(path.parent for path in golden.glob("*/keys.json"))
    assert len(folders) == 22
    for folder in folders:
        names = list(json.loads((folder / "keys.json").read_text()))
        places = [renamed(name) for name in names]
        assert all(place is not None for place in places), folder.name
        num_aliases = 64 if "_tcn" in folder.name else 0
        assert len(set(places)) == len(names) - num_aliases, folder.name


def test_running_statistics_are_no_parameters() -> None:
    assert is_buffer("frontend3D.1.running_mean")
    assert not is_buffer("frontend3D.1.weight")
