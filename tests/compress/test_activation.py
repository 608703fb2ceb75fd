from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_families import DENSE
from tiny_models import TOOLS
from torch import nn

from edgelip.compress.pipeline import stage_from_config
from edgelip.errors import StageError
from edgelip.models.families import lip_tcn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 2, 1), nn.SiLU(), nn.PReLU(2))
        self.head = nn.Sequential(nn.Linear(2, 2), nn.SiLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def stage(**fields: Any) -> Any:
    return stage_from_config({"stage": "activation", **fields})


def kinds(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.modules() if type(module).__name__ in ("SiLU", "PReLU", "ReLU")]


def test_all_become_relu() -> None:
    model, record = stage().prepare(Net(), TOOLS)
    assert kinds(model) == ["ReLU"] * 3
    assert record == {"activations": ["trunk.1", "trunk.2", "head.1"]}
    assert stage().label == "ReLU"


def test_patterns_choose() -> None:
    model, _ = stage(layers=["trunk.*"]).prepare(Net(), TOOLS)
    assert kinds(model) == ["ReLU", "ReLU", "SiLU"]
    assert stage(layers=["trunk.*"]).label == "ReLU in parts"


def test_restore_rebuilds_what_prepare_made() -> None:
    model, record = stage(layers=["trunk.*"]).prepare(Net(), TOOLS)
    rebuilt = stage(layers=["trunk.*"]).restore(Net(), record)
    assert kinds(rebuilt) == kinds(model)
    rebuilt.load_state_dict(model.state_dict())


def test_squeeze_excitations_keep_their_swish() -> None:
    model, record = stage().prepare(lip_tcn(num_words=4, **DENSE), TOOLS)
    assert record["activations"]
    assert not any(".excite" in name for name in record["activations"])
    assert "SiLU" in kinds(model)


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(StageError, match=r"No Swish or PReLU is called 'trunks\.1'\. Did you mean 'trunk\.1'\?"):
        stage(layers=["trunks.1"]).prepare(Net(), TOOLS)


def test_a_network_of_relu_is_refused() -> None:
    with pytest.raises(StageError, match="no Swish or PReLU to replace: all is ReLU"):
        stage().prepare(nn.Sequential(nn.ReLU()), TOOLS)


def test_a_record_of_another_network_is_refused() -> None:
    with pytest.raises(StageError, match=r"The record makes 'head\.0' a ReLU, which is no Swish or PReLU"):
        stage().restore(Net(), {"activations": ["head.0"]})
