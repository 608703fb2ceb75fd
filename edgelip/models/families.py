"""The published families, put together from their parts by plain parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from edgelip.models.audio import AudioFrontend, AudioNetwork, AudioTrunk
from edgelip.models.blocks import ActivationName, initialise_as_published
from edgelip.models.classifier import ClipNetwork
from edgelip.models.efficientnet import SIZES, EfficientTrunk, Row
from edgelip.models.frontend import StackedFrontend
from edgelip.models.multiscale import DenselyConnectedNet, MultiScaleNet
from edgelip.models.phm_parts import use_phm
from edgelip.models.residual import ResidualTrunk
from edgelip.models.shufflenet import shuffle_trunk
from edgelip.models.signs import (
    Landmarks,
    LinearFrames,
    MovingLandmarks,
    NoTemporal,
    SignTemporal,
    initialise_glorot,
)
from edgelip.models.tcn import PublishedNet
from edgelip.models.transformer import AttentionMode, TransformerTemporal

RESNET_STRIDES = (1, 2, 2, 2)
BRANCH_WIDTH = 256  # of a temporal branch at width 1
SHUFFLE_STEM = 24

Temporal = Literal["dctcn", "mstcn", "dsmstcn", "tcn"]


def lip_tcn(
    *,
    num_words: int,
    modality: Literal["video", "audio"] = "video",
    trunk: Literal["resnet18", "shufflenet"] = "resnet18",
    trunk_width: float = 1.0,
    trunk_widths: Sequence[int] = (64, 128, 256, 512),
    activation: ActivationName = "swish",
    temporal: Temporal = "dctcn",
    kernels: Sequence[int] = (3, 5, 7),
    tcn_blocks: int = 4,
    tcn_width_mult: float = 1,
    branch_width: int = BRANCH_WIDTH,
    block_config: Sequence[int] = (3, 3, 3, 3),
    growth: Sequence[int] = (384, 384, 384, 384),
    dilations: Sequence[int] = (1, 2, 5),
    reduced: int = 512,
    excite: bool = True,
    dropout: float = 0.2,
    boundary: bool = False,
    phm: dict[str, Any] | None = None,
    as_published: bool = False,
) -> ClipNetwork | AudioNetwork:
    """A 3-D stem, a trunk and a temporal convolutional network, freshly initialised.

    Options are described at edgelip.models.zoo.LipTcn. Sources: Martinez et al., ICASSP 2020; Ma et al., ICASSP 2021
    and 2022; PHM: Panagos et al. 2024. Raises ShapeError if PHM does not fit the channels.
    """
    if modality == "audio":
        frontend: nn.Module = AudioFrontend(trunk_widths[0], act=activation)
        body: Any = AudioTrunk(trunk_widths[0], trunk_widths, strides=RESNET_STRIDES, act=activation)
    elif trunk == "resnet18":
        frontend = StackedFrontend(trunk_widths[0], kernel=7, act=activation)
        body = ResidualTrunk(trunk_widths[0], trunk_widths, strides=RESNET_STRIDES, repeats=2, act=activation)
    else:
        frontend = StackedFrontend(SHUFFLE_STEM, kernel=7, act=activation)
        body = shuffle_trunk(trunk_width, in_channels=SHUFFLE_STEM)
    num_features = body.num_features + boundary
    head_net: Any
    if temporal == "dctcn":
        head_net = DenselyConnectedNet(
            num_features,
            reduced=reduced,
            block_config=block_config,
            growth=growth,
            kernels=kernels,
            dilations=dilations,
            dropout=dropout,
            act=activation,
            excite=excite,
        )
    elif temporal == "tcn":
        width = round(branch_width * tcn_width_mult)
        head_net = PublishedNet(
            num_features, width, num_blocks=tcn_blocks, kernel=kernels[0], dropout=dropout, act=activation
        )
    else:
        head_net = MultiScaleNet(
            num_features,
            round(branch_width * len(kernels) * tcn_width_mult),
            num_blocks=tcn_blocks,
            kernels=kernels,
            dropout=dropout,
            act=activation,
            separable=temporal == "dsmstcn",
        )
    head = nn.Linear(head_net.num_features, num_words)
    parts = {"frontend": frontend, "trunk": body, "temporal": head_net, "head": head}
    network: ClipNetwork | AudioNetwork
    if modality == "audio":
        network = AudioNetwork(**parts, as_published=as_published)
    else:
        network = ClipNetwork(**parts, boundary=boundary, as_published=as_published)
    initialise_as_published(network)
    if phm is not None:
        use_phm(network, **phm)
    return network


def eflip(
    *,
    num_words: int,
    size: Literal["T", "S", "B"] = "T",
    rows: Sequence[Row] | None = None,
    last_width: int = 768,
    num_heads: int = 8,
    feedforward: int = 128,
    tcn_width: int = 463,
    tcn_blocks: int = 4,
    dropout: float = 0.4,
    attention: AttentionMode = "time",
    as_published: bool = False,
) -> ClipNetwork:
    """EfLipReading: a lean 3-D stem, EfficientNetV2 with a gated linear unit, one transformer layer, a TCN.

    Gives log-probabilities. Options are described at edgelip.models.zoo.EfLip. Source: sadevans/EfLipReading, after
    Koumparoulis and Potamianos, ICASSP 2022.
    """
    rows = SIZES[size] if rows is None else rows
    momentum = 0.99 if as_published else 0.01  # published: the running statistics are nearly the last batch's
    trunk = EfficientTrunk(rows, last=last_width, norm_momentum=momentum)
    temporal = TransformerTemporal(
        trunk.num_features,
        tcn_width,
        attention=attention,
        num_heads=num_heads,
        feedforward=feedforward,
        num_blocks=tcn_blocks,
        dropout=dropout,
        norm_momentum=momentum,
    )
    frontend = StackedFrontend(Row(*rows[0]).in_channels, depth=3, kernel=5, bias=True, pool=False)
    frontend.stem.norm = nn.BatchNorm2d(Row(*rows[0]).in_channels, momentum=momentum)
    return ClipNetwork(
        frontend=frontend,
        trunk=trunk,
        temporal=temporal,
        head=nn.Linear(tcn_width, num_words),
        output=nn.LogSoftmax(dim=1),
        as_published=as_published,
        takes_lengths=attention != "batch",
    )


def simple_islr(
    *, num_words: int, points: int = 543, axes: int = 3, width: int = 64, as_published: bool = False
) -> ClipNetwork:
    """The linear baseline of sign recognition: each frame alone, then the mean. Options: edgelip.models.zoo.SimpleIslr.

    Source: SimpleISLR of the tutorial on GISLR; the head's weights have a standard deviation of sqrt(1 / num_words),
    as there.
    """
    frontend = Landmarks(points, axes)
    network = ClipNetwork(
        frontend=frontend,
        trunk=LinearFrames(frontend.num_features, width),
        temporal=NoTemporal(averages_all=as_published),
        head=nn.Linear(width, num_words),
        as_published=as_published,
    )
    nn.init.normal_(network.head.weight, std=num_words**-0.5)
    return network


def sign_conv_transformer(
    *,
    num_words: int,
    points: int = 118,
    axes: int = 2,
    width: int = 192,
    stages: int = 2,
    blocks: int = 3,
    kernel: int = 17,
    expansion: int = 2,
    num_heads: int = 4,
    causal: bool = False,
    attention_dropout: float = 0.2,
    drop_path: float = 0.2,
    dropout: float = 0.5,
) -> ClipNetwork:
    """Steps of landmarks, depthwise convolutions over time, attention.

    Options are described at edgelip.models.zoo.SignConvTransformer. Source: the winner of Google's
    competition on isolated signs, 2023; causal=True and dropout=0.8 are his.
    """
    temporal = SignTemporal(
        width,
        num_stages=stages,
        blocks=blocks,
        kernel=kernel,
        expansion=expansion,
        num_heads=num_heads,
        causal=causal,
        attention_dropout=attention_dropout,
        drop_path=drop_path,
        dropout=dropout,
    )
    network = ClipNetwork(
        frontend=MovingLandmarks(points, axes, width),
        trunk=nn.Identity(),
        temporal=temporal,
        head=nn.Linear(temporal.num_features, num_words),
    )
    initialise_glorot(network)
    return network
