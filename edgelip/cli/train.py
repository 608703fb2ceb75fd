"""`edgelip train`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgelip.cli.export import output_folder, workspace
from edgelip.errors import UsageError
from edgelip.progress import Progress
from edgelip.recipe import load_recipe


def train_recipe(
    recipe_path: Path, *, overrides: Sequence[str], out: Path | None, as_json: bool, start: Path | None = None
) -> str:
    """Train the dense classifier, or find it trained. Returns where it is and its validation accuracy.

    start: checkpoint to go on from, short for `train.start` in the recipe. Raises UsageError if both are given.
    """
    if start is not None:
        if any(item.partition("=")[0].strip() == "train.start" for item in overrides):
            raise UsageError(f"--from {start} and --set train.start both name a checkpoint to go on from; give one.")
        overrides = [*overrides, f"train.start={json.dumps(str(start))}"]
    recipe = load_recipe(recipe_path, overrides=overrides)
    progress = Progress()
    with workspace(output_folder(recipe, out)) as folder:
        from edgelip.cli.workshop import CHECKPOINT, Workshop

        workshop = Workshop(recipe, folder, progress)
        workshop.rehearse()
        checkpoint = workshop.checkpoint(())
        path = workshop.cache.folder / workshop.trained_key
        history = json.loads((path / "history.json").read_text())
    result = {
        "checkpoint": str(path / CHECKPOINT),
        "weights_sha256": checkpoint.sha256,
        "epochs": len(history),
        "val_top1_pct": round(100 * max(epoch["val_top1"] for epoch in history), 2),
    }
    if as_json:
        return json.dumps(result, indent=1)
    return (
        f"{result['checkpoint']}\n{result['epochs']} epochs, best validation top-1 {result['val_top1_pct']} %, "
        f"weights {checkpoint.sha256[:12]}"
    )
