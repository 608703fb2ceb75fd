"""The temporal module of EfLip: one transformer layer, then a temporal convolutional network.

Source: Koumparoulis and Potamianos, ICASSP 2022, in the form of the EfLipReading code.
Axes: B clips, T frames, C channels, S items that see each other, N groups of them, H heads, D channels a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelip.errors import ShapeError
from edgelip.models.blocks import Add, conv1d, masked

AttentionMode = Literal["token", "batch", "time"]


class Attention(nn.Module):
    """Multi-head self-attention over one axis of (B, T, C).

    mode "token": a frame sees itself only, so that attention is the affine map out(value(frame)); query and key rows
        of in_projection are unused. It equals "batch" for a batch of one clip.
    mode "batch": a frame sees the frames of the same index in the other clips, absent ones too: what the published
        code computes. The result of a clip depends on its batch mates; for comparison with that code only.
    mode "time": a frame sees the valid frames of its own clip.
    dropout: share of attention weights dropped in training; "token" has none.
    bias: whether the projections have biases.
    """

    def __init__(
        self, channels: int, *, num_heads: int, mode: AttentionMode, dropout: float, bias: bool = True
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ShapeError(
                f"attention has {channels} channels; expected a multiple of its {num_heads} heads. Change num_heads."
            )
        self.channels, self.num_heads, self.mode, self.dropout = channels, num_heads, mode, dropout
        self.in_projection = nn.Linear(channels, 3 * channels, bias=bias)  # rows of queries, keys, values
        self.out_projection = nn.Linear(channels, channels, bias=bias)

    def forward(self, x_BTC: Tensor, mask_B1T: Tensor | None) -> Tensor:
        projected = each_frame(self.in_projection, x_BTC)
        if self.mode == "token":
            return each_frame(self.out_projection, projected[..., -self.channels :])
        query, key, value = projected.chunk(3, dim=-1)
        if self.mode == "time":
            return each_frame(self.out_projection, self._attend(query, key, value, mask_B1T))
        attended_TBC = self._attend(query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), None)
        return each_frame(self.out_projection, attended_TBC.transpose(0, 1))

    def _attend(self, query_NSC: Tensor, key_NSC: Tensor, value_NSC: Tensor, mask_N1S: Tensor | None) -> Tensor:
        """softmax(query key^T / sqrt(D)) value, head by head; items where the mask is 0 are not seen."""
        query, key, value = (self._heads(x_NSC) for x_NSC in (query_NSC, key_NSC, value_NSC))
        seen_N11S = None if mask_N1S is None else (mask_N1S > 0).unsqueeze(1)
        dropout = self.dropout if self.training else 0.0
        mixed_NHSD = functional.scaled_dot_product_attention(query, key, value, seen_N11S, dropout)
        return mixed_NHSD.transpose(1, 2).flatten(2)

    def _heads(self, x_NSC: Tensor) -> Tensor:
        """(N, H, S, D)."""
        num_groups, num_items, channels = x_NSC.shape
        return x_NSC.reshape(num_groups, num_items, self.num_heads, channels // self.num_heads).transpose(1, 2)


def each_frame(layer: nn.Module, x_BTC: Tensor) -> Tensor:
    """Run a linear layer on the frames as rows: as one matrix product it keeps its weight in the exported graph."""
    return layer(x_BTC.flatten(0, 1)).unflatten(0, x_BTC.shape[:2])  # type: ignore[no-any-return]


class PlainSumBlock(nn.Module):
    """conv3 - BN - PReLU - dropout, twice, PReLU, added to the input; nothing after the addition.

    Convolutions have biases, each PReLU one slope; the shortcut is a 1x1 convolution with bias where the width changes.
    """

    def __init__(self, in_channels: int, width: int, *, dilation: int, dropout: float, norm_momentum: float) -> None:
        super().__init__()
        self.conv1 = conv1d(in_channels, width, 3, dilation=dilation, bias=True, momentum=norm_momentum)
        self.act1 = nn.PReLU()
        self.conv2 = conv1d(width, width, 3, dilation=dilation, bias=True, momentum=norm_momentum)
        self.act2 = nn.PReLU()
        self.act = nn.PReLU()
        self.dropout = nn.Dropout(dropout)
        self.shortcut: nn.Module = nn.Identity() if in_channels == width else nn.Conv1d(in_channels, width, 1)
        self.add = Add()

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        hidden = self.dropout(self.act1(self.conv1(x_BCT)))
        hidden = masked(hidden, mask_B1T)
        hidden = self.act(self.dropout(self.act2(self.conv2(hidden))))
        return masked(self.add(self.shortcut(x_BCT), hidden), mask_B1T)


class TransformerTemporal(nn.Module):
    """A post-norm transformer layer without positions, then blocks of dilation 1, 2, ...: (B, C, T) -> (B, width, T).

    The results of a clip depend on its valid frames only, except for attention "batch" (see Attention).
    feedforward: inner width of the transformer layer. dropout: of attention weights, both sublayers and the blocks.
    norm_momentum: weight of the newest batch in running statistics; 0.99 in the published code.
    """

    def __init__(
        self,
        channels: int = 384,
        width: int = 463,
        *,
        attention: AttentionMode = "token",
        num_heads: int = 8,
        feedforward: int = 128,
        num_blocks: int = 4,
        dropout: float = 0.4,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.attention = Attention(channels, num_heads=num_heads, mode=attention, dropout=dropout)
        self.attention_add = Add()
        self.norm1 = nn.LayerNorm(channels)
        self.feedforward1 = nn.Linear(channels, feedforward)
        self.feedforward_act = nn.ReLU()
        self.feedforward2 = nn.Linear(feedforward, channels)
        self.feedforward_add = Add()
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        sizes = [channels] + [width] * num_blocks
        self.blocks = nn.ModuleList(
            PlainSumBlock(sizes[i], width, dilation=2**i, dropout=dropout, norm_momentum=norm_momentum)
            for i in range(num_blocks)
        )
        self.num_features = width

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        x_BTC = x_BCT.transpose(1, 2)
        x_BTC = self.norm1(self.attention_add(x_BTC, self.dropout(self.attention(x_BTC, mask_B1T))))
        inner = self.feedforward_act(each_frame(self.feedforward1, x_BTC))
        x_BTC = self.norm2(self.feedforward_add(x_BTC, self.dropout(each_frame(self.feedforward2, inner))))
        x_BCT = masked(x_BTC.transpose(1, 2), mask_B1T)
        for block in self.blocks:
            x_BCT = block(x_BCT, mask_B1T)
        return x_BCT


@torch.no_grad()
def drop_unused_rows(model: nn.Module) -> None:
    """Leave only the value rows in the projections of "token" attention, in place: the results stay, and train no more.

    For files that are deployed: queries and keys are 2/3 of the projection's bytes and multiplications.
    """
    for module in model.modules():
        if not (isinstance(module, Attention) and module.mode == "token"):
            continue
        holder: nn.Module = module
        leaf, whole = "in_projection", module.in_projection
        while hasattr(whole, "layer"):  # stored in few bits or quantised: both by row
            holder, leaf, whole = whole, "layer", whole.layer  # type: ignore[assignment]
        if isinstance(whole, nn.Linear):
            values = nn.Linear(module.channels, module.channels, device="meta")
            values.weight = nn.Parameter(whole.weight[-module.channels :].clone())
            values.bias = nn.Parameter(whole.bias[-module.channels :].clone())
            setattr(holder, leaf, values)
