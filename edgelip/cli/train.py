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
    recipe_path: Path,
    *,
    overrides: Sequence[str],
    out: Path | None,
    as_json: bool,
    start: Path | None = None,
    save: Path | None = None,
) -> str:
    """Train the dense classifier, or find it trained. Returns where it is and its validation accuracy.

    start: checkpoint to go on from, short for `train.start` in the recipe. Raises UsageError if both are given.
    save: where the checkpoint is also written as a file of its own.
    """
    if start is not None:
        if any(item.partition("=")[0].strip() == "train.start" for item in overrides):
            raise UsageError(f"--from {start} and --set train.start both name a checkpoint to go on from; give one.")
        overrides = [*overrides, f"train.start={json.dumps(str(start))}"]
    recipe = load_recipe(recipe_path, overrides=overrides)
    progress = Progress()
    with workspace(output_folder(recipe, out)) as folder:
        from edgelip.cli.runs import RECORD
        from edgelip.cli.workshop import Workshop
        from edgelip.models.checkpoint import save_checkpoint
        from edgelip.words import words_beside, write_words

        workshop = Workshop(recipe, folder, progress)
        workshop.rehearse()
        checkpoint = workshop.checkpoint(())
        path = workshop.publish()
        workshop.blobs.sweep()
        record = json.loads((path.parent / RECORD).read_bytes())
        if save is not None:
            save_checkpoint(checkpoint, save)
            write_words(words_beside(save), checkpoint.architecture.words)
    result = {
        "checkpoint": str(path),
        "weights_sha256": checkpoint.sha256,
        "epochs": record["epochs"],
        "val_top1_pct": record["val_top1_pct"],
    }
    if as_json:
        return json.dumps(result, indent=1)
    return (
        f"{result['checkpoint']}\n{result['epochs']} epochs, best validation top-1 {result['val_top1_pct']} %, "
        f"weights {checkpoint.sha256[:12]}"
    )
