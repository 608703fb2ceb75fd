from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_bundles import write_bundle

from edgelip.cli.predict_latency import roofline_text
from edgelip.errors import BundleError, UsageError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


def _text(bundle: Path, device: str, **more: object) -> str:
    return roofline_text(bundle, device, **{"engine": None, "precision": None, "as_json": False, **more})  # type: ignore[arg-type]


def test_table_names_the_file_the_device_and_the_kind_of_number(bundle: Path) -> None:
    first, *_ = _text(bundle, "raspberry-pi-5").splitlines()
    assert first == "tiny/model.fp32.onnx on the CPU of raspberry-pi-5, one clip [predicted, datasheet]"


def test_json_has_the_layers(bundle: Path) -> None:
    document = json.loads(_text(bundle, "raspberry-pi-5", as_json=True))
    assert [layer["operators"] for layer in document["layers"]] == [["ReduceMean"], ["Gemm"]]
    assert document["macs"] == 3  # one feature to three words


def test_engine_may_be_chosen_among_those_of_the_device(bundle: Path) -> None:
    assert "model.fp32.onnx" in _text(bundle, "h200", engine="ort")
    with pytest.raises(UsageError, match=r"raspberry-pi-5 runs ort, ort-xnnpack; got engine 'openvino'\."):
        _text(bundle, "raspberry-pi-5", engine="openvino")


def test_bundle_without_a_file_for_the_engine_is_refused(bundle: Path) -> None:
    with pytest.raises(
        BundleError, match=r"tiny has no model for engine 'tensorrt'\. It has: fp32 for ort, openvino\."
    ):
        _text(bundle, "h200")


def test_precision_that_the_device_lacks_is_refused_before_the_bundle_is_asked(bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"raspberry-pi-4 takes fp32, int8; got fp16\."):
        _text(bundle, "raspberry-pi-4", precision="fp16")


def test_device_without_figures_is_refused(bundle: Path) -> None:
    with pytest.raises(UsageError, match="x86 has no memory_gbps in its datasheet"):
        _text(bundle, "x86")


def test_changed_bundle_is_refused(bundle: Path) -> None:
    (bundle / "model.fp32.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="has changed"):
        _text(bundle, "raspberry-pi-5")
