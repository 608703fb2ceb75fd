"""The TensorRT builder: what each option does to the plan, what is written beside it, how refusals read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from fake_tensorrt import FakeTensorrt, build_and_run, install, make_module
from fake_trt_run import FakeCuda
from onnx import TensorProto, helper
from tiny_bundles import write_model

from edgelip.runtime.engines import trt, trt_build
from edgelip.runtime.engines.engine import BuildResult, Engine, engine_class
from edgelip.runtime.errors import BundleError, MissingError, UsageError


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    module = make_module("10.3.0")
    install(module, monkeypatch)
    return module


def build(tmp_path: Path, kind: type[Engine] = trt.TensorrtEngine, say: Any = str, **options: str) -> BuildResult:
    """Build the tiny model in tmp_path, unless one is there already."""
    if not (tmp_path / "model.onnx").exists():
        write_model(tmp_path / "model.onnx")
    return kind.build(tmp_path / "model.onnx", tmp_path, options=options, say=say)


def plan_of(tmp_path: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((tmp_path / "engine.plan").read_bytes())
    return plan


def write_odd_model(path: Path, *operators: str, batch: int | str = "B", inputs: int = 1) -> None:
    """The tiny model with nodes that the fake refuses at some step."""
    write_model(path, clip=(batch, 1, 4, 6, 6))
    model = onnx.load(path)
    model.graph.node.extend(
        helper.make_node(operator, ["logits"], [f"unused{index}"], name=f"node{index}")
        for index, operator in enumerate(operators)
    )
    model.graph.input.extend(
        helper.make_tensor_value_info(f"more{index}", TensorProto.FLOAT, [1]) for index in range(inputs - 1)
    )
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("option", "word", "field", "value"),
    [
        ("tf32", "yes", "flags", ["TF32"]),
        ("sparse", "yes", "flags", ["SPARSE_WEIGHTS"]),
        ("weight_stripped", "yes", "flags", ["REFIT_IDENTICAL", "STRIP_PLAN"]),
        ("version_compatible", "yes", "flags", ["VERSION_COMPATIBLE"]),
        ("workspace_mib", "64", "workspace", 64 << 20),
        ("builder_optimization_level", "0", "level", 0),
        ("hardware_compatible", "ampere_plus", "hardware", "HardwareCompatibilityLevel.AMPERE_PLUS"),
        ("max_batch", "3", "bounds", [[1, 1, 4, 6, 6], [1, 1, 4, 6, 6], [3, 1, 4, 6, 6]]),
        ("opt_batch", "32", "bounds", [[1, 1, 4, 6, 6], [32, 1, 4, 6, 6], [32, 1, 4, 6, 6]]),
    ],
)
def test_an_option_changes_the_plan_and_is_recorded(
    module: FakeTensorrt, tmp_path: Path, option: str, word: str, field: str, value: object
) -> None:
    before = build(tmp_path).settings
    assert plan_of(tmp_path)[field] != value
    after = build(tmp_path, **{option: word}).settings
    assert plan_of(tmp_path)[field] == value
    assert before != after


def test_settings_say_what_the_plan_is(module: FakeTensorrt, tmp_path: Path) -> None:
    result = build(tmp_path)
    assert result.main == "engine.plan"
    assert dict(result.settings) == {
        "tensorrt": "10.3.0",
        "device": "sm87",
        "strongly_typed": "yes",
        "batch": "1/1/16",
        "workspace": "no limit set",
        "builder_optimization_level": "3",
        "hardware_compatible": "no",
        "profiling_verbosity": "DETAILED",
        "tf32": "no",
        "sparse": "no",
        "weight_stripped": "no",
        "version_compatible": "no",
        "timing_cache": f"7 bytes, sha256 {hashlib.sha256(b'kernel;').hexdigest()}",
        "layers": "layers.json",
    }
    assert json.loads((tmp_path / "layers.json").read_text()) == {"Layers": ["ReduceMean", "Gemm"]}
    assert not (tmp_path / "plan.json").exists()


def test_the_timing_cache_of_one_build_feeds_the_next(module: FakeTensorrt, tmp_path: Path) -> None:
    build(tmp_path)
    kept = tmp_path / "kept.cache"
    (tmp_path / "timing.cache").rename(kept)
    result = build(tmp_path, timing_cache=str(kept))
    assert (tmp_path / "timing.cache").read_bytes() == b"kernel;kernel;"
    assert result.settings["timing_cache"].startswith("14 bytes, sha256 ")


def test_a_timing_cache_that_does_not_fit_is_refused(
    module: FakeTensorrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "t.cache"
    with pytest.raises(UsageError, match=r"^Option timing_cache is '.*t\.cache', which is no file\. Leave it out"):
        build(tmp_path, timing_cache=str(cache))
    cache.write_bytes(b"of another device")
    with pytest.raises(UsageError, match=r"^Option timing_cache: TensorRT refuses .*t\.cache\. Leave it out"):
        build(tmp_path, timing_cache=str(cache))
    monkeypatch.setattr(trt_build, "TIMING_CACHE_LIMIT_BYTES", 16)
    with pytest.raises(UsageError, match=r"^Option timing_cache: t\.cache has 17 bytes; the limit is 16\."):
        build(tmp_path, timing_cache=str(cache))


def test_what_opening_needs_is_written_beside_the_plan(module: FakeTensorrt, tmp_path: Path) -> None:
    build(tmp_path, weight_stripped="yes", version_compatible="yes")
    digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    note = json.loads((tmp_path / "plan.json").read_bytes())
    assert note == {"host_code": True, "weights": {"model": "model.onnx", "sha256": digest}}
    assert plan_of(tmp_path)["weights"] is None


def test_parser_errors_are_all_reported_in_one_line(module: FakeTensorrt, tmp_path: Path) -> None:
    write_odd_model(tmp_path / "model.onnx", "UnknownA", "UnknownB")
    with pytest.raises(BundleError) as caught:
        build(tmp_path)
    assert str(caught.value) == (
        "TensorRT cannot read model.onnx: UnknownA node0: no importer; UnknownB node1: no importer"
    )
    (tmp_path / "model.onnx").write_bytes(b"\x00 not a model")
    with pytest.raises(BundleError) as caught:
        build(tmp_path)
    assert str(caught.value) == "TensorRT cannot read model.onnx: Assertion failed: Failed to parse the ONNX model."


def test_the_first_error_of_a_failed_build_is_its_message(module: FakeTensorrt, tmp_path: Path) -> None:
    write_odd_model(tmp_path / "model.onnx", "Unbuildable")
    with pytest.raises(BundleError) as caught:
        build(tmp_path)
    assert str(caught.value) == ("TensorRT cannot build model.onnx: Error Code 1: Myelin (first reason) in two lines")
    assert not (tmp_path / "engine.plan").exists()


def test_a_builder_that_cannot_be_made_is_one_line(
    module: FakeTensorrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr("fake_trt_build.Builder.__init__", refuse)
    with pytest.raises(BundleError, match=r"^TensorRT cannot build model.onnx: it gives no reason \(pybind11::init"):
        build(tmp_path)


def test_a_fixed_batch_needs_no_profile_and_takes_no_batch_options(module: FakeTensorrt, tmp_path: Path) -> None:
    write_odd_model(tmp_path / "model.onnx", batch=2)
    assert build(tmp_path).settings["batch"] == "2/2/2"
    with pytest.raises(
        UsageError, match=r"^model.onnx has a fixed batch of 2; leave min_batch, opt_batch and max_batch"
    ):
        build(tmp_path, max_batch="4")


def test_odd_inputs_are_refused(module: FakeTensorrt, tmp_path: Path) -> None:
    write_odd_model(tmp_path / "model.onnx", inputs=2)
    with pytest.raises(BundleError, match=r"^model.onnx has 2 inputs; expected one, clips \(B, 1, T, H, W\)\.$"):
        build(tmp_path)
    write_model(tmp_path / "model.onnx", clip=("B", 1, "T", 6, 6))
    with pytest.raises(BundleError, match=r"^model.onnx takes \(-1, 1, -1, 6, 6\); expected every axis but the batch"):
        build(tmp_path)


def test_progress_and_warnings_are_said_and_stdout_stays_empty(
    module: FakeTensorrt, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    build(tmp_path, say=said.append)
    assert said[:2] == [
        "building model.onnx for 1/1/16 clips (fewest/best/most), workspace: no limit set",
        "warning: a warning of two lines",
    ]
    assert said[2].startswith("Building engine: 6 steps in ")
    assert said[-1] == f"engine.plan: {(tmp_path / 'engine.plan').stat().st_size} bytes for sm87"
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_stops_the_build(module: FakeTensorrt, tmp_path: Path) -> None:
    def interrupt(text: str) -> None:
        if text.startswith("warning"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, say=interrupt)
    assert not (tmp_path / "engine.plan").exists()


def test_keys_name_device_version_and_jetpack(module: FakeTensorrt, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trt.TensorrtEngine.device_key({}) == "sm87-trt10.3.0"
    monkeypatch.setattr(trt, "jetpack_version", lambda: "6.2")
    assert trt.TensorrtEngine.device_key({}) == "sm87-trt10.3.0-jp6.2"
    assert trt.TensorrtEngine.device_key({"hardware_compatible": "ampere_plus"}) == "sm80plus-trt10.3.0-jp6.2"
    module.api.cuda = FakeCuda((7, 2))
    with pytest.raises(UsageError, match=r"^Option hardware_compatible is 'ampere_plus', this is sm72; expected sm80"):
        trt.TensorrtEngine.device_key({"hardware_compatible": "ampere_plus"})


def test_rtx_builds_for_a_named_device_without_any(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = make_module("rtx-1.7.1")
    kind = install(module, monkeypatch)
    module.api.cuda = None
    assert kind.device_key({"sm": "89"}) == "sm89-rtx1.7.1"
    result = build(tmp_path, kind, sm="89")
    assert plan_of(tmp_path)["capability"] == "ComputeCapability.SM89"
    assert result.settings["device"] == "sm89"
    assert result.settings["timing_cache"] == "none"
    assert result.settings["layers"] == "none: no CUDA device here to open the plan on"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.plan", "model.onnx"]
    with pytest.raises(MissingError) as caught:
        kind.device_key({})
    assert str(caught.value) == (
        "there is no CUDA device (fake). Or build for another machine: --option sm=75|80|86|89|120|121."
    )


@pytest.mark.parametrize("word", ["87", "86,89", "CURRENT", "x" * 200])
def test_rtx_names_what_it_can_build_for(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    kind = install(make_module("rtx-1.7.1"), monkeypatch)
    with pytest.raises(UsageError) as caught:
        kind.device_key({"sm": word})
    assert str(caught.value) == f"Option sm is {word[:80]!r}; expected one of 75, 80, 86, 89, 120, 121."


def test_rtx_leaves_layers_out_when_it_builds_for_another_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind = install(make_module("rtx-1.7.1"), monkeypatch)
    assert build(tmp_path, kind, sm="89").settings["layers"] == "none: built for sm89, this is sm86"
    assert build(tmp_path, kind, sm="86").settings["layers"] == "layers.json"


def test_tensorrt_needs_a_device_to_build(module: FakeTensorrt, tmp_path: Path) -> None:
    module.api.cuda = None
    with pytest.raises(MissingError, match=r"^there is no CUDA device"):
        build(tmp_path)


def test_the_engines_are_in_the_table(module: FakeTensorrt) -> None:
    assert engine_class("tensorrt") is trt.TensorrtEngine
    assert trt.TensorrtEngine.needs_build
    assert trt.TensorrtRtxEngine.needs_build
    assert set(trt.TensorrtRtxEngine.OPTIONS) - set(trt.TensorrtEngine.OPTIONS) == {"sm"}
    assert set(trt.TensorrtEngine.OPTIONS) - set(trt.TensorrtRtxEngine.OPTIONS) == {
        "builder_optimization_level",
        "hardware_compatible",
        "sparse",
        "timing_cache",
    }


def test_rtx_builds_nothing_else_after_a_failed_build_for_turing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind = install(make_module("rtx-1.7.1"), monkeypatch)
    monkeypatch.setattr(trt.TensorrtRtxEngine, "_spoilt", False)
    write_odd_model(tmp_path / "model.onnx", "Unbuildable")
    for sm in ("86", "75", "75"):
        with pytest.raises(BundleError, match="first reason"):
            build(tmp_path, kind, sm=sm)
    with pytest.raises(BundleError) as caught:
        build(tmp_path, kind, sm="86")
    assert str(caught.value) == (
        "a build for sm75 failed in this process, and TensorRT-RTX would write another plan after that. Build "
        "model.onnx in a process of its own."
    )


def test_a_stripped_plan_gets_its_weights_back(module: FakeTensorrt, tmp_path: Path) -> None:
    plan = build_and_run(trt.TensorrtEngine, tmp_path, {"weight_stripped": "yes"})
    assert plan["weights"] is None
