from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgelip.compress.fake_quant import ActivationQuantiser, QuantisedLayer
from edgelip.compress.quantised_activation import (
    QuantisedSlope,
    QuantisedSwish,
    curved_activations,
    insert_activations,
)
from edgelip.errors import StageError


class Net(nn.Module):
    """Activations behind a rounded layer, behind a float one, behind a ReLU, and one used in both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.rounded = QuantisedLayer(nn.Conv2d(1, 4, 3))
        self.plain = nn.Conv2d(4, 4, 1)
        self.swish, self.slope, self.after_float, self.shared = nn.SiLU(), nn.PReLU(4), nn.SiLU(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        made = self.rounded(x)
        total = self.swish(made) + self.slope(made) + self.shared(made)
        return self.after_float(self.plain(total)) + self.shared(total)  # type: ignore[no-any-return]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_only_activations_behind_rounded_layers_are_found(x: Tensor) -> None:
    assert curved_activations(Net(), x) == ("swish", "slope")


def test_named_activations_are_replaced(x: Tensor) -> None:
    net = Net()
    insert_activations(net, ["swish", "slope"])
    assert isinstance(net.swish, QuantisedSwish)
    assert isinstance(net.slope, QuantisedSlope)
    assert isinstance(net.after_float, nn.SiLU)
    assert net(x).shape == (2, 4, 4, 4)


def test_a_name_that_is_no_activation_is_refused() -> None:
    with pytest.raises(StageError, match=r"rounds the activation 'plain', which is none of this model\. Known: "):
        insert_activations(Net(), ["plain"])


def test_swish_takes_rounded_input_and_gate(x: Tensor) -> None:
    act = QuantisedSwish()
    act.input.scale.fill_(0.05)
    rounded = (x / 0.05).round().clamp(-128, 127) * 0.05
    gate = (torch.sigmoid(rounded) * 127).round() / 127
    torch.testing.assert_close(act(x), rounded * gate)
    assert (act(x) - torch.nn.functional.silu(x)).abs().max() < 0.05


def test_calibration_leaves_the_step_of_the_gate(x: Tensor) -> None:
    act = QuantisedSwish()
    quantisers = [module for module in act.modules() if isinstance(module, ActivationQuantiser)]
    for quantiser in quantisers:
        quantiser.observing = True
    act(x)
    for quantiser in quantisers:
        quantiser.observing = False
        quantiser.settle()
    assert act.gate.scale.item() == pytest.approx(1 / 127)
    assert act.input.scale.item() == pytest.approx(x.abs().max().item() / 127)


def test_gradients_pass_the_rounding(x: Tensor) -> None:
    act = QuantisedSwish()
    act.input.scale.fill_(0.05)
    inputs = x.clone().requires_grad_()
    act(inputs).sum().backward()
    assert inputs.grad is not None
    exact = x.clone().requires_grad_()
    torch.nn.functional.silu(exact).sum().backward()
    assert exact.grad is not None
    assert (inputs.grad - exact.grad).abs().max() < 0.05


def test_a_slope_of_a_quarter_ends_on_no_half_way(x: Tensor) -> None:
    """At 0.5 of a step, torch and ONNX Runtime would round in different directions."""
    act, following = QuantisedSlope(nn.PReLU()), ActivationQuantiser()
    quantisers = [act.input, following]
    for quantiser in quantisers:
        quantiser.observing = True
    following(act(x.abs() - 0.5))
    for quantiser in quantisers:
        quantiser.observing = False
        quantiser.settle()
    negative = act(-x.abs()) / following.scale
    distance = (negative - negative.floor() - 0.5).abs()
    assert distance.min() > 1e-4
