"""Which channels of a network leave together: what Torch-Pruning's dependency graph says, and what blocks add to it.

The graph (Fang et al., CVPR 2023) is traced on a copy in which PHM layers are dense; then the channels of one row or
column of a PHM block are tied as well. So every set found here can leave exactly: the network without it computes what
the whole network does with those channels at zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.compress.channel_cuts import Kept, column_grid, is_one_sided, layer_widths, row_grid
from edgelip.errors import EdgelipError, StageError
from edgelip.models.efficientnet import EfficientTrunk
from edgelip.models.hypercomplex import PHMLayer, densified
from edgelip.models.shufflenet import ShuffleUnit
from edgelip.models.signs import SignConvBlock, SignTransformerBlock
from edgelip.models.transformer import Attention, TransformerTemporal
from edgelip.registry import require

Side = tuple[str, bool]  # name of a layer; whether its outputs are meant
Channels = Mapping[Side, np.ndarray]  # indices


@dataclass(frozen=True)
class Space:
    """Sets of channels of the same kind: each takes as many channels as another from the same layers.

    sets: the least important first; importances: of each set, the unit being the importance measure's.
    """

    sets: tuple[Channels, ...]
    importances: tuple[float, ...]

    @property
    def counts(self) -> dict[Side, int]:
        """How many channels one set has in each layer."""
        return {side: len(indices) for side, indices in self.sets[0].items()}

    @property
    def kind(self) -> tuple[tuple[Side, int], ...]:
        """What tells it from other spaces, before and after sets of it have left."""
        return tuple(sorted(self.counts.items()))


def channel_spaces(model: nn.Module, clip_B1THW: Tensor, gradients: Mapping[str, Tensor] | None = None) -> list[Space]:
    """All channels of a network that can leave, in the order of its layers.

    Importance is Torch-Pruning's: the norms of the weights of a group, those of its layers alike (p = 2), or with
    `gradients` of the dense weights, by name, what a loss changes without it to first order (Molchanov et al. 2019).
    Raises StageError where the dependency graph cannot be followed.
    """
    torch_pruning = require("torch_pruning", extra="compress")
    measures = torch_pruning.importance
    traced, kept = traceable(model)
    if gradients is None:
        score = measures.GroupMagnitudeImportance(p=2)
    else:
        score = measures.GroupTaylorImportance(normalizer=None)
        for parameter_name, parameter in traced.named_parameters():
            parameter.grad = gradients[parameter_name]
    names = {module: name for name, module in traced.named_modules()}
    links = _Links(model)
    try:
        with torch.enable_grad():  # the dependency graph is traced through autograd
            graph = torch_pruning.DependencyGraph().build_dependency(
                traced, network_inputs(model, clip_B1THW), verbose=False
            )
        for group in graph.get_all_groups(ignored_layers=kept):
            members = []
            for item in group:
                # In ascending order: the Taylor measure sorts one of the two lists alone.
                pairs = sorted(zip(item.idxs, item.root_idxs, strict=True))
                item.idxs[:], item.root_idxs[:] = (list(column) for column in zip(*pairs, strict=True))
                target = item.dep.target.module
                name = names.get(target)
                if name is None or (isinstance(target, nn.PReLU) and target.num_parameters == 1):
                    continue  # a plain operation, or a slope that all channels share
                members.append((name, graph.is_out_channel_pruning_fn(item.dep.handler), pairs))
            links.join(members, score(group))
    except EdgelipError:
        raise
    except Exception as error:  # the library says in many ways that it cannot follow a network
        raise cannot_follow(type(error).__name__) from error
    return links.spaces()


def cannot_follow(reason: str) -> StageError:
    return StageError(
        f"Torch-Pruning cannot follow the channels of this network ({reason}). Leave stage 'prune' out, or take "
        "another backbone."
    )


def traceable(model: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    """A dense copy that the dependency graph can follow, and its layers whose outputs must all stay.

    The channel shuffle interleaves halves, a gated linear unit pairs channels, attention splits them into heads: what
    goes in and out of those keeps its width, the layers inside do not.
    """
    traced = densified(model)
    kept: list[nn.Module] = [traced.get_submodule("head")]
    for name, module in list(traced.named_modules()):
        if isinstance(module, ShuffleUnit):
            outer = [module.right_expand.conv]
            if module.downsamples:
                outer.append(module.left_pointwise.conv)
            kept += outer
            traced.set_submodule(name, _Unshuffled(module))
        elif isinstance(module, EfficientTrunk):
            kept.append(module.last)
        elif isinstance(module, Attention):
            kept += [module.in_projection, module.out_projection]
        elif isinstance(module, (TransformerTemporal, SignTransformerBlock)):
            kept.append(module.feedforward2)
        elif isinstance(module, SignConvBlock):
            # its channel attention convolves over neighbouring channels
            kept += [module.expand, module.depthwise.conv, module.attend.mix, module.project]
    return traced.eval(), kept


class _Unshuffled(nn.Module):
    """A shuffle unit, its parts under the same names, that leaves its halves side by side."""

    def __init__(self, unit: ShuffleUnit) -> None:
        super().__init__()
        self.downsamples = unit.downsamples
        for name, module in unit.named_children():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        parts: Any = self
        if self.downsamples:
            left, right = parts.left_act(parts.left_pointwise(parts.left_depthwise(x))), x
        else:
            left, right = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        right = parts.right_depthwise(parts.right_act1(parts.right_reduce(right)))
        return torch.cat([left, parts.right_act2(parts.right_expand(right))], dim=1)


def network_inputs(model: nn.Module, clips_B1THW: Tensor) -> tuple[Any, ...]:
    """What a network is called with; one that wants word boundaries is told that every frame is the word's."""
    if not getattr(model, "boundary", False):
        return (clips_B1THW,)
    return clips_B1THW, None, clips_B1THW.new_ones(len(clips_B1THW), clips_B1THW.shape[2], 1)


