"""TensorRT-RTX builds each file that it is to take, ahead of time and without a GPU."""

from __future__ import annotations

import pytest
from rtx_parser import building_errors, parsing_errors
from tiny_models import clips, compressed

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.deploy.export import Exported, export_model


@pytest.fixture(scope="module")
def exports() -> dict[str, Exported]:
    made = {}
    for variant, precisions in {"dense": ("fp16", "fp8"), "phm": ("fp16",), "phm-int8": None}.items():
        model = model_from_checkpoint(compressed(variant))
        made[variant] = export_model(model, clips(), metadata={}, precisions=precisions)
    return made


@pytest.mark.parametrize("capability", ["SM86", "SM89"])
@pytest.mark.parametrize("variant", ["dense", "phm", "phm-int8"])
def test_every_file_for_it_becomes_a_plan(exports: dict[str, Exported], variant: str, capability: str) -> None:
    built = 0
    for file in exports[variant].files:
        if "tensorrt-rtx" in file.engines and (file.precision != "fp8" or capability == "SM89"):
            assert building_errors(file.content, clips().shape[1:], capability) == [], file.file_name
            built += 1
    assert built == {"dense": 2 + (capability == "SM89"), "phm": 2, "phm-int8": 1}[variant]


def test_older_gpus_have_no_float8(exports: dict[str, Exported]) -> None:
    (file,) = (file for file in exports["dense"].files if file.precision == "fp8")
    assert "fp8_e4m3" in " ".join(building_errors(file.content, clips().shape[1:], "SM86"))


def test_biases_in_whole_numbers_are_refused(exports: dict[str, Exported]) -> None:
    """Why the signed file holds float biases: this fails when TensorRT-RTX takes them, and ours may go."""
    (file,) = (file for file in exports["phm-int8"].files if file.file_name == "model.int8-u8-dense.onnx")
    (error,) = parsing_errors(file.content)
    assert "input has type Int32 but must have type" in error
