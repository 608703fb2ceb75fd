from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from hypothesis import given
from hypothesis import strategies as st
from kronecker_sums import kron_sum
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from edgelip.errors import ShapeError
from edgelip.models.blocks import ConvNorm, fold_norms
from edgelip.models.hypercomplex import (
    PHMLayer,
    densified,
    phm_from_dense,
)
from edgelip.models.multiscale import Excitation
from edgelip.models.phm_parts import draw_as_published, replaceable_layers


def conv_layer(*, bias: bool = True) -> PHMLayer:
    torch.manual_seed(0)
    return phm_from_dense(nn.Conv1d(8, 16, 3, padding=1, bias=bias), n=4)


def inputs(channels: int = 8) -> torch.Tensor:
    return torch.randn(2, channels, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "layer",
    [nn.Conv1d(8, 8, 3, groups=4), nn.Conv1d(8, 8, 3, padding="same"), nn.Conv2d(8, 8, 3, padding_mode="reflect"),
     nn.BatchNorm1d(8)],
)  # fmt: skip
def test_layers_without_a_phm_form_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ShapeError, match=r"x is .*; PHM layers replace linear layers, and convolutions without groups"):
        phm_from_dense(layer, n=4, name="x")


@pytest.mark.parametrize(
    "dense",
    [
        nn.Linear(8, 12),
        nn.Linear(8, 4, bias=False),
        nn.Conv1d(8, 16, 3, padding=4, dilation=4),
        nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
        nn.Conv3d(4, 8, (5, 3, 3), stride=(1, 2, 2), padding=(2, 1, 1)),
    ],
)
def test_a_phm_layer_computes_what_the_dense_layer_of_its_weight_computes(dense: nn.Conv1d) -> None:
    layer = phm_from_dense(dense, n=4)
    with torch.no_grad():
        dense.weight.copy_(kron_sum(layer.A, layer.F))
        if layer.bias is not None:
            layer.bias.uniform_(-1, 1)
            dense.bias.copy_(layer.bias)  # type: ignore[union-attr]
    kernel = [7] * (dense.weight.ndim - 2)
    x = torch.randn(2, dense.weight.shape[1], *kernel, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in layer.parameters() if p.ndim > 1) == 64 + dense.weight.numel() // 4
    made = densified(nn.Sequential(layer))[0]
    assert type(made) is type(dense)
    assert torch.equal(made(x), layer(x))


@given(n=st.integers(1, 5), out=st.integers(1, 24), into=st.integers(1, 24))
def test_floor_drops_the_channels_beyond_the_last_multiple(n: int, out: int, into: int) -> None:
    if out < n or into < n:
        with pytest.raises(ShapeError, match="does not divide"):
            phm_from_dense(nn.Linear(into, out), n=n, channels="floor")
        return
    layer = phm_from_dense(nn.Linear(into, out), n=n, channels="floor")
    assert layer.dense_weight().shape == (out // n * n, into // n * n)
    if out % n or into % n:
        with pytest.raises(ShapeError, match="does not divide"):
            phm_from_dense(nn.Linear(into, out), n=n)


def test_a_number_of_terms_below_one_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"PHM n=0 for x; expected a number of terms from 1 on\."):
        phm_from_dense(nn.Linear(4, 4), n=0, name="x")


def test_a_dense_column_stands_last() -> None:
    layer = phm_from_dense(nn.Conv1d(9, 8, 1, bias=False), n=4, dense_columns=1)
    assert layer.bnd is not None
    weight = layer.dense_weight()
    torch.testing.assert_close(weight[:, :8], kron_sum(layer.A, layer.F))
    assert torch.equal(weight[:, 8:], layer.bnd)


def test_columns_without_inputs_are_not_built() -> None:
    """The published PHM stem pads one channel with zeros to n: of W only the columns of that channel matter."""
    torch.manual_seed(0)
    layer = phm_from_dense(nn.Conv2d(5, 8, 7, bias=False), n=4, columns=1)
    assert layer.A.shape == (4, 4, 4)
    padded = kron_sum(layer.A, layer.F.unsqueeze(2))  # (8, 4, 5, 7, 7): channel 0 is the clip
    torch.testing.assert_close(layer.dense_weight(), padded[:, 0])
    layer.dense_weight().sum().backward()
    assert layer.A.grad is not None
    assert torch.equal(layer.A.grad[:, :, 1:], torch.zeros(4, 4, 3))


