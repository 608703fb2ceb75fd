"""Weights in few bits: what the file holds, and that engines build from it what torch computed with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rtx_parser import building_errors
from tiny_families import FAMILIES
from tiny_models import PHM, QAT, SPEC, TOOLS, WORDS, classifier, clips, lively, tools_of
from torch import nn

from edgelip.bench.graph import int8_coverage, optimised_weights_bytes, unfolded_operators
from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.sensitivity import harm
from edgelip.compress.stored_layer import Bits, StoredLayer, stored
from edgelip.deploy.export import Exported, export_model
from edgelip.deploy.running_form import StoredArray, running_form
from edgelip.deploy.stored_form import INT4_OPSET, store_weights
from edgelip.models.hypercomplex import PHMLayer, phm_from_dense
from edgelip.models.zoo import build_classifier
from edgelip.runtime.engines.openvino import OpenvinoEngine
from edgelip.runtime.engines.ort import OrtEngine, open_session
from edgelip.runtime.vetting.model import vet_model


def hypercomplex(*, seed: int = 0) -> nn.Module:
    model, _ = stage_from_config(PHM).prepare(classifier(seed=seed), TOOLS)
    return lively(model)  # type: ignore[no-any-return]


def exported(model: nn.Module, folder: Path, *stages: dict[str, Any], precisions: Any = ()) -> tuple[Exported, Any]:
    """The files of a model after stages, written to `folder`; and the model."""
    for fields in stages:
        model, _ = stage_from_config(fields).prepare(model, TOOLS)
    files = export_model(model, clips(), metadata={}, precisions=None if model_is_int8(model) else precisions)
    for file in files.files:
        (folder / file.file_name).write_bytes(file.content)
    return files, model


def model_is_int8(model: nn.Module) -> bool:
    return any("Quantiser" in type(module).__name__ for module in model.modules())


def optimised_operators(path: Path, folder: Path) -> Counter[str]:
    open_session(path, optimised_path=folder / "optimised.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def openvino_layers(path: Path) -> Counter[str]:
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return Counter(op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops())


def integers(graph: onnx.GraphProto) -> list[bytes]:
    kinds = (TensorProto.INT4, TensorProto.INT8)
    return sorted(tensor.raw_data for tensor in graph.initializer if tensor.data_type in kinds)


def ort_logits(path: Path) -> np.ndarray:
    return OrtEngine(path).infer(clips().numpy())


@settings(max_examples=25)
@given(
    n=st.integers(2, 4),
    terms=st.integers(1, 2),
    out=st.integers(1, 3),
    into=st.integers(1, 5),
    kernel=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    bits=st.sampled_from([(8, 4), (8, 8), (16, 8), (32, 4), (16, 16), (32, 32)]),
    scaled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_numpy_builds_the_weight_of_torch_from_what_the_file_holds(
    n: int, terms: int, out: int, into: int, kernel: tuple[int, ...], bits: tuple[int, int], scaled: bool, seed: int
) -> None:
    """W = sum_m kron(A_m, F_m), by numpy's own Kronecker product, from the initialisers alone."""
    torch.manual_seed(seed)
    dense: nn.Module = nn.Linear(n * into, n * out)
    if kernel:
        dense = (nn.Conv1d, nn.Conv2d)[len(kernel) - 1](n * into, n * out, kernel)  # type: ignore[arg-type]
    layer = phm_from_dense(dense, n=n, terms=min(terms, n))
    if scaled:
        layer.row_scale = torch.rand(n * out) + 0.5
    wrapped = StoredLayer(layer, Bits(factors=bits[0], blocks=bits[1]))  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.bias)
    running = running_form(nn.Sequential(wrapped))
    weight = wrapped.dense_weight().detach().numpy()
    model = graph_of(weight, wrapped.stored_bias().detach().numpy())  # type: ignore[union-attr]
    store_weights(model, {"0.weight": running.stored["0.weight"]})
    onnx.checker.check_model(model, full_check=True)
    held = {tensor.name: tensor for tensor in model.graph.initializer}

    def number(name: str) -> np.ndarray:
        value = numpy_helper.to_array(held[f"0.weight.{name}"]).astype(np.float32)
        scale = held.get(f"0.weight.{name}s")
        return value if scale is None else value * numpy_helper.to_array(scale).astype(np.float32)

    kinds = {32: TensorProto.FLOAT, 16: TensorProto.FLOAT16, 8: TensorProto.INT8, 4: TensorProto.INT4}
    assert held["0.weight.A"].data_type == kinds[bits[0]]
    assert held["0.weight.F"].data_type == kinds[bits[1]]
    factors = number("A").T.reshape(-1, n, n)
    blocks = number("F").reshape(len(factors), out, into, -1)
    built = sum(
        np.stack([np.kron(a, f[..., tap]) for tap in range(f.shape[-1])], axis=-1)
        for a, f in zip(factors, blocks, strict=True)
    )
    built = np.asarray(built).reshape(weight.shape)
    if scaled:
        built = built * number("r")
    np.testing.assert_allclose(built, weight, rtol=1e-5, atol=1e-6)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got_weight, got_bias = session.run(None, {})
    np.testing.assert_allclose(got_weight, weight, rtol=1e-5, atol=1e-6)
    assert np.array_equal(got_bias, wrapped.stored_bias().detach().numpy())  # type: ignore[union-attr]


