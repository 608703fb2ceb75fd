from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.errors import UsageError
from edgelip.report.quantities import BYTES, JOULES, MEBIBYTES, MILLISECONDS, PERCENT, quantity_from_text

KINDS = [BYTES, JOULES, MEBIBYTES, MILLISECONDS]


@given(st.sampled_from(KINDS), st.data(), st.decimals(0, 10**6, places=3))
def test_a_number_and_any_unit_give_the_same_quantity(
    units: Mapping[str, float], data: st.DataObject, number: object
) -> None:
    unit = data.draw(st.sampled_from(sorted(units)))
    space = data.draw(st.sampled_from(["", " ", "  "]))
    found = quantity_from_text(f"{number}{space}{unit}", units, option="--max")
    assert found == pytest.approx(float(str(number)) * units[unit])


@given(st.text(max_size=6), st.sampled_from([*KINDS, PERCENT]))
def test_any_text_is_a_quantity_or_a_clear_error(text: str, units: Mapping[str, float]) -> None:
    try:
        found = quantity_from_text(text, units, option="--max-x")
    except UsageError as error:
        assert str(error).startswith(f"--max-x is {text!r}")  # noqa: PT017
    else:
        assert found >= 0
        assert any(letter.isdigit() for letter in text)


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("40ms", MILLISECONDS, 40), ("0.04s", MILLISECONDS, 40), ("250us", MILLISECONDS, 0.25),
        (" .5 s ", MILLISECONDS, 500),
        ("4MB", BYTES, 4e6), ("4MiB", BYTES, 4194304), ("500kB", BYTES, 5e5), ("1GiB", BYTES, 2**30),
        ("100MiB", MEBIBYTES, 100), ("20mJ", JOULES, 0.02), ("86", PERCENT, 86), ("86.5 %", PERCENT, 86.5),
        ("1%", PERCENT, 1), ("0", PERCENT, 0), ("100%", PERCENT, 100),
    ],
)  # fmt: skip
def test_quantities_as_people_write_them(text: str, units: Mapping[str, float], value: float) -> None:
    assert quantity_from_text(text, units, option="--max") == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "units", "message"),
    [
        ("40", MILLISECONDS, r"--max is '40' without a unit; write 40ns, 40us, 40µs, 40ms, 40s\."),
        ("4", BYTES, r"--max is '4' without a unit; write 40B, 40kB, 40MB"),
        ("4mb", BYTES, r"--max is '4mb': the unit 'mb' is none of B, kB, MB, GB, KiB, MiB, GiB\."),
        ("4 kb", BYTES, r"the unit 'kb' is none of"),
        ("40 m s", MILLISECONDS, r"the unit 'm s' is none of"),
        ("-4MB", BYTES, r"--max is '-4MB'; expected a number with its unit, such as 40B, "),
        ("1e3ms", MILLISECONDS, r"the unit 'e3ms' is none of"),
        ("nan", MILLISECONDS, r"--max is 'nan'; expected a number with its unit"),
        ("４ms", MILLISECONDS, r"expected a number with its unit"),
        ("", BYTES, r"--max is ''; expected a number with its unit"),
        ("0.86", PERCENT, r"--max is '0.86' without a unit; write 0.86%, or 86% of a share\."),
        ("1", PERCENT, r"--max is '1' without a unit; write 1%, or 100% of a share\."),
        ("101%", PERCENT, r"--max is '101%'; expected at most 100%\."),
        ("9" * 400 + "s", MILLISECONDS, r"expected a number that is not so large\."),
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str, units: Mapping[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantity_from_text(text, units, option="--max")
