"""`edgelip data preview`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgelip.errors import UsageError
from edgelip.recipe import SyntheticData, load_recipe


def write_preview(recipe_path: Path, *, overrides: Sequence[str], out: Path, split: str, num_clips: int) -> str:
    """Write a PNG of clips, one row each, the word beside it. Returns its path."""
    from edgelip.data.prepare import SPLITS, synthetic_spec
    from edgelip.data.preview import contact_sheet, save_png
    from edgelip.data.synthetic.clips import render_clips

    if split not in SPLITS:
        raise UsageError(f"--split is {split!r}; expected one of {', '.join(SPLITS)}.")
    recipe = load_recipe(recipe_path, overrides=overrides)
    if isinstance(recipe.data, SyntheticData):
        batch = render_clips(synthetic_spec(recipe.data), split, range(num_clips))
        frames, words = batch.frames_BTHW.numpy(), recipe.data.words
        labels = [words[label] for label in batch.labels_B.tolist()]
    else:
        from edgelip.cache import Cache
        from edgelip.cli.clip_source import ClipSource
        from edgelip.data.spans import load_span_clips
        from edgelip.progress import Progress

        source = ClipSource(recipe, Cache(out.parent), Progress(quiet=True))
        spans = source.spans[split]
        chosen = [spans[i] for i in np.unique(np.linspace(0, len(spans) - 1, num_clips).astype(int))]
        pairs = list(load_span_clips(chosen, source.root, source.spec))
        frames = np.stack([clip for _, clip in pairs])
        labels = [span.word for span, _ in pairs]
    save_png(out, contact_sheet(frames, labels))
    return str(out)
