"""The text of `edgelip blame` from a result written down by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgelip.report.blame import blame_markdown, blame_text

QAT = {"stage": "qat", "toml": 'float_layers = ["head"]'}
PRUNE = {"stage": "prune", "toml": None}


def row(**changes: Any) -> dict[str, Any]:
    return {
        "layers": ["head"], "weights": ["reference"], "logits_db": 30.25, "regained_db": 8.0, "top1_pct": 91.0,
        "regained_clips": 12, "p": 0.0004, "latency_ratio": [1.1, 1.05, 1.15],
        "exclusions": [QAT], "alone_db": None, "inside_db": 12.5, "moved_pct": 1.0, **changes,
    }  # fmt: skip


def result(**layers: Any) -> dict[str, Any]:
    change = {
        "name": "ABOUT", "num_clips": 40, "right_before": 38, "right_after": 20, "lost": 19, "gained": 1, "p": 4e-5,
        "p_holm": 8e-5,
    }  # fmt: skip
    still = {**change, "name": "DEATH", "lost": 0, "gained": 0, "p": 1.0, "p_holm": None}
    return {
        "reference": {"name": "dense", "file": "model.fp32.onnx"},
        "suspect": {"name": "int8", "file": "model.int8-u8.onnx"},
        "clips": {"num_clips": 1000},
        "layers": {
            "reason": None, "rows": [row()], "together": [], "everything": None, "apart": {}, "undone": [],
            "trained_on": False, "advice": row(), **layers,
        },
        "words": {
            "total": {
                "reference_top1_pct": 92.0, "suspect_top1_pct": 90.0, "change_points": [-2.0, -3.0, -1.0], "lost": 25,
                "gained": 5, "p": 0.0003,
            },
            "words": [change, still],
            "confusions": [{"word": "ABOUT", "said": "A|B", "before": 1, "after": 9, "p": 0.01, "p_holm": None}],
            "visemes": [{**change, "name": "P B M", "words": list("ABCD")}],
            "without_pronunciation": ["QUUX"],
            "flips": [{"clip": 7, "word": "ABOUT", "before": "ABOUT", "after": "DEATH", "kind": "lost"}],
        },
    }  # fmt: skip


def test_the_terminal_shows_what_was_lost_and_what_to_paste() -> None:
    text = blame_text(result())
    first, *_, expected, stage, paste = text.splitlines()
    assert first == (
        "A dense (model.fp32.onnx) 92.00 %, B int8 (model.int8-u8.onnx) 90.00 % top-1 of 1,000 clips: -2.00 points "
        "[-3.00, -1.00], 25 clips lost, 5 gained, p 3e-04"
    )
    assert paste == '    float_layers = ["head"]'
    assert stage == "Paste into stage 'qat':"
    assert (
        expected
        == "Leave alone head. Expected: 91.00 % top-1 (+12 clips, p 4e-04), latency 1.100 [1.050, 1.150] of B's."
    )
    (line,) = [line for line in text.splitlines() if line.startswith("head ")]
    assert line.split() == [
        "head",
        "same",
        "12.5",
        "30.2",
        "+8.0",
        "91.00",
        "+12",
        "4e-04",
        "1.100",
        "[1.050,",
        "1.150]",
    ]
    assert "No pronunciation is known of 1 words: QUUX." in text
    assert "DEATH  " not in text.split("Confusions")[0]  # nothing changed for it
    assert "A, B, C and 1 more" in text


def test_long_tables_are_cut_on_the_terminal_only() -> None:
    long = result()
    long["words"]["flips"] *= 20
    assert "(and 12 more in blame.md)" in blame_text(long)
    assert blame_markdown(long).count("| 7 | ABOUT | ABOUT | DEATH | lost |") == 20


def test_markdown_keeps_its_columns_whatever_the_words() -> None:
    text = blame_markdown(result())
    assert "| ABOUT | A/B | 1 | 9 | 0.010 | - |" in text
    assert text.startswith("# Blame\n")


@pytest.mark.parametrize(
    ("layers", "line"),
    [
        ({"reason": "too old."}, "Layers were not looked at: too old."),
        ({"reason": "none fits.", "apart": {"a": "pruned"}}, "Not comparable (pruned): a."),
        ({"undone": [{"layer": name} for name in "abcdefg"]}, "those that come next: a, b, c, d, e and 2 more."),
        ({"apart": {"a": "pruned", "b": "pruned"}}, "Not comparable (pruned): a, b."),
        ({"trained_on": True}, "B was trained on after A:"),
        ({"advice": None}, "No layer or set of layers that was put back on all clips regains accuracy beyond chance."),
        ({"advice": None, "rows": [row(regained_clips=None)]}, "No layer has been put back on all clips yet"),
        ({"advice": row(exclusions=[PRUNE])}, "Stage 'prune' of B takes no list of single layers to leave alone"),
        ({"advice": row(exclusions=[PRUNE, QAT])}, "The figures hold for all these stages together"),
        ({"advice": row(latency_ratio=None)}, "latency not measured"),
        ({"rows": [row(weights=["own"])]}, "head (own weights)"),
        ({"together": [row(layers=["a", "b"], weights=["own", "own"])]}, "the first 2 "),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(layers: dict[str, Any], line: str) -> None:
    for text in (blame_text(result(**layers)), blame_markdown(result(**layers))):
        assert line in text.replace("| ", "").replace(" |", " ")


def test_a_loss_within_chance_needs_no_exclusion() -> None:
    small = result(advice=None)
    small["words"]["total"] |= {"p": 0.2}
    assert blame_text(small).endswith("B's loss is within chance (p 0.200): no layer needs to be excluded.")


def test_a_chain_of_factors_has_no_output_alone() -> None:
    (line,) = [line for line in blame_text(result(rows=[row(chain=True)])).splitlines() if line.startswith("head ")]
    assert line.split()[1:3] == ["-", "12.5"]