class _Links:
    """Channels of all layers as numbered nodes; those that are linked leave together."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = {name: module for name, module in model.named_modules() if layer_widths(module) is not None}
        self.starts: dict[Side, int] = {}
        self.total = 0
        for name, module in self.layers.items():
            out_size, in_size = layer_widths(module) or (0, 0)
            for side, size in (((name, True), out_size), ((name, False), 0 if is_one_sided(module) else in_size)):
                if size:
                    self.starts[side] = self.total
                    self.total += size
        self.parents = np.arange(self.total)
        self.found = np.zeros(self.total, dtype=bool)
        self.scores = np.zeros(self.total)

    def join(self, members: Sequence[tuple[str, bool, list[tuple[int, int]]]], scores: Tensor | None) -> None:
        """Link what one group of the dependency graph removes with each channel of its root; note its importance.

        members: a layer, whether its outputs are meant, and pairs of its channel and the root's.
        """
        firsts: dict[int, int] = {}
        for name, gives, pairs in members:
            layer = self.layers.get(name)
            if layer is None:  # a norm over all channels, such as those of a transformer
                raise cannot_follow(f"{name} has no channels to cut")
            start = self.starts[name, gives or is_one_sided(layer)]
            for index, root in pairs:
                self.found[start + index] = True
                self._link(firsts.setdefault(root, start + index), start + index)
        if scores is not None:
            for root, node in firsts.items():
                self.scores[node] += float(torch.nan_to_num(scores[root]))

    def spaces(self) -> list[Space]:
        self._link_blocks()
        tops = np.array([self._top(node) for node in range(self.total)])
        fixed = set(tops[~self.found])
        names = [side for side, start in self.starts.items()]
        owners = np.searchsorted(np.array(list(self.starts.values())), np.arange(self.total), side="right") - 1
        order = np.argsort(tops, kind="stable")
        ends = np.flatnonzero(np.diff(tops[order])) + 1
        kinds: dict[tuple[tuple[Side, int], ...], list[tuple[float, int, Channels]]] = defaultdict(list)
        for nodes in np.split(order, ends):
            if tops[nodes[0]] in fixed:
                continue
            channels = {
                names[owner]: nodes[owners[nodes] == owner] - self.starts[names[owner]]
                for owner in np.unique(owners[nodes])
            }
            kind = tuple((side, len(indices)) for side, indices in channels.items())
            kinds[kind].append((float(self.scores[nodes].sum()), int(nodes[0]), channels))
        found = []
        for members in kinds.values():
            members.sort(key=lambda member: member[:2])
            found.append(Space(tuple(m[2] for m in members), tuple(m[0] for m in members)))
        return found

    def _link_blocks(self) -> None:
        for name, layer in self.layers.items():
            if not isinstance(layer, PHMLayer):
                continue
            for side, grid in (((name, True), row_grid(layer)), ((name, False), column_grid(layer))):
                for index in range(grid.size):
                    for block in range(1, grid.num_blocks):
                        first = self.starts[side] + index
                        self._link(first, first + block * grid.size)

    def _link(self, first: int, second: int) -> None:
        first, second = self._top(first), self._top(second)
        self.parents[max(first, second)] = min(first, second)

    def _top(self, node: int) -> int:
        parents = self.parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = int(parents[node])
        return node


def kept_channels(model: nn.Module, removed: Iterable[Channels]) -> dict[str, Kept]:
    """What the layers keep when these sets leave: only those that lose any."""
    gone: dict[Side, list[np.ndarray]] = defaultdict(list)
    for channels in removed:
        for side, indices in channels.items():
            gone[side].append(indices)
    kept: dict[str, dict[bool, Tensor]] = defaultdict(dict)
    for (name, gives), parts in gone.items():
        widths = layer_widths(model.get_submodule(name)) or (0, 0)
        left = np.ones(widths[0 if gives else 1], dtype=bool)
        left[np.concatenate(parts)] = False
        kept[name][gives] = torch.from_numpy(np.flatnonzero(left))
    return {name: Kept(sides.get(True), sides.get(False)) for name, sides in kept.items()}
