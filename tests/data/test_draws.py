from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgelip.data.draws import Draws, mix
from edgelip.data.synthetic import hashing


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=40))
def test_mix_is_the_hash_of_the_generator(keys: list[int]) -> None:
    assert mix(np.array(keys, np.uint64)).tolist() == hashing.mix(torch.tensor(keys)).tolist()


def test_golden_draws() -> None:
    """Of this code on x86-64, 2026-11-22: another number moves every published robustness figure."""
    assert Draws(0, 7, "jitter_4").bits("aside", 3).tolist() == [3477111580, 1553993935, 1080712604]


def test_draws_differ_by_seed_clip_condition_and_name() -> None:
    drawn = {
        int(draws.bits(name, 1)[0])
        for draws in (Draws(0, 0, "a"), Draws(1, 0, "a"), Draws(0, 1, "a"), Draws(0, 0, "b"))
        for name in ("x", "y")
    }
    assert len(drawn) == 8


def test_uniform_and_normal_have_the_moments_of_their_names() -> None:
    draws = Draws(0, 0, "moments")
    uniform, normal = draws.uniform("u", 200, 100, low=-3, high=3), draws.normal("n", 200, 100)
    assert uniform.min() >= -3
    assert uniform.max() < 3
    assert uniform.mean() == pytest.approx(0, abs=0.05)
    assert uniform.std() == pytest.approx(6 / 12**0.5, rel=0.02)
    assert normal.mean() == pytest.approx(0, abs=0.03)
    assert normal.std() == pytest.approx(1, rel=0.02)
    assert {Draws(0, clip, "s").sign("way") for clip in range(20)} == {-1, 1}
