"""What each published tensor is called here, as a table of patterns.

A pattern matches the whole published name. In our name `{w}` stands for the group of that name; groups that end in
`_from1` count from 1 there and from 0 here, `set` is the first or second convolution set of a temporal block, and
`stage`, `half` give the number of a ResNet block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NORM = r"(?P<w>weight|bias|running_mean|running_var|num_batches_tracked)"
_LAYER = r"(?P<w>weight|bias|bnd|A|F)"  # of a convolution, dense or PHM
_LINEAR = r"(?P<w>weight|A|S)"  # PHM linear layers call their blocks S
_AFFINE = r"(?P<w>weight|bias)"


@dataclass(frozen=True)
class Rule:
    """published: a regular expression; ours: a template. squeeze: the axis of size 1 that ours lacks."""

    published: str
    ours: str
    squeeze: int | None = None


@dataclass(frozen=True)
class Renamed:
    """Our name of a published tensor, and the axis of size 1 to drop."""

    ours: str
    squeeze: int | None = None


_STEM = (
    Rule(r"frontend3D\.0\.(?P<w>weight)", "frontend.stem.conv.{w}", squeeze=1),
    Rule(r"frontend3D\.0\.(?P<w>A)", "frontend.stem.conv.{w}"),
    Rule(r"frontend3D\.0\.(?P<w>F)", "frontend.stem.conv.{w}", squeeze=2),
    Rule(rf"frontend3D\.1\.{_NORM}", "frontend.stem.norm.{w}"),
    Rule(r"frontend3D\.2\.weight", "frontend.act.weight"),
)
_AUDIO_STEM = (
    Rule(r"trunk\.conv1\.weight", "frontend.stem.conv.weight"),
    Rule(rf"trunk\.bn1\.{_NORM}", "frontend.stem.norm.{w}"),
    Rule(r"trunk\.relu\.weight", "frontend.act.weight"),
)
_BLOCK = r"trunk\.layer(?P<stage>[1-4])\.(?P<half>[01])"
_RESNET = (
    Rule(rf"{_BLOCK}\.conv(?P<i>[12])\.{_LAYER}", "trunk.blocks.{block}.conv{i}.conv.{w}"),
    Rule(rf"{_BLOCK}\.bn(?P<i>[12])\.{_NORM}", "trunk.blocks.{block}.conv{i}.norm.{w}"),
    Rule(rf"{_BLOCK}\.relu(?P<i>[12])\.weight", "trunk.blocks.{block}.act{i}.weight"),
    Rule(rf"{_BLOCK}\.downsample\.0\.{_LAYER}", "trunk.blocks.{block}.shortcut.conv.{w}"),
    Rule(rf"{_BLOCK}\.downsample\.1\.{_NORM}", "trunk.blocks.{block}.shortcut.norm.{w}"),
)
_SHUFFLE_LAYERS = (  # branch, place of the convolution in it, ours; its BN follows at once
    (1, 0, "left_depthwise"),
    (1, 2, "left_pointwise"),
    (2, 0, "right_reduce"),
    (2, 3, "right_depthwise"),
    (2, 5, "right_expand"),
)
_SHUFFLE_UNITS = tuple(
    rule
    for branch, place, layer in _SHUFFLE_LAYERS
    for rule in (
        Rule(rf"trunk\.0\.(?P<u>\d\d?)\.banch{branch}\.{place}\.weight", f"trunk.units.{{u}}.{layer}.conv.weight"),
        Rule(rf"trunk\.0\.(?P<u>\d\d?)\.banch{branch}\.{place + 1}\.{_NORM}", f"trunk.units.{{u}}.{layer}.norm.{{w}}"),
    )
)
_SHUFFLE = (
    *_SHUFFLE_UNITS,
    Rule(r"trunk\.1\.0\.weight", "trunk.last.conv.weight"),
    Rule(rf"trunk\.1\.1\.{_NORM}", "trunk.last.norm.{w}"),
)
_FEATURES = r"tcn\.tcn_trunk\.features"
_DENSE = rf"{_FEATURES}\.denseblock(?P<b_from1>\d\d?)\.denselayer(?P<l_from1>\d\d?)"
_DENSE_OURS = "temporal.blocks.{b}.layers.{l}"
_DENSE_BRANCH = rf"{_DENSE}\.cbcr(?P<set>[01])_(?P<k>\d\d?)\.net"
_DENSE_BRANCH_OURS = f"{_DENSE_OURS}.{{set}}.{{k}}"
_EXCITE = f"{_DENSE_OURS}.first.{{k}}.excite"
_DCTCN = (
    Rule(rf"{_FEATURES}\.transition(?P<t>\d\d?)\.conv\.{_LAYER}", "temporal.transitions.{t}.project.conv.{w}"),
    Rule(rf"{_FEATURES}\.transition(?P<t>\d\d?)\.norm\.{_NORM}", "temporal.transitions.{t}.project.norm.{w}"),
    Rule(rf"{_FEATURES}\.transition(?P<t>\d\d?)\.prelu\.weight", "temporal.transitions.{t}.act.weight"),
    Rule(rf"{_DENSE}\.cbcr0_se_(?P<k>\d\d?)\.fc\.0\.{_LINEAR}", f"{_EXCITE}.reduce.{{w}}"),
    Rule(rf"{_DENSE}\.cbcr0_se_(?P<k>\d\d?)\.fc\.2\.{_LINEAR}", f"{_EXCITE}.expand.{{w}}"),
    Rule(rf"{_DENSE_BRANCH}\.0\.{_LAYER}", f"{_DENSE_BRANCH_OURS}.conv.conv.{{w}}"),
    Rule(rf"{_DENSE_BRANCH}\.1\.{_NORM}", f"{_DENSE_BRANCH_OURS}.conv.norm.{{w}}"),
    Rule(rf"{_DENSE_BRANCH}\.3\.weight", f"{_DENSE_BRANCH_OURS}.act.weight"),
    Rule(rf"{_DENSE}\.downsample\.{_LAYER}", f"{_DENSE_OURS}.shortcut.{{w}}"),
    Rule(rf"{_DENSE}\.relu_final\.weight", f"{_DENSE_OURS}.act.weight"),
    Rule(rf"{_FEATURES}\.norm5\.{_NORM}", "temporal.norm.{w}"),
)
_NETWORK = r"tcn\.mb_ms_tcn\.network\.(?P<l>\d\d?)"
_BRANCH = rf"{_NETWORK}\.cbcr(?P<set>[01])_(?P<k>\d\d?)"
_BRANCH_OURS = "temporal.blocks.{l}.{set}.{k}"
_MSTCN = (
    Rule(rf"{_BRANCH}\.conv\.{_LAYER}", f"{_BRANCH_OURS}.conv.conv.{{w}}"),
    Rule(rf"{_BRANCH}\.batchnorm\.{_NORM}", f"{_BRANCH_OURS}.conv.norm.{{w}}"),
    Rule(rf"{_BRANCH}\.non_lin\.weight", f"{_BRANCH_OURS}.act.weight"),
    Rule(rf"{_BRANCH}\.conv\.0\.weight", f"{_BRANCH_OURS}.depthwise.conv.weight"),
    Rule(rf"{_BRANCH}\.conv\.1\.{_NORM}", f"{_BRANCH_OURS}.depthwise.norm.{{w}}"),
    Rule(rf"{_BRANCH}\.conv\.3\.weight", f"{_BRANCH_OURS}.depthwise_act.weight"),
    Rule(rf"{_BRANCH}\.conv\.4\.weight", f"{_BRANCH_OURS}.conv.conv.weight"),
    Rule(rf"{_BRANCH}\.conv\.5\.{_NORM}", f"{_BRANCH_OURS}.conv.norm.{{w}}"),
    Rule(rf"{_BRANCH}\.conv\.6\.weight", f"{_BRANCH_OURS}.act.weight"),
    Rule(rf"{_NETWORK}\.downsample\.{_LAYER}", "temporal.blocks.{l}.shortcut.{w}"),
    Rule(rf"{_NETWORK}\.relu_final\.weight", "temporal.blocks.{l}.act.weight"),
)
_SINGLE = r"tcn\.tcn_trunk\.network\.(?P<l>\d\d?)"
_TCN_LAYERS = tuple(
    rule
    for i, convolution, norm, act in ((1, 0, 1, 3), (2, 5, 6, 8))  # the second spelling counts within `net`
    for rule in (
        Rule(rf"{_SINGLE}\.(?:conv{i}|net\.{convolution})\.{_LAYER}", f"temporal.blocks.{{l}}.conv{i}.conv.{{w}}"),
        Rule(rf"{_SINGLE}\.(?:batchnorm{i}|net\.{norm})\.{_NORM}", f"temporal.blocks.{{l}}.conv{i}.norm.{{w}}"),
        Rule(rf"{_SINGLE}\.(?:relu{i}|net\.{act})\.weight", f"temporal.blocks.{{l}}.act{i}.weight"),
    )
)
_TCN = (
    *_TCN_LAYERS,
    Rule(rf"{_SINGLE}\.downsample\.{_LAYER}", "temporal.blocks.{l}.shortcut.{w}"),
    Rule(rf"{_SINGLE}\.relu\.weight", "temporal.blocks.{l}.act.weight"),
)
_EFFICIENT = r"frontend_3d\.efnet\.blocks\.(?P<u>\d\d?)\.block"
_EFLIP_CONVOLUTIONS = (
    ("fused", "fused"),
    ("fused_point_wise", "project"),
    ("linear_bottleneck", "expand"),
    ("depth_wise", "depthwise"),
    ("point_wise", "project"),
)
_EFLIP_TCN = r"tcn_block\.tcn_layers\.(?P<l>\d\d?)"
_EFLIP = (
    Rule(r"frontend_3d\.conv3d\.conv3d\.(?P<w>weight)", "frontend.stem.conv.{w}", squeeze=1),
    Rule(r"frontend_3d\.conv3d\.conv3d\.(?P<w>bias)", "frontend.stem.conv.{w}"),
    Rule(rf"frontend_3d\.conv3d\.bn\.{_NORM}", "frontend.stem.norm.{w}"),
    *(
        rule
        for published, ours in _EFLIP_CONVOLUTIONS
        for rule in (
            Rule(rf"{_EFFICIENT}\.{published}\.0\.weight", f"trunk.blocks.{{u}}.{ours}.conv.weight"),
            Rule(rf"{_EFFICIENT}\.{published}\.1\.{_NORM}", f"trunk.blocks.{{u}}.{ours}.norm.{{w}}"),
        )
    ),
    Rule(rf"{_EFFICIENT}\.se\.fc1\.{_AFFINE}", "trunk.blocks.{u}.excite.reduce.{w}"),
    Rule(rf"{_EFFICIENT}\.se\.fc2\.{_AFFINE}", "trunk.blocks.{u}.excite.expand.{w}"),
    Rule(r"frontend_3d\.efnet\.stage_7\.pointwise\.weight", "trunk.last.weight"),
    Rule(rf"transformer_encoder\.self_attn\.in_proj_{_AFFINE}", "temporal.attention.in_projection.{w}"),
    Rule(rf"transformer_encoder\.self_attn\.out_proj\.{_AFFINE}", "temporal.attention.out_projection.{w}"),
    Rule(rf"transformer_encoder\.norm(?P<i>[12])\.{_AFFINE}", "temporal.norm{i}.{w}"),
    Rule(rf"transformer_encoder\.linear(?P<i>[12])\.{_AFFINE}", "temporal.feedforward{i}.{w}"),
    Rule(rf"{_EFLIP_TCN}\.conv_block\.0\.{_AFFINE}", "temporal.blocks.{l}.conv1.conv.{w}"),
    Rule(rf"{_EFLIP_TCN}\.conv_block\.1\.{_NORM}", "temporal.blocks.{l}.conv1.norm.{w}"),
    Rule(rf"{_EFLIP_TCN}\.conv_block\.2\.weight", "temporal.blocks.{l}.act1.weight"),
    Rule(rf"{_EFLIP_TCN}\.conv_block\.4\.{_AFFINE}", "temporal.blocks.{l}.conv2.conv.{w}"),
    Rule(rf"{_EFLIP_TCN}\.conv_block\.5\.{_NORM}", "temporal.blocks.{l}.conv2.norm.{w}"),
    Rule(rf"{_EFLIP_TCN}\.conv_block\.6\.weight", "temporal.blocks.{l}.act2.weight"),
    Rule(rf"{_EFLIP_TCN}\.conv_block\.8\.weight", "temporal.blocks.{l}.act.weight"),
    Rule(rf"{_EFLIP_TCN}\.residual\.{_AFFINE}", "temporal.blocks.{l}.shortcut.{w}"),
    Rule(rf"fc_layer\.{_AFFINE}", "head.{w}"),
)
RULES = (
    *_STEM,
    *_AUDIO_STEM,
    *_RESNET,
    *_SHUFFLE,
    *_DCTCN,
    *_MSTCN,
    *_TCN,
    Rule(rf"tcn\.tcn_output\.{_AFFINE}", "head.{w}"),
    *_EFLIP,
)
_COMPILED = tuple((re.compile(rule.published, re.ASCII), rule) for rule in RULES)


def renamed(published: str) -> Renamed | None:
    """What a published tensor is here; none if no rule knows it."""
    for pattern, rule in _COMPILED:
        match = pattern.fullmatch(published)
        if match is not None:
            return Renamed(rule.ours.format(**_fields(match)), rule.squeeze)
    return None


def is_buffer(name: str) -> bool:
    """Whether a name, published or ours, is a running statistic: no parameter."""
    return name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))


def _fields(match: re.Match[str]) -> dict[str, str]:
    fields = {}
    for name, text in match.groupdict().items():
        if name.endswith("_from1"):
            fields[name.removesuffix("_from1")] = str(int(text) - 1)
        elif name == "set":
            fields[name] = ("first", "second")[int(text)]
        else:
            fields[name] = "F" if name == "w" and text == "S" else text
    if "stage" in fields:
        fields["block"] = str(2 * (int(fields["stage"]) - 1) + int(fields["half"]))
    return fields
