from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from tiny_models import VARIANTS, WORDS, clips, compressed

from edgelip.bench.graph import int8_coverage, optimised_weights_bytes
from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.deploy import export as export_module
from edgelip.deploy.export import TOLERANCE, ExportedModel, export_model
from edgelip.deploy.running_form import running_form
from edgelip.errors import GoalMissed
from edgelip.models.classifier import ClipNetwork
from edgelip.models.hypercomplex import PHMConv
from edgelip.runtime.check import scaled_difference

INT8 = ["phm-int8", "pruned-phm-int8"]
FLOAT = ["dense", "phm", "pruned"]
METADATA = {"variant": "tiny", "words": "\n".join(WORDS)}


@dataclass(frozen=True)
class Case:
    model: ClipNetwork
    exported: ExportedModel
    path: Path

    @property
    def proto(self) -> onnx.ModelProto:
        return onnx.ModelProto.FromString(self.exported.content)

    def initialisers(self) -> list[np.ndarray]:
        return [numpy_helper.to_array(tensor) for tensor in self.proto.graph.initializer]

    def logits(self, inputs: torch.Tensor) -> np.ndarray:
        session = onnxruntime.InferenceSession(self.exported.content, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["logits"], {"clips": inputs.numpy()})[0])


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("exports")
    made = {}
    for variant in VARIANTS:
        model = model_from_checkpoint(compressed(variant))
        exported = export_model(model, clips(), metadata=METADATA)
        (folder / f"{variant}.onnx").write_bytes(exported.content)
        made[variant] = Case(model, exported, folder / f"{variant}.onnx")
    return made


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_clips", [1, 5])
@torch.no_grad()
def test_the_file_computes_what_torch_computes_at_every_batch_size(
    cases: dict[str, Case], variant: str, num_clips: int
) -> None:
    case = cases[variant]
    inputs = clips(num_clips, seed=9)
    expected = case.model(inputs).numpy()
    got = case.logits(inputs)
    assert got.shape == (num_clips, len(WORDS))
    assert scaled_difference(got, expected).max() <= TOLERANCE[case.exported.precision]
    assert np.ptp(expected) > 10 * TOLERANCE["int8-u8"]  # so that agreement means something


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_the_exported_logits_are_those_of_torch(cases: dict[str, Case], variant: str) -> None:
    case = cases[variant]
    assert case.exported.precision == ("int8-u8" if variant in INT8 else "fp32")
    assert case.exported.file_name == f"model.{case.exported.precision}.onnx"
    np.testing.assert_array_equal(case.exported.logits_BV, case.model(clips()).numpy())
    difference = scaled_difference(case.logits(clips()), case.exported.logits_BV).max()
    assert case.exported.max_difference == pytest.approx(float(difference), abs=1e-6)


@pytest.mark.parametrize("variant", INT8)
def test_int8_arithmetic_is_modelled_to_the_bit_but_for_ties(cases: dict[str, Case], variant: str) -> None:
    """Half of the clips meet no tie between levels: there, engine and torch differ by float rounding alone."""
    case = cases[variant]
    per_clip = scaled_difference(case.logits(clips()), case.exported.logits_BV).max(axis=1)
    assert np.median(per_clip) < 1e-5


def phm_layers(case: Case) -> list[PHMConv]:
    return [module for module in case.model.modules() if isinstance(module, PHMConv)]


def test_a_phm_file_stores_its_factors_and_nothing_dense(cases: dict[str, Case]) -> None:
    dense, phm = cases["dense"], cases["phm"]
    replaced = phm_layers(phm)
    whole = sum(layer.A[0].numel() * layer.F[0].numel() for layer in replaced)
    stored = sum(layer.A.numel() + layer.F.numel() for layer in replaced)
    count = {name: sum(a.size for a in case.initialisers() if a.dtype == np.float32) for name, case in cases.items()}
    row_scales = sum(layer.out_channels for layer in replaced)
    assert count["dense"] - count["phm"] == whole - stored - row_scales
    assert stored < whole / 4 + 65 * len(replaced)
    shapes = {array.shape for array in phm.initialisers()}
    assert not any(layer.dense_weight().shape in shapes for layer in replaced)
    assert len(phm.exported.content) < 0.6 * len(dense.exported.content)  # tiny layers: A and the text weigh much


@pytest.mark.parametrize("variant", INT8)
def test_an_int8_file_holds_no_weight_in_float(cases: dict[str, Case], variant: str) -> None:
    case = cases[variant]
    arrays = case.initialisers()
    for layer in phm_layers(case):
        stored = [a for a in arrays if a.dtype == np.int8 and a.size == layer.F.numel()]
        scales = layer.F.detach().abs().flatten(2).amax(2).clamp_min(1.27e-4) / 127
        levels = torch.round(layer.F.detach() / scales[(...,) + (None,) * (layer.F.ndim - 2)]).numpy()
        assert any(np.array_equal(a.reshape(levels.shape), levels) for a in stored)
    factors = max(layer.A.numel() for layer in phm_layers(case))
    floats = [array.shape for array in arrays if array.dtype == np.float32 and array.size > factors]
    assert all(np.prod(shape) <= 8 * 32 for shape in floats)  # scales of F, one a row
    whole_numbers = sum(array.size for array in arrays if array.dtype == np.int8)
    assert whole_numbers >= sum(layer.F.numel() for layer in phm_layers(case))


@pytest.mark.parametrize("variant", INT8)
def test_every_multiply_of_an_int8_file_runs_in_integers(cases: dict[str, Case], variant: str) -> None:
    from edgelip.models.census import count_macs

    case = cases[variant]
    coverage = int8_coverage(case.path, {"clips": clips(1).numpy()})
    assert coverage.int8_pct == 100.0
    assert coverage.total_macs == count_macs(case.model, clips(1))


