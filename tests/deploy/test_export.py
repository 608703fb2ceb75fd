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
from edgelip.deploy.export import TOLERANCE, Exported, ExportedFile, export_model
from edgelip.deploy.running_form import running_form
from edgelip.errors import GoalMissed, UsageError
from edgelip.models.classifier import ClipNetwork
from edgelip.models.hypercomplex import PHMConv
from edgelip.runtime.check import scaled_difference
from edgelip.runtime.engines.engine import open_engine

INT8 = ["phm-int8", "pruned-phm-int8"]
FLOAT = ["dense", "phm", "pruned"]
METADATA = {"variant": "tiny", "words": "\n".join(WORDS)}


@dataclass(frozen=True)
class Case:
    """A network, its files, and the first of them."""

    model: ClipNetwork
    exported: Exported
    path: Path

    @property
    def file(self) -> ExportedFile:
        return self.exported.files[0]

    @property
    def proto(self) -> onnx.ModelProto:
        return onnx.ModelProto.FromString(self.file.content)

    def initialisers(self) -> list[np.ndarray]:
        return [numpy_helper.to_array(tensor) for tensor in self.proto.graph.initializer]

    def logits(self, inputs: torch.Tensor, file: ExportedFile | None = None) -> np.ndarray:
        content = (file or self.file).content
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["logits"], {"clips": inputs.numpy()})[0])


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("exports")
    made = {}
    for variant in VARIANTS:
        model = model_from_checkpoint(compressed(variant))
        exported = export_model(model, clips(), metadata=METADATA)
        (folder / f"{variant}.onnx").write_bytes(exported.files[0].content)
        made[variant] = Case(model, exported, folder / f"{variant}.onnx")
    return made


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_clips", [1, 5])
@torch.no_grad()
def test_the_files_compute_what_torch_computes_at_every_batch_size(
    cases: dict[str, Case], variant: str, num_clips: int
) -> None:
    case = cases[variant]
    inputs = clips(num_clips, seed=9)
    expected = case.model(inputs).numpy()
    for file in case.exported.files:
        got = case.logits(inputs, file)
        assert got.shape == (num_clips, len(WORDS))
        assert got.dtype == np.float32
        assert scaled_difference(got, expected).max() <= TOLERANCE[file.precision], file.file_name
    assert np.ptp(expected) > 10 * TOLERANCE["int8"]  # so that agreement means something


PLAIN_FILES = ["model.fp32.onnx", "model.fp16.onnx"]
FILES = {
    "dense": PLAIN_FILES,
    "pruned": PLAIN_FILES,
    "phm": ["model.fp32.onnx", "model.fp32-dense.onnx", "model.fp16.onnx", "model.fp16-dense.onnx"],
    "phm-int8": ["model.int8-u8.onnx", "model.int8-u8-dense.onnx", "model.int8-s8-dense.onnx"],
    "pruned-phm-int8": ["model.int8-u8.onnx", "model.int8-u8-dense.onnx", "model.int8-s8-dense.onnx"],
}


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_each_file_says_how_far_it_is_from_the_logits_of_torch(cases: dict[str, Case], variant: str) -> None:
    case = cases[variant]
    assert [file.file_name for file in case.exported.files] == FILES[variant]
    np.testing.assert_array_equal(case.exported.logits_BV, case.model(clips()).numpy())
    for file in case.exported.files:
        difference = scaled_difference(case.logits(clips(), file), case.exported.logits_BV).max()
        assert file.max_difference == pytest.approx(float(difference), abs=1e-6)
        wider = 2 if file.precision == "fp16" else 1  # a device's kernels may sum in half precision too
        assert file.tolerance == wider * TOLERANCE[file.precision]


@pytest.mark.parametrize("variant", INT8)
def test_openvino_stays_within_the_limit_of_its_file(cases: dict[str, Case], variant: str, tmp_path: Path) -> None:
    case = cases[variant]
    (file,) = [file for file in case.exported.files if "openvino" in file.engines]
    (tmp_path / file.file_name).write_bytes(file.content)
    with open_engine("openvino", tmp_path / file.file_name) as engine:
        got = engine.infer(clips().numpy())
    assert scaled_difference(got, case.exported.logits_BV).max() <= file.tolerance


