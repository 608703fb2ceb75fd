"""NNCF as the backend of stage `qat`: it places, calibrates and trains quantisers; export takes them over.

NNCF keeps its quantisers in a submodule of the model and calls them around torch functions ("hooks"), also on weights.
Its own export is not used: torch's exporters fail on the raw model; the stripped one needs torchao, fails in one of the
two and stores float weights in the other. A clip with `lengths` meets the same quantisers but one, after the mean over
frames: NNCF traces full clips, where that is a mean.
"""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from edgelip.compress.fake_quant import ActivationQuantiser
from edgelip.compress.stage import Record
from edgelip.compress.stored_layer import StoredLayer
from edgelip.errors import StageError
from edgelip.models.hypercomplex import CONVOLUTIONS, PHMLayer
from edgelip.recipe_sections import Strict, explain
from edgelip.registry import require

HOOKS = "__nncf_hooks"  # the submodule that NNCF adds to a model
LAYERS = (*CONVOLUTIONS, nn.Linear)
LARGEST_SCALE = 1 << 16  # scales of one quantiser: one for each output channel


class _Quantiser(Strict):
    """NNCF's settings of one quantiser, as `quantise` asks for them: from a checkpoint they are not trusted."""

    num_bits: Literal[8]
    mode: Literal["symmetric"]
    signedness_to_force: bool | None
    narrow_range: bool
    half_range: bool
    scale_shape: tuple[Annotated[int, Field(ge=1, le=LARGEST_SCALE)], ...] = Field(max_length=5)
    logarithm_scale: Literal[False]
    is_quantized_on_export: bool

    @model_validator(mode="after")
    def _is_small(self) -> _Quantiser:
        if math.prod(self.scale_shape) > LARGEST_SCALE:
            raise ValueError(f"scale_shape holds more than {LARGEST_SCALE} scales")
        return self


class _Hook(Strict):
    hook_names_in_model: tuple[Annotated[str, Field(pattern=r"^(pre|post)_hooks\.[^.]{1,500}\.\d{1,4}$")], ...]
    module_path: Literal["nncf.torch.quantization.layers"]
    module_cls_name: Literal["SymmetricQuantizer"]
    module_config: _Quantiser


class _ToolkitConfig(Strict):
    compression_state: tuple[_Hook, ...] = Field(max_length=4096)


def quantise(model: nn.Module, clips_B1THW: Tensor) -> tuple[nn.Module, Record]:
    """A model with NNCF's quantisers, calibrated on clips, and what `restore` needs. Batch norms must be folded.

    Raises StageError if the model has PHM layers: NNCF quantises parameters only, not weights computed from them; and
    where NNCF places quantisers that `take_over` cannot replace.
    """
    refuse_hypercomplex(model)
    nncf = _nncf()
    parameters = require("nncf.quantization.advanced_parameters", extra="compress")
    with _quiet():
        quantised: nn.Module = nncf.quantize(
            model.eval(),
            nncf.Dataset([clip[None] for clip in clips_B1THW]),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric throughout
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(clips_B1THW),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # On 8 clips it harms: rms logit error 0.116 with, 0.026 without; training corrects better.
                disable_bias_correction=True,
                overflow_fix=nncf.OverflowFix.DISABLE,  # all 255 levels, as in the other backend
                # Left alone, inputs of depthwise layers get a scale a channel, for which engines have no int8 kernel.
                activations_quantization_params=parameters.QuantizationParameters(per_channel=False),
            ),
        )
        config = nncf.torch.get_config(quantised)
    quantised.eval()
    weights = _weights_by_hook(quantised, clips_B1THW[:1])
    _label(quantised, weights)
    _sign_activations(quantised)
    _refuse_foreign(quantised)
    return quantised, {
        "backend": "nncf",
        "config": json.loads(json.dumps(config)),
        "weights": weights,
        "float_layers": _float_layers(quantised, weights),
    }


