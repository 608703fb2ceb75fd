from __future__ import annotations

import pytest

from edgelip.deploy.forms import forms_of
from edgelip.errors import UsageError
from edgelip.runtime.engines.engine import ENGINES


def files(**network: object) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(form.file_name, form.weights, form.engines) for form in forms_of(**network)]  # type: ignore[arg-type]


FOLDING = ("ort", "ort-cuda", "ort-xnnpack", "openvino")
PLAIN = ("ort-coreml", "ort-tensorrt", "tensorrt", "tensorrt-rtx")
TENSORRT = ("tensorrt", "tensorrt-rtx")


def test_a_float_network_gives_every_engine_fp32_and_fp16() -> None:
    assert files(quantised=False, built=False) == [
        ("model.fp32.onnx", "dense", FOLDING + PLAIN),
        ("model.fp16.onnx", "dense", FOLDING + PLAIN),
    ]


def test_a_phm_network_gives_factors_to_those_that_fold_them() -> None:
    assert files(quantised=False, built=True, precisions=["fp8", "fp16"]) == [
        ("model.fp32.onnx", "factors", FOLDING),
        ("model.fp32-dense.onnx", "dense", PLAIN),
        ("model.fp16.onnx", "factors", FOLDING),
        ("model.fp16-dense.onnx", "dense", PLAIN),
        ("model.fp8-dense.onnx", "dense", TENSORRT),
    ]


def test_a_quantised_network_gives_unsigned_and_signed_activations() -> None:
    assert files(quantised=True, built=False) == [
        ("model.int8-u8.onnx", "dense", ("ort", "ort-xnnpack", "openvino", "ort-qnn")),
        ("model.int8-s8.onnx", "dense", ("ort-tensorrt", *TENSORRT)),
    ]
    assert files(quantised=True, built=True, precisions=["int8"]) == [
        ("model.int8-u8.onnx", "factors", ("ort", "ort-xnnpack")),
        ("model.int8-u8-dense.onnx", "dense", ("openvino", "ort-qnn")),
        ("model.int8-s8-dense.onnx", "dense", ("ort-tensorrt", *TENSORRT)),
    ]


@pytest.mark.parametrize("built", [False, True])
def test_fp32_is_always_there_and_alone_if_nothing_else_is_asked(built: bool) -> None:
    assert {form.precision for form in forms_of(quantised=False, built=built, precisions=())} == {"fp32"}


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("built", [False, True])
def test_of_one_precision_every_engine_takes_one_file(quantised: bool, built: bool) -> None:
    asked = ("int8",) if quantised else ("fp16", "fp8")
    forms = forms_of(quantised=quantised, built=built, precisions=asked)
    taken = [(form.precision, engine) for form in forms for engine in form.engines]
    assert len(taken) == len({*taken})
    assert {engine for _, engine in taken} <= {*ENGINES}
    assert len({form.file_name for form in forms}) == len(forms)


@pytest.mark.parametrize(
    ("quantised", "asked", "message"),
    [
        (
            True,
            ("fp16",),
            "A quantised network gives int8, not fp16. Export the network before stage 'qat'.",
        ),
        (False, ("fp16", "int8"), "A float network gives fp32, fp16, fp8, not int8. Add stage 'qat' to it."),
        (False, ("int4",), "A float network gives fp32, fp16, fp8, not int4. Choose of those."),
    ],
)
def test_a_precision_that_the_network_does_not_give_is_refused(
    quantised: bool, asked: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        forms_of(quantised=quantised, built=False, precisions=asked)
    assert str(caught.value) == message
