"""Opening and running TensorRT plans: what is checked first, batches, memory, and that nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import FakeTensorrt, install, make_module
from fake_trt_run import FakeCuda
from tiny_bundles import SPEC, expected_logits, make_clips, write_bundle, write_model

from edgelip.runtime.artefact import build_artefact, find_artefact
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import open_engine
from edgelip.runtime.engines.trt import TensorrtEngine
from edgelip.runtime.engines.trt_run import PlanRunner
from edgelip.runtime.errors import BundleError, MissingError
from edgelip.runtime.recogniser import Recogniser


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    module = make_module("10.3.0")
    install(module, monkeypatch)
    return module


@pytest.fixture
def build(module: FakeTensorrt, tmp_path: Path) -> Callable[..., Path]:
    """Builds the tiny model where a bundle has it; gives the plan."""

    def run(edit: Callable[[dict[str, Any]], None] = lambda plan: None, **options: str) -> Path:
        folder = tmp_path / "engines" / "sm87-trt10.3.0" / "model"
        folder.mkdir(parents=True, exist_ok=True)
        write_model(tmp_path / "model.onnx")
        path = folder / TensorrtEngine.build(tmp_path / "model.onnx", folder, options=options, say=str).main
        plan = json.loads(path.read_bytes())
        edit(plan)
        path.write_text(json.dumps(plan))
        return path

    return run


def open_plan(path: Path, **options: str) -> TensorrtEngine:
    return TensorrtEngine(path, threads=1, options=options)


@pytest.mark.parametrize("num_clips", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("options", [{"max_batch": "4"}, {"min_batch": "3", "max_batch": "4"}])
def test_any_number_of_clips_runs_in_pieces_the_plan_takes(
    build: Callable[..., Path], module: FakeTensorrt, num_clips: int, options: dict[str, str]
) -> None:
    frames_NTHW = make_clips(num_clips)
    with open_plan(build(**options)) as engine:
        logits_NV = engine.infer(network_input(frames_NTHW, SPEC))
    assert logits_NV.dtype == np.float32
    assert logits_NV.shape == (num_clips, 3)
    np.testing.assert_allclose(logits_NV, expected_logits(frames_NTHW), atol=1e-5)
    assert module.api.cuda is not None
    assert module.api.cuda.num_allocations == 2


def test_a_larger_batch_after_a_smaller_one_is_whole(build: Callable[..., Path]) -> None:
    frames_NTHW = make_clips(4)
    clips_B1THW = network_input(frames_NTHW, SPEC)
    with open_plan(build()) as engine:
        for num_clips in (1, 4, 2):
            wanted = expected_logits(frames_NTHW[:num_clips])
            np.testing.assert_allclose(engine.infer(clips_B1THW[:num_clips]), wanted, atol=1e-5)


def test_clips_in_another_layout_or_type_are_taken_for_what_they_hold(build: Callable[..., Path]) -> None:
    frames_NTHW = make_clips(4)
    clips = network_input(frames_NTHW, SPEC)
    with open_plan(build()) as engine:
        wanted = expected_logits(frames_NTHW)
        np.testing.assert_allclose(engine.infer(np.asfortranarray(clips)), wanted, atol=1e-5)
        np.testing.assert_allclose(engine.infer(clips.astype(np.float64)[::2]), wanted[::2], atol=1e-5)


def test_axes_and_settings_are_those_of_the_plan(build: Callable[..., Path]) -> None:
    with open_plan(build(max_batch="4")) as engine:
        assert engine.input_axes == (None, 1, 4, 6, 6)
        assert engine.output_axes == (None, 3)
        assert engine.settings == {
            "tensorrt": "10.3.0",
            "cuda_runtime": "12.6",
            "device": "sm87",
            "batch": "1/4",
            "weights": "in the plan",
        }


def test_the_copy_is_timed_apart_and_changes_nothing(build: Callable[..., Path]) -> None:
    clips = network_input(make_clips(9), SPEC)
    with open_plan(build(max_batch="4")) as engine:
        logits_NV, copy_ns = engine.infer_split(clips)
        np.testing.assert_array_equal(logits_NV, engine.infer(clips))
        assert copy_ns is not None
        assert copy_ns > 0
        assert engine.most_clips == 4


@pytest.mark.parametrize(
    ("version", "num_bytes"), [("8.6.1", 1000), ("10.3.0", 2000), ("10.16.1", 2000), ("11.4.0", 2000)]
)
def test_activation_memory_is_what_the_version_tells(
    monkeypatch: pytest.MonkeyPatch, version: str, num_bytes: int
) -> None:
    api = make_module(version).api
    runner: Any = object.__new__(PlanRunner)
    runner._plan = SimpleNamespace(engine=api.make("ICudaEngine")({"input": ["a", []], "output": ["b", []]}))
    assert runner.activation_bytes == num_bytes
    runner._plan = None
    assert runner.activation_bytes is None


def test_closing_frees_the_device_and_may_be_done_twice(build: Callable[..., Path], module: FakeTensorrt) -> None:
    cuda = module.api.cuda
    assert cuda is not None
    with open_plan(build()) as engine:
        assert (len(cuda.memory), len(cuda.streams)) == (2, 1)
    engine.close()
    assert (cuda.memory, cuda.streams) == ({}, {})


def test_a_device_out_of_memory_keeps_nothing(
    build: Callable[..., Path], module: FakeTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cuda = build(), module.api.cuda
    assert cuda is not None
    allocate = FakeCuda.allocate

    def second_fails(self: FakeCuda, num_bytes: int) -> int:
        if self.memory:
            raise MissingError("the CUDA device has too little memory (fake).")
        return allocate(self, num_bytes)

    monkeypatch.setattr(FakeCuda, "allocate", second_fails)
    with pytest.raises(MissingError, match="too little memory"):
        open_plan(path)
    assert (cuda.memory, cuda.streams) == ({}, {})


def test_clips_of_another_shape_are_refused_in_one_line(build: Callable[..., Path]) -> None:
    with open_plan(build()) as engine, pytest.raises(BundleError) as caught:
        engine.infer(np.zeros((1, 1, 4, 5, 5), np.float32))
    assert str(caught.value) == "TensorRT fails on clips (1, 1, 4, 5, 5): the plan takes (B, 1, 4, 6, 6)"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda plan: plan.update(output=["halves", [-1, 3]]),
            r"has clips: DataType.FLOAT, halves: DataType.HALF; exp",
        ),
        (
            lambda plan: plan.update(input=["clips", [-1, 3]]),
            r"takes \(-1, 3\) to \(-1, 3\); expected clips \(B, 1, T,",
        ),
        (lambda plan: plan.update(output=["logits", [-1, -1]]), r"takes \(-1, 1, 4, 6, 6\) to \(-1, -1\); expected"),
        (lambda plan: plan.update(version="10.4.0"), r"TensorRT cannot load .*engine.plan: Serialization assertion"),
    ],
)
def test_a_plan_of_something_else_is_refused_and_keeps_nothing(
    build: Callable[..., Path], module: FakeTensorrt, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = build(edit)
    with pytest.raises(BundleError, match=message):
        open_plan(path)
    assert module.api.cuda is not None
    assert module.api.cuda.memory == {}


def test_a_failing_run_says_so_with_the_shape(build: Callable[..., Path]) -> None:
    path = build(lambda plan: plan["operators"].append("FailsToRun"))
    with open_plan(path) as engine, pytest.raises(BundleError) as caught:
        engine.infer(np.zeros((2, 1, 4, 6, 6), np.float32))
    assert str(caught.value) == "TensorRT fails on clips (2, 1, 4, 6, 6): it gives no reason"


def test_a_plan_that_gives_more_than_its_buffer_holds_never_runs(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build()
    with open_plan(path) as engine:
        monkeypatch.setattr("fake_trt_run.IExecutionContext.get_tensor_shape", lambda self, name: (99, 3))
        monkeypatch.setattr("fake_trt_run.IExecutionContext.execute_async_v3", None)
        with pytest.raises(BundleError, match=r"the plan gives \(99, 3\); expected \(2, 3\)$"):
            engine.infer(np.zeros((2, 1, 4, 6, 6), np.float32))


def test_host_code_is_allowed_only_for_a_plan_that_was_built_so(build: Callable[..., Path]) -> None:
    path = build(version_compatible="yes")
    open_plan(path).close()
    path.with_name("plan.json").unlink()
    with pytest.raises(BundleError, match="host code is not allowed"):
        open_plan(path)


def test_a_stripped_plan_refuses_other_weights(build: Callable[..., Path], tmp_path: Path) -> None:
    path = build(weight_stripped="yes")
    with open_plan(path) as engine:
        assert engine.settings["weights"] == "put back from model.onnx"
    write_model(tmp_path / "model.onnx", num_words=4)
    with pytest.raises(BundleError) as caught:
        open_plan(path)
    assert str(caught.value) == "engine.plan was stripped of other weights than model.onnx holds. Build again."


def test_a_refit_that_lacks_weights_names_them(build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(weight_stripped="yes")
    monkeypatch.setattr("fake_trt_run.weights_of", lambda graph: {"weights": [1.0]})
    with pytest.raises(BundleError, match=r"cannot put the weights of model.onnx into engine.plan: it lacks bias$"):
        open_plan(path)


@pytest.mark.parametrize(
    "note",
    [
        {"host_code": 1, "weights": None},
        {"host_code": False, "weights": {"model": "../../model.onnx", "sha256": "0" * 64}},
        {"host_code": False, "weights": {"model": "model.onnx", "sha256": "0"}},
        {"host_code": False, "weights": {"model": ["model.onnx"], "sha256": "0" * 64}},
        {"host_code": False, "weights": "model.onnx"},
        {"weights": None},
    ],
)
def test_a_note_of_another_form_is_refused(build: Callable[..., Path], note: dict[str, Any]) -> None:
    path = build()
    path.with_name("plan.json").write_text(json.dumps(note))
    with pytest.raises(BundleError, match=r"^plan.json is not what build writes beside a plan. Build again\.$"):
        open_plan(path)


def test_without_a_device_nothing_is_deserialised(
    build: Callable[..., Path], module: FakeTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build()
    module.api.cuda = None
    monkeypatch.setattr("fake_trt_run.Runtime.deserialize_cuda_engine", None)
    with pytest.raises(MissingError, match=r"^there is no CUDA device"):
        open_plan(path)


def test_an_rtx_plan_for_another_device_is_not_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kind = install(make_module("rtx-1.7.1"), monkeypatch)
    with pytest.raises(BundleError, match=r"^engine.plan is built for sm89, this is sm86. Leave --option sm out\.$"):
        kind(tmp_path / "engine.plan", threads=1, options={"sm": "89"})


def test_a_bundle_is_built_found_and_run(module: FakeTensorrt, tmp_path: Path) -> None:
    def for_tensorrt(manifest: dict[str, Any]) -> None:
        manifest["models"][0]["engines"] = ["tensorrt"]

    bundle = Bundle.open(write_bundle(tmp_path / "tiny", edit=for_tensorrt))
    artefact = build_artefact(bundle, engine="tensorrt", options={"weight_stripped": "yes"}, say=str)
    assert artefact.device_key == "sm87-trt10.3.0"
    assert sorted(artefact.files) == ["engine.plan", "layers.json", "plan.json", "timing.cache"]
    frames_NTHW = make_clips(5)
    with Recogniser(bundle, engine="tensorrt") as recogniser:
        np.testing.assert_allclose(recogniser.logits(frames_NTHW), expected_logits(frames_NTHW), atol=1e-5)
    module.api.cuda = FakeCuda((8, 9))
    with pytest.raises(BundleError, match=r"is built for sm87-trt10.3.0; this is sm89-trt10.3.0. Rebuild here: "):
        find_artefact(bundle, bundle.model_for("tensorrt"), "tensorrt", options={})


def test_open_engine_takes_a_plan(build: Callable[..., Path]) -> None:
    path = build()
    with open_engine("tensorrt", path, num_words=3) as engine:
        assert engine.infer(np.zeros((1, 1, 4, 6, 6), np.float32)).shape == (1, 3)
    with pytest.raises(BundleError, match="gives 3 logits a clip; the vocabulary has 25 words"):
        open_engine("tensorrt", path, num_words=25)
