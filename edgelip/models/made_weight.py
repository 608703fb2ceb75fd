"""The base of layers whose weight is computed from parameters: built in training, kept in eval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class MadeWeight(nn.Module, ABC):
    """In training the weight is built in each forward. In eval it is built once and kept.

    It is built anew when a parameter changes, moves or the mode does; a write through `parameter.data` in eval mode is
    not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[tuple[Any, ...], tuple[Tensor, ...], Tensor] | None = None

    @abstractmethod
    def made_weight(self) -> Tensor:
        """The weight that runs, (out, in, *kernel), built anew."""

    @abstractmethod
    def weight_sources(self) -> Sequence[Tensor]:
        """What it is built from."""

    def running_weight(self) -> Tensor:
        """The weight of this forward: built in training, kept in eval."""
        sources = self.weight_sources()
        if (
            self.training
            or torch.compiler.is_compiling()
            or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in sources))
        ):
            return self.made_weight()
        try:
            state = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in sources)
        except RuntimeError:  # inference tensors count no versions, fake tensors have no address
            return self.made_weight()
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                # The aliases keep the memory from being handed out again, so that an address names one tensor.
                self._kept = state, tuple(tensor.detach() for tensor in sources), self.made_weight()
        return self._kept[2]

    def train(self, mode: bool = True) -> Any:
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._kept = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """What deepcopy and pickle take: everything but the kept weight."""
        return {**self.__dict__, "_kept": None}