def restore(model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
    """A folded model with the quantisers of `record`; their values are to be loaded.

    Raises StageError for a record that asks NNCF for anything but what `quantise` leaves.
    """
    try:
        told = _ToolkitConfig.model_validate(record["config"])
    except ValidationError as error:
        raise StageError(f"The record of NNCF's quantisers: {explain(error, _ToolkitConfig)[:200]}") from error
    parameters = {name for name, _ in model.named_parameters()}
    for weight in record["weights"].values():
        if weight not in parameters:
            raise StageError(f"The record of NNCF's quantisers rounds {weight!r:.80}, which the model has not.")
    nncf = _nncf()
    with _quiet():
        quantised: nn.Module = nncf.torch.load_from_config(model, told.model_dump(mode="json"))
    _label(quantised, record["weights"])
    return quantised


def refuse_hypercomplex(model: nn.Module) -> None:
    """Raises StageError if NNCF would leave weights of the model in float."""
    kinds = {PHMLayer: "PHM weights", StoredLayer: "weights stored in few bits"}
    for kind, weights in kinds.items():
        layers = [name for name, module in model.named_modules() if isinstance(module, kind)]
        if layers:
            raise StageError(
                f"NNCF leaves {weights} in float32 ({len(layers)} layers, the first {layers[0]!r}): it quantises "
                'parameters, and these weights are computed. Use backend = "own".'
            )


def _refuse_foreign(model: nn.Module) -> None:
    """Raises StageError if a quantiser has no form that we export: a scale a channel, or no layer's weight."""
    foreign = []
    for name, hook in _hooks(model).items():
        weight = getattr(hook, "weight_name", None)
        num_scales = hook.get_parameters_for_torch_fq()[2].numel()
        if weight is None:
            exported = num_scales == 1
        else:
            layer = model.get_submodule(weight.rpartition(".")[0])
            exported = isinstance(layer, LAYERS) and num_scales in (1, len(model.get_parameter(weight)))
        if not exported:
            foreign.append(weight or name.rpartition(".")[2])
    if foreign:
        raise StageError(
            f"NNCF quantises this network in a way that edgelip cannot export ({len(foreign)} quantisers, the first at "
            f'{foreign[0]!r}). Use backend = "own".'
        )


def _float_layers(model: nn.Module, weights: Mapping[str, str]) -> list[str]:
    """Layers whose weight NNCF has left in float: of convolutions over time with groups it does so."""
    names = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
    return [name for name in names if f"{name}.weight" not in weights.values()]


def is_toolkit_model(model: nn.Module) -> bool:
    """Whether NNCF has put quantisers into the model."""
    return HOOKS in dict(model.named_children())


@torch.no_grad()
def take_over(model: nn.Module) -> dict[str, Tensor]:
    """Replace NNCF's quantisers, in place and value for value: weights take their rounded values, activations ours.

    Returns the scale of each output row by weight name: weight = int8 levels * scale.
    """
    storage = model.get_submodule(HOOKS)
    scales: dict[str, Tensor] = {}
    # NNCF calls one quantiser in several places where their scales must agree, as at the inputs of a concatenation.
    for name, hook in list(storage.named_hooks(remove_duplicate=False)):  # type: ignore[operator]
        if hasattr(hook, "weight_name"):
            weight = model.get_parameter(hook.weight_name)
            scale = hook.get_parameters_for_torch_fq()[2]
            weight.copy_(hook(weight))
            scales[hook.weight_name] = scale.reshape(-1).expand(len(weight)).clone()
            storage.delete_hook(name)  # type: ignore[operator]
        else:
            storage.set_submodule(name, _our_quantiser(hook))
    return scales


@torch.no_grad()
def _our_quantiser(hook: Any) -> ActivationQuantiser:
    """The same rounding; one scale for the tensor, as NNCF gives to all but depthwise layers.

    Raises StageError for levels other than ours: checkpoints of before activations were signed hold them.
    """
    lowest_level, highest_level, scale, _ = hook.get_parameters_for_torch_fq()
    if (lowest_level, highest_level) != (-128, 127):
        raise StageError(
            f"NNCF rounds an activation to levels {lowest_level}..{highest_level}; edgelip takes -128..127. Quantise "
            'the network again, or use backend = "own".'
        )
    quantiser = ActivationQuantiser()
    quantiser.scale.copy_(scale.reshape(()))
    return quantiser


def _sign_activations(model: nn.Module) -> None:
    """Give what follows a ReLU signed levels too, of the same range: TensorRT takes no others.

    NNCF 3.4 has a parameter for this, `signedness_to_force`, and refuses it: its table of the CPU's kernels lists none.
    """
    for hook in _hooks(model).values():
        if not hasattr(hook, "weight_name"):
            hook.signed = True


def _hooks(model: nn.Module) -> dict[str, Any]:
    """NNCF's quantisers by their name in its storage."""
    return dict(model.get_submodule(HOOKS).named_hooks())  # type: ignore[operator]


@torch.no_grad()
def _weights_by_hook(model: nn.Module, clip_B1THW: Tensor) -> dict[str, str]:
    """Which quantiser is called on which parameter, found by running the model: NNCF's names leave out list members."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, str] = {}
    handles = []
    for hook_name, hook in _hooks(model).items():

        def note(_: nn.Module, inputs: tuple[Tensor, ...], hook_name: str = hook_name) -> None:
            if id(inputs[0]) in names:
                found[hook_name] = names[id(inputs[0])]

        handles.append(hook.register_forward_pre_hook(note))
    try:
        model(clip_B1THW)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _label(model: nn.Module, weights: Mapping[str, str]) -> None:
    hooks = _hooks(model)
    for hook_name, weight_name in weights.items():
        hooks[hook_name].weight_name = weight_name


def _nncf() -> Any:
    """NNCF without telemetry and without a compiler. Raises MissingError if it is not installed."""
    # Unless this is set before the import, NNCF reports each call to a web service without asking.
    os.environ.setdefault("NNCF_CI", "1")
    nncf = require("nncf", extra="compress")
    extensions = require("nncf.torch.quantization.extensions", extra="compress")
    reference = require("nncf.torch.quantization.reference", extra="compress")

    class TorchFunctions:
        """NNCF's own torch code for what its C++ kernels do."""

        Quantize_forward = staticmethod(reference.torch_executor.forward)
        Quantize_backward = staticmethod(reference.torch_executor.backward)

    # NNCF 3.4 builds C++ kernels at the first call: a minute, a compiler, and a lock that hangs the next process if the
    # build is killed (openvinotoolkit/nncf#533). It has no switch to use its torch code; remove this when it has one.
    for kernels in (extensions.QuantizedFunctionsCPU, extensions.QuantizedFunctionsCUDA):
        if isinstance(kernels, extensions.ExtensionNamespace) and kernels._loaded_namespace is None:
            kernels._loaded_namespace = TorchFunctions
    return nncf


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF logs and draws its progress on stdout."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
