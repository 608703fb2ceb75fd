"""The stages on the published families: they do what they say, or refuse in one line."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import lively, tools_of
from torch import nn

from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.toolkit_quantise import take_over
from edgelip.errors import StageError
from edgelip.models.zoo import build_classifier

PRUNE, QAT, NNCF = {"stage": "prune", "round_to": 2}, {"stage": "qat"}, {"stage": "qat", "backend": "nncf"}
PHM = {"stage": "phm", "n": 2, "layers": ["temporal.blocks.*"]}
CLIPS = torch.randn(8, 1, 5, 24, 24, generator=torch.Generator().manual_seed(0))
TOOLS = tools_of(CLIPS)


def fresh(name: str) -> nn.Module:
    family, tiny = FAMILIES[name]
    return lively(build_classifier(family, num_words=6, options=tiny))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *((name, PRUNE) for name in ("dctcn", "mstcn_prelu", "eflip_token")),
        *((name, PHM) for name in ("dctcn", "mstcn_prelu", "eflip_time")),
        *((name, QAT) for name in ("dctcn_phm2_f", "mstcn_prelu", "snv_dsmstcn", "eflip_token", "eflip_time")),
    ],
    ids=lambda value: value if isinstance(value, str) else value["stage"],
)
@torch.no_grad()
def test_a_stage_is_restored_from_its_record(name: str, stage: dict[str, Any]) -> None:
    made, record = stage_from_config(stage).prepare(fresh(name), TOOLS)
    restored = stage_from_config(stage).restore(fresh(name), record)
    restored.load_state_dict(made.state_dict())
    logits = made.eval()(CLIPS)
    assert torch.equal(restored.eval()(CLIPS), logits)
    assert logits.isfinite().all()
    if stage is PRUNE:
        assert sum(p.numel() for p in made.parameters()) < 0.7 * sum(p.numel() for p in fresh(name).parameters())


@pytest.mark.parametrize("name", ["dctcn", "snv_dsmstcn"])
@torch.no_grad()
def test_nncf_is_taken_over_with_one_scale_a_tensor_and_shared_quantisers(name: str) -> None:
    made, record = stage_from_config(NNCF).prepare(fresh(name), TOOLS)
    ours = deepcopy(made)
    take_over(ours)
    assert not any(type(module).__module__.startswith("nncf.torch.quantization") for module in ours.modules())
    assert (ours(CLIPS) - made(CLIPS)).abs().amax(dim=1).median() < 1e-4
    # Depthwise convolutions over time NNCF leaves in float; what it leaves is recorded.
    depthwise = [n for n, m in made.named_modules() if isinstance(m, nn.Conv1d) and m.groups > 1]
    assert record["float_layers"] == depthwise


def test_nncf_refuses_what_cannot_be_exported() -> None:
    with pytest.raises(StageError) as caught:
        stage_from_config(NNCF).prepare(fresh("eflip_token"), TOOLS)
    assert str(caught.value) == (
        "NNCF quantises this network in a way that edgelip cannot export (2 quantisers, the first at "
        "'temporal.norm1.weight'). Use backend = \"own\"."
    )
