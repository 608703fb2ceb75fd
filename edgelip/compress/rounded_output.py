"""Where the output of a quantised layer must be rounded too, so that engines run the layer in integers.

ONNX Runtime makes an integer convolution only where rounding follows it: at once, or behind a ReLU or operators that
copy values. Where a sum of channels, a mean or a concatenation comes first, as in a ShuffleNet, it runs in float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgelip.compress.fake_quant import ActivationQuantiser, QuantisedAdd, QuantisedLayer, bare
from edgelip.compress.quantised_activation import QuantisedSlope, QuantisedSwish
from edgelip.errors import StageError

# Engines carry a rounding past these to the layer before it.
_COPYING = {
    "__getitem__", "chunk", "contiguous", "dropout", "dropout1d", "expand", "feature_dropout", "flatten", "max_pool2d",
    "movedim", "permute", "relu", "reshape", "squeeze", "transpose", "unflatten", "unsqueeze", "view",
}  # fmt: skip


class RoundedReLU(nn.Module):
    """A ReLU whose result is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.output = ActivationQuantiser()

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(x))  # type: ignore[no-any-return]


ROUNDING = (RoundedReLU, QuantisedSwish, QuantisedSlope)


@dataclass(eq=False)
class _Value:
    """A tensor of one run: what reads it, and whether a ReLU made it, by name of the module."""

    tensor: Tensor
    readers: list[tuple[str, list[_Value]]] = field(default_factory=list)  # function, its results
    modules: list[str] = field(default_factory=list)  # that took it as their first input
    maker: str | None = None


@torch.no_grad()
def unrounded_outputs(model: nn.Module, clip_B1THW: Tensor) -> dict[str, str]:
    """Quantised convolutions whose result no rounding follows, each with the place to round it.

    That is the ReLU behind the convolution if nothing else reads it, else the convolution itself. Found by running the
    model. Linear layers need none: engines multiply them in integers whatever follows.
    """
    run = _run(model, clip_B1THW)
    places: dict[str, str] = {}
    for value in run.values.values():
        layer = value.maker
        module = None if layer is None else model.get_submodule(layer)
        if layer is None or not isinstance(module, QuantisedLayer) or module.output is not None or _is_rounded(value):
            continue
        if isinstance(bare(module.layer), nn.Linear) or not value.readers:
            continue
        (act,) = value.modules if len(value.modules) == 1 and len(value.readers) == 1 else (layer,)
        behind_relu = isinstance(model.get_submodule(act), nn.ReLU) and run.calls[act] == 1
        places[layer] = act if behind_relu else layer
    return places


@torch.no_grad()
def modules_behind(model: nn.Module, clip_B1THW: Tensor) -> dict[str, tuple[str, ...]]:
    """The modules that round the result of one quantised layer or sum and nothing else, by its name."""
    run = _run(model, clip_B1THW)
    behind = {}
    for value in run.values.values():
        if value.maker is not None and isinstance(model.get_submodule(value.maker), (QuantisedLayer, QuantisedAdd)):
            rounding = [name for name in value.modules if isinstance(model.get_submodule(name), ROUNDING)]
            behind[value.maker] = tuple(name for name in rounding if run.calls[name] == 1)
    return behind


def round_outputs(model: nn.Module, places: Iterable[str]) -> None:
    """Round the results of the named modules, in place. Raises StageError if there is no such module."""
    for name in places:
        module = model.get_submodule(name)
        if isinstance(module, QuantisedLayer):
            module.output = ActivationQuantiser()
        elif isinstance(module, nn.ReLU):
            model.set_submodule(name, RoundedReLU())
        else:
            raise StageError(f"{name!r} is no quantised layer and no ReLU; its output cannot be rounded.")


def _run(model: nn.Module, clip_B1THW: Tensor) -> _Run:
    names = {module: name for name, module in model.named_modules()}
    run = _Run(names)
    handles = []
    for module in names:
        if isinstance(module, (QuantisedLayer, QuantisedAdd, nn.ReLU, ActivationQuantiser, *ROUNDING)):
            handles.append(module.register_forward_pre_hook(run.enter))
            handles.append(module.register_forward_hook(run.leave))
    try:
        with run:
            model(clip_B1THW)
    finally:
        for handle in handles:
            handle.remove()
    return run


def _is_rounded(value: _Value) -> bool:
    """Whether whatever reads a value rounds it first."""
    return bool(value.readers) and all(
        function == "round" or (function in _COPYING and all(_is_rounded(result) for result in results))
        for function, results in value.readers
    )


class _Run(TorchFunctionMode):
    """Notes which functions read which tensors while the model runs."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self.names = names
        self.values: dict[int, _Value] = {}
        self.calls: dict[str, int] = {}
        self._rounding = 0

    def value(self, tensor: Tensor) -> _Value:
        return self.values.setdefault(id(tensor), _Value(tensor))  # kept, so that no other tensor gets its number

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        name = self.names[module]
        self.calls[name] = self.calls.get(name, 0) + 1
        if isinstance(module, ActivationQuantiser):
            self._rounding += 1
            self.value(inputs[0]).readers.append(("round", []))
        else:
            self.value(inputs[0]).modules.append(name)

    def leave(self, module: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(module, ActivationQuantiser):
            self._rounding -= 1
        else:
            self.value(output).maker = self.names[module]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._rounding:
            return result
        results = _tensors(result)
        for tensor in _tensors([args, kwargs or {}]) if results else ():
            if all(tensor is not other for other in results):  # some give what they took
                self.value(tensor).readers.append((func.__name__, [self.value(other) for other in results]))
        return result


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, (list, tuple)):
        return []
    return [tensor for value in values for tensor in _tensors(value)]
