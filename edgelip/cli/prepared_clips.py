"""The stores that `edgelip data prepare` made, as a recipe takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgelip.data.readers.samples import SPLITS, Split
from edgelip.data.stores.store import Store
from edgelip.errors import ClipError, RecipeError
from edgelip.recipe_sections import PreparedData
from edgelip.runtime.clip import ClipSpec

# What a stored clip depends on; the other fields of a contract say what is done with it afterwards.
_STORED = {
    "video": ("kind", "timing", "frames", "fps", "roi_px", "pool"),
    "landmarks": ("kind", "timing", "frames", "points", "axes"),
}


def open_prepared(data: PreparedData, spec: ClipSpec) -> dict[Split, Store]:
    """The store of each split, with the recipe's words alone and its contract; nothing is read but their indices.

    Raises RecipeError where the stores are not of the recipe's contract or of one vocabulary, ClipError where one is
    missing or damaged, UsageError for a word that they do not have.
    """
    if data.root is None:
        raise RecipeError(
            "data.root is not set: the folder that `edgelip data prepare` made. Add --set data.root=FOLDER."
        )
    stores = {split: _opened(data.root, split) for split in SPLITS}
    for split, store in stores.items():
        _refuse_other_clips(data.root / split, store.spec, spec)
        if store.words != stores["train"].words:
            raise RecipeError(f"{data.root / split} has other words than train. Prepare all splits at once.")
    if data.words is not None:
        stores = {split: store.relabelled(data.words) for split, store in stores.items()}
    return {split: replace(store, spec=spec) for split, store in stores.items()}


def _opened(root: Path, split: Split) -> Store:
    there = [other for other in SPLITS if (root / other).is_dir()]
    if not there:
        raise ClipError(
            f"{root} holds no prepared clips; expected a folder that `edgelip data prepare` made. Check data.root."
        )
    if split not in there:
        raise ClipError(
            f"{root} has clips prepared for {' and '.join(there)}, none for {split}. Prepare all three at once: "
            "--val-share 0.1 --test-share 0.1 hold clips out where the data set is not split."
        )
    return Store.open(root / split)


def _refuse_other_clips(folder: Path, stored: ClipSpec, asked: ClipSpec) -> None:
    names = _STORED[asked.kind] if stored.kind == asked.kind else ("kind",)
    others = [name for name in names if getattr(stored, name) != getattr(asked, name)]
    if others:
        raise RecipeError(
            f"{folder} holds clips of {_listed(others, stored)}; [clip] asks for {_listed(others, asked)}. Add "
            f"{' '.join(f'--set clip.{name}={getattr(stored, name)}' for name in others)}, or prepare the clips anew."
        )


def _listed(names: Sequence[str], spec: ClipSpec) -> str:
    return ", ".join(f"{name} {getattr(spec, name)!r}" for name in names)


def prepared_line(store: Store) -> str:
    """What a split is, in words."""
    named = sum(1 for name in store.speaker_names if name)
    speakers = f" of {len(np.unique(store.speakers))} speaker(s)" if named else ""
    return f"{len(store):,} prepared clips of {len(store.words)} words{speakers}, {store.folder.parent.name}"
