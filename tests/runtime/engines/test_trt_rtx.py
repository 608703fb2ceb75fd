"""Real builds by TensorRT-RTX, which needs no GPU for them: the same builder that serves TensorRT."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import WORDS, write_bundle

from edgelip.runtime.artefact import build_artefact, find_artefact
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines import cuda
from edgelip.runtime.engines.engine import BuildResult, engine_class, open_engine
from edgelip.runtime.engines.trt import TensorrtRtxEngine
from edgelip.runtime.engines.trt_open import open_plan
from edgelip.runtime.errors import BundleError, MissingError

tensorrt_rtx: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has wheels for Linux alone")
VERSION = ".".join(tensorrt_rtx.__version__.split(".")[:3])


# A build where only numpy and the engine can be imported; prints the plan's name or the refusal.
_ALONE = """
import sys
from pathlib import Path
sys.modules.update(dict.fromkeys(("torch", "onnx", "onnxruntime", "pydantic")))
from edgelip.runtime.engines.trt import TensorrtRtxEngine
from edgelip.runtime.errors import BundleError
folder, sm = Path(sys.argv[1]), sys.argv[2]
try:
    print(TensorrtRtxEngine.build(folder / "model.onnx", folder, options={"sm": sm}, say=str).main)
except BundleError as error:
    print(error)