def test_the_start_of_a_phm_layer_has_the_variance_of_the_dense_rule() -> None:
    torch.manual_seed(0)
    layer = phm_from_dense(nn.Conv2d(64, 128, 3), n=4)
    assert float(layer.dense_weight().detach().var()) == pytest.approx(2 / (128 * 9), rel=0.15)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_the_published_start_has_its_own_variance(n: int) -> None:
    """facts of the published code: Var(W) = 2 / ((out/n + n) * in * kernel), derived from its uniform bounds."""
    torch.manual_seed(0)
    dense = nn.Conv2d(128, 256, 3)
    variances = []
    for _ in range(8):
        layer = phm_from_dense(dense, n=n)
        draw_as_published(layer)
        variances.append(float(layer.dense_weight().detach().var()))
    assert np.mean(variances) == pytest.approx(2 / ((256 / n + n) * 128 * 9), rel=0.15)
    assert layer.bias is not None
    assert 0.8 / 128**0.5 < float(layer.bias.detach().abs().max()) <= 1 / 128**0.5


def test_only_layers_that_can_are_offered_for_replacement() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Linear(8, 4))
    assert list(replaceable_layers(net)) == ["0", "3"]
    with pytest.raises(ShapeError, match=r"PHM n=3 does not divide the 5 output and 6 input channels of fc\."):
        phm_from_dense(nn.Linear(6, 5), n=3, name="fc")


def test_a_phm_layer_survives_copies_types_and_its_state(tmp_path: Path) -> None:
    def block() -> ConvNorm:
        made = ConvNorm(phm_from_dense(nn.Conv1d(8, 8, 3, bias=False), n=2), nn.BatchNorm1d(8)).eval()
        fold_norms(made)
        return made

    first, fresh = block(), block()
    copy = deepcopy(first)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x = inputs()
    assert torch.equal(copy(x), first(x))
    assert torch.equal(fresh(x), first(x))
    torch.testing.assert_close(deepcopy(first).double()(x.double()).float(), first(x))
    assert deepcopy(first).to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert {"conv.A", "conv.F", "conv.row_scale", "conv.bias"} == set(first.state_dict())


CHANGES: dict[str, Callable[[PHMLayer], object]] = {
    "write A in place": lambda layer: layer.A.mul_(2),
    "write F in place": lambda layer: layer.F.add_(1),
    "swap F's data": lambda layer: setattr(layer.F, "data", layer.F.data * 3),
    "new parameter": lambda layer: setattr(layer, "A", nn.Parameter(layer.A * 2)),
    "load a state": lambda layer: layer.load_state_dict(conv_layer_of_seed(5).state_dict()),
    "row scale": lambda layer: setattr(layer, "row_scale", torch.full((16,), 2.0)),
    "optimiser step": lambda layer: step(layer),
}


