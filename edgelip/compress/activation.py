"""Stage `activation`: Swish and PReLU become ReLU, which engines merge into the convolution before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any, ClassVar, Literal

from torch import nn

from edgelip.compress.stage import Record, Stage, StageConfig, Tools
from edgelip.errors import StageError
from edgelip.models.efficientnet import Excitation2d
from edgelip.models.multiscale import Excitation
from edgelip.registry import nearest

CURVED = (nn.SiLU, nn.PReLU)


class ActivationConfig(StageConfig):
    """Which activations: name patterns such as "trunk.*". None takes all outside squeeze-excitations, which are small.

    There is no choice of hard Swish: in int8 ONNX Runtime runs it slower than Swish itself.
    """

    stage: Literal["activation"] = "activation"
    layers: tuple[str, ...] | None = None


class PlainActivation(Stage):
    """Replaces Swish and PReLU by ReLU, then trains after the network as it was."""

    name = "activation"
    phase = "structure"
    rank: ClassVar[int] = 0
    config_model = ActivationConfig

    @property
    def label(self) -> str:
        return "ReLU" if self.config.layers is None else "ReLU in parts"

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        chosen = self._chosen(model)
        _replace(model, chosen)
        return model, {"activations": list(chosen)}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        known = _curved(model)
        for name in record["activations"]:
            if name not in known:
                raise StageError(
                    f"The record makes {name!r} a ReLU, which is no Swish or PReLU of this model. "
                    f"{nearest(str(name), known)}"
                )
        _replace(model, record["activations"])
        return model

    def _chosen(self, model: nn.Module) -> tuple[str, ...]:
        known = _curved(model)
        if not known:
            raise StageError("The model has no Swish or PReLU to replace: all is ReLU. Leave stage 'activation' out.")
        if self.config.layers is None:
            small = [name for name, module in model.named_modules() if isinstance(module, (Excitation, Excitation2d))]
            return tuple(name for name in known if name.rpartition(".")[0] not in small)
        chosen: list[str] = []
        for pattern in self.config.layers:
            matching = [name for name in known if fnmatch(name, pattern)]
            if not matching:
                raise StageError(f"No Swish or PReLU is called {pattern!r}. {nearest(pattern, known)}")
            chosen += [name for name in matching if name not in chosen]
        return tuple(chosen)


def _curved(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if isinstance(module, CURVED))


def _replace(model: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        model.set_submodule(name, nn.ReLU())
