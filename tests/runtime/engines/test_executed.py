"""A planted silent fall-back is found by what ran, whatever was claimed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import write_bundle

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines import ort
from edgelip.runtime.engines.executed import Product, fallback_of, products_in_profile
from edgelip.runtime.engines.openvino import OpenvinoEngine
from edgelip.runtime.engines.ort import CPU, OrtCudaEngine, OrtEngine, _OrtEngine
from edgelip.runtime.errors import BundleError
from edgelip.runtime.recogniser import Recogniser

CUDA = "CUDAExecutionProvider"


def _event(kernel: str, provider: str, kind: str = "float", name: str = "n") -> dict[str, Any]:
    details = {"op_name": kernel, "provider": provider, "input_type_shape": [{kind: [1, 2]}, {"float": [2]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": details}


def _profile(*events: dict[str, Any]) -> str:
    return json.dumps([{"cat": "Session", "name": "model_run", "args": {}}, *events])


def test_products_are_read_with_provider_and_precision() -> None:
    profile = _profile(
        _event("Conv", CUDA),
        _event("Relu", CPU),
        _event("QLinearConv", CPU, "uint8"),
        _event("DynamicQuantizeMatMul", CPU),
        _event("FusedGemm", CPU, "float16"),
        {"cat": "Node", "name": "n_fence_before", "args": {"op_name": "Conv"}},
    )
    assert products_in_profile(profile) == [
        Product("Conv", CUDA, "fp32"),
        Product("QLinearConv", CPU, "int8"),
        Product("DynamicQuantizeMatMul", CPU, "int8"),
        Product("FusedGemm", CPU, "fp16"),
    ]


FLOAT, INT8 = Product("Conv", CPU, "fp32"), Product("QLinearConv", CPU, "int8")


@pytest.mark.parametrize(
    ("products", "precision", "told"),
    [
        ([FLOAT, FLOAT], "fp32", None),
        ([INT8, FLOAT], "int8", None),  # a layer that was left exact
        ([FLOAT, FLOAT], "int8", "int8 is claimed, but 2 of 2 products ran in fp32"),
        ([FLOAT, FLOAT], "fp16", "fp16 is claimed, but 2 of 2 products ran in fp32"),
        ([FLOAT, INT8], "fp32", "fp32 is claimed, but 1 of 2 products ran in int8"),
        ([], "int8", None),  # a provider that shows nothing of its inside
    ],
)
def test_another_precision_is_told(products: list[Product], precision: str, told: str | None) -> None:
    assert fallback_of(products, provider=CPU, precision=precision) == told


def test_another_provider_is_told_first() -> None:
    products = [Product("Conv", CUDA, "fp32"), FLOAT, INT8]
    assert fallback_of(products, provider=CUDA, precision="int8") == (
        "2 of 3 products ran elsewhere than on CUDAExecutionProvider: 1 Conv on CPUExecutionProvider, 1 QLinearConv on "
        "CPUExecutionProvider"
    )


class _Session:
    """A session that claims CUDA, is said to have placed all there, and runs its convolution on the CPU."""

    def __init__(self, profile: Path | None) -> None:
        self.profile, self.providers = profile, [CUDA, CPU]

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=CUDA, get_nodes=lambda: [SimpleNamespace(op_type="Conv")])]

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="clip", type="tensor(float)", shape=["batch", 1, 4, 6, 6])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="logits", type="tensor(float)", shape=["batch", 3])]

    def run(self, names: Any, feed: Any) -> None:
        assert next(iter(feed.values())).shape == (1, 1, 4, 6, 6)

    def end_profiling(self) -> str:
        assert self.profile is not None
        self.profile.write_text(_profile(_event("Conv", CPU)))
        return str(self.profile)


@pytest.fixture
def pretender(monkeypatch: pytest.MonkeyPatch) -> OrtCudaEngine:
    monkeypatch.setattr(ort, "open_session", lambda path, *, profile_prefix=None, **_: _Session(profile_prefix))
    return OrtCudaEngine(Path("model.onnx"), threads=1, options={})


def test_silent_fallback_is_found_in_what_ran(pretender: OrtCudaEngine) -> None:
    assert "fallback" not in pretender.settings
    assert pretender.fallback("fp32") == (
        "1 of 1 products ran elsewhere than on CUDAExecutionProvider: 1 Conv on CPUExecutionProvider"
    )


def test_session_that_went_over_to_the_cpu_is_found(pretender: OrtCudaEngine) -> None:
    pretender._session.providers = [CPU]
    assert pretender.fallback("fp32") == ("CUDAExecutionProvider gave up: the session went on on CPUExecutionProvider")


def test_placement_stands_where_a_run_cannot_be_profiled(
    pretender: OrtCudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **_: Any) -> None:
        raise BundleError("ONNX Runtime cannot load model.onnx: out of memory")

    monkeypatch.setattr(ort, "open_session", full)
    assert pretender.fallback("fp32") is None
    pretender._placement["fallback"] = "1 Conv run on the CPU"
    assert pretender.fallback("fp32") == "1 Conv run on the CPU"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("executed") / "tiny"))


class _Elsewhere(_OrtEngine):
    """A provider that this machine has and that hands every node on to the CPU."""

    provider = "AzureExecutionProvider"
    key_word = "ort-azure"


def test_real_session_of_a_provider_that_runs_nothing_is_a_fallback(bundle: Bundle) -> None:
    path = bundle.model_for("ort").path
    with _Elsewhere(path, threads=1, options={"fallback": "allow"}) as engine:
        told = engine.fallback("fp32")
    assert told == "1 of 1 products ran elsewhere than on AzureExecutionProvider: 1 Gemm on CPUExecutionProvider"


def test_onnxruntime_itself_says_nothing_of_a_provider_that_is_not_there(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its own session warns and runs on the CPU. Were a build to list the provider and not have it, we would refuse.
    path = bundle.model_for("ort").path
    with pytest.warns(UserWarning, match="not in available provider names"):
        assert onnxruntime.InferenceSession(str(path), providers=[CUDA, CPU]).get_providers() == [CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    refused = pytest.raises(BundleError, match="expected CUDAExecutionProvider first")
    with pytest.warns(UserWarning, match="provider"), refused:
        OrtCudaEngine(path, threads=1, options={})


def test_float_model_on_the_cpu_is_no_fallback(bundle: Bundle) -> None:
    with Recogniser(bundle) as recogniser:
        assert recogniser.fallback() is None
        assert recogniser.engine.fallback("int8") == "int8 is claimed, but 1 of 1 products ran in fp32"


def test_half_precision_on_a_processor_without_it_is_a_fallback(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    weight = numpy_helper.from_array(np.ones((36, 3), np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["clip"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Flatten", ["half"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["scores"], name="product"),
        helper.make_node("Cast", ["scores"], ["logits"], to=TensorProto.FLOAT),
    ]
    clip = helper.make_tensor_value_info("clip", TensorProto.FLOAT, [1, 1, 1, 6, 6])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "half", [clip], [logits], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with OrtEngine(path) as engine:
        assert engine.fallback("fp16") == "fp16 is claimed, but 1 of 1 products ran in fp32"
        assert engine.fallback("fp32") is None
    with OpenvinoEngine(path) as engine:
        assert engine.fallback("fp16") == "fp16 is claimed, but 1 of 1 products ran in fp32"
    with OpenvinoEngine(path, options={"precision": "f32"}) as engine:
        assert engine.fallback("fp16") is None  # asked for by name
