from __future__ import annotations

import importlib
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_models
import torch
from tiny_models import tools_of
from torch import Tensor, nn

from edgelip.bench.graph import int8_coverage
from edgelip.compress import toolkit_quantise
from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, stage_from_config
from edgelip.deploy.export import TOLERANCE, export_model
from edgelip.errors import MissingError, StageError
from edgelip.models.blocks import fold_norms
from edgelip.models.checkpoint import load_checkpoint, save_checkpoint
from edgelip.runtime.engines.ort import open_session

CLIPS = tiny_models.clips(8, seed=1)
STAGE = {"stage": "qat", "backend": "nncf", "calibration_clips": 8, "tune": {"epochs": 1}}


@pytest.fixture(scope="module")
def folded() -> nn.Module:
    model = tiny_models.classifier()
    fold_norms(model)
    return model


@pytest.fixture(scope="module")
def quantised(folded: nn.Module) -> nn.Module:
    return toolkit_quantise.quantise(deepcopy(folded), CLIPS)[0]


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = model.eval()(CLIPS)
    return result


def widen(student: nn.Module, **_: Any) -> nn.Module:
    """Fine-tuning that moves weights and quantisers, so that restoring cannot succeed by calibrating again."""
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.01)
    return student.eval()


TOOLS = tools_of(CLIPS, finetune=widen)


def test_every_weighted_layer_gets_a_weight_quantiser(folded: nn.Module) -> None:
    record = toolkit_quantise.quantise(deepcopy(folded), CLIPS)[1]
    layers = [n for n, m in folded.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    assert sorted(record["weights"].values()) == sorted(f"{name}.weight" for name in layers)
    assert record["backend"] == "nncf"


def test_activations_are_quantised_where_nncf_says(quantised: nn.Module) -> None:
    places = [name for name in toolkit_quantise._hooks(quantised) if name.startswith("post_hooks.")]
    at_adds = [name for name in places if "conv2/conv" in name or "shortcut" in name or "act2" in name]
    # clips, stem; act1 of 4 blocks; conv2 and act2 of 4, shortcuts of the 2 that have one; means over map and frames
    assert len(places) == 2 + 4 + len(at_adds) + 2
    assert len(at_adds) == 4 + 4 + 2


def test_quantised_logits_stay_near_float(folded: nn.Module, quantised: nn.Module) -> None:
    difference = (logits(quantised) - logits(folded)).square().mean().sqrt()
    assert 0 < difference < 0.05 * logits(folded).square().mean().sqrt()


def test_taking_over_keeps_every_value(quantised: nn.Module) -> None:
    """Second method: torch's fake-quantise operators instead of NNCF's."""
    ours = deepcopy(quantised)
    scales = toolkit_quantise.take_over(ours)
    difference_B = (logits(ours) - logits(quantised)).abs().amax(dim=1)
    assert difference_B.median() < 1e-5
    assert difference_B.max() < 0.05  # a value half-way between two levels may round to either
    for name, scale_O in scales.items():
        levels = ours.get_parameter(name).flatten(1) / scale_O[:, None]
        assert (levels - levels.round()).abs().max() < 1e-3, name
        assert levels.abs().max() < 127.5, name


def test_activations_are_signed_and_symmetric_also_behind_a_relu(quantised: nn.Module) -> None:
    hooks = {name: h for name, h in toolkit_quantise._hooks(quantised).items() if not hasattr(h, "weight_name")}
    assert sum("act" in name for name in hooks) > 4
    for name, hook in hooks.items():
        lowest, highest, _, zero = hook.get_parameters_for_torch_fq()
        assert (lowest, highest, int(zero)) == (-128, 127, 0), name


def symmetric_hook(*, signed: bool) -> Any:
    layers = importlib.import_module("nncf.torch.quantization.layers")
    toolkit_quantise._nncf()
    spec = layers.PTQuantizerSpec(
        num_bits=8,
        mode=layers.QuantizationMode.SYMMETRIC,
        signedness_to_force=signed,
        narrow_range=False,
        half_range=False,
        scale_shape=(1,),
        logarithm_scale=False,
        is_quantized_on_export=False,
    )
    hook = layers.SymmetricQuantizer(spec)
    hook.scale.data.fill_(2.0)
    return hook


def test_an_activation_is_taken_over_value_for_value() -> None:
    hook = symmetric_hook(signed=True)
    x = torch.linspace(-3, 3, 101)
    torch.testing.assert_close(toolkit_quantise._our_quantiser(hook)(x), hook(x).detach(), rtol=0, atol=1e-5)


def test_levels_that_are_not_ours_are_not_taken_over() -> None:
    with pytest.raises(StageError) as caught:
        toolkit_quantise._our_quantiser(symmetric_hook(signed=False))
    assert str(caught.value) == (
        "NNCF rounds an activation to levels 0..255; edgelip takes -128..127. Quantise the network again, or use "
        'backend = "own".'
    )


def test_checkpoint_round_trip_is_bit_exact(tmp_path: Path) -> None:
    parent = tiny_models.dense_checkpoint()
    trained: list[nn.Module] = []

    def keep(student: nn.Module, **_: Any) -> nn.Module:
        trained.append(widen(student))
        return student

    made = apply_stage(parent, stage_from_config(STAGE), tools_of(CLIPS, finetune=keep))
    save_checkpoint(made, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.sha256 == made.sha256
    restored = model_from_checkpoint(loaded)
    assert torch.equal(logits(restored), logits(trained[0]))
    assert not torch.equal(logits(restored), logits(model_from_checkpoint(parent)))


def test_quantisers_train_and_copies_are_independent(quantised: nn.Module) -> None:
    before = logits(quantised)
    student = deepcopy(quantised).train()
    for module in student.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    trainable = {name: p for name, p in student.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3)
    student(CLIPS).square().sum().backward()
    assert [name for name, p in trainable.items() if p.grad is None] == []
    assert sum(toolkit_quantise.HOOKS in name for name in trainable) == len(toolkit_quantise._hooks(student))
    optimiser.step()
    assert not torch.equal(logits(student), before)
    assert torch.equal(logits(quantised), before)


def test_lengths_are_taken(quantised: nn.Module) -> None:
    with torch.no_grad():
        shorter = quantised(CLIPS, torch.full((len(CLIPS),), 4))
    assert shorter.shape == (len(CLIPS), len(tiny_models.WORDS))
    padded = torch.cat([CLIPS[:, :, :4], torch.rand_like(CLIPS[:, :, :2])], dim=2)
    with torch.no_grad():
        assert torch.equal(quantised(padded, torch.full((len(CLIPS),), 4)), shorter)


def test_exported_file_holds_int8_and_agrees(folded: nn.Module, quantised: nn.Module, tmp_path: Path) -> None:
    exported = export_model(quantised, CLIPS, metadata={"variant": "nncf"})
    assert [file.file_name for file in exported.files] == ["model.int8-u8.onnx", "model.int8-s8.onnx"]
    assert all(file.max_difference <= TOLERANCE["int8"] for file in exported.files)
    content = exported.files[0].content
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    float_bytes = len(export_model(folded, CLIPS, metadata={"variant": "nncf"}, precisions=()).files[0].content)
    assert len(content) < 0.35 * float_bytes  # a quarter, and the graph's text, which is a tenth here
    stored = onnx.load(path).graph.initializer
    levels = sum(np.prod(tensor.dims) for tensor in stored if tensor.data_type == onnx.TensorProto.INT8)
    weights = sum(m.weight.numel() for m in folded.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear)))
    assert levels >= weights
    found = open_session(path).run(None, {"clips": CLIPS.numpy()})[0]
    assert np.array_equal(found.argmax(axis=1), exported.logits_BV.argmax(axis=1))
    assert int8_coverage(path, {"clips": CLIPS[:1].numpy()}).int8_pct > 99.9  # all but the head


