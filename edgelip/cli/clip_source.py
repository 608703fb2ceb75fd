"""The clips of one recipe: which they are, and the prepared store of each split."""

from __future__ import annotations

import hashlib
from functools import cache, cached_property
from pathlib import Path

from edgelip.cache import Cache, step_key
from edgelip.data import prepare
from edgelip.data.prepare import SPLITS, Split
from edgelip.data.spans import Span, read_spans, select
from edgelip.data.store import Store
from edgelip.errors import RecipeError
from edgelip.progress import Progress
from edgelip.recipe import Recipe, SpanData, SyntheticData
from edgelip.runtime.clip import ClipSpec


class ClipSource:
    """Prepares a split once and keeps it in the cache."""

    def __init__(self, recipe: Recipe, steps: Cache, progress: Progress) -> None:
        self.data = recipe.data
        self.spec: ClipSpec = recipe.clip.spec()
        self._steps, self._progress = steps, progress

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The vocabulary in label order."""
        if isinstance(self.data, SyntheticData):
            return tuple(self.data.words)
        return prepare.span_words(self.data, [span for spans in self.spans.values() for span in spans])

    @cached_property
    def root(self) -> Path:
        """Folder of the videos. Raises RecipeError if the recipe does not set it."""
        assert isinstance(self.data, SpanData)
        if self.data.root is None:
            raise RecipeError("data.root is not set: the folder of the videos. Add --set data.root=FOLDER.")
        return self.data.root

    @cached_property
    def spans(self) -> dict[Split, list[Span]]:
        """The rows of the manifest that the recipe keeps, by split. Raises RecipeError if a split has none."""
        assert isinstance(self.data, SpanData)
        kept = select(read_spans(self.root / self.data.manifest), category=self.data.category, words=self.data.words)
        spans: dict[Split, list[Span]] = {split: [span for span in kept if span.split == split] for split in SPLITS}
        for split, rows in spans.items():
            if not rows:
                raise RecipeError(f"{self.data.manifest} has no row of split {split!r} that this recipe keeps.")
        return spans

    @cache  # noqa: B019  (one source lives as long as the program)
    def key(self, split: Split) -> str:
        """Key of the store of a split."""
        config: dict[str, object] = {"clip": self.spec.to_json(), "split": split}
        if isinstance(self.data, SyntheticData):
            config |= self.data.model_dump(mode="json", exclude={f"{each}_clips" for each in SPLITS})
            config["num_clips"] = getattr(self.data, f"{split}_clips")
            sources = ["data/synthetic", "runtime/clip.py"]
        else:
            config |= {"spans": [repr(span) for span in self.spans[split]], "words": self.words}
            config["videos"] = self._videos_sha256(split)
            sources = ["data/spans.py", "data/video.py", "data/crops.py", "runtime/clip.py"]
        return step_key(f"data-{split}", config, sources=sources)

    def _videos_sha256(self, split: Split) -> str:
        digest = hashlib.sha256()
        for video in sorted({span.video for span in self.spans[split]}):
            path = self.root / video
            digest.update(path.read_bytes() if path.is_file() else b"missing")
        return digest.hexdigest()

    def store(self, split: Split) -> Store:
        """The prepared clips of a split."""
        key = self.key(split)
        if self._steps.finished(key) is None:
            with self._steps.making(key) as work:
                if isinstance(self.data, SyntheticData):
                    prepare.prepare_synthetic(work, self.data, split, self.spec, self._progress)
                else:
                    spans, name = self.spans[split], f"decode {split}"
                    prepare.prepare_spans(work, spans, self.root, self.words, self.spec, self._progress, name=name)
        return Store.open(self._steps.folder / key)

    def train_line(self) -> str:
        """What the training split is, in words."""
        if isinstance(self.data, SyntheticData):
            return (
                f"{self.data.train_clips:,} procedural clips of {self.data.train_speakers} synthetic speakers "
                f"(generator {self.data.generator}, seed {self.data.seed})"
            )
        speakers = {span.speaker for span in self.spans["train"]}
        return f"{len(self.spans['train']):,} spans of {len(speakers)} talker(s), {self.data.manifest}"

    def test_line(self) -> str:
        """What the test split is, in words."""
        if isinstance(self.data, SyntheticData):
            return (
                f"{self.data.test_clips:,} procedural clips of {self.data.test_speakers} synthetic speakers unseen in "
                "training; not comparable with accuracy on LRW"
            )
        return f"{len(self.spans['test']):,} spans of split test in {self.data.manifest}"
