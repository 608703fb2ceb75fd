"""A stage's result is kept until a file that makes it changes: `Stage.sources` must name all of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edgelip.compress
from edgelip.compress import STAGES
from edgelip.compress.stage import Stage
from edgelip.registry import lookup

FOLDER = Path(edgelip.compress.__file__).parent
ALWAYS = {"stage", "pipeline"}  # in the key of every stage, as are models and train
# Imported for the kinds of layers that a stage refuses to work on; nothing in them makes its result.
ONLY_REFUSED = {
    "prune": {"fake_quant", "stored_layer", "toolkit_quantise"},
    "sparsify": {"fake_quant", "stored_layer"},
    "store": {"quantise"},
}


def imported(module: str) -> set[str]:
    """Modules of edgelip.compress that one of them imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "edgelip.compress":
            found |= {alias.name for alias in node.names if (FOLDER / f"{alias.name}.py").is_file()}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edgelip.compress."):
            found.add(node.module.split(".")[2])
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_the_modules_that_make_its_result(name: str) -> None:
    own, refused = STAGES[name].partition(":")[0].rpartition(".")[2], ONLY_REFUSED.get(name, set())
    assert refused <= imported(own)
    reached, ahead = set(), [own]
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead += imported(module) - ALWAYS - refused
    stage: type[Stage] = lookup(STAGES, name, kind="compression stage")
    assert sorted(stage.sources) == sorted(f"compress/{module}.py" for module in reached - {own})
