"""`edgelip data preview`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgelip.cli.data_inspect import sample_frames, write_sheet
from edgelip.cli.source_options import SourceOptions
from edgelip.errors import UsageError
from edgelip.progress import Progress
from edgelip.recipe import load_recipe
from edgelip.recipe_sections import SigningData, SpanData, SyntheticData

if TYPE_CHECKING:
    import numpy as np

    from edgelip.data.readers.samples import Split


def write_preview(
    source: Path, options: SourceOptions, *, overrides: Sequence[str], out: Path, split: str, num_clips: int
) -> str:
    """Write a PNG of clips, one row each, the word beside it. Returns its path.

    source: a recipe (.toml), a prepared store or a folder of such, or what a reader reads.
    """
    from edgelip.data.readers.samples import SPLITS
    from edgelip.data.stores.store_inspection import find_stores

    if split not in SPLITS:
        raise UsageError(f"--split is {split!r}; expected one of {', '.join(SPLITS)}.")
    if not source.exists() and source.suffix.lower() not in (".toml", ".csv"):
        raise UsageError(
            f"{source} does not exist; expected a recipe (.toml), prepared clips, a folder of clips or a CSV of spans. "
            "Check the path."
        )
    if not source.is_dir() and source.suffix.lower() != ".csv":
        if options != SourceOptions():
            raise UsageError(f"{source} is a recipe, which names its data: leave out --reader, --words and the like.")
        frames, labels = _of_recipe(source, overrides, split, num_clips)
    elif overrides:
        raise UsageError("--set belongs to a recipe; what is shown here has none.")
    elif stores := find_stores(source):
        from edgelip.data.sheets import frames_of_store
        from edgelip.data.stores.store import Store

        options.refuse_all(source)
        if len(stores) > 1 and split not in stores:
            raise UsageError(f"{source} has no store {split!r}, only {', '.join(stores)}. Choose another --split.")
        folder = stores.get(split, next(iter(stores.values())))
        frames, labels = frames_of_store(Store.open(folder), num_clips)
    else:
        listing = options.listing(source, Progress())
        of_split = listing.of(split)
        if not of_split:
            have = ", ".join(other for other in SPLITS if listing.of(other))
            raise UsageError(f"{source} has no clip of split {split!r}, only of {have}. Choose another --split.")
        frames, labels = sample_frames(of_split, num_clips)
    write_sheet(out, frames, labels)
    return str(out)


def _of_recipe(
    recipe_path: Path, overrides: Sequence[str], split: Split, num_clips: int
) -> tuple[np.ndarray, list[str]]:
    import numpy as np

    from edgelip.cache import Cache
    from edgelip.cli.clip_source import ClipSource
    from edgelip.data.inspection import spread
    from edgelip.data.readers.spans import load_span_clips
    from edgelip.data.sheets import frames_of_store

    recipe = load_recipe(recipe_path, overrides=overrides)
    if isinstance(recipe.data, SyntheticData):
        from edgelip.data.synthetic.clips import render_clips
        from edgelip.data.synthetic.stored_mouths import synthetic_spec

        batch = render_clips(synthetic_spec(recipe.data), split, range(num_clips))
        return batch.frames_BTHW.numpy()[:, ::2], [recipe.data.words[label] for label in batch.labels_B.tolist()]
    source = ClipSource(recipe, Cache(Path()), Progress(quiet=True))
    if isinstance(recipe.data, SigningData):
        from edgelip.data.signs.pictures import drawn_points
        from edgelip.data.synthetic.stored_signs import made_signs, signing_spec

        spec = recipe.clip.spec()
        signs = made_signs(signing_spec(recipe.data), split, range(num_clips), spec)
        every = max(1, spec.frames // 10)
        return drawn_points(signs.clips[:, ::every], spec.point_set), [source.words[label] for label in signs.labels_B]
    if isinstance(recipe.data, SpanData):
        spans = source.spans[split]
        chosen = [spans[number] for number in spread(len(spans), num_clips)]
        pairs = list(load_span_clips(chosen, source.spec))
        return np.stack([clip[::2] for _, clip in pairs]), [span.word for span, _ in pairs]
    return frames_of_store(source.store(split), num_clips)
