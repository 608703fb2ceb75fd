from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import FAMILIES
from tiny_models import classifier, clips, lively
from torch import nn

from edgelip.compress.permutation import Search, _apart, permute_for_factors
from edgelip.models.channel_axes import permute
from edgelip.models.channel_streams import free_axes
from edgelip.models.kronecker import energy_kept, fold
from edgelip.models.zoo import build_classifier

SHORT = Search(rounds=8, heats=(0.2,))


def layers_of(model: nn.Module, n: int, terms: int) -> dict[str, tuple[int, int]]:
    return {
        name: (n, terms)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))
        and all(size % n == 0 for size in module.weight.shape[:2])
        and getattr(module, "groups", 1) == 1
    }


@torch.no_grad()
def test_results_stay_and_the_kept_energy_is_what_is_said() -> None:
    model, inputs = classifier(), clips(4)
    before, layers = model(inputs), layers_of(classifier(), 4, 2)
    found = permute_for_factors(model, layers, SHORT)
    torch.testing.assert_close(model(inputs), before, rtol=1e-4, atol=1e-4)
    for name, (n, terms) in layers.items():
        weight = model.get_submodule(name).weight
        assert found.after[name] == pytest.approx(energy_kept(weight, n, terms=terms), abs=1e-9)  # type: ignore[arg-type]
    assert sum(found.after.values()) > 1.05 * sum(found.before.values())
    assert found.in_time


@pytest.mark.parametrize("name", ["dctcn", "mstcn_prelu", "snv_dsmstcn", "eflip_time"])
@torch.no_grad()
def test_every_family_keeps_its_results_and_no_less_energy(name: str) -> None:
    family, options = FAMILIES[name]
    model = lively(build_classifier(family, num_words=6, options=options))
    inputs = torch.randn(2, 1, 5, 24, 24, generator=torch.Generator().manual_seed(0))
    before = model(inputs)
    found = permute_for_factors(model, layers_of(model, 2, 1), Search(rounds=3, heats=(0.0,)))
    torch.testing.assert_close(model(inputs), before, rtol=1e-4, atol=1e-4)
    assert sum(found.after.values()) >= sum(found.before.values())


@torch.no_grad()
def test_a_shuffled_kronecker_sum_is_put_in_order() -> None:
    """Two layers that are one product each, the channels between them shuffled: the search finds most of them again."""
    generator = torch.Generator().manual_seed(0)
    model = classifier()
    names = ("trunk.blocks.1.conv1.conv", "trunk.blocks.1.conv2.conv")
    for name in names:
        weight = model.get_submodule(name).weight
        out, into = weight.shape[0] // 4, weight.shape[1] // 4  # type: ignore[index, operator, union-attr]
        factors = torch.randn(1, 4, 4, generator=generator)
        weight.copy_(fold(factors, torch.randn(1, out, into, 3, 3, generator=generator)))  # type: ignore[operator]
    layers = dict.fromkeys(names, (4, 1))
    axis = next(axis for axis in free_axes(model) if axis.members[0].layer == names[0])
    permute(model, axis, torch.randperm(axis.size, generator=generator).tolist())
    found = permute_for_factors(model, layers, Search())
    assert all(share < 0.3 for share in found.before.values())
    assert all(share > 0.9 for share in found.after.values()), found.after


def test_the_same_seed_finds_the_same_order() -> None:
    first, second = classifier(), classifier()
    layers = layers_of(first, 4, 1)
    assert permute_for_factors(first, layers, SHORT) == permute_for_factors(second, layers, SHORT)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_search_out_of_time_says_so_and_stays_legal() -> None:
    model, inputs = classifier(), clips(2)
    with torch.no_grad():
        before = model(inputs)
        found = permute_for_factors(model, layers_of(model, 4, 1), Search(seconds=0.0))
        torch.testing.assert_close(model(inputs), before, rtol=1e-4, atol=1e-4)
    assert not found.in_time


@given(
    size=st.integers(1, 40),
    places=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 30)), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
def test_chosen_channels_share_no_place(size: int, places: list[tuple[int, int]], seed: int) -> None:
    chosen = _apart(size, places, np.random.default_rng(seed))
    for count, first in places:
        spots = (chosen + first) % count
        assert len(set(spots.tolist())) == len(chosen) > 0