class TestKeptWeight:
    """In eval mode the dense weight is built once; it must never be a stale one."""

    @torch.no_grad()
    def test_it_is_built_once(self) -> None:
        layer = conv_layer().eval()
        first = layer.running_weight()
        assert layer.running_weight() is first
        assert torch.equal(first, layer.dense_weight())

    def test_training_and_gradients_build_anew(self) -> None:
        layer = conv_layer()
        layer(inputs()).sum().backward()
        assert layer.F.grad is not None
        assert layer.eval().running_weight().requires_grad  # fine-tuning with frozen normalisation
        with torch.no_grad():
            kept = layer.running_weight()
        layer.requires_grad_(False)
        assert layer.running_weight() is kept

    @pytest.mark.parametrize("change", CHANGES)
    @torch.no_grad()
    def test_a_change_of_the_parameters_is_seen(self, change: str) -> None:
        layer = conv_layer().eval()
        before = layer(inputs())
        CHANGES[change](layer)
        after = layer(inputs())
        assert not torch.allclose(after, before)
        torch.testing.assert_close(layer.running_weight(), layer.dense_weight(), rtol=0, atol=0)

    @torch.no_grad()
    def test_a_write_through_data_is_seen_after_a_change_of_mode(self) -> None:
        layer = conv_layer().eval()
        before = layer(inputs())
        layer.F.data.mul_(2)  # counts no version: documented
        assert torch.equal(layer.train().eval().running_weight(), layer.dense_weight())
        assert not torch.allclose(layer(inputs()), before)

    @torch.no_grad()
    def test_types_and_devices_follow(self) -> None:
        layer = conv_layer().eval()
        layer(inputs())
        assert layer.double()(inputs().double()).dtype == torch.float64
        assert layer.to("meta")(inputs().double().to("meta")).device.type == "meta"

    def test_inference_mode_keeps_a_weight_that_gradients_may_pass_later(self) -> None:
        layer = conv_layer().eval().requires_grad_(False)
        with torch.inference_mode():
            expected = layer(inputs())
            assert layer.running_weight() is layer.running_weight()
        x = inputs().requires_grad_()
        result = layer(x)
        result.sum().backward()  # saves the kept weight for backward
        torch.testing.assert_close(result, expected)
        assert x.grad is not None

    def test_a_layer_made_in_inference_mode_works(self) -> None:
        with torch.inference_mode():
            layer = conv_layer().eval()
            layer(inputs())
            layer.F.mul_(2)
            assert torch.equal(layer.running_weight(), layer.dense_weight())

    @torch.no_grad()
    def test_copies_take_no_kept_weight(self) -> None:
        layer = conv_layer().eval()
        layer(inputs())
        plain = len(pickle.dumps(conv_layer().eval()))
        assert len(pickle.dumps(layer)) == plain
        copy = deepcopy(layer)
        copy.F.mul_(2)
        assert not torch.allclose(copy(inputs()), layer(inputs()))


def conv_layer_of_seed(seed: int) -> PHMLayer:
    torch.manual_seed(seed)
    return phm_from_dense(nn.Conv1d(8, 16, 3, padding=1), n=4)


def step(layer: PHMLayer) -> None:
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    with torch.enable_grad():
        layer(inputs()).square().sum().backward()
    optimiser.step()


class TestSurroundings:
    """A PHM layer behaves as the dense layer of its weight does."""

    def test_deepcopy_after_a_training_step(self) -> None:
        layer = conv_layer()
        layer(inputs()).sum().backward()
        assert torch.equal(deepcopy(layer)(inputs()), layer(inputs()))

    def test_autocast_rounds_the_weight_that_runs_and_nothing_before(self) -> None:
        layer = conv_layer(bias=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            built, result = layer.dense_weight(), layer(inputs())
        assert built.dtype == torch.float32
        assert torch.equal(built, layer.dense_weight())
        dense = densified(nn.Sequential(layer))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(result, dense(inputs()))
        assert result.dtype == torch.bfloat16

    def test_gradient_checkpointing_gives_the_same_gradients(self) -> None:
        layer = conv_layer()
        layer(inputs()).square().sum().backward()
        plain = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
        layer.zero_grad()
        checkpoint(layer, inputs(), use_reentrant=False).square().sum().backward()
        again = [parameter.grad for parameter in layer.parameters()]
        assert len(plain) == len(again) == 3
        for old, new in zip(plain, again, strict=True):
            torch.testing.assert_close(new, old)

    @pytest.mark.parametrize("mode", ["train", "eval"])
    def test_compile_takes_the_layer_in_one_graph(self, mode: str) -> None:
        layer = conv_layer().train(mode == "train")
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(inputs()), layer(inputs()))
        with torch.no_grad():
            layer.F.mul_(2)
            torch.testing.assert_close(compiled(inputs()), layer(inputs()))  # nothing was baked in

    def test_export_keeps_the_factors_as_parameters(self) -> None:
        layer = conv_layer().eval()
        with torch.no_grad():
            layer(inputs())  # a kept weight must not end up in the program
        program = torch.export.export(layer, (inputs(),))
        assert set(program.state_dict) == {"A", "F", "bias"}
        assert not program.constants
        torch.testing.assert_close(program.module()(inputs()), layer(inputs()))

    def test_distributed_training_averages_the_factors_gradients(self, tmp_path: Path) -> None:
        torch.multiprocessing.spawn(train_in_parallel, args=(str(tmp_path),), nprocs=2)
        states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
        layer = conv_layer()
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            layer(inputs()).square().mean().backward()
            optimiser.step()
        for name, value in layer.state_dict().items():
            assert torch.equal(states[0][name], states[1][name])
            torch.testing.assert_close(states[0][name], value)


