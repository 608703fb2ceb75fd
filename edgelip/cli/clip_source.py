"""The clips of one recipe: which they are, and the prepared store of each split."""

from __future__ import annotations

import hashlib
from functools import cache, cached_property
from pathlib import Path

from edgelip.cache import Cache, step_key
from edgelip.cli.prepared_clips import open_prepared, prepared_line
from edgelip.data.clip_maker import CROP_SOURCES, CropMaker
from edgelip.data.readers.samples import SPLITS, Sample, Split, select
from edgelip.data.readers.spans import read_spans
from edgelip.data.stores.building import build_store, refuse_failures
from edgelip.data.stores.shards import VERSION as STORE_VERSION
from edgelip.data.stores.store import Store
from edgelip.data.stores.workers import Workers, available_cpus
from edgelip.data.synthetic import stored_mouths, stored_signs
from edgelip.data.synthetic.signing import words_of
from edgelip.errors import RecipeError
from edgelip.progress import Progress
from edgelip.recipe import Recipe
from edgelip.recipe_sections import PreparedData, SigningData, SpanData, SyntheticData
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
        if isinstance(self.data, SigningData):
            return words_of(self.data.num_words)
        if isinstance(self.data, PreparedData):
            return self.prepared["train"].words
        return self.data.words or tuple(sorted({span.word for spans in self.spans.values() for span in spans}))

    @cached_property
    def prepared(self) -> dict[Split, Store]:
        """The stores of data that is prepared already."""
        assert isinstance(self.data, PreparedData)
        return open_prepared(self.data, self.spec)

    @cached_property
    def root(self) -> Path:
        """Folder of the videos. Raises RecipeError if the recipe does not set it."""
        assert isinstance(self.data, SpanData)
        if self.data.root is None:
            raise RecipeError("data.root is not set: the folder of the videos. Add --set data.root=FOLDER.")
        return self.data.root

    @cached_property
    def spans(self) -> dict[Split, list[Sample]]:
        """The rows of the manifest that the recipe keeps, by split. Raises RecipeError if a split has none."""
        assert isinstance(self.data, SpanData)
        kept = select(
            read_spans(self.root / self.data.manifest, self.root), category=self.data.category, words=self.data.words
        )
        spans: dict[Split, list[Sample]] = {split: [span for span in kept if span.split == split] for split in SPLITS}
        for split, rows in spans.items():
            if not rows:
                raise RecipeError(f"{self.data.manifest} has no row of split {split!r} that this recipe keeps.")
        return spans

    @cache  # noqa: B019  (one source lives as long as the program)
    def key(self, split: Split) -> str:
        """Key of the store of a split."""
        config: dict[str, object] = {"clip": self.spec.to_json(), "split": split, "store": STORE_VERSION}
        if isinstance(self.data, (SyntheticData, SigningData)):
            config |= self.data.model_dump(mode="json", exclude={f"{each}_clips" for each in SPLITS})
            config["num_clips"] = getattr(self.data, f"{split}_clips")
            sources = stored_mouths.SOURCES if isinstance(self.data, SyntheticData) else stored_signs.SOURCES
        elif isinstance(self.data, PreparedData):
            config["sha256"] = self.prepared[split].sha256
            sources = ("runtime/clip.py", "runtime/landmarks.py")  # what a network gets of such a clip
        else:
            config |= {"spans": [span.identity for span in self.spans[split]], "words": self.words}
            config["videos"] = self._videos_sha256(split)
            sources = CROP_SOURCES
        return step_key(f"data-{split}", config, sources=sources)

    def _videos_sha256(self, split: Split) -> str:
        digest = hashlib.sha256()
        for path in sorted({span.path for span in self.spans[split]}):
            digest.update(path.read_bytes() if path.is_file() else b"missing")
        return digest.hexdigest()

    def store(self, split: Split) -> Store:
        """The prepared clips of a split."""
        if isinstance(self.data, PreparedData):
            return self.prepared[split]
        key = self.key(split)
        if self._steps.finished(key) is None:
            with self._steps.making(key) as work:
                if isinstance(self.data, SyntheticData):
                    stored_mouths.prepare_synthetic(work, self.data, split, self.spec, self._progress)
                elif isinstance(self.data, SigningData):
                    stored_signs.prepare_signing(work, self.data, split, self.spec, self._progress)
                else:
                    self._decode(work, split)
        return Store.open(self._steps.folder / key)

    def _decode(self, work: Path, split: Split) -> None:
        """Raises ClipError if one of the spans cannot be used: a recipe means all that it names."""
        spans = self.spans[split]
        built = build_store(
            work,
            spans,
            CropMaker(self.spec),
            words=self.words,
            progress=self._progress,
            name=f"decode {split}",
            workers=Workers(available_cpus()),
        )
        refuse_failures(built.failures, len(spans))

    def train_line(self) -> str:
        """What the training split is, in words."""
        if isinstance(self.data, SyntheticData):
            return (
                f"{self.data.train_clips:,} procedural clips of {self.data.train_speakers} synthetic speakers "
                f"(generator {self.data.generator}, seed {self.data.seed})"
            )
        if isinstance(self.data, SigningData):
            return (
                f"{self.data.train_clips:,} procedural signs of {self.data.train_signers} synthetic signers "
                f"(generator {self.data.generator}, seed {self.data.seed})"
            )
        if isinstance(self.data, PreparedData):
            return prepared_line(self.prepared["train"])
        speakers = {span.speaker for span in self.spans["train"]}
        return f"{len(self.spans['train']):,} spans of {len(speakers)} talker(s), {self.data.manifest}"

    def test_line(self) -> str:
        """What the test split is, in words."""
        if isinstance(self.data, SyntheticData):
            return (
                f"{self.data.test_clips:,} procedural clips of {self.data.test_speakers} synthetic speakers unseen in "
                "training; not comparable with accuracy on LRW"
            )
        if isinstance(self.data, SigningData):
            return (
                f"{self.data.test_clips:,} procedural signs of {self.data.test_signers} synthetic signers unseen in "
                "training; not comparable with accuracy on people"
            )
        if isinstance(self.data, PreparedData):
            return prepared_line(self.prepared["test"])
        return f"{len(self.spans['test']):,} spans of split test in {self.data.manifest}"
