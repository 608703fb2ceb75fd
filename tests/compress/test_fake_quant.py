from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import PHM, QAT, TOOLS, classifier, clips, lively
from torch import nn

from edgelip.compress.calibration import calibrate
from edgelip.compress.fake_quant import (
    MIN_SCALE,
    ActivationQuantiser,
    QuantisedLayer,
    fake_quantise_rows,
    quantile_range,
    row_scales,
)
from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.quantise import insert_quantisers
from edgelip.errors import StageError
from edgelip.models.blocks import fold_norms
from edgelip.models.hypercomplex import PHMConv, phm_from_dense
from edgelip.models.kronecker import fold


@given(
    rows=st.integers(1, 6), columns=st.integers(1, 9), seed=st.integers(0, 99), size=st.sampled_from([1e-3, 1.0, 50])
)
def test_weights_round_as_the_formula_says(rows: int, columns: int, seed: int, size: float) -> None:
    weight = size * np.random.default_rng(seed).standard_normal((rows, columns, 3)).astype(np.float32)
    scale = np.maximum(np.abs(weight).reshape(rows, -1).max(axis=1) / np.float32(127), MIN_SCALE).astype(np.float32)
    levels = np.clip(np.rint(weight / scale[:, None, None]), -128, 127)
    got = fake_quantise_rows(torch.from_numpy(weight), 1).numpy()
    np.testing.assert_allclose(row_scales(torch.from_numpy(weight), 1).numpy(), scale, rtol=1e-6)
    np.testing.assert_allclose(got, levels * scale[:, None, None], rtol=1e-6, atol=1e-9)
    assert np.abs(got - weight).max() <= 0.5001 * scale.max()
    assert all(len(np.unique(row)) <= 255 for row in levels)


def test_rows_of_a_block_have_scales_of_their_own() -> None:
    blocks = torch.ones(2, 3, 4, 5) * torch.tensor([[1.0, 2, 4], [8, 16, 32]])[..., None, None]
    torch.testing.assert_close(row_scales(blocks, 2), torch.tensor([[1.0, 2, 4], [8, 16, 32]]) / 127)
    torch.testing.assert_close(fake_quantise_rows(blocks, 2), blocks)
    assert float(row_scales(torch.zeros(1, 4), 1)) == pytest.approx(MIN_SCALE)


@given(low=st.floats(-50, 0), high=st.floats(0, 50), seed=st.integers(0, 99))
def test_activations_round_as_the_formula_says_and_the_range_covers(low: float, high: float, seed: int) -> None:
    x = np.random.default_rng(seed).uniform(low, high, 500).astype(np.float32)
    quantiser = ActivationQuantiser()
    quantiser.observing = True
    assert torch.equal(quantiser(torch.from_numpy(x)), torch.from_numpy(x))
    quantiser.observing = False
    quantiser.settle()
    scale = float(quantiser.scale)
    largest = max(abs(float(x.min())), abs(float(x.max())))
    assert scale == pytest.approx(max(largest / 127, MIN_SCALE), rel=1e-6)
    got = quantiser(torch.from_numpy(x)).numpy()
    levels = np.clip(np.rint(x / np.float32(scale)), -128, 127)
    differing = np.abs(got - levels * np.float32(scale)) > 1e-5 * max(1, abs(low), high)
    assert differing.mean() <= 0.01  # torch multiplies by 1 / scale: ties may fall the other way
    assert np.abs(got - x).max() <= 0.51 * scale
    assert float(quantiser(torch.zeros(()))) == 0.0
    beyond = quantiser(torch.tensor([-200.0, 200.0]) * scale)
    torch.testing.assert_close(beyond, torch.tensor([-128.0, 127.0]) * scale)


def test_single_outliers_do_not_widen_the_range() -> None:
    x = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([1000.0, -1000.0])])
    low, high = quantile_range(x)
    assert -1.0 <= low < -0.99
    assert 0.99 < high <= 1.0
    assert quantile_range(torch.tensor([3.0, -2.0, 1.0])) == (-2.0, 3.0)


def test_calibration_in_batches_sees_the_widest_of_them() -> None:
    inputs = clips(8) * torch.arange(1.0, 9.0)[:, None, None, None, None]
    model = classifier()
    insert_quantisers(model)
    calibrate(model, inputs, batch_size=3)
    stem = model.frontend.stem.conv
    assert float(stem.input.scale) == pytest.approx(float(inputs.abs().max()) / 127, rel=0.02)  # less the quantile
    assert not any(m.observing for m in model.modules() if isinstance(m, ActivationQuantiser))


def layer_pair() -> tuple[QuantisedLayer, nn.Conv1d]:
    torch.manual_seed(0)
    conv = nn.Conv1d(4, 6, 3, padding=1)
    layer = QuantisedLayer(conv)
    layer.input.scale.fill_(0.03)
    return layer, conv


