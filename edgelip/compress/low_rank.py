"""Stage `low_rank`: single layers become two of small rank, smaller and cheaper to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from edgelip.compress.phm_choice import named
from edgelip.compress.phm_layers import convolutions, linear_layers
from edgelip.compress.stage import Record, Stage, StageConfig, Tools
from edgelip.errors import StageError
from edgelip.models.low_rank import (
    LowRank,
    largest_paying_rank,
    low_rank_from_dense,
    low_rank_like,
    low_rank_parameters,
    shares_of_ranks,
)


class LowRankConfig(StageConfig):
    """Layers by name patterns, and their rank: a number, or the least that keeps a share of the squared weight.

    A pattern such as "temporal.*" means convolutions, and linear layers where it fits none; "head" is the last layer.
    """

    stage: Literal["low_rank"] = "low_rank"
    layers: tuple[str, ...] = Field(min_length=1)
    rank: int | None = Field(None, ge=1, le=4096)
    energy: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> LowRankConfig:
        if (self.rank is None) == (self.energy is None):
            raise ValueError("low_rank needs one of rank and energy")
        return self


class LowRankStage(Stage):
    """Replaces layers by the product of two, nearest by singular value decomposition (Eckart and Young 1936)."""

    name = "low_rank"
    phase = "structure"
    rank: ClassVar[int] = 3
    config_model = LowRankConfig
    sources = ("compress/phm_choice.py", "compress/phm_layers.py")

    @property
    def label(self) -> str:
        config = self.config
        return f"rank {config.rank}" if config.rank is not None else f"low rank, {config.energy:.0%} of energy"

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        _refuse_repeated(model)
        rehearsed = not tools.calibration().sha256
        ranks: dict[str, int] = {}
        shares: dict[str, float] = {}
        for name in named(self.config.layers, convolutions(model), linear_layers(model)):
            layer: Any = model.get_submodule(name)
            held = shares_of_ranks(layer.weight)
            rank = self.config.rank
            if rank is None:
                rank = 1 + int((held < self.config.energy).sum())
                if rehearsed:  # an untrained weight has no small rank; a trained one may
                    rank = max(1, min(rank, largest_paying_rank(layer.weight.shape)))
            _refuse_growth(name, layer.weight.shape, rank, held.tolist(), self.config.energy)
            ranks[name], shares[name] = rank, round(float(held[rank - 1]), 4)
            model.set_submodule(name, low_rank_from_dense(layer, rank))
        return model, {"ranks": ranks, "energy": shares}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        known: dict[str, Any] = {**convolutions(model), **linear_layers(model)}
        for name, rank in record["ranks"].items():
            if name not in known:
                raise StageError(
                    f"The record of stage 'low_rank' names a layer {str(name)!r:.80} that the model has not."
                )
            whole = isinstance(rank, int) and not isinstance(rank, bool)
            if not whole or not 1 <= rank <= largest_paying_rank(known[name].weight.shape):
                raise StageError(
                    f"The record of stage 'low_rank' gives {name} rank {rank!r:.20}, which is none of its."
                )
            model.set_submodule(name, low_rank_like(known[name], rank).train(known[name].training))
        return model


def _refuse_repeated(model: nn.Module) -> None:
    if any(isinstance(module, LowRank) for module in model.modules()):
        raise StageError("Layers are of low rank already; stage 'low_rank' applies once. Remove one of the two.")


def _refuse_growth(name: str, shape: tuple[int, ...], rank: int, held: list[float], energy: float | None) -> None:
    """Raises StageError if two layers of that rank are no smaller than the one."""
    largest = largest_paying_rank(shape)
    if rank <= largest:
        return
    sides = "x".join(map(str, shape))
    needed = f"rank {rank}" if energy is None else f"{energy:.3g} of the energy, rank {rank},"
    if not largest:
        raise StageError(f"{name} has a weight {sides}, which no rank makes smaller. Leave it out.")
    raise StageError(
        f"{name} with {needed} takes {low_rank_parameters(shape, rank)} numbers, no fewer than its weight {sides}. "
        f"The largest rank that pays is {largest}, which holds {held[largest - 1]:.3g} of the energy."
    )
