from __future__ import annotations

import pytest

from edgelip.data.synthetic.look_alikes import _within_one, look_alikes


def test_homophenes_and_words_of_one_other_viseme_look_alike() -> None:
    found = look_alikes(["PRICE", "BILLION", "ABOUT", "PRESS", "MILLION", "HOSPITAL"])
    assert found == {"BILLION": ("MILLION",), "MILLION": ("BILLION",), "PRICE": ("PRESS",), "PRESS": ("PRICE",)}


def test_case_does_not_matter_and_unknown_words_look_like_none() -> None:
    assert look_alikes(["billion", "Million", "zzz", "qqq"]) == {"billion": ("Million",), "Million": ("billion",)}


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ((1, 2, 3), (1, 2, 3), True),
        ((1, 2, 3), (1, 9, 3), True),
        ((1, 2, 3), (1, 2, 3, 4), True),
        ((2, 3), (1, 2, 3), True),
        ((1, 1), (1, 1, 1), True),
        ((), (1,), True),
        ((1, 2, 3), (2, 1, 3), False),
        ((1, 2, 3), (1, 9, 9), False),
        ((1, 2), (1, 2, 3, 4), False),
    ],
)
def test_one_edit_is_a_change_an_insertion_or_none(one: tuple[int, ...], two: tuple[int, ...], expected: bool) -> None:
    assert _within_one(one, two) is _within_one(two, one) is expected
