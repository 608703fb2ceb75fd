"""Counts against those of the published code.

PARAMETERS, BUFFERS and the catalogue's published_gmac: measured on the reference implementations that the catalogue
names (fresh weights, CPU), one clip of 29 x 88 x 88, 500 words. Where they compute positions that they then cut off, or
average a map after its last 1x1 convolution instead of before, edgelip does less for the same results: the tests add
that difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import EFFICIENT
from torch import nn

from edgelip.compress.fake_quant import QuantisedLayer
from edgelip.errors import UsageError
from edgelip.models.catalogue import BACKBONES
from edgelip.models.census import count_macs, count_parameters, describe
from edgelip.models.hypercomplex import PHMLayer, phm_from_dense
from edgelip.models.inputs import kind_of
from edgelip.models.zoo import build_classifier

PARAMETERS = {
    "dctcn_dense": 52_548_532,
    "dctcn_phm2": 26_724_684,
    "dctcn_phm4": 13_822_068,
    "dctcn_phm8": 7_445_940,
    "dctcn_phm16": 4_848_564,
    "dctcn_phm2_f": 26_724_692,
    "dctcn_phm4_f": 13_822_132,
    "dctcn_phm4_ablate_b": 22_188_980,
    "dctcn_phm4_ablate_t": 44_181_620,
    "dctcn_boundary": 52_549_044,
    "dctcn_boundary_phm2": 26_725_196,
    "dctcn_boundary_phm4": 13_822_580,
    "dctcn_boundary_phm8": 7_446_452,
    "dctcn_boundary_phm16": 4_849_076,
    "mstcn_resnet18": 36_361_396,
    "mstcn_resnet18_phm4": 9_416_820,
    "snv1x_mstcn": 28_796_744,
    "snv1x_dsmstcn3x": 9_264_200,
    "snv1x_tcn2x": 9_136_480,
    "snv1x_tcn1x": 3_821_664,
    "snv05x_tcn2x": 8_224_668,
    "snv05x_tcn1x": 2_909_852,
    "audio_dctcn_dense": 45_214_324,
    "audio_dctcn_phm4": 14_854_772,
    "eflip_T": 8_178_686,
    "eflip_S": 26_194_496,
    "eflip_B": 11_920_824,
}
KNOWN = [name for name, backbone in BACKBONES.items() if backbone.published_gmac is not None]
BUFFERS = {"dctcn": 35_553, "mstcn": 21_932, "snv1x_dsmstcn3x": 66_972, "snv05x_tcn1x": 12_112, "eflip_S": 158_935}
FRAMES = 29


def on_meta(name: str) -> Any:
    with torch.device("meta"):
        return build_classifier(name, num_words=500).eval()


def extra_in_reference(name: str) -> int:
    """Multiply-adds that the reference does beyond ours."""
    model = on_meta(name)
    if name.startswith("eflip"):  # the last 1x1 convolution at all 9 positions; attention over one clip, not 29 frames
        last = model.trunk.last
        attention = 2 * FRAMES * (FRAMES - 1) * 384
        return FRAMES * 8 * last.in_channels * last.out_channels - attention
    cut = 0
    stem = model.frontend.stem.conv
    if isinstance(stem, PHMLayer):  # run over n channels of which n - 1 are empty
        cut = (stem.n - 1) * 880_337_920
    # padded by (k - 1) d on both sides, the convolutions run (k - 1) d positions more than there are frames
    for layer in model.temporal.modules():
        if type(layer).__name__ in ("Conv1d", "PHMConv"):
            kernel, dilation = layer.kernel_size[0], layer.dilation[0]
            inputs = layer.in_channels // layer.groups
            cut += (kernel - 1) * dilation * layer.out_channels * inputs * kernel
    return cut


def test_every_configuration_but_our_own_has_a_reference_count() -> None:
    signs = {name for name in BACKBONES if kind_of(name, {}) == "landmarks"}  # test_signs.py counts them
    assert set(PARAMETERS) == set(BACKBONES) - {"small"} - signs
    assert set(KNOWN) == {name for name in PARAMETERS if not name.startswith("audio")}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_reference(name: str, golden: Path) -> None:
    assert describe(name).parameters == PARAMETERS[name]
    meta = golden / name / "meta.json"
    if meta.is_file():
        assert json.loads(meta.read_text())["params"] == PARAMETERS[name]


@pytest.mark.parametrize("name", KNOWN)
def test_multiply_adds_are_those_of_the_reference_less_what_it_throws_away(name: str) -> None:
    reference = (describe(name).macs + extra_in_reference(name)) / 1e9
    assert reference == pytest.approx(
        BACKBONES[name].published_gmac, abs=5.1e-4
    )  # half of the last digit, and 0.01 MMAC


def test_the_parts_of_dctcn_cost_what_the_reference_says() -> None:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        sizes.append(output.numel() * inputs[0].shape[1] * 49)  # 7 x 7 taps over 5 stacked frames

    model, sizes = on_meta("dctcn_dense"), list[int]()
    model.frontend.stem.conv.register_forward_hook(hook)
    total = count_macs(model, torch.empty(1, 1, FRAMES, 88, 88, device="meta"))
    assert sum(sizes) == 880_337_920  # 0.880 G
    model.frontend, model.trunk = nn.Identity(), nn.Flatten()
    model.features = lambda clips: torch.empty(1, FRAMES, 512, device="meta")
    temporal = count_macs(model, torch.empty(1, 1, FRAMES, 88, 88, device="meta"))
    assert (temporal + extra_in_reference("dctcn_dense")) / 1e9 == pytest.approx(1.472, abs=5e-4)
    assert (total - sum(sizes) - temporal) / 1e9 == pytest.approx(8.288, abs=5e-4)


@pytest.mark.parametrize("name", BUFFERS)
def test_size_counts_weights_and_running_statistics(name: str) -> None:
    name, buffers = {"dctcn": "dctcn_dense", "mstcn": "mstcn_resnet18"}.get(name, name), BUFFERS[name]
    model = on_meta(name)
    assert sum(buffer.numel() for buffer in model.buffers()) == buffers
    counters = sum(buffer.numel() for buffer in model.buffers() if not buffer.is_floating_point())
    assert describe(name).fp32_mb == pytest.approx(4e-6 * (PARAMETERS[name] + buffers - counters))


def test_details_carry_what_was_published() -> None:
    details = describe("dctcn_phm16")
    assert (details.family, details.published_top1_pct) == ("lip_tcn", 86.5)
    assert "10.1016/j.patrec.2024.09.002" in details.source
    assert details.to_json()["fp32_mb"] == 19.5
    assert describe("small").published_top1_pct is None


def test_an_unknown_configuration_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"There is no backbone 'dctcn_phm5'\. Did you mean 'dctcn_phm"):
        describe("dctcn_phm5")


def test_nothing_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def record(*arguments: Any, **options: Any) -> Any:
        built.append(build_classifier(*arguments, **options))
        return built[-1]

    monkeypatch.setattr("edgelip.models.zoo.build_classifier", record)
    describe("snv05x_tcn1x")
    assert {parameter.device.type for parameter in built[0].parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(4, 8, 3, padding=1), (1, 4, 5, 5), 8 * 25 * 4 * 9),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 5, 5), 8 * 25 * 9),
        (nn.Conv2d(8, 12, 1, groups=2), (1, 8, 5, 5), 12 * 25 * 4),
        (nn.Conv1d(4, 6, 3), (1, 4, 10), 6 * 8 * 4 * 3),
        (nn.Conv1d(1, 6, 80, stride=4), (1, 1, 160), 6 * 21 * 80),
        (nn.Linear(8, 12), (1, 3, 8), 3 * 8 * 12),
        (phm_from_dense(nn.Linear(8, 12), n=4), (1, 8), 8 * 12),
        (phm_from_dense(nn.Conv1d(8, 12, 3), n=2), (1, 8, 10), 12 * 8 * 8 * 3),
    ],
)
def test_a_layer_costs_its_taps_at_every_output(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert count_macs(layer, torch.zeros(shape)) == macs


def test_a_quantised_layer_costs_what_it_wraps() -> None:
    layer = QuantisedLayer(nn.Linear(8, 12)).eval()
    assert count_macs(layer, torch.zeros(1, 8)) == 96


@pytest.mark.parametrize(("attention", "num_seen"), [("token", 0), ("batch", 1), ("time", 4)])
def test_attention_costs_two_products_with_all_that_is_seen(attention: str, num_seen: int) -> None:
    def macs(mode: str) -> int:
        model = build_classifier("eflip", num_words=5, options=EFFICIENT | {"attention": mode})
        return count_macs(model.eval(), torch.zeros(3, 1, 4, 24, 24))

    assert macs(attention) - macs("token") == 2 * 4 * 8 * num_seen


def test_parameters_are_counted_once() -> None:
    layer = nn.Linear(3, 4)
    assert count_parameters(nn.Sequential(layer, layer)) == 16
