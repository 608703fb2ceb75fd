from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.errors import UsageError
from edgelip.report.pareto import pareto_front

_value = st.one_of(st.none(), st.integers(-3, 3), st.floats(-1e6, 1e6))


@given(st.lists(st.tuples(_value, _value, _value), max_size=12), st.integers(0, 3))
def test_the_front_is_what_brute_force_finds(values: list[tuple[float, ...]], num_minimised: int) -> None:
    names = ("a", "b", "c")
    rows = [SimpleNamespace(**dict(zip(names, each, strict=True))) for each in values]
    minimise, maximise = names[:num_minimised], names[num_minimised:]

    def is_beaten(row: SimpleNamespace, other: SimpleNamespace) -> bool:
        better = [getattr(other, n) < getattr(row, n) for n in minimise]
        better += [getattr(other, n) > getattr(row, n) for n in maximise]
        worse = [getattr(other, n) > getattr(row, n) for n in minimise]
        worse += [getattr(other, n) < getattr(row, n) for n in maximise]
        return any(better) and not any(worse)

    whole = [row for row in rows if None not in vars(row).values()]
    expected = [row for row in whole if not any(is_beaten(row, other) for other in whole)]
    assert pareto_front(rows, minimise=minimise, maximise=maximise) == expected


def test_equal_rows_all_stay_and_order_is_kept() -> None:
    rows = [SimpleNamespace(x=x, y=y) for x, y in ((2, 5), (1, 1), (2, 5), (3, 5), (9, 9))]
    front = pareto_front(rows, minimise=["x"], maximise=["y"])
    assert [(row.x, row.y) for row in front] == [(2, 5), (1, 1), (2, 5), (9, 9)]


def test_a_front_needs_objectives_that_the_rows_have() -> None:
    with pytest.raises(
        UsageError, match=r"a Pareto front of no objectives; expected at least 1 to minimise or maximise"
    ):
        pareto_front([SimpleNamespace(x=1)])
    with pytest.raises(UsageError, match=r"a SimpleNamespace has no 'y' to compare\. Name one of its fields\."):
        pareto_front([SimpleNamespace(x=1)], minimise=["y"])
    assert pareto_front([], minimise=["y"]) == []
