"""The options of each family, checked, and the classifiers built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import Field, ValidationError, model_validator

from edgelip.errors import RecipeError, ShapeError
from edgelip.models import families
from edgelip.models.audio import AudioNetwork
from edgelip.models.blocks import initialise
from edgelip.models.catalogue import BACKBONES, FAMILIES, Backbone
from edgelip.models.classifier import ClipNetwork
from edgelip.models.frontend import StackedFrontend
from edgelip.models.phm_parts import Part, use_phm
from edgelip.models.residual import ResidualTrunk
from edgelip.models.shufflenet import PUBLISHED_WIDTHS
from edgelip.models.tcn import TemporalNet
from edgelip.models.transformer import AttentionMode
from edgelip.recipe_sections import Strict, explain
from edgelip.registry import lookup

Network: TypeAlias = ClipNetwork | AudioNetwork
Width = Annotated[int, Field(ge=1, le=4096)]
Kernel = Annotated[int, Field(ge=1, le=15)]


class PhmGroup(Strict):
    """Layers by patterns such as "trunk.*" ("!*.shortcut.*" leaves some out), and their n; `terms` if fewer than n."""

    layers: tuple[str, ...] = Field(min_length=1)
    n: int = Field(ge=2, le=64)
    terms: int | None = Field(None, ge=1, le=64)


class Phm(Strict):
    """Which parts of a network are PHM, with how many terms.

    groups: layers with an n of their own; the first that names a layer decides. Without n the others stay dense.
    channels "floor" drops the channels beyond the last multiple of n, as published n=16 nets do inside their
    squeeze-excitation; start: scale of fresh weights, as the dense ones or as published.
    """

    n: int | None = Field(None, ge=1, le=64)
    parts: tuple[Part, ...] = Field(("trunk", "temporal"), min_length=1, max_length=3)
    channels: Literal["exact", "floor"] = "exact"
    start: Literal["scaled", "published"] = "scaled"
    groups: tuple[PhmGroup, ...] = ()

    @model_validator(mode="after")
    def _has_a_layer(self) -> Phm:
        if self.n is None and not self.groups:
            raise ValueError("phm needs n, groups, or both")
        return self


class Small(Strict):
    """3-D stem, a basic block per width, dilated temporal net: 0.6 M parameters, sized for training on 2 CPU cores."""

    stem_width: int = Field(16, ge=1, le=1024)
    stem_kernel: int = Field(5, ge=1, le=15)
    trunk_widths: tuple[Width, ...] = Field((32, 64, 128), min_length=1, max_length=8)
    temporal_width: int = Field(128, ge=1, le=4096)
    temporal_blocks: int = Field(3, ge=1, le=8)
    dropout: float = Field(0.1, ge=0, lt=1)
    phm: Phm | None = None

    def build(self, num_words: int) -> ClipNetwork:
        trunk = ResidualTrunk(self.stem_width, self.trunk_widths, strides=[2] * len(self.trunk_widths))
        temporal = TemporalNet(
            self.trunk_widths[-1], self.temporal_width, num_blocks=self.temporal_blocks, dropout=self.dropout
        )
        network = ClipNetwork(
            frontend=StackedFrontend(self.stem_width, kernel=self.stem_kernel),
            trunk=trunk,
            temporal=temporal,
            head=torch.nn.Linear(self.temporal_width, num_words),
        )
        initialise(network)
        if self.phm is not None:
            use_phm(network, **self.phm.model_dump())
        return network


class LipTcn(Strict):
    """3-D stem, ResNet-18 or ShuffleNetV2 (audio: 1-D ResNet), then a TCN, MS-TCN, depthwise MS-TCN or DC-TCN.

    kernels: of the temporal branches. tcn_*: TCN, MS-TCN and its depthwise form; block_config (layers a block), growth,
    dilations, reduced (transition width), excite (squeeze-excitation): DC-TCN. boundary: takes a word-boundary
    indicator. as_published: padding is visible to the temporal net.
    """

    modality: Literal["video", "audio"] = "video"
    trunk: Literal["resnet18", "shufflenet"] = "resnet18"
    trunk_width: float = 1.0  # of ShuffleNetV2: 0.5, 1, 1.5 or 2
    trunk_widths: tuple[Width, Width, Width, Width] = (64, 128, 256, 512)  # of the stages of ResNet-18
    activation: Literal["relu", "prelu", "swish"] = "swish"
    temporal: families.Temporal = "dctcn"
    kernels: tuple[Kernel, ...] = Field((3, 5, 7), min_length=1, max_length=8)
    tcn_blocks: int = Field(4, ge=1, le=16)
    tcn_width_mult: float = Field(1, gt=0, le=16)
    branch_width: int = Field(families.BRANCH_WIDTH, ge=1, le=4096)
    block_config: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field((3, 3, 3, 3), min_length=1, max_length=16)
    growth: tuple[Width, ...] = Field((384, 384, 384, 384), min_length=1, max_length=16)
    dilations: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field((1, 2, 5), min_length=1, max_length=16)
    reduced: int = Field(512, ge=1, le=4096)
    excite: bool = True
    dropout: float = Field(0.2, ge=0, lt=1)
    boundary: bool = False
    phm: Phm | None = None
    as_published: bool = False

    @model_validator(mode="after")
    def _fits(self) -> LipTcn:
        if self.trunk_width not in PUBLISHED_WIDTHS:
            raise ValueError(f"trunk_width is {self.trunk_width:g}; ShuffleNetV2 has {list(PUBLISHED_WIDTHS)}")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels {list(self.kernels)} must be odd, so that convolutions are centred")
        if len(self.block_config) != len(self.growth):
            raise ValueError(
                f"block_config has {len(self.block_config)} blocks and growth {len(self.growth)}; they must agree"
            )
        if self.temporal == "tcn" and len(self.kernels) != 1:
            raise ValueError(f"temporal 'tcn' has one branch; got kernels {list(self.kernels)}. Use 'mstcn' for more")
        widths = self.growth if self.temporal == "dctcn" else ()
        if any(width % len(self.kernels) for width in widths):
            raise ValueError(f"growth {list(widths)} must be multiples of the {len(self.kernels)} kernels")
        if self.boundary and (self.temporal != "dctcn" or self.modality == "audio"):
            raise ValueError("boundary is defined for clips with temporal 'dctcn' only")
        return self

    def build(self, num_words: int) -> Network:
        return families.lip_tcn(num_words=num_words, **self.model_dump())


Row = tuple[
    Annotated[int, Field(ge=1, le=16)],  # expansion
    Kernel,
    Annotated[int, Field(ge=1, le=2)],  # stride
    Width,  # in
    Width,  # out
    Annotated[int, Field(ge=1, le=64)],  # repeats
    Literal["F", "M"],  # fused convolution or MBConv
]


class EfLip(Strict):
    """EfLipReading: lean 3-D stem, EfficientNetV2 of size T, S or B, one transformer layer, a TCN; log-probabilities.

    attention "time" attends over the frames of a clip; "token" is the published layer for one clip at a time, "batch"
    the published layer, which attends over the clips of a batch. rows: those of the size, or others.
    as_published: padding is visible to the temporal net, and normalisation follows the last batch (momentum 0.99).
    """

    size: Literal["T", "S", "B"] = "T"
    rows: tuple[Row, ...] | None = Field(None, min_length=1, max_length=16)
    last_width: int = Field(768, ge=2, le=4096, multiple_of=2)
    num_heads: int = Field(8, ge=1, le=64)
    feedforward: int = Field(128, ge=1, le=4096)
    tcn_width: int = Field(463, ge=1, le=4096)
    tcn_blocks: int = Field(4, ge=1, le=16)
    dropout: float = Field(0.4, ge=0, lt=1)
    attention: AttentionMode = "time"
    as_published: bool = False

    @model_validator(mode="after")
    def _fits(self) -> EfLip:
        if self.last_width // 2 % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide half of last_width, {self.last_width // 2}")
        return self

    def build(self, num_words: int) -> ClipNetwork:
        return families.eflip(num_words=num_words, **self.model_dump())


Points = Annotated[int, Field(ge=1, le=2048)]  # landmarks of a frame
Axes = Annotated[int, Field(ge=2, le=3)]  # of a landmark


class SimpleIslr(Strict):
    """Landmarks: a linear layer with ReLU on each frame, the mean over frames, a linear head.

    points, axes: those of the clips. as_published: the mean counts padding too.
    """

    points: Points = 543
    axes: Axes = 3
    width: Width = 64
    as_published: bool = False

    def build(self, num_words: int) -> ClipNetwork:
        return families.simple_islr(num_words=num_words, **self.model_dump())


class SignConvTransformer(Strict):
    """Landmarks and their steps, then depthwise convolutions over time with channel attention, and self-attention.

    points, axes: those of the clips. stages: how often `blocks` convolution blocks and a transformer block follow each
    other. expansion: inner width of the blocks, times width. causal: convolutions see no later frame. drop_path: share
    of clips whose block is left out in training. dropout: of the features behind the mean.
    """

    points: Points = 118
    axes: Axes = 2
    width: int = Field(192, ge=1, le=2048)
    stages: int = Field(2, ge=1, le=8)
    blocks: int = Field(3, ge=1, le=8)
    kernel: int = Field(17, ge=1, le=63)
    expansion: int = Field(2, ge=1, le=8)
    num_heads: int = Field(4, ge=1, le=64)
    causal: bool = False
    attention_dropout: float = Field(0.2, ge=0, lt=1)
    drop_path: float = Field(0.2, ge=0, lt=1)
    dropout: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> SignConvTransformer:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd, so that convolutions are centred")
        if self.width % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide width {self.width}")
        return self

    def build(self, num_words: int) -> ClipNetwork:
        return families.sign_conv_transformer(num_words=num_words, **self.model_dump())


def build_classifier(
    backbone: str, *, num_words: int, options: Mapping[str, Any] | None = None, seed: int = 0
) -> Network:
    """A freshly initialised classifier: the same weights for the same seed.

    backbone: a configuration of the catalogue, which `options` change, or a family. Raises RecipeError on an unknown
    option, UsageError on an unknown name.
    """
    named = BACKBONES.get(backbone) or Backbone(backbone)
    family = lookup(FAMILIES, named.family, kind="backbone", others=BACKBONES)
    try:
        configuration = family.model_validate({**named.options, **(options or {})})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network: Network = configuration.build(num_words)
    except ValidationError as error:
        raise RecipeError(f"model.options of backbone {backbone!r}: {explain(error, family)}") from error
    except ShapeError as error:
        raise RecipeError(f"model.options of backbone {backbone!r}: {error}") from error
    return network
