from __future__ import annotations

import pytest

from edgelip.errors import UsageError
from edgelip.models.name_patterns import matching

NAMES = ["trunk.0.conv", "trunk.1.conv", "trunk.1.shortcut", "head"]


def test_patterns_name_layers_in_their_order_and_once() -> None:
    assert matching(["head", "trunk.1*", "*.conv"], NAMES) == [
        "head",
        "trunk.1.conv",
        "trunk.1.shortcut",
        "trunk.0.conv",
    ]


def test_a_pattern_after_an_exclamation_mark_leaves_out() -> None:
    assert matching(["trunk.*", "!*.shortcut"], NAMES) == ["trunk.0.conv", "trunk.1.conv"]


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        (["trunk.0.con"], "No layer is called 'trunk.0.con'. Did you mean 'trunk.0.conv'?"),
        (["trunk.*", "!trunk.2"], "'!trunk.2' leaves out no layer of those named. Did you mean 'trunk.1.conv'?"),
        (["head", "!he*"], "['head', '!he*'] name no layer. Name one, or leave out less."),
        (["!head"], """['!head'] only leaves out. Name what is taken before it, as in ["*", "!head"]."""),
        (["trnk.*"], "No layer is called 'trnk.*'. Did you mean 'trunk.*'?"),
    ],
)  # fmt: skip
def test_a_pattern_without_effect_is_refused(patterns: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        matching(patterns, NAMES)
    assert str(caught.value) == text