"""


def run_alone(folder: Path, sm: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _ALONE, str(folder), sm]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def has_device() -> bool:
    try:
        cuda.open_cuda().compute_capability()
    except MissingError:
        return False
    return True


def write_network(path: Path, precision: str = "fp32") -> None:
    """Conv 2-D over the frames as channels, Conv 1-D, MatMul; int8: Q/DQ around both operands; fp16: casts."""
    rng = np.random.default_rng(0)
    kind = np.float16 if precision == "fp16" else np.float32
    values: dict[str, np.ndarray] = {
        "frames": np.array([-1, 4, 6, 6], np.int64),
        "rows": np.array([-1, 8, 36], np.int64),
        "weight2": rng.normal(size=(8, 4, 3, 3)).astype(kind),
        "weight1": rng.normal(size=(8, 8, 3)).astype(kind),
        "weight0": rng.normal(size=(8, len(WORDS))).astype(kind),
        "scale": np.array(0.05, np.float32),
        "zero": np.array(0, np.int8),
    }
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def multiply(operator: str, x: str, weight: str, **attributes: Any) -> str:
        if precision == "int8":
            x, weight = (
                add("DequantizeLinear", add("QuantizeLinear", v, "scale", "zero"), "scale", "zero") for v in (x, weight)
            )
        return add(operator, x, weight, **attributes)

    x = add("Cast", "clips", to=TensorProto.FLOAT16) if precision == "fp16" else "clips"
    x = add("Relu", multiply("Conv", add("Reshape", x, "frames"), "weight2", pads=[1, 1, 1, 1]))
    x = add("Relu", multiply("Conv", add("Reshape", x, "rows"), "weight1", pads=[1, 1]))
    x = multiply("MatMul", add("ReduceMean", x, axes=[2], keepdims=0), "weight0")
    nodes.append(helper.make_node("Cast", [x], ["logits"], to=TensorProto.FLOAT))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        precision,
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, ["B", 1, 4, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", len(WORDS)])],
        [numpy_helper.from_array(value, name) for name, value in values.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def build(folder: Path, precision: str = "fp32", **options: str) -> BuildResult:
    folder.mkdir(exist_ok=True)
    write_network(folder / "model.onnx", precision)
    return TensorrtRtxEngine.build(folder / "model.onnx", folder, options=options, say=str)


@pytest.mark.parametrize("sm", ["86", "89"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_without_a_gpu(
    tmp_path: Path, precision: str, sm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = build(tmp_path, precision, sm=sm)
    assert (tmp_path / result.main).stat().st_size > 10_000
    assert dict(result.settings, layers="") == {
        "tensorrt_rtx": tensorrt_rtx.__version__,
        "device": f"sm{sm}",
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
        "timing_cache": "none",
        "layers": "",
    }
    assert capfd.readouterr().out == ""


def test_options_and_devices_give_other_plans(tmp_path: Path) -> None:
    # Sizes, not bytes: two builds of one network may differ in some 50 bytes. Between sm86 and sm89 no size differs.
    chosen: list[dict[str, str]] = [{"sm": "86"}, {"sm": "86", "max_batch": "1"}, {"sm": "120"}]
    sizes, batches = [], []
    for number, options in enumerate(chosen):
        result = build(tmp_path / str(number), **options)
        sizes.append((tmp_path / str(number) / result.main).stat().st_size)
        batches.append(result.settings["batch"])
    assert len(set(sizes)) == len(chosen)
    assert batches == ["1/1/16", "1/1/1", "1/1/16"]


def test_progress_comes_from_the_real_monitor(tmp_path: Path) -> None:
    said: list[str] = []
    write_network(tmp_path / "model.onnx")
    TensorrtRtxEngine.build(tmp_path / "model.onnx", tmp_path, options={"sm": "86"}, say=said.append)
    assert said[0] == "building model.onnx for 1/1/16 clips (fewest/best/most), workspace: no limit set"
    assert any(line.startswith("Building engine: ") and " steps in " in line for line in said)


def test_ctrl_c_stops_a_real_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: object, phase: str, num_done: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgelip.runtime.engines.trt_log.Progress.step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, sm="86")


def test_what_turing_cannot_do_is_passed_on_in_one_line(tmp_path: Path) -> None:
    # In a process of its own: the failure spoils what is built after it.
    write_network(tmp_path / "model.onnx")
    done = run_alone(tmp_path, "75")
    assert done.stdout.startswith("TensorRT cannot build model.onnx: ")
    assert re.search(r"SM75.*not supported", done.stdout)
    assert done.stdout.count("\n") == 1


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"^TensorRT cannot read model.onnx: Assertion failed.*parse the ONNX model"):
        TensorrtRtxEngine.build(tmp_path / "model.onnx", tmp_path, options={"sm": "86"}, say=str)


@pytest.mark.skipif(has_device(), reason="says what happens without a CUDA device")
@pytest.mark.parametrize(
    ("option", "reason"),
    [("weight_stripped", r"CHECK\(status == CUDA_SUCCESS\) failed"), ("version_compatible", r"libnvinfer_lean\.so\.1")],
)
def test_options_that_need_a_gpu_fail_with_the_engines_reason(tmp_path: Path, option: str, reason: str) -> None:
    with pytest.raises(BundleError, match=rf"^TensorRT cannot build model.onnx: .*{reason}") as caught:
        build(tmp_path, sm="86", **{option: "yes"})
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(has_device(), reason="says what happens without a CUDA device")
def test_a_plan_cannot_be_opened_without_a_device(tmp_path: Path) -> None:
    plan = tmp_path / build(tmp_path, sm="86").main
    with pytest.raises(MissingError, match=r"^there is no CUDA (device|runtime)"):
        TensorrtRtxEngine(plan, threads=1)
    with pytest.raises(
        MissingError, match=r"^there is no CUDA device to open x on: .*\(cudaError 35: CUDA driver"
    ) as e:
        open_plan(tensorrt_rtx, plan.read_bytes(), "x")
    assert "\n" not in str(e.value)
    with pytest.raises(MissingError, match=r"Or build for another machine: --option sm=75\|80\|86\|89"):
        TensorrtRtxEngine.device_key({})


def test_a_bundle_gets_an_engine_for_each_device(tmp_path: Path) -> None:
    def for_rtx(manifest: dict[str, Any]) -> None:
        manifest["models"][0]["engines"] = ["tensorrt-rtx"]

    bundle = Bundle.open(write_bundle(tmp_path / "tiny", edit=for_rtx, write_model=write_network))
    for sm in ("86", "89"):
        artefact = build_artefact(bundle, engine="tensorrt-rtx", options={"sm": sm}, say=str)
        assert artefact.device_key == f"sm{sm}-rtx{VERSION}"
        assert artefact.settings["device"] == f"sm{sm}"
        assert find_artefact(bundle, bundle.model_for("tensorrt-rtx"), "tensorrt-rtx", options={"sm": sm}) == artefact


def test_the_builder_runs_with_numpy_and_the_engine_alone(tmp_path: Path) -> None:
    write_network(tmp_path / "model.onnx")
    done = run_alone(tmp_path, "86")
    assert (done.returncode, done.stdout, done.stderr) == (0, "engine.plan\n", "")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 2e-2)])
def test_a_plan_agrees_with_onnx_runtime_on_this_device(
    tmp_path: Path, name: str, precision: str, tolerance: float
) -> None:
    pytest.importorskip(name.replace("-", "_"))
    write_network(tmp_path / "model.onnx", precision)
    kind = engine_class(name)
    kind.build(tmp_path / "model.onnx", tmp_path, options={"max_batch": "4"}, say=str)
    clips_B1THW = np.random.default_rng(1).normal(size=(7, 1, 4, 6, 6)).astype(np.float32)
    with open_engine("ort", tmp_path / "model.onnx") as engine:
        wanted_BV = engine.infer(clips_B1THW)
    with open_engine(name, tmp_path / "engine.plan") as engine:
        np.testing.assert_allclose(engine.infer(clips_B1THW), wanted_BV, rtol=tolerance, atol=tolerance)
