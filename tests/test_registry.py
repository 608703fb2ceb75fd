from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.errors import MissingError, UsageError
from edgelip.registry import lookup, nearest, require

TABLE = {"decimal": "decimal:Decimal", "fraction": "fractions:Fraction", "broken": "no_such_module_of_ours:X"}


def test_a_name_gives_its_object() -> None:
    from fractions import Fraction

    assert lookup(TABLE, "fraction", kind="number") is Fraction


def test_a_table_is_imported_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_arrival.py").write_text("class Guest: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    table = {"guest": "late_arrival:Guest", **TABLE}
    assert "late_arrival" not in sys.modules
    assert lookup(table, "guest", kind="person").__name__ == "Guest"
    assert "late_arrival" in sys.modules


def test_an_unknown_name_is_refused_with_the_nearest_or_all() -> None:
    with pytest.raises(UsageError) as caught:
        lookup(TABLE, "fracton", kind="number")
    assert str(caught.value) == "There is no number 'fracton'. Did you mean 'fraction'?"
    with pytest.raises(UsageError) as caught:
        lookup(TABLE, "xyz", kind="number")
    assert str(caught.value) == "There is no number 'xyz'. Known: decimal, fraction, broken."


@given(known=st.lists(st.text("abcdef", min_size=4, max_size=8), min_size=1, max_size=5, unique=True), data=st.data())
def test_one_wrong_letter_still_finds_a_known_name(known: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    position = data.draw(st.integers(0, len(name) - 1))
    offered = nearest(name[:position] + "z" + name[position + 1 :], known)
    assert offered in {f"Did you mean {other!r}?" for other in known}


def test_a_missing_package_says_which_extra_brings_it() -> None:
    with pytest.raises(MissingError) as caught:
        require("no_such_module_of_ours", extra="ort")
    assert str(caught.value) == (
        "no_such_module_of_ours cannot be imported here (No module named 'no_such_module_of_ours'). "
        'Install it: pip install "edgelip[ort]"'
    )
    assert caught.value.exit_code == 4
    assert require("json", extra="ort").__name__ == "json"


def test_a_pattern_is_compared_with_patterns_and_long_lists_are_cut() -> None:
    names = [f"trunk.{i}.conv" for i in range(40)]
    assert nearest("trnk.*", names) == "Did you mean 'trunk.*'?"
    assert nearest("xyz", names).endswith("trunk.29.conv and 10 more.")