def train_in_parallel(rank: int, folder: str) -> None:
    """Two steps on half of the batch, the gradients averaged; then the weights to a file."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    layer = DistributedDataParallel(conv_layer())
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        layer(inputs()[rank : rank + 1]).square().mean().backward()
        optimiser.step()
    torch.save(layer.module.state_dict(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


GEOMETRY: dict[str, nn.Module] = {
    "linear_n4": nn.Linear(32, 24),
    "linear_n16_floor": nn.Linear(896, 56, bias=False),
    "conv1d_n4": nn.Conv1d(16, 32, 3, padding=4, dilation=2),
    "conv1d_n2_boundary": nn.Conv1d(9, 12, 1, bias=False),
    "conv2d_n2": nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
    "conv2d_n8_1x1": nn.Conv2d(16, 32, 1, stride=2, bias=False),
    "conv3d_n4": nn.Conv3d(4, 64, (5, 7, 7), stride=(1, 2, 2), padding=(2, 3, 3), bias=False),
}  # fmt: skip
EXCITATIONS = {"se_n4": 64, "se_n16_896": 896}


class TestReference:
    """Outputs of the published PHM layers with seeded random weights (n 2, 4, 8, 16; float32)."""

    @pytest.mark.parametrize("case", GEOMETRY)
    def test_layer_equals_the_published_one(self, case: str, golden: Path) -> None:
        stored = np.load(golden / "phm_layers" / f"{case}.npz")
        layer = phm_from_dense(
            GEOMETRY[case],
            n=int(case.split("_n")[1].split("_")[0]),
            channels="floor" if "floor" in case else "exact",
            dense_columns=1 if "boundary" in case else 0,
        )
        layer.load_state_dict(parameters(stored))
        with torch.no_grad():
            np.testing.assert_allclose(layer.dense_weight().numpy(), stored["weight"], atol=1e-7)
            np.testing.assert_allclose(layer(torch.from_numpy(stored["input"])).numpy(), stored["output"], atol=1e-5)

    @pytest.mark.parametrize("case", EXCITATIONS)
    def test_squeeze_excitation_equals_the_published_one(self, case: str, golden: Path) -> None:
        stored = np.load(golden / "phm_layers" / f"{case}.npz")
        excitation = Excitation(EXCITATIONS[case])
        for name in ("reduce", "expand"):
            dense, n = excitation.get_submodule(name), int(case.split("_n")[1].split("_")[0])
            excitation.set_submodule(name, phm_from_dense(dense, n=n, channels="floor"))
        names = {"fc.0": "reduce", "fc.2": "expand"}
        excitation.load_state_dict({f"{names[k[:4]]}.{k[5:]}": value for k, value in parameters(stored).items()})
        with torch.no_grad():
            result = excitation(torch.from_numpy(stored["input"]), None)
        np.testing.assert_allclose(result.numpy(), stored["output"], atol=1e-5)

    def test_every_case_is_covered(self, golden: Path) -> None:
        assert {*GEOMETRY, *EXCITATIONS} == set(json.loads((golden / "phm_layers" / "cases.json").read_text()))


def parameters(stored: np.lib.npyio.NpzFile) -> dict[str, torch.Tensor]:
    """The layer's parameters under our names: linear factors are published as S."""
    found = {name.removeprefix("param."): torch.from_numpy(stored[name]) for name in stored if "param." in name}
    return {f"{name[:-1]}F" if name.endswith("S") else name: value for name, value in found.items()}
