"""A tuning that diverges is said where it happens, and kept by nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgelip.cli.tunings import Tunings
from edgelip.compress.stage import FineTuning
from edgelip.errors import StageError


def test_weights_that_are_no_numbers_are_refused_and_not_kept(tmp_path: Path) -> None:
    def diverge(student: nn.Module, *_: object, **__: object) -> nn.Module:
        with torch.no_grad():
            student.get_parameter("weight").fill_(torch.nan)
        return student

    layer = nn.Linear(2, 2)
    with pytest.raises(StageError, match=r"after 'prune' ended in weights that are no numbers \(the first 'weight'\)"):
        Tunings(diverge, tmp_path, name="prune")(layer, teacher=layer, tuning=FineTuning(), train_norms=True)
    assert not list(tmp_path.rglob("*.safetensors"))