def graph_of(weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """A graph that gives "0.weight" and "0.bias"."""
    names = {"0.weight": weight, "0.bias": bias}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}.out"]) for name in names], "g", [],
        [helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, array.shape) for name, array in names.items()],
        [numpy_helper.from_array(array, name) for name, array in names.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@given(levels=st.lists(st.integers(-7, 7), min_size=1, max_size=33), exponent=st.integers(-12, 4))
def test_nibbles_come_back_as_they_were_stored(levels: list[int], exponent: int) -> None:
    scale = np.float16(2.0**exponent)
    array = StoredArray(np.array(levels, np.float32)[None] * np.float32(scale), 4, np.array([[scale]]))
    assert array.levels.tolist() == [levels]
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
    tensor = numpy_helper.from_array(array.levels.astype(kind), "w")
    assert len(tensor.raw_data) == (len(levels) + 1) // 2
    assert numpy_helper.to_array(tensor).astype(int).tolist() == [levels]


@pytest.mark.parametrize(
    ("stage", "large"),
    [
        ({"blocks": 8, "dense": 8}, TensorProto.INT8),
        ({"blocks": 4, "dense": 8, "head": 4}, TensorProto.INT4),
        ({"blocks": 16, "dense": 16}, TensorProto.FLOAT16),
    ],
    ids=["int8", "int4", "fp16"],
)
def test_engines_fold_what_is_stored_and_compute_what_torch_computes(
    stage: dict[str, Any], large: int, tmp_path: Path
) -> None:
    reference = hypercomplex()(clips()).detach()
    halves = ("fp16",) if large == TensorProto.INT4 else ()
    files, model = exported(hypercomplex(), tmp_path, {"stage": "store", **stage}, precisions=halves)
    small, dense, *half = (tmp_path / file.file_name for file in files.files)
    assert (small.name, dense.name) == ("model.fp32.onnx", "model.fp32-dense.onnx")
    for file in files.files[:2]:
        assert file.max_difference < 1e-5
        summary = vet_model(file.content, name=file.file_name, clip=SPEC, num_words=len(WORDS), files={})
        assert summary.opset == (INT4_OPSET if large == TensorProto.INT4 and file is files.files[0] else 18)

    # ONNX Runtime: not one node is left that makes a weight, and the weights in memory are those of the dense file.
    operators = optimised_operators(small, tmp_path)
    assert not unfolded_operators(small)
    assert operators == optimised_operators(dense, tmp_path)
    assert openvino_layers(small) == openvino_layers(dense)
    assert optimised_weights_bytes(small) == pytest.approx(optimised_weights_bytes(dense), rel=1e-3)

    # TensorRT takes the dense file of the same bundle.
    assert "tensorrt-rtx" in files.files[1].engines
    assert "tensorrt-rtx" not in files.files[0].engines
    if large == TensorProto.INT4:
        assert building_errors(files.files[1].content, clips().shape[1:], "SM86") == []

    # Both files hold the rounded weights, which are not those of before.
    logits = model(clips()).detach()
    np.testing.assert_allclose(ort_logits(small), logits.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ort_logits(dense), logits.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(OpenvinoEngine(small).infer(clips().numpy()), logits.numpy(), rtol=1e-4, atol=1e-4)
    expected = {TensorProto.INT8: (25, 50), TensorProto.INT4: (3, 30), TensorProto.FLOAT16: (50, 90)}[large]  # type: ignore[index]
    assert expected[0] < harm(logits, reference).sqnr_db < expected[1]

    graph = onnx.load(small).graph
    if half:  # the same integers
        assert integers(graph) == integers(onnx.load(half[0]).graph)
        assert not unfolded_operators(half[0])
    held: Counter[int] = Counter()
    for tensor in graph.initializer:
        held[tensor.data_type] += len(tensor.raw_data)
    blocks = sum(m.F.numel() for m in model.modules() if isinstance(m, PHMLayer))
    per_number = {TensorProto.INT8: 1.0, TensorProto.INT4: 0.5, TensorProto.FLOAT16: 2.0}[large]  # type: ignore[index]
    assert held[large] >= per_number * blocks
    assert held[TensorProto.FLOAT] == 0  # scales and biases are halves; this net has nothing else in float
    assert len(files.files[0].content) < len(files.files[1].content) / (2.5 if large == TensorProto.FLOAT16 else 4)


def test_dense_weights_alone_can_be_stored_in_few_bits(tmp_path: Path) -> None:
    files, model = exported(classifier(), tmp_path, {"stage": "store", "dense": 4, "layers": {"frontend.*": 8}})
    small, dense = (tmp_path / file.file_name for file in files.files)
    assert [file.weights for file in files.files] == ["factors", "dense"]
    assert "tensorrt" in files.files[1].engines
    assert optimised_operators(small, tmp_path) == optimised_operators(dense, tmp_path)
    np.testing.assert_allclose(ort_logits(small), model(clips()).detach().numpy(), rtol=1e-5, atol=1e-5)
    weights = {name: module.layer.weight for name, module in model.named_modules() if isinstance(module, StoredLayer)}
    held = sorted(len(t.raw_data) for t in onnx.load(small).graph.initializer if t.data_type == TensorProto.INT4)
    assert held == sorted((w.numel() + 1) // 2 for name, w in weights.items() if not name.startswith("frontend"))


def test_storage_and_running_regimes_stand_in_series(tmp_path: Path) -> None:
    """Factors in few bits -> Kronecker build -> int8 per channel -> int8 convolution."""
    stage = {"stage": "store", "blocks": 4, "dense": 8, "layers": {"trunk.blocks.0.shortcut.*": 4}}
    files, model = exported(hypercomplex(), tmp_path, stage, QAT)
    by_name = {file.file_name: file for file in files.files}
    small = by_name["model.int8-u8.onnx"]
    assert small.max_difference <= 0.1
    path = tmp_path / small.file_name
    assert int8_coverage(path, {"clips": clips(1).numpy()}).int8_pct > 99
    assert not unfolded_operators(path)
    vet_model(small.content, name="small", clip=SPEC, num_words=len(WORDS), files={})
    dense = by_name["model.int8-u8-dense.onnx"]
    assert len(small.content) < 0.8 * len(dense.content)
    assert optimised_weights_bytes(path) == pytest.approx(optimised_weights_bytes(tmp_path / dense.file_name), rel=0.02)
    for file in files.files:
        np.testing.assert_allclose(ort_logits(tmp_path / file.file_name), files.logits_BV, rtol=0, atol=0.1)
    assert building_errors(by_name["model.int8-s8-dense.onnx"].content, clips().shape[1:], "SM86") == []
    shortcut = model.get_submodule("trunk.blocks.0.shortcut.conv")
    exact = shortcut.layer.layer.weight
    torch.testing.assert_close(shortcut.running_parameters()[0], stored(exact, 1, 4))  # rounded once


def test_a_layer_run_factored_is_stored_in_few_bits(tmp_path: Path) -> None:
    model = classifier()
    names = ("trunk.blocks.1.conv2.conv", "temporal.blocks.0.conv1.conv")
    for name in names:
        model.set_submodule(name, phm_from_dense(model.get_submodule(name), n=4, terms=2, factored=True))
    files, made = exported(lively(model), tmp_path, {"stage": "store", "blocks": 4, "dense": 8})
    small = tmp_path / files.files[0].file_name
    np.testing.assert_allclose(ort_logits(small), made(clips()).detach().numpy(), rtol=1e-4, atol=1e-5)
    held = [len(t.raw_data) for t in onnx.load(small).graph.initializer if t.data_type == TensorProto.INT4]
    assert sorted(held) == sorted(made.get_submodule(name).layer.F.numel() // 2 for name in names)


@torch.no_grad()
@pytest.mark.parametrize("stages", [[{"stage": "store", "dense": 8}], [{"stage": "store", "dense": 8}, QAT]])
def test_unused_rows_of_attention_are_left_out_of_what_is_stored(stages: list[dict[str, Any]]) -> None:
    family, tiny = FAMILIES["eflip_token"]
    inputs = torch.randn(2, 1, 5, 24, 24, generator=torch.Generator().manual_seed(0))
    model = lively(build_classifier(family, num_words=6, options=tiny))
    for fields in stages:
        model, _ = stage_from_config(fields).prepare(model, tools_of(inputs))
    running = running_form(model)
    (name,) = (name for name in running.stored if "in_projection" in name)
    weight = running.model.get_parameter(name)
    assert weight.shape[0] == weight.shape[1]
    if len(stages) == 1:
        torch.testing.assert_close(running.model(inputs), model(inputs))
