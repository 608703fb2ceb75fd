from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgelip.data.synthetic.hashing import Draws, bump, combine, decay, exp, mix, sine, sum_in_halves


def lowbias32(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_mix_is_the_published_32_bit_hash(keys: list[int]) -> None:
    assert mix(torch.tensor(keys)).tolist() == [lowbias32(key) for key in keys]


def test_draws_of_an_owner_do_not_depend_on_the_other_owners() -> None:
    together = Draws(torch.arange(10)).normal("x", 3)
    alone = Draws(torch.tensor([7])).normal("x", 3)
    assert torch.equal(together[7], alone[0])


def test_draws_with_different_names_are_unrelated() -> None:
    draws = Draws(torch.arange(20_000))
    a, b = draws.normal("a"), draws.normal("b")
    assert abs(float((a * b).mean())) < 4 / math.sqrt(20_000)


def test_uniform_draws_fill_their_range_evenly() -> None:
    x = Draws(torch.arange(40_000)).uniform("u", low=2.0, high=4.0)
    assert 2.0 <= float(x.min()) < 2.01
    assert 3.99 < float(x.max()) < 4.0
    assert float(x.mean()) == pytest.approx(3.0, abs=4 * (2 / math.sqrt(12)) / 200)


def test_normal_draws_have_the_asked_spread() -> None:
    x = Draws(torch.arange(40_000)).normal("n", sd=2.0)
    assert float(x.mean()) == pytest.approx(0.0, abs=0.04)
    assert float(x.std()) == pytest.approx(2.0, rel=0.02)


def test_integer_draws_cover_every_value() -> None:
    x = Draws(torch.arange(5_000)).integers("i", 7)
    assert sorted(set(x.tolist())) == list(range(7))


def test_combine_tells_the_order_of_its_keys() -> None:
    key = torch.tensor([0])
    assert combine(key, 1, 2) != combine(key, 2, 1)


@given(st.floats(-2, 2))
def test_exp_follows_the_exponential_within_its_stated_error(x: float) -> None:
    assert float(exp(torch.tensor(x))) == pytest.approx(math.exp(x), rel=x * x / 1024 + 2e-4)


@given(st.floats(0, 8))
def test_decay_follows_the_exponential(x: float) -> None:
    assert float(decay(torch.tensor(x))) == pytest.approx((1 - x / 32) ** 32, rel=1e-4)
    assert abs(float(decay(torch.tensor(x))) - math.exp(-x)) < 0.01


@given(st.floats(-20, 20))
def test_sine_follows_the_sine(turns: float) -> None:
    assert float(sine(torch.tensor(turns))) == pytest.approx(math.sin(2 * math.pi * turns), abs=1.2e-3)


def test_bump_is_one_in_the_middle_and_nothing_outside() -> None:
    assert bump(torch.tensor([0.0, 1.0, -1.0, 5.0, 0.5])).tolist() == [1.0, 0.0, 0.0, 0.0, 0.5625]


@given(st.integers(1, 33))
def test_sum_in_halves_adds_everything_once(extent: int) -> None:
    x = torch.arange(2 * extent * 3, dtype=torch.float32).reshape(2, extent, 3)
    assert torch.equal(sum_in_halves(x, 1), x.sum(1))


def test_exact_functions_give_the_same_bits_at_every_place_of_a_vector() -> None:
    """`torch.log` does not: the tail of a vectorised loop rounds otherwise."""
    value = torch.tensor(0.7316)
    for function in (exp, decay, sine, bump):
        expected = function(value)
        for extent in (3, 8, 17, 31):
            assert torch.equal(function(value.expand(extent).clone()), expected.expand(extent))
