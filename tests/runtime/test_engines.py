from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_bundles import SPEC, expected_logits, make_clips, write_model

from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import ENGINES, engine_class, open_engine
from edgelip.runtime.engines.ort import OrtEngine
from edgelip.runtime.errors import BundleError, MissingError, UsageError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("num_clips", [1, 5])
def test_engine_gives_the_logits_of_the_formula(model: Path, name: str, num_clips: int) -> None:
    frames_BTHW = make_clips(num_clips)
    with open_engine(name, model, num_words=3) as engine:
        logits_BV = engine.infer(network_input(frames_BTHW, SPEC))
        np.testing.assert_allclose(logits_BV, expected_logits(frames_BTHW), atol=1e-5)
        assert logits_BV.dtype == np.float32


@pytest.mark.parametrize("name", ENGINES)
def test_engine_keeps_earlier_results(model: Path, name: str) -> None:
    clips = network_input(make_clips(2), SPEC)
    with open_engine(name, model) as engine:
        first = engine.infer(clips[:1])
        kept = first.copy()
        engine.infer(clips[1:])
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ENGINES)
def test_engine_records_what_bears_on_its_speed(model: Path, name: str) -> None:
    with open_engine(name, model, threads=2) as engine:
        settings = engine.settings
    assert "2" in (settings.get("intra_op_threads"), settings.get("INFERENCE_NUM_THREADS"))
    assert settings[engine_class(name).package]


@pytest.mark.parametrize("name", ENGINES)
def test_engine_refuses_a_damaged_model_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x00\x01\x02 not a model")
    with pytest.raises(BundleError, match=r"cannot load .*model\.onnx: ") as caught:
        open_engine(name, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ENGINES)
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
    with pytest.raises(UsageError, match=r"There is no engine 'onnx'. Known: ort, openvino\."):
        open_engine("onnx", model)
    with pytest.raises(UsageError, match="threads is 0; expected 1 or more"):
        open_engine("ort", model, threads=0)


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrtEngine, "package", "onnxruntime_of_another_planet")
    with pytest.raises(MissingError) as caught:
        engine_class("ort")
    name = "onnxruntime_of_another_planet"
    assert str(caught.value) == f"{name} is not installed; the engine 'ort' needs it. pip install {name}"


def test_ort_saves_the_optimised_model_and_a_profile(model: Path, tmp_path: Path) -> None:
    engine = OrtEngine(model, optimised_path=tmp_path / "optimised.onnx", profile_prefix=tmp_path / "profile")
    engine.infer(network_input(make_clips(1), SPEC))
    assert engine.end_profiling().stat().st_size > 0
    assert onnx.load(tmp_path / "optimised.onnx").graph.node
