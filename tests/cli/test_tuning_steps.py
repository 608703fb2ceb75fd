"""A stage that tunes several times, interrupted between two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import nudge
from torch import nn

from edgelip.cli.workshop import Workshop
from edgelip.progress import Progress
from edgelip.recipe import load_recipe

DEBUG = Path(__file__).parent.parent / "recipes" / "debug.toml"
PRUNED = """
[[variant]]
name = "pruned"
stages = [{ stage = "prune", macs_ratio = 0.4, round_to = 4, steps = 2, tune = { epochs = 3 } }]
"""


def shop(folder: Path, monkeypatch: pytest.MonkeyPatch, *, killed_at: int | None = None) -> tuple[Workshop, list[str]]:
    """A workshop whose trainings nudge the weights; its `killed_at`-th ends as Ctrl-C would end it."""
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.toml"
    recipe.write_text(DEBUG.read_text().partition("[[variant]]")[0] + PRUNED)
    made, names = Workshop(load_recipe(recipe), folder / "out", Progress(quiet=True)), []

    def fit(model: nn.Module, work: Path, *, name: str, epochs: int = 0, **_: Any) -> nn.Module:
        names.append(f"{name}: {epochs}")
        (work / "training.ckpt").write_text("unfinished")
        if len(names) == killed_at:
            raise KeyboardInterrupt
        return nudge(model)

    monkeypatch.setattr(made.training, "dense", fit)
    monkeypatch.setattr(made.training, "tuned", fit)
    return made, names


def test_a_stage_of_two_tunings_goes_on_after_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, names = shop(tmp_path / "whole", monkeypatch)
    unbroken = whole.checkpoint(whole.variants["pruned"])
    assert names == ["train dense: 0", "tune prune: 1", "tune prune (2): 2"]

    first, names = shop(tmp_path / "killed", monkeypatch, killed_at=3)
    with pytest.raises(KeyboardInterrupt):
        first.checkpoint(first.variants["pruned"])
    again, names = shop(tmp_path / "killed", monkeypatch)
    resumed = again.checkpoint(again.variants["pruned"])
    assert names == ["tune prune (2): 2"]
    assert resumed.sha256 == unbroken.sha256
    assert resumed.architecture == unbroken.architecture
    kept = {path.name for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert not kept & {"training.ckpt", "tuned.safetensors"}