def test_a_quantised_layer_computes_in_whole_numbers() -> None:
    """int8 weights times int8 activations, plus an int32 bias: nothing else is added."""
    layer, conv = layer_pair()
    x = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1))
    weight_scale = conv.weight.detach().abs().flatten(1).amax(1).numpy() / 127
    weight = np.rint(conv.weight.detach().numpy() / weight_scale[:, None, None]).astype(np.int64)
    levels = np.clip(np.rint(x.numpy() / np.float32(0.03)), -128, 127).astype(np.int64)
    step = 0.03 * weight_scale
    bias = np.rint(conv.bias.detach().numpy() / step).astype(np.int64)  # type: ignore[union-attr]
    padded = np.pad(levels, ((0, 0), (0, 0), (1, 1)))
    sums = sum(np.einsum("oi,bit->bot", weight[:, :, k], padded[:, :, k : k + 9]) for k in range(3))
    expected = (sums + bias[:, None]) * step[:, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-5)


def test_the_bias_is_rounded_once_the_range_is_known_and_gradients_pass() -> None:
    layer, conv = layer_pair()
    assert conv.bias is not None
    _, bias = layer.running_parameters()
    assert bias is not None
    step = 0.03 * row_scales(conv.weight, 1)
    torch.testing.assert_close(bias / step, torch.round(bias / step), rtol=0, atol=1e-2)
    assert 0 < (bias - conv.bias).abs().max() <= 0.51 * step.max()
    bias.sum().backward()
    assert torch.equal(conv.bias.grad, torch.ones(6))
    layer.input.observing = True
    assert layer.running_parameters()[1] is conv.bias


def test_gradients_reach_the_factors_of_a_phm_layer() -> None:
    torch.manual_seed(0)
    phm = phm_from_dense(nn.Conv2d(8, 16, 3), n=4)
    phm.row_scale = torch.rand(16) + 0.5
    layer = QuantisedLayer(phm)
    layer.input.scale.fill_(0.05)
    layer(torch.randn(2, 8, 5, 5)).square().sum().backward()
    for factor in (phm.A, phm.F):
        assert factor.grad is not None
        assert (factor.grad.flatten(1).abs().sum(1) > 0).all()
    weight, _ = layer.running_parameters()
    dense = fold(phm.A, fake_quantise_rows(phm.F, 2)) * phm.row_scale[:, None, None, None]
    levels = weight / row_scales(dense, 1)[:, None, None, None]
    torch.testing.assert_close(levels, torch.round(levels), rtol=0, atol=1e-3)


def test_quantising_folds_norms_and_wraps_every_layer_and_sum() -> None:
    phm, _ = stage_from_config(PHM).prepare(classifier(), TOOLS)
    lively(phm)
    model, record = stage_from_config(QAT).prepare(phm, TOOLS)
    lists = [record[key] for key in ("activations", "outputs", "float_layers")]
    assert (record["backend"], lists) == ("own", [[], [], []])  # every output goes through a ReLU to a rounded input
    weighted = [name for name, m in model.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear, PHMConv))]
    assert len(weighted) == 12
    assert all(isinstance(model.get_submodule(name.rpartition(".")[0]), QuantisedLayer) for name in weighted)
    assert sum(isinstance(m, ActivationQuantiser) for m in model.modules()) == 12 + 2 * 4
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


@torch.no_grad()
def test_quantised_logits_stay_near_the_float_ones() -> None:
    model = classifier()
    quantised, _ = stage_from_config(QAT).prepare(classifier(), TOOLS)
    got, wanted = quantised(clips()), model(clips())
    assert 1e-5 < (got - wanted).abs().max() < 0.15 * wanted.std()


def test_quantising_twice_is_refused() -> None:
    once, _ = stage_from_config(QAT).prepare(classifier(), TOOLS)
    with pytest.raises(StageError) as caught:
        stage_from_config(QAT).prepare(once, TOOLS)
    assert str(caught.value) == "The model is quantised already; stage 'qat' applies once. Remove one of the two."


def test_calibration_takes_as_many_clips_as_asked_evenly() -> None:
    few, _ = stage_from_config({**QAT, "calibration_clips": 2}).prepare(classifier(), TOOLS)
    model = classifier()
    fold_norms(model)
    insert_quantisers(model)
    clips_B1THW = TOOLS.calibration().clips_B1THW
    calibrate(model, clips_B1THW[[0, len(clips_B1THW) - 1]])  # evenly taken: the first and the last
    assert torch.equal(few.frontend.stem.conv.input.scale, model.frontend.stem.conv.input.scale)  # type: ignore
    many, _ = stage_from_config(QAT).prepare(classifier(), TOOLS)
    assert not torch.equal(few.head.input.scale, many.head.input.scale)  # type: ignore
