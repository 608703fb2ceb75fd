from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.engines.trt_options import PlanOptions, plan_options
from edgelip.runtime.errors import UsageError


def test_nothing_chosen_is_every_default() -> None:
    assert plan_options({}) == PlanOptions()


def test_words_become_values() -> None:
    words = {
        "max_batch": "8",
        "workspace_mib": "256",
        "builder_optimization_level": "5",
        "tf32": "yes",
        "sparse": "no",
        "hardware_compatible": "ampere_plus",
        "timing_cache": "a/b",
        "sm": "86",
    }
    assert plan_options(words) == PlanOptions(
        batch=(1, 1, 8),
        workspace_mib=256,
        builder_optimization_level=5,
        tf32=True,
        hardware_compatible="ampere_plus",
        timing_cache=Path("a/b"),
        sm="86",
    )


@pytest.mark.parametrize(
    ("words", "batch"),
    [
        ({"min_batch": "4"}, (4, 4, 16)),
        ({"opt_batch": "8"}, (1, 8, 16)),
        ({"opt_batch": "64"}, (1, 64, 64)),
        ({"min_batch": "20"}, (20, 20, 20)),
        ({"max_batch": "1"}, (1, 1, 1)),
        ({"min_batch": "2", "opt_batch": "3", "max_batch": "4"}, (2, 3, 4)),
    ],
)
def test_bounds_that_are_left_out_follow_those_given(words: dict[str, str], batch: tuple[int, int, int]) -> None:
    assert plan_options(words).batch == batch


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^batch is 4/4/2; expected min_batch <= opt_batch <= max_batch\.$"):
        plan_options({"min_batch": "4", "max_batch": "2"})


@pytest.mark.parametrize("word", ["0", "-1", "1025", "x", "", "1.5", "١", "9" * 5000])
def test_a_batch_that_is_no_count_is_refused(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_options({"max_batch": word})
    assert str(caught.value) == f"Option max_batch is {word[:80]!r}; expected a whole number from 1 to 1024."


@given(st.dictionaries(st.sampled_from(["min_batch", "opt_batch", "max_batch"]), st.text() | st.integers().map(str)))
def test_any_words_give_bounds_in_order_or_a_usage_error(words: dict[str, str]) -> None:
    try:
        batch = plan_options(words).batch
    except UsageError:
        return
    if words:
        assert batch is not None
        assert 1 <= batch[0] <= batch[1] <= batch[2] <= 1024
    else:
        assert batch is None
