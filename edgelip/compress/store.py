"""Stage `store`: weights kept in few bits in the file; engines build the float ones from them when they load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from edgelip.compress.quantise import is_quantised
from edgelip.compress.stage import FineTuning, Record, Stage, StageConfig, Tools
from edgelip.compress.stored_layer import WEIGHTED, Bits, FactorBits, StoredLayer, WeightBits
from edgelip.errors import StageError
from edgelip.models.blocks import fold_norms
from edgelip.models.hypercomplex import PHMLayer
from edgelip.registry import nearest

HEAD = "head"
_WORDS: Mapping[int, str] = {4: "int4", 8: "int8", 16: "fp16", 32: "fp32"}


class StoreConfig(StageConfig):
    """Bits of each kind of weight; none leaves that kind as it is, and so does 32.

    blocks: F of PHM layers; factors: their A, none means 8 beside integers and 16 beside halves. dense: weights without
    factors. head: the classifier, none treats it like the rest. layers: name patterns with bits of their own (F, or
    the weight that has no factors), such as {"frontend.*" = 32}; of two that match, the later one counts.
    """

    stage: Literal["store"] = "store"
    blocks: WeightBits | None = None
    factors: FactorBits | None = None
    dense: WeightBits | None = None
    head: WeightBits | None = None
    layers: dict[str, WeightBits] = Field(default_factory=dict)
    tune: FineTuning = FineTuning(epochs=0)


class Store(Stage):
    """Folds batch normalisation and rounds weights as the file will hold them; `tune` trains through the rounding.

    It changes the file and not the speed. Stage `qat` or `ptq` may follow and round what is built to int8 as well.
    """

    name = "store"
    phase = "numerics"
    rank: ClassVar[int] = 8
    config_model = StoreConfig
    trains_norms = False
    sources = ("compress/stored_layer.py",)

    @property
    def label(self) -> str:
        config = self.config
        kinds = {"factors": config.blocks, "weights": config.dense, "head": config.head}
        words = [f"{_WORDS[bits]} {kind}" for kind, bits in kinds.items() if bits not in (None, 32)]
        return ", ".join(words) or f"few bits in {len(config.layers)} layer pattern{'s' * (len(config.layers) > 1)}"

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        _refuse_finished(model)
        fold_norms(model)
        chosen = choose_bits(model, self.config)
        wrap(model, chosen)
        return model, {"bits": {name: [bits.factors, bits.blocks, bits.dense] for name, bits in chosen.items()}}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        fold_norms(model.eval())
        layers = weighted_layers(model)
        chosen: dict[str, Bits] = {}
        for name, numbers in record["bits"].items():
            if name not in layers:
                raise StageError(f"The record of stage 'store' names a layer {name!r} that the model has not.")
            if not isinstance(numbers, (list, tuple)) or len(numbers) != 3:
                raise StageError(f"The record of stage 'store' gives {name!r} the bits {numbers}; expected 3 numbers.")
            chosen[name] = Bits(*numbers)
        wrap(model, chosen)
        return model


def choose_bits(model: nn.Module, config: StoreConfig) -> dict[str, Bits]:
    """Bits of every layer that is to be rounded. Raises StageError for settings without effect on this model."""
    layers = weighted_layers(model)
    if not (config.layers or any(bits not in (None, 32) for bits in (config.blocks, config.dense, config.head))):
        raise StageError("Stage 'store' is told no bits. Set blocks, dense or head to 4, 8 or 16.")
    for pattern in config.layers:
        if not any(fnmatch(name, pattern) for name in layers):
            raise StageError(f"No layer is called {pattern!r}. {nearest(pattern, layers)}")
    wanted: dict[str, int] = {}
    used: set[str] = set()
    for name, layer in layers.items():
        key = "blocks" if isinstance(layer, PHMLayer) else "dense"
        if config.head is not None and (name == HEAD or name.startswith(f"{HEAD}.")):
            key = "head"
        used.add(key)
        own = [bits for pattern, bits in config.layers.items() if fnmatch(name, pattern)]
        bits = own[-1] if own else getattr(config, key)
        if bits not in (None, 32):
            wanted[name] = bits
    factored = [name for name in wanted if isinstance(layers[name], PHMLayer)]
    if config.factors is not None and not factored:
        used.discard("factors")
    elif config.factors is not None:
        used.add("factors")
    _refuse_idle(config, used, layers)
    if not wanted:
        raise StageError("Stage 'store' leaves every layer as it is: its patterns exclude them all. Leave it out.")
    return {name: _bits(layers[name], bits, config.factors) for name, bits in wanted.items()}


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that hold a weight, by name, as long as none is wrapped."""
    return {name: module for name, module in model.named_modules() if isinstance(module, WEIGHTED)}


def wrap(model: nn.Module, chosen: Mapping[str, Bits]) -> None:
    """Put stored layers in the place of those named, in place."""
    for name, bits in chosen.items():
        model.set_submodule(name, StoredLayer(model.get_submodule(name), bits).train(model.training))


def _bits(layer: nn.Module, bits: Any, factors: FactorBits | None) -> Bits:
    if not isinstance(layer, PHMLayer):
        return Bits(dense=bits)
    return Bits(factors=factors or (16 if bits == 16 else 8), blocks=bits)


def _refuse_finished(model: nn.Module) -> None:
    if is_quantised(model):
        raise StageError("The model is quantised already; weights are stored in few bits before. Order: store, qat.")
    if any(isinstance(module, StoredLayer) for module in model.modules()):
        raise StageError("The weights are in few bits already; stage 'store' applies once. Remove one of the two.")


def _refuse_idle(config: StoreConfig, used: set[str], layers: Iterable[str]) -> None:
    """Raises StageError for a setting that no layer heeds."""
    reasons = {
        "blocks": "has no PHM layer. Add stage 'phm', or set dense instead",
        "factors": "has no PHM layer that is stored in fewer bits. Leave factors out",
        "dense": f"has no layer without factors beside the head, of {len(list(layers))}. Leave dense out",
        "head": "has no layer called 'head'. Name its last layer in layers",
    }
    for key, reason in reasons.items():
        if getattr(config, key) is not None and key not in used:
            raise StageError(f"Stage 'store' sets {key} = {getattr(config, key)}, and the model {reason}.")
