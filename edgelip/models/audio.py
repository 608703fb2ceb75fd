"""The network of the audio models: a 1-D residual encoder on the waveform, then the temporal nets of the video models.

Source: Ma et al., ICASSP 2021; encoder of Petridis et al., ICASSP 2018.
Axes: B clips, L samples, N positions of a level, T frames, C channels, F trunk features, G temporal features, V words.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgelip.errors import ShapeError
from edgelip.models.blocks import ActivationName, Add, ConvNorm, activation, masked
from edgelip.models.classifier import length_mask, mean_over_frames
from edgelip.runtime.clip import SAMPLES_PER_FRAME

STEM_STRIDE = 4
POOL = 20


class AudioFrontend(nn.Module):
    """conv80 stride 4 - BN - activation: (B, 1, L) -> (B, width, L // 4)."""

    def __init__(self, width: int, *, act: ActivationName = "relu") -> None:
        super().__init__()
        conv = nn.Conv1d(1, width, 80, stride=STEM_STRIDE, padding=38, bias=False)
        self.stem = ConvNorm(conv, nn.BatchNorm1d(width))
        self.act = activation(act, width)

    def forward(self, waveforms_B1L: Tensor) -> Tensor:
        return self.act(self.stem(waveforms_B1L))  # type: ignore[no-any-return]


class BasicBlock1d(nn.Module):
    """conv3 - BN - act - conv3 - BN, added to the input (1x1 projection where the shape changes), act.

    (B, in, N) -> (B, out, ceil(N / stride)), zero where the mask of its output is.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, act: ActivationName = "relu") -> None:
        super().__init__()
        self.conv1 = strided(in_channels, out_channels, 3, stride=stride)
        self.act1 = activation(act, out_channels)
        self.conv2 = strided(out_channels, out_channels, 3)
        same = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else strided(in_channels, out_channels, 1, stride=stride)
        self.add = Add()
        self.act2 = activation(act, out_channels)

    def forward(self, x_BCN: Tensor, mask_B1N: Tensor | None) -> Tensor:
        hidden = masked(self.act1(self.conv1(x_BCN)), mask_B1N)
        return masked(self.act2(self.add(self.conv2(hidden), self.shortcut(x_BCN))), mask_B1N)


def strided(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> ConvNorm:
    """A centred convolution without bias: N positions in, ceil(N / stride) out."""
    conv = nn.Conv1d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return ConvNorm(conv, nn.BatchNorm1d(out_channels))


class AudioTrunk(nn.Module):
    """Two basic blocks for each width, then means of 20 positions: (B, C, N) -> (B, widths[-1], T).

    strides: of the first block of each width; 1, 2, 2, 2 after a stem of stride 4 give one frame for 640 samples.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], *, strides: Sequence[int], act: ActivationName = "relu"
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.strides: list[int] = []  # of each block
        for width, first_stride in zip(widths, strides, strict=True):
            for stride in (first_stride, 1):
                self.blocks.append(BasicBlock1d(in_channels, width, stride=stride, act=act))
                self.strides.append(stride)
                in_channels = width
        self.pool = nn.AvgPool1d(POOL, POOL)
        self.num_features = in_channels

    def forward(self, x_BCN: Tensor, lengths_B: Tensor | None) -> Tensor:
        """lengths_B: valid positions of x; none means all, and nothing is zeroed."""
        if lengths_B is not None:
            x_BCN = masked(x_BCN, length_mask(lengths_B, x_BCN.shape[2]).to(x_BCN.dtype))
        for block, stride in zip(self.blocks, self.strides, strict=True):
            mask_B1N = None
            if lengths_B is not None:
                lengths_B = (lengths_B + stride - 1) // stride
                mask_B1N = length_mask(lengths_B, (x_BCN.shape[2] + stride - 1) // stride).to(x_BCN.dtype)
            x_BCN = block(x_BCN, mask_B1N)
        return self.pool(x_BCN)  # type: ignore[no-any-return]


class AudioNetwork(nn.Module):
    """Waveforms at 16 kHz in, one score a word out; 640 samples make one frame.

    frontend: (B, 1, L) -> (B, C, N); trunk: with the valid positions of each clip -> (B, F, T); temporal: (B, F, T),
    mask -> (B, G, T); head: G -> V.
    as_published: all see what lies beyond a clip's length, and only the mean over frames leaves it out, as in the
    published code. Otherwise the result of a clip depends on nothing but its first `length` samples.
    """

    def __init__(
        self,
        *,
        frontend: nn.Module,
        trunk: nn.Module,
        temporal: nn.Module,
        head: nn.Linear,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        self.frontend, self.trunk, self.temporal, self.head = frontend, trunk, temporal, head
        self.as_published = as_published

    def forward(self, waveforms_B1L: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """logits (B, V). lengths_B: valid leading samples of each clip, 640..L; none means all."""
        self._check(waveforms_B1L, lengths_B)
        num_frames = waveforms_B1L.shape[2] // SAMPLES_PER_FRAME
        mask_B1T = None
        if lengths_B is not None:
            mask_B1T = length_mask(lengths_B // SAMPLES_PER_FRAME, num_frames).to(waveforms_B1L.dtype)
        features_BFT = self.features(waveforms_B1L, lengths_B).transpose(1, 2)
        if self.as_published:
            temporal_BGT = self.temporal(features_BFT, None)[:, :, :num_frames]
        else:
            temporal_BGT = self.temporal(masked(features_BFT[:, :, :num_frames], mask_B1T), mask_B1T)
        return self.head(mean_over_frames(temporal_BGT, mask_B1T))  # type: ignore[no-any-return]

    def features(self, waveforms_B1L: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """What the trunk makes of each frame: (B, T, F).

        T is L // 640, or one more where the last level rounds up; a clip has length // 640 valid frames.
        """
        if lengths_B is None or self.as_published:
            return self.trunk(self.frontend(waveforms_B1L), None).transpose(1, 2)  # type: ignore[no-any-return]
        absent_B1L = ~length_mask(lengths_B, waveforms_B1L.shape[2])
        # Not a product: padding may hold anything, and 0 x nan is nan.
        x_BCN = self.frontend(waveforms_B1L.masked_fill(absent_B1L, 0.0))
        return self.trunk(x_BCN, lengths_B // STEM_STRIDE).transpose(1, 2)  # type: ignore[no-any-return]

    def _check(self, waveforms_B1L: Tensor, lengths_B: Tensor | None) -> None:
        if waveforms_B1L.ndim != 3 or waveforms_B1L.shape[1] != 1 or waveforms_B1L.shape[2] < SAMPLES_PER_FRAME:
            raise ShapeError(
                f"waveforms have shape {tuple(waveforms_B1L.shape)}; expected (B, 1, L), L at least "
                f"{SAMPLES_PER_FRAME} samples at 16 kHz. Pad shorter ones with zeros."
            )
        if lengths_B is not None and lengths_B.shape != waveforms_B1L.shape[:1]:
            wanted = tuple(waveforms_B1L.shape[:1])
            raise ShapeError(f"lengths have shape {tuple(lengths_B.shape)}; expected {wanted}, one a clip.")