def test_phm_layers_are_refused() -> None:
    table = {"stage": "phm", "n": 2, "layers": ["trunk.*conv2*"], "tune": {"epochs": 0}}
    model, _ = stage_from_config(table).apply(tiny_models.classifier(), TOOLS)
    with pytest.raises(StageError) as caught:
        stage_from_config(STAGE).apply(model, TOOLS)
    assert str(caught.value) == (
        "NNCF leaves PHM weights in float32 (2 layers, the first 'trunk.blocks.0.conv2.conv'): it quantises "
        'parameters, and these weights are computed. Use backend = "own".'
    )


def test_quantising_twice_is_refused(quantised: nn.Module) -> None:
    with pytest.raises(StageError, match="The model is quantised already; stage 'qat' applies once"):
        stage_from_config(STAGE | {"backend": "own"}).apply(quantised, TOOLS)


def test_missing_nncf_is_named_with_its_extra(folded: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(
        MissingError, match=r'^nncf cannot be imported here \(.*\)\. Install it: pip install "edgelip'
    ) as e:
        toolkit_quantise.quantise(deepcopy(folded), CLIPS)
    assert str(e.value).endswith('[compress]"')
    assert e.value.exit_code == 4


def test_fresh_process_compiles_prints_and_reports_nothing(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["torchao"] = None
import torch
torch.set_num_threads(1)
from edgelip.compress import toolkit_quantise
from edgelip.models.blocks import fold_norms
from edgelip.models.zoo import build_classifier
model = build_classifier("small", num_words=2, options={"trunk_widths": (16,), "temporal_blocks": 1}).eval()
fold_norms(model)
clips = torch.rand(2, 1, 3, 16, 16)
quantised, record = toolkit_quantise.quantise(model, clips)
quantised(clips).sum().backward()
fresh = build_classifier("small", num_words=2, options={"trunk_widths": (16,), "temporal_blocks": 1}).eval()
fold_norms(fresh)
toolkit_quantise.restore(fresh, record)(clips)
from nncf.telemetry import telemetry
assert "Mock" in str(telemetry), telemetry
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NNCF")}
    environment |= {"TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"), "PATH": "", "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not any((tmp_path / "extensions").rglob("*.cpp"))
    assert not any((tmp_path / "extensions").rglob("*.so"))
