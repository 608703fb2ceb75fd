"""The clips of a task: mouth videos of many layouts, or arrays, decoded once into prepared stores."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from edgelip.data.clip_maker import ClipMaker, CropMaker
from edgelip.data.readers.folders import find_clips, find_split, find_words
from edgelip.data.readers.held_out import hold_out
from edgelip.data.readers.listing import checked_words
from edgelip.data.readers.lrw import read_lrw
from edgelip.data.readers.samples import SPLITS, Listing, Sample, Split
from edgelip.data.readers.spans import read_csv
from edgelip.data.readers.tensors import clips_from_tensors, labels_from_words, store_tensors
from edgelip.data.stores.shards import Failure
from edgelip.data.stores.store import Store
from edgelip.errors import ClipError, UsageError
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec, require_video
from edgelip.task.stores import Unusable, prepare_stores

_VAL_SHARE = 0.1
_CACHE = ".edgelip"


@final
@dataclass(frozen=True, eq=False)
class ClipData:
    """Clips ready to train on, test and predict: `from_folders`, `from_lrw`, `from_csv` or `from_tensors` makes them.

    words: the vocabulary in label order; spec: what a clip is; predict_paths: clips without a word, in the order in
    which `WordClassifier.predict` answers; failures: samples that gave no clip, by split, where they are skipped.
    """

    words: tuple[str, ...]
    spec: ClipSpec
    batch_size: int
    stores: Mapping[Split, Store]
    predict_paths: tuple[Path, ...]
    failures: Mapping[Split, tuple[Failure, ...]] = field(default_factory=dict)

    def store(self, split: Split) -> Store:
        """The prepared clips of a split. Raises UsageError if there are none."""
        if split not in self.stores:
            have = ", ".join((*self.stores, *(["predict"] if self.predict_paths else [])))
            raise UsageError(f"these clips have no {split} split, only {have}. Add clips of it, or {split}_folder.")
        return self.stores[split]

    @classmethod
    def from_folders(
        cls,
        *,
        train_folder: Path | str | None = None,
        val_folder: Path | str | None = None,
        test_folder: Path | str | None = None,
        predict_folder: Path | str | None = None,
        words: Sequence[str] | None = None,
        batch_size: int = 32,
        clip: ClipSpec | None = None,
        val_split: float | None = None,
        speakers: Path | None = None,
        speaker_pattern: str | None = None,
        cache: Path | str | None = None,
        unusable: Unusable = "refuse",
        maker: ClipMaker | None = None,
        progress: Progress | None = None,
    ) -> ClipData:
        """Mouth crops from folders, one folder a word: `train_folder/ABOUT/0001.mp4` (or .npz, see `read_clip`).

        words: these alone, in label order; the names of the folders in `train_folder`, sorted, if None.
        `predict_folder` needs no folders of words.
        clip: size, rate and number of frames of a clip; ClipSpec() if None: 29 frames of 96 px at 25 frames/s.
        val_split: share of the training clips held out for validation where there is no `val_folder`, 0.1 if None,
        by the hash of their names: whole speakers where each clip's is known, else clips of one fall on both sides.
        speakers: CSV of `path,speaker`, paths as below a split's folder; speaker_pattern: instead, a regular expression
        whose first group is the speaker in such a path.
        cache: where the decoded clips are kept, so that the next call decodes nothing; `.edgelip` beside the first
        folder given if None. A changed file or setting is decoded anew; the folder may be deleted at any time.
        unusable: "refuse" raises if a clip cannot be used, "skip" leaves it out, says so and lists it in `failures`.
        maker: how a clip is made of a file, such as one that finds the mouth; mouth crops as they are if None.
        Returns when everything but the predict folder is decoded.
        Raises UsageError for folders, words or settings that do not fit, ClipError naming the clips that cannot be
        read, MissingError where the cache cannot be written.
        """
        maker, progress = _maker(clip, maker), progress or Progress()
        named = {"train": train_folder, "val": val_folder, "test": test_folder, "predict": predict_folder}
        folders = {split: Path(folder) for split, folder in named.items() if folder is not None}
        if not folders:
            raise UsageError("no folder is given; expected train_folder, val_folder, test_folder or predict_folder.")
        _check_batch_size(batch_size)
        if val_split is not None and ("train" not in folders or "val" in folders):
            raise UsageError("val_split divides the clips of train_folder where there is no val_folder. Leave one out.")
        vocabulary = _vocabulary(folders, words)
        found: dict[Split, tuple[Sample, ...]] = {}
        for split in SPLITS:
            if split in folders:
                listing = find_split(
                    folders[split],
                    split,
                    vocabulary,
                    subset=words is not None,
                    speakers=speakers,
                    speaker_pattern=speaker_pattern,
                )
                _report(listing, unusable, progress)
                found[split] = listing.samples
        if "train" in found:
            missing = sorted(set(vocabulary) - {item.word for item in found["train"]})
            if missing:
                raise UsageError(
                    f"{folders['train']} has no folder {missing[0]!r}, one of the words asked for. Add it."
                )
            if "val" not in found:
                found["train"], found["val"] = hold_out(found["train"], _VAL_SHARE if val_split is None else val_split)
        predict_paths = find_clips(folders["predict"]) if "predict" in folders else ()
        if not found:
            return cls(vocabulary, maker.spec, batch_size, {}, predict_paths)
        place = Path(cache) if cache is not None else next(iter(folders.values())).absolute().parent / _CACHE
        made = prepare_stores(found, vocabulary, maker, cache=place, unusable=unusable, progress=progress)
        return cls(vocabulary, maker.spec, batch_size, made.stores, predict_paths, made.failures)

    @classmethod
    def from_lrw(
        cls,
        root: Path | str,
        *,
        words: Sequence[str] | None = None,
        annotations: Path | Literal["beside", "none"] = "beside",
        speakers: Path | None = None,
        endings: Sequence[str] | None = None,
        batch_size: int = 32,
        clip: ClipSpec | None = None,
        cache: Path | str | None = None,
        unusable: Unusable = "refuse",
        maker: ClipMaker | None = None,
        progress: Progress | None = None,
    ) -> ClipData:
        """Lip Reading in the Wild, `root/ABOUT/train/ABOUT_00001.mp4`: its own splits, mouth crops or raw video.

        The videos as they come show faces: give a `maker` that finds the mouth. Else as
        `edgelip.data.readers.lrw.read_lrw` and `from_folders`; the cache is `.edgelip` beside `root` if None.
        """
        progress = progress or Progress()
        listing = read_lrw(
            Path(root),
            words=words,
            annotations=annotations,
            speakers=speakers,
            endings=endings,
            progress=progress,
        )
        place = Path(cache) if cache is not None else Path(root).absolute().parent / _CACHE
        return cls._from_listing(listing, _maker(clip, maker), batch_size, place, unusable, progress)

    @classmethod
    def from_csv(
        cls,
        manifest: Path | str,
        *,
        root: Path | str | None = None,
        words: Sequence[str] | None = None,
        category: str | None = None,
        batch_size: int = 32,
        clip: ClipSpec | None = None,
        cache: Path | str | None = None,
        unusable: Unusable = "refuse",
        maker: ClipMaker | None = None,
        progress: Progress | None = None,
    ) -> ClipData:
        """Words in videos by a CSV with the columns word, video, first, last and split.

        root: folder of the videos; that of the CSV if None. category: the rows of this one alone. Else as
        `edgelip.data.readers.spans.read_csv` and `from_folders`; the cache is `.edgelip` beside the CSV if None.
        """
        progress = progress or Progress()
        listing = read_csv(
            Path(manifest), root=None if root is None else Path(root), words=words, category=category, progress=progress
        )
        place = Path(cache) if cache is not None else Path(manifest).absolute().parent / _CACHE
        return cls._from_listing(listing, _maker(clip, maker), batch_size, place, unusable, progress)

    @classmethod
    def from_tensors(
        cls,
        *,
        words: Sequence[str],
        train: tuple[Any, Any] | None = None,
        val: tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
        batch_size: int = 32,
        clip: ClipSpec | None = None,
        cache: Path | str | None = None,
    ) -> ClipData:
        """Clips in memory: each split is (frames, labels).

        frames: uint8 (N, T, H, W), numpy or torch, or a list of (T, H, W); a clip is cut or padded as one of a file is.
        labels: words, or their places in `words`, which is in label order. No share is held out: give val to train.
        cache: where they are kept as memory maps; a temporary folder, gone with the result, if None.
        Raises UsageError for labels or words that do not fit, ClipError naming the clip that does not.
        """
        spec = clip or ClipSpec()
        require_video(spec)
        _check_batch_size(batch_size)
        vocabulary = checked_words(words)
        given: dict[Split, tuple[Any, Any] | None] = {"train": train, "val": val, "test": test}
        if all(split is None for split in given.values()):
            raise UsageError("no clips are given; expected train, val or test as (frames, labels).")
        place = Path(tempfile.mkdtemp(prefix="edgelip-")) if cache is None else Path(cache)
        stores: dict[Split, Store] = {}
        try:
            for split, pair in given.items():
                if pair is None:
                    continue
                if not isinstance(pair, tuple) or len(pair) != 2:
                    raise UsageError(f"{split} is {type(pair).__name__}; expected the pair (frames, labels).")
                clips = clips_from_tensors(pair[0], split)
                labels_N = labels_from_words(pair[1], vocabulary, len(clips), split)
                stores[split] = store_tensors(place / split, clips, labels_N, vocabulary, spec, what=split)
        except BaseException:
            if cache is None:
                shutil.rmtree(place, ignore_errors=True)
            raise
        if cache is None:
            for store in stores.values():
                weakref.finalize(store, _remove, store.folder)
        return cls(vocabulary, spec, batch_size, stores, ())

    @classmethod
    def _from_listing(
        cls,
        listing: Listing,
        maker: ClipMaker,
        batch_size: int,
        cache: Path,
        unusable: Unusable,
        progress: Progress,
    ) -> ClipData:
        _check_batch_size(batch_size)
        _report(listing, unusable, progress)
        found = {split: samples for split in SPLITS if (samples := listing.of(split))}
        made = prepare_stores(found, listing.words, maker, cache=cache, unusable=unusable, progress=progress)
        return cls(listing.words, maker.spec, batch_size, made.stores, (), made.failures)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # the other splits' folders are still there
        folder.parent.rmdir()


def _maker(clip: ClipSpec | None, maker: ClipMaker | None) -> ClipMaker:
    if maker is None:
        maker = CropMaker(clip or ClipSpec())
    elif clip is not None and clip != maker.spec:
        raise UsageError("clip and maker disagree on what a clip is. Give maker alone.")
    require_video(maker.spec)
    return maker


def _check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; expected a whole number from 1.")


def _vocabulary(folders: Mapping[str, Path], words: Sequence[str] | None) -> tuple[str, ...]:
    if words is not None:
        return checked_words(words)
    if "train" in folders:
        return find_words(folders["train"])
    if set(folders) == {"predict"}:
        return ()
    raise UsageError("without a train_folder the words are not known. Give words=, such as model.words.")


def _report(listing: Listing, unusable: Unusable, progress: Progress) -> None:
    """Say what was left out. Raises ClipError for what cannot be used and must not be skipped."""
    if unusable not in ("refuse", "skip"):
        raise UsageError(f"unusable is {unusable!r}; expected 'refuse' or 'skip'.")
    for note in listing.notes:
        progress.say(f"{listing.root}: {note}")
    if listing.unusable:
        first = next(iter(listing.unusable.values()))
        total = len(listing.unusable) + len(listing.samples)
        if unusable == "refuse":
            raise ClipError(
                f"{len(listing.unusable)} of {total} clips cannot be used, the first: {first} "
                "(unusable='skip' leaves them out.)"
            )
        progress.say(f"{listing.root}: {len(listing.unusable)} of {total} clips are left out; the first: {first}")