def test_a_net_that_unrounded_sums_move_gets_a_wider_limit_or_no_openvino(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cases["phm-int8"].model
    monkeypatch.setattr(export_module, "MERGED_FACTOR", 1e4)
    wide = {file.file_name: file for file in export_model(model, clips(), metadata={}).files}
    assert wide["model.int8-u8-dense.onnx"].tolerance > 1
    assert wide["model.int8-u8.onnx"].tolerance == wide["model.int8-s8-dense.onnx"].tolerance == TOLERANCE["int8"]
    monkeypatch.setattr(export_module, "MERGED_LIMIT", 0.0)
    files = export_model(model, clips(), metadata={}).files
    assert not [file for file in files if "openvino" in file.engines]
    assert all(file.tolerance == TOLERANCE["int8"] and file.engines for file in files)


@pytest.mark.parametrize("variant", INT8)
def test_int8_arithmetic_is_modelled_to_the_bit_but_for_ties(cases: dict[str, Case], variant: str) -> None:
    """Half of the clips meet no tie between levels: there, engine and torch differ by float rounding alone."""
    case = cases[variant]
    for file in case.exported.files:
        per_clip = scaled_difference(case.logits(clips(), file), case.exported.logits_BV).max(axis=1)
        assert np.median(per_clip) < 1e-5, file.file_name


def by_name(case: Case) -> dict[str, ExportedFile]:
    return {file.file_name.removeprefix("model.").removesuffix(".onnx"): file for file in case.exported.files}


def test_half_precision_halves_the_file_with_factors_and_without(cases: dict[str, Case]) -> None:
    for variant in FLOAT:
        files = by_name(cases[variant])
        for form in (name for name in files if name.startswith("fp16")):
            half, whole = files[form], files[form.replace("16", "32")]
            graphs = [onnx.load_from_string(file.content).graph for file in (half, whole)]
            kept = [[t for t in graph.initializer if t.data_type != TensorProto.INT64] for graph in graphs]
            numbers, before = (sum(int(np.prod(tensor.dims)) for tensor in tensors) for tensors in kept)
            assert numbers == before
            assert {tensor.data_type for tensor in kept[0]} == {TensorProto.FLOAT16}
            casts = sum(node.op_type == "Cast" for node in graphs[0].node)
            assert len(half.content) <= len(whole.content) - 2 * numbers + 50 * casts


def test_factors_in_half_precision_are_folded_when_the_engine_loads(cases: dict[str, Case], tmp_path: Path) -> None:
    files = by_name(cases["phm"])
    resident = {}
    for name, file in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(file.content)
        resident[name] = optimised_weights_bytes(tmp_path / f"{name}.onnx")
    assert resident["fp16"] == pytest.approx(resident["fp16-dense"], rel=0.02)


@pytest.mark.parametrize("precisions", [(), ("fp8",)])
def test_a_float_network_gives_what_is_asked_beside_fp32(cases: dict[str, Case], precisions: tuple[str, ...]) -> None:
    exported = export_model(cases["dense"].model, clips(), metadata=METADATA, precisions=precisions)
    assert [file.precision for file in exported.files] == ["fp32", *precisions]
    assert exported.files[0] == cases["dense"].file


def test_a_quantised_network_gives_no_half_precision(cases: dict[str, Case]) -> None:
    with pytest.raises(UsageError) as caught:
        export_model(cases["phm-int8"].model, clips(), metadata={}, precisions=("fp16",))
    assert str(caught.value) == "A quantised network gives int8, not fp16. Export the network before stage 'qat'."


def test_the_network_is_traced_once(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    trace = export_module.onnx_from_torch
    monkeypatch.setattr(export_module, "onnx_from_torch", lambda *given: calls.append(1) or trace(*given))
    assert len(export_model(cases["phm"].model, clips(), metadata={}).files) == 4
    assert len(calls) == 1


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
    assert len(phm.file.content) < 0.6 * len(dense.file.content)  # tiny layers: A and the text weigh much


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
def test_every_multiply_of_an_unsigned_int8_file_runs_in_integers(
    cases: dict[str, Case], variant: str, tmp_path: Path
) -> None:
    from edgelip.models.census import count_macs

    case = cases[variant]
    for file in case.exported.files:
        if file.activations == "u8":
            (tmp_path / file.file_name).write_bytes(file.content)
            coverage = int8_coverage(tmp_path / file.file_name, {"clips": clips(1).numpy()})
            assert coverage.int8_pct == 100.0, file.file_name
            assert coverage.total_macs == count_macs(case.model, clips(1))


@pytest.mark.parametrize("variant", INT8)
def test_the_signed_file_is_what_tensorrt_takes(cases: dict[str, Case], variant: str) -> None:
    """Every zero point is 0, and nothing is dequantised from int32."""
    (file,) = (file for file in cases[variant].exported.files if file.activations == "s8")
    graph = onnx.load_from_string(file.content).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    rounding = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(rounding) > 20
    for node in rounding:
        zero = constants[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
    assert not any(tensor.data_type in (TensorProto.INT32, TensorProto.UINT8) for tensor in constants.values())


def test_phm_weights_are_folded_when_the_engine_loads(cases: dict[str, Case]) -> None:
    resident = {name: optimised_weights_bytes(case.path) for name, case in cases.items()}
    assert resident["phm"] == pytest.approx(resident["dense"], rel=0.02)
    dense_weights = sum(p.numel() for p in cases["dense"].model.parameters() if p.ndim > 1)
    assert dense_weights < resident["phm-int8"] < 1.35 * dense_weights  # a byte each, and scales, zeros and biases
    kept = cases["phm-int8"].proto
    assert any(node.op_type == "Cast" for node in kept.graph.node)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_files_are_clean(cases: dict[str, Case], variant: str) -> None:
    for form, file in by_name(cases[variant]).items():
        proto = onnx.load_from_string(file.content)
        graph = proto.graph
        assert {p.key: p.value for p in proto.metadata_props} == {
            "edgelip.variant": "tiny", "edgelip.words": "\n".join(WORDS), "edgelip.precision": form
        }  # fmt: skip
        assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
        assert not proto.functions
        assert not graph.value_info
        assert not graph.metadata_props
        texts = [proto.doc_string, graph.doc_string, *(node.doc_string for node in graph.node)]
        assert not any(texts)
        for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            assert not item.metadata_props
        assert b"site-packages" not in file.content
        assert b".py" not in file.content
        inner = [output for node in graph.node for output in node.output if output != "logits"]
        assert max(map(len, inner)) <= 3
        assert len({tensor.name for tensor in graph.initializer}) == len(graph.initializer)


@pytest.mark.parametrize("variant", VARIANTS)
def test_time_is_static_the_batch_free_and_the_ends_are_float(cases: dict[str, Case], variant: str) -> None:
    for file in cases[variant].exported.files:
        graph = onnx.load_from_string(file.content).graph
        (takes,), (gives,) = graph.input, graph.output
        assert (takes.name, gives.name) == ("clips", "logits")
        axes = [axis.dim_param or axis.dim_value for axis in takes.type.tensor_type.shape.dim]
        assert axes == ["batch", 1, 6, 20, 20]
        assert [axis.dim_param or axis.dim_value for axis in gives.type.tensor_type.shape.dim] == ["batch", len(WORDS)]
        assert takes.type.tensor_type.elem_type == gives.type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("variant", ["phm", "pruned-phm-int8"])
def test_the_same_model_gives_the_same_bytes(cases: dict[str, Case], variant: str) -> None:
    again = export_model(model_from_checkpoint(compressed(variant)), clips(), metadata=METADATA)
    assert again.files == cases[variant].exported.files


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
    weight.blocks.scales[:] *= 0.5


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
    assert "on 8 clips, limit 0.1. Nothing was written; try another version of onnxruntime or torch." in text
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
    file = export_model(model, clips()[:1], metadata={}, precisions=()).files[0]
    assert TOLERANCE["fp32"] < file.max_difference <= file.tolerance < 0.1

    def another_bias_of_float(running: Any) -> None:
        running.model.head.bias.data[2] += 0.5

    spoil(monkeypatch, another_bias_of_float)
    with pytest.raises(GoalMissed, match=r"does not compute what torch computes: max \|difference\| [0-9.e-]+ on 1"):
        export_model(model, clips()[:1], metadata={})
