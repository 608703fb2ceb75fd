"""Which ONNX files a bundle holds, and which engines take which: one file per need.

Weights: an engine that builds them when it loads, from PHM factors or integers, takes the small file ("factors"); the
others get the dense weights written out. int8 activations: x86 and ARM kernels want unsigned ones, TensorRT symmetric
signed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgelip.errors import UsageError

Precision = Literal["fp32", "fp16", "fp8", "int8"]
Activations = Literal["u8", "s8"] | None
Weights = Literal["factors", "dense"]


@dataclass(frozen=True)
class Form:
    """One file: its precision, how int8 activations are written, how its weights are, and who takes it."""

    precision: Precision
    activations: Activations
    weights: Weights
    engines: tuple[str, ...]
    built: bool  # whether the network has a file of each kind

    @property
    def label(self) -> str:
        """Such as "fp32", "fp16-dense" or "int8-u8"."""
        signed = "" if self.activations is None else f"-{self.activations}"
        return f"{self.precision}{signed}{'-dense' if self.built and self.weights == 'dense' else ''}"

    @property
    def file_name(self) -> str:
        return f"model.{self.label}.onnx"


@dataclass(frozen=True)
class _Need:
    """Engines that take one arithmetic: those that fold factors at load, and those that want dense weights."""

    precision: Precision
    activations: Activations
    folding: tuple[str, ...]
    plain: tuple[str, ...]


# Most exact first: an engine runs the first file that it takes unless it is told otherwise.
_FOLDING = ("ort", "ort-cuda", "ort-xnnpack", "openvino")
_PLAIN = ("ort-coreml", "ort-tensorrt", "tensorrt", "tensorrt-rtx")
_NEEDS = (
    _Need("fp32", None, _FOLDING, _PLAIN),
    _Need("fp16", None, _FOLDING, _PLAIN),
    _Need("fp8", None, (), ("tensorrt", "tensorrt-rtx")),
    # OpenVINO folds float factors but runs a weight that is quantised in the graph in float, 2.5 times slower.
    _Need("int8", "u8", ("ort", "ort-xnnpack"), ("openvino", "ort-qnn")),
    _Need("int8", "s8", (), ("ort-tensorrt", "tensorrt", "tensorrt-rtx")),
)
_OFFERED: dict[bool, tuple[Precision, ...]] = {False: ("fp32", "fp16", "fp8"), True: ("int8",)}


def forms_of(*, quantised: bool, built: bool, precisions: Sequence[str] | None = None) -> tuple[Form, ...]:
    """The files of a network, most exact first. precisions: beside fp32, which every float network gives; none: fp16.

    built: weights are stored as less than what runs, as PHM factors or in few bits.
    Raises UsageError for a precision that such a network does not give.
    """
    offered = _OFFERED[quantised]
    asked = {offered[0], *(offered[:2] if precisions is None else precisions)}
    for precision in sorted(asked - {*offered}):
        remedy = "Choose of those"
        if quantised:
            remedy = "Export the network before stage 'qat'"
        elif precision == "int8":
            remedy = "Add stage 'qat' to it"
        raise UsageError(
            f"A {'quantised' if quantised else 'float'} network gives {', '.join(offered)}, not {precision}. {remedy}."
        )
    forms: list[Form] = []
    for need in _NEEDS:
        if need.precision not in asked:
            continue
        if built and need.folding:
            forms.append(Form(need.precision, need.activations, "factors", need.folding, built))
            forms.append(Form(need.precision, need.activations, "dense", need.plain, built))
        else:
            forms.append(Form(need.precision, need.activations, "dense", need.folding + need.plain, built))
    return tuple(forms)
