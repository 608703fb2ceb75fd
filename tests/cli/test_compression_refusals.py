"""Compression that cannot be: one line with the variant, the cause and the remedy, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Edgelip

DEBUG = Path(__file__).parents[1] / "recipes" / "debug.toml"
USAGE, GOAL = 2, 3
REFUSALS = {
    "a stage that the model does not fit": (
        '{stage="activation"}',
        USAGE,
        "Variant 'x': The model has no Swish or PReLU to replace: all is ReLU. Leave stage 'activation' out.",
    ),
    "multiply-adds out of reach": (
        '{stage="prune",macs_ratio=0.01}',
        GOAL,
        "leaves 1% of the multiply-adds; the nearest that can be reached is ",
    ),
    "a budget out of reach": ('{stage="phm",budget_kb=1}', GOAL, "Variant 'x': budget_kb = 1 cannot be met: "),
    "a budget that asks for nothing": ('{stage="phm",budget_kb=1e5}', USAGE, "budget_kb = 100000 asks for nothing: "),
    "an n that makes a layer larger": (
        '{stage="phm",n=16,layers=["trunk.blocks.0.shortcut.*"]}',
        USAGE,
        "The largest n that pays is ",
    ),
    "patterns that only leave out": ('{stage="phm",layers=["!head"]}', USAGE, "['!head'] only leaves out. Name what "),
    "a mistyped pattern": ('{stage="store",dense=8,layers={"trnk.*"=32}}', USAGE, "Did you mean 'trunk.*'?"),
    "text for a list": ('{stage="phm",layers="trunk.*"}', USAGE, "layers: Input should be a list (got 'trunk.*')."),
    "factors in 4 bits": ('{stage="store",blocks=4,factors=4}', USAGE, "factors: Input should be 8, 16 or 32 (got 4)."),
    "quantising twice": ('{stage="ptq"},{stage="qat"}', USAGE, "'ptq' and 'qat' both quantise; a model is quantised "),
    "pruning after quantising": ('{stage="qat"},{stage="prune"}', USAGE, "Order them: prune, qat."),
    "storing after quantising": ('{stage="qat"},{stage="store",dense=4}', USAGE, "Order them: store, qat."),
    "no clip to calibrate on": (
        '{stage="ptq",calibration_clips=0}',
        USAGE,
        "Variant 'x': Stage 'ptq': calibration_clips: Input should be greater than or equal to 2 (got 0).",
    ),
    "no layer left in int8": (
        '{stage="ptq",float_layers=["*"]}',
        USAGE,
        "No layer is left in int8: float_layers takes",
    ),
    "NNCF on computed weights": (
        '{stage="store",dense=8},{stage="qat",backend="nncf"}',
        USAGE,
        "NNCF leaves weights stored in few bits in float32",
    ),
}


@pytest.mark.parametrize(("stages", "code", "text"), REFUSALS.values(), ids=list(REFUSALS))
def test_a_refusal_comes_before_training(edgelip: Edgelip, tmp_path: Path, stages: str, code: int, text: str) -> None:
    variants = f'variant=[{{name="x",stages=[{stages}]}}]'
    done = edgelip("export", DEBUG, "--set", variants, "--set", "clip.frames=4", "--out", tmp_path / "dist")
    assert text in done.line
    assert "'x'" in done.line
    assert done.code == code
    assert not list((tmp_path / "dist" / ".cache").glob("data-*"))
