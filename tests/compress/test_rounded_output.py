"""Which results need rounding of their own, by networks where it is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgelip.compress.fake_quant import ActivationQuantiser
from edgelip.compress.quantise import insert_quantisers
from edgelip.compress.rounded_output import RoundedReLU, modules_behind, round_outputs, unrounded_outputs
from edgelip.errors import StageError


class Net(nn.Module):
    """a -> ReLU -> b -> ReLU -> mean; a's copy c -> ReLU and b's ReLU are concatenated for d; e reads d at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(2, 4, 1)
        self.d, self.e = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1)
        self.act_a, self.act_b, self.act_c = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.dropout, self.head = nn.Dropout(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act_b(self.b(self.dropout(self.act_a(self.a(x)))))
        side = self.act_c(self.c(x))
        last = self.e(self.d(torch.cat([hidden, side], dim=1)).reshape(-1, 4, 3, 3))
        return self.head(last.mean(dim=(2, 3)))  # type: ignore[no-any-return]


X = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def quantised() -> Any:
    torch.manual_seed(0)
    model = Net().eval()
    insert_quantisers(model)
    return model


def test_only_results_that_nothing_rounds_are_found() -> None:
    # a: its ReLU is read by b's rounding; d: copied, then read by e's. The head: engines need none behind it.
    assert unrounded_outputs(quantised(), X) == {"b": "act_b", "c": "act_c", "e": "e"}


def test_rounding_stands_behind_the_relu_or_at_the_layer() -> None:
    model = quantised()
    round_outputs(model, ["act_b", "act_c", "e"])
    assert isinstance(model.act_b, RoundedReLU)
    assert isinstance(model.e.output, ActivationQuantiser)
    assert unrounded_outputs(model, X) == {}
    assert modules_behind(model, X)["b"] == ("act_b",)
    assert modules_behind(model, X)["a"] == ()
    model.act_b.output.scale.fill_(0.25)
    levels = model.act_b(X) / 0.25
    torch.testing.assert_close(levels, levels.round())
    assert levels.min() == 0


def test_a_relu_that_runs_twice_is_left_as_it_is() -> None:
    model = quantised()
    model.act_c = model.act_b
    assert unrounded_outputs(model, X) == {"b": "b", "c": "c", "e": "e"}


def test_other_modules_cannot_be_rounded() -> None:
    with pytest.raises(StageError) as caught:
        round_outputs(quantised(), ["dropout"])
    assert str(caught.value) == "'dropout' is no quantised layer and no ReLU; its output cannot be rounded."
