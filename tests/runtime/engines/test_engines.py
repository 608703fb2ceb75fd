from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_bundles import SPEC, expected_logits, make_clips, write_model

from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import ENGINES, engine_class, open_engine
from edgelip.runtime.engines.executed import nodes_by_provider, refuse_fallback
from edgelip.runtime.engines.ort import CPU, OrtEngine, _OrtEngine, open_session
from edgelip.runtime.errors import BundleError, MissingError, UsageError

HERE = ["ort", "openvino"]  # engines that run on any machine with the development packages
PROVIDERS = [name for name in ENGINES if name.startswith("ort-")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("num_clips", [1, 5])
def test_engine_gives_the_logits_of_the_formula(model: Path, name: str, num_clips: int) -> None:
    frames_BTHW = make_clips(num_clips)
    with open_engine(name, model, num_words=3) as engine:
        logits_BV = engine.infer(network_input(frames_BTHW, SPEC))
        np.testing.assert_allclose(logits_BV, expected_logits(frames_BTHW), atol=1e-5)
        assert logits_BV.dtype == np.float32


@pytest.mark.parametrize("name", HERE)
def test_engine_keeps_earlier_results(model: Path, name: str) -> None:
    clips = network_input(make_clips(2), SPEC)
    with open_engine(name, model) as engine:
        first = engine.infer(clips[:1])
        kept = first.copy()
        engine.infer(clips[1:])
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", HERE)
def test_engine_records_what_bears_on_its_speed(model: Path, name: str) -> None:
    with open_engine(name, model, threads=2) as engine:
        settings = engine.settings
    assert "2" in (settings.get("intra_op_threads"), settings.get("INFERENCE_NUM_THREADS"))
    assert settings[engine_class(name).package]


@pytest.mark.parametrize("name", HERE)
def test_engine_refuses_a_damaged_model_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x00\x01\x02 not a model")
    with pytest.raises(BundleError, match=r"cannot load .*model\.onnx: ") as caught:
        open_engine(name, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HERE)
def test_engine_refuses_clips_of_another_shape_in_one_line(model: Path, name: str) -> None:
    with open_engine(name, model) as engine, pytest.raises(BundleError, match=r"fails on clips \(1, 1, 4, 5, 5\)"):
        engine.infer(np.zeros((1, 1, 4, 5, 5), np.float32))


def test_engine_refuses_a_model_for_another_vocabulary(model: Path) -> None:
    with pytest.raises(BundleError, match="gives 3 logits a clip; the vocabulary has 25 words"):
        open_engine("ort", model, num_words=25)


def test_engine_refuses_a_model_that_takes_no_clips(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", 3]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "m.onnx",
    )
    with pytest.raises(BundleError, match=r"takes \(None, 3\) to \(None, 3\); expected clips \(B, 1, T, H, W\)"):
        open_engine("ort", tmp_path / "m.onnx")


def test_engine_names_are_known(model: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no engine 'onnx'. Known: ort, ort-cuda, .*, openvino, "):
        open_engine("onnx", model)
    with pytest.raises(UsageError, match="threads is 0; expected 1 or more"):
        open_engine("ort", model, threads=0)


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrtEngine, "package", "engine_of_another_planet")
    with pytest.raises(MissingError) as caught:
        engine_class("ort")
    wanted = (
        "engine_of_another_planet is not installed; the engine 'ort' needs it. pip install engine-of-another-planet"
    )
    assert str(caught.value) == wanted


def test_ort_session_saves_the_optimised_model_and_a_profile(model: Path, tmp_path: Path) -> None:
    paths = {"optimised_path": tmp_path / "optimised.onnx", "profile_prefix": tmp_path / "profile"}
    session = open_session(model, **paths)
    session.run(None, {"clips": network_input(make_clips(1), SPEC)})
    assert Path(session.end_profiling()).stat().st_size > 0
    assert onnx.load(tmp_path / "optimised.onnx").graph.node


@pytest.mark.parametrize("name", PROVIDERS)
def test_absent_provider_is_missing_and_never_replaced(model: Path, name: str) -> None:
    provider = engine_class(name).provider  # type: ignore[attr-defined]
    with pytest.raises(MissingError, match=rf"^onnxruntime \S+ has .*CPUExecutionProvider; expected {provider}\. Inst"):
        open_engine(name, model)


def _subgraph(provider: str, *operators: str) -> SimpleNamespace:
    nodes = [SimpleNamespace(op_type=operator) for operator in operators]
    return SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)