def test_phm_weights_are_folded_when_the_engine_loads(cases: dict[str, Case]) -> None:
    resident = {name: optimised_weights_bytes(case.path) for name, case in cases.items()}
    assert resident["phm"] == pytest.approx(resident["dense"], rel=0.02)
    dense_weights = sum(p.numel() for p in cases["dense"].model.parameters() if p.ndim > 1)
    assert dense_weights < resident["phm-int8"] < 1.35 * dense_weights  # a byte each, and scales, zeros and biases
    kept = onnx.ModelProto.FromString(cases["phm-int8"].exported.content)
    assert any(node.op_type == "Cast" for node in kept.graph.node)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_file_is_clean(cases: dict[str, Case], variant: str) -> None:
    proto = cases[variant].proto
    graph = proto.graph
    precision = cases[variant].exported.precision
    assert {p.key: p.value for p in proto.metadata_props} == {
        "edgelip.variant": "tiny", "edgelip.words": "\n".join(WORDS), "edgelip.precision": precision
    }  # fmt: skip
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    assert not proto.functions
    assert not graph.value_info
    assert not graph.metadata_props
    texts = [proto.doc_string, graph.doc_string, *(node.doc_string for node in graph.node)]
    assert not any(texts)
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        assert not item.metadata_props
    assert b"site-packages" not in cases[variant].exported.content
    assert b".py" not in cases[variant].exported.content
    inner = [output for node in graph.node for output in node.output if output != "logits"]
    assert max(map(len, inner)) <= 3
    assert len({tensor.name for tensor in graph.initializer}) == len(graph.initializer)


@pytest.mark.parametrize("variant", VARIANTS)
def test_time_is_static_and_the_batch_free(cases: dict[str, Case], variant: str) -> None:
    graph = cases[variant].proto.graph
    (takes,), (gives,) = graph.input, graph.output
    assert (takes.name, gives.name) == ("clips", "logits")
    axes = [axis.dim_param or axis.dim_value for axis in takes.type.tensor_type.shape.dim]
    assert axes == ["batch", 1, 6, 20, 20]
    assert [axis.dim_param or axis.dim_value for axis in gives.type.tensor_type.shape.dim] == ["batch", len(WORDS)]
    assert takes.type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("variant", ["phm", "pruned-phm-int8"])
def test_the_same_model_gives_the_same_bytes(cases: dict[str, Case], variant: str) -> None:
    again = export_model(model_from_checkpoint(compressed(variant)), clips(), metadata=METADATA)
    assert again.content == cases[variant].exported.content


def test_exporting_leaves_the_model_as_it_was(cases: dict[str, Case]) -> None:
    checkpoint = compressed("phm-int8")
    case = cases["phm-int8"]
    assert {name: tensor for name, tensor in checkpoint.tensors.items() if not torch.equal(
        tensor, case.model.state_dict()[name])} == {}  # fmt: skip
    assert len(phm_layers(case)) > 0


def spoil(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let something go wrong between torch and the file: `change` edits the stored weights."""

    def wrong(model: Any) -> Any:
        running = running_form(model)
        change(running)
        return running

    monkeypatch.setattr(export_module, "running_form", wrong)


def half_a_scale(running: Any) -> None:
    weight = next(stored for name, stored in running.stored.items() if "temporal" in name and stored.blocks is not None)
    weight.block_scales[:] *= 0.5


def another_bias(running: Any) -> None:
    running.model.head.layer.bias.data[2] += 0.5


@pytest.mark.parametrize("change", [half_a_scale, another_bias])
def test_an_export_that_deviates_is_refused(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    spoil(monkeypatch, change)
    with pytest.raises(GoalMissed) as caught:
        export_model(cases["phm-int8"].model, clips(), metadata={"variant": "phm4-int8"})
    text = str(caught.value)
    assert text.startswith("The export of phm4-int8 (int8-u8) does not compute what torch computes: max |difference| ")
    assert "on 8 clips, limit 0.1. Nothing was written" in text
    assert "\n" not in text


def test_an_export_of_a_model_without_finite_logits_is_refused(cases: dict[str, Case]) -> None:
    model = model_from_checkpoint(compressed("phm"))
    with torch.no_grad():
        model.head.bias[2] = float("nan")
    with pytest.raises(GoalMissed, match=r"export of the model \(fp32\) .* max \|difference\| nan on 8 clips"):
        export_model(model, clips(), metadata={})


def cancelling(model: Any, *, size: float) -> Any:
    """A net whose logits of the first clip are small differences of large terms: float32 rounds them coarsely."""
    with torch.no_grad():
        features = model.temporal(model.features(clips()[:1]).transpose(1, 2), None).mean(dim=(0, 2))
        model.head.weight.add_(size)
        model.head.bias.sub_(size * features.sum())
    return model


def test_a_net_that_rounds_more_is_allowed_what_torch_itself_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cancelling(model_from_checkpoint(compressed("phm")), size=3e3)
    exported = export_model(model, clips()[:1], metadata={})
    assert TOLERANCE["fp32"] < exported.max_difference <= exported.tolerance < 0.1

    def another_bias_of_float(running: Any) -> None:
        running.model.head.bias.data[2] += 0.5

    spoil(monkeypatch, another_bias_of_float)
    with pytest.raises(GoalMissed, match=r"does not compute what torch computes: max \|difference\| [0-9.e-]+ on 1"):
        export_model(model, clips()[:1], metadata={})
