"""Which layers of a suspect file stand where those of the reference stand, and can be put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgelip.deploy.blame.layered_graph import LayeredGraph, LayerNode


@dataclass(frozen=True)
class Place:
    """One layer of the reference and what stands for it in the suspect: one node, or a chain of factors.

    moved: |difference of the weights| / |weight of the reference|; None of a chain.
    """

    name: str
    reference: LayerNode
    first: LayerNode
    last: LayerNode
    moved: float | None

    @property
    def rounded(self) -> bool:
        """Whether the suspect rounds what the layer takes."""
        return bool(self.first.rounding)


@dataclass(frozen=True)
class Places:
    """The layers that can be compared, in graph order, and for the others the reason why not."""

    found: tuple[Place, ...]
    apart: Mapping[str, str]

    @property
    def trained_on(self) -> bool:
        """Whether the suspect's weights are further from the reference's than rounding takes them."""
        moved = [place.moved for place in self.found if place.moved is not None]
        return bool(moved) and float(np.median(moved)) > _ROUNDING_MOVES


# int8 rows move a weight by 0.3 to 1 %, int4 ones by 8 to 12 %: those count as trained on, and both kinds are tried.
_ROUNDING_MOVES = 0.03


def match_layers(reference: LayeredGraph, suspect: LayeredGraph) -> Places:
    """Pair layers by name; where a layer became factors below its name (`x.0`, `x.1`), pair it with their chain."""
    found: list[Place] = []
    apart: dict[str, str] = {}
    used: set[str] = set()
    for name, nodes in reference.layers.items():
        below = [other for other in suspect.layers if other == name or other.startswith(f"{name}.")]
        used.update(below)
        chain = [node for other in below for node in suspect.layers[other]]
        if not chain:
            apart[name] = "no layer of the suspect has its name"
        elif len(nodes) > 1 or (below == [name] and len(chain) > 1):
            apart[name] = "it runs more than once"
        elif below == [name]:
            if chain[0].weight.shape != nodes[0].weight.shape:
                apart[name] = "its weight has another shape: it was pruned or built otherwise"
            else:
                found.append(Place(name, nodes[0], chain[0], chain[0], _distance(chain[0].weight, nodes[0].weight)))
        elif _ends(chain) != _ends([nodes[0]]):
            apart[name] = f"its factors take and give {_ends(chain)} channels, not {_ends([nodes[0]])}"
        else:
            found.append(Place(name, nodes[0], chain[0], chain[-1], None))
    for name in suspect.layers:
        if name not in used:
            apart[name] = "the reference has no layer of its name"
    return Places(tuple(found), apart)


def _distance(weight: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(weight - reference) / max(float(np.linalg.norm(reference)), 1e-30))


def _ends(chain: list[LayerNode]) -> tuple[int, int]:
    """Channels that the first node takes (in its group) and the last one gives."""
    return _channels(chain[0])[0], _channels(chain[-1])[1]


def _channels(layer: LayerNode) -> tuple[int, int]:
    shape = layer.weight.shape
    transposed = any(attribute.name == "transB" and attribute.i for attribute in layer.node.attribute)
    rows_first = layer.node.op_type == "Conv" or transposed
    return (shape[1], shape[0]) if rows_first else (shape[0], shape[-1])