def test_nodes_are_counted_by_the_provider_that_got_them() -> None:
    subgraphs = [_subgraph("A", "Conv", "Relu"), _subgraph(CPU, "Reshape"), _subgraph("A", "Gemm")]
    assert nodes_by_provider(subgraphs) == {"A": ["Conv", "Relu", "Gemm"], CPU: ["Reshape"]}


def test_nodes_are_counted_in_a_real_session(model: Path) -> None:
    session = open_session(model, config={"session.record_ep_graph_assignment_info": "1"})
    assert nodes_by_provider(session.get_provider_graph_assignment_info()) == {CPU: ["ReduceMean", "Gemm"]}


def test_arithmetic_on_the_cpu_is_refused_unless_allowed() -> None:
    nodes = {"CUDAExecutionProvider": ["Conv", "Relu"], CPU: ["QLinearConv", "Conv", "Conv", "Reshape"]}
    with pytest.raises(BundleError) as caught:
        refuse_fallback(nodes, "CUDAExecutionProvider", allowed=False)
    assert str(caught.value) == (
        "CUDAExecutionProvider takes 2 of 6 nodes; 1 QLinearConv, 2 Conv fall back to the CPU. Use another precision "
        "or engine, or accept it: --option fallback=allow."
    )
    told = refuse_fallback(nodes, "CUDAExecutionProvider", allowed=True)
    assert told == {
        "nodes_on_provider": "2 of 6",
        "fallback": "1 QLinearConv, 2 Conv run on the CPU, 2 of 6 nodes on CUDAExecutionProvider",
    }


def test_shape_arithmetic_on_the_cpu_is_no_fallback() -> None:
    nodes = {"CUDAExecutionProvider": ["Conv"], CPU: ["Shape", "Gather"]}
    told = refuse_fallback(nodes, "CUDAExecutionProvider", allowed=False)
    assert told == {"nodes_on_provider": "1 of 3"}


class _Elsewhere(_OrtEngine):
    """A provider that this machine has and that is not ONNX Runtime's CPU; it hands every node on."""

    provider = "AzureExecutionProvider"
    key_word = "ort-azure"


def test_a_provider_that_takes_nothing_is_refused_and_marked_where_allowed(model: Path) -> None:
    with pytest.raises(BundleError, match="AzureExecutionProvider takes 0 of 2 nodes; 1 Gemm fall back to the CPU"):
        _Elsewhere(model, threads=1, options={})
    settings = _Elsewhere(model, threads=1, options={"fallback": "allow"}).settings
    assert settings["nodes_on_provider"] == "0 of 2"
    assert settings["fallback"].startswith("1 Gemm run on the CPU")


def test_an_older_onnxruntime_can_still_refuse(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(onnxruntime.InferenceSession.__mro__[1], "get_provider_graph_assignment_info")
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load .*fallback"):
        _Elsewhere(model, threads=1, options={})
    settings = _Elsewhere(model, threads=1, options={"fallback": "allow"}).settings
    assert settings["fallback"] == "this onnxruntime does not tell what runs on the CPU"


def test_options_are_those_of_the_engine(model: Path) -> None:
    with pytest.raises(UsageError, match=r"^Engine 'ort' has no option 'hint'\. It has none\.$"):
        open_engine("ort", model, options={"hint": "latency"})
    with pytest.raises(UsageError, match=r"^Engine 'openvino' has no option 'hin'\. It has hint, precision\.$"):
        open_engine("openvino", model, options={"hin": "latency"})
    with pytest.raises(
        UsageError, match=r"^Option hint of engine 'openvino' is 'x'; expected latency or throughput\.$"
    ):
        open_engine("openvino", model, options={"hint": "x"})


def test_openvino_gives_the_same_in_throughput_mode(model: Path) -> None:
    frames_BTHW = make_clips(7)
    with open_engine("openvino", model, threads=2, options={"hint": "throughput"}) as engine:
        logits_BV = engine.infer(network_input(frames_BTHW, SPEC))
        assert (engine.settings["PERFORMANCE_HINT"], engine.settings["NUM_STREAMS"]) == ("THROUGHPUT", "2")
    np.testing.assert_allclose(logits_BV, expected_logits(frames_BTHW), atol=1e-5)


def test_device_keys_name_processor_engine_and_version() -> None:
    assert re.fullmatch(r"[a-z0-9]+-[a-z0-9]+-ort\d+\.\d+", engine_class("ort").device_key({}))
    assert re.fullmatch(r"openvino\d{4}\.\d+", engine_class("openvino").device_key({}))
