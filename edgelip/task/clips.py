"""The clips of a task: folders of mouth videos, decoded once into prepared stores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np

from edgelip.cache import Cache, step_key
from edgelip.data.crops import boundary_in_clip
from edgelip.data.store import Store, StoreWriter
from edgelip.errors import ClipError, MissingError, UsageError
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec, require_video
from edgelip.task.folders import WordClip, find_clips, find_word_clips, find_words, hold_out, other_files, read_clip

Split = Literal["train", "val", "test"]
_VAL_SHARE = 0.1
_SOURCES = ("task/folders.py", "data/video.py", "data/crops.py", "runtime/clip.py")
_CHUNK = 64
_NUM_NAMED = 3  # clips that an error or note lists


@final
@dataclass(frozen=True, eq=False)
class ClipData:
    """Clips ready to train on, test and predict. `ClipData.from_folders` makes one.

    words: the vocabulary in label order; spec: what a clip is; predict_paths: clips without a word, in the order in
    which `WordClassifier.predict` answers.
    """

    words: tuple[str, ...]
    spec: ClipSpec
    batch_size: int
    stores: Mapping[Split, Store]
    predict_paths: tuple[Path, ...]

    def store(self, split: Split) -> Store:
        """The prepared clips of a split. Raises UsageError if its folder was not given."""
        if split not in self.stores:
            have = ", ".join((*self.stores, *(["predict"] if self.predict_paths else [])))
            raise UsageError(f"these clips have no {split} split, only {have}. Give {split}_folder to from_folders.")
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
        cache: Path | str | None = None,
        progress: Progress | None = None,
    ) -> ClipData:
        """Mouth crops from folders, one folder a word: `train_folder/ABOUT/0001.mp4` (or .npz, see `read_clip`).

        words: in label order; the names of the folders in `train_folder`, sorted, if None. `predict_folder` needs no
        folders of words.
        clip: size, rate and number of frames of a clip; ClipSpec() if None: 29 frames of 96 px at 25 frames/s.
        val_split: share of the training clips held out for validation where there is no `val_folder`, 0.1 if None,
        by the hash of their names. Clips of one speaker then fall on both sides: with several speakers give a folder.
        cache: where the decoded clips are kept, so that the next call decodes nothing; `.edgelip` beside the first
        folder given if None. A changed file or setting is decoded anew; the folder may be deleted at any time.
        Returns when everything but the predict folder is decoded.
        Raises UsageError for folders, words or settings that do not fit, ClipError naming the clips that cannot be
        read, MissingError where the cache cannot be written.
        """
        spec, progress = clip or ClipSpec(), progress or Progress()
        require_video(spec)
        named = {"train": train_folder, "val": val_folder, "test": test_folder, "predict": predict_folder}
        folders = {split: Path(folder) for split, folder in named.items() if folder is not None}
        if not folders:
            raise UsageError("no folder is given; expected train_folder, val_folder, test_folder or predict_folder.")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"batch_size is {batch_size!r}; expected a whole number from 1.")
        if val_split is not None and ("train" not in folders or "val" in folders):
            raise UsageError("val_split divides the clips of train_folder where there is no val_folder. Leave one out.")
        vocabulary = _vocabulary(folders, words)
        found: dict[Split, tuple[WordClip, ...]] = {
            split: find_word_clips(folders[split], vocabulary) for split in ("train", "val", "test") if split in folders
        }
        for split in found:
            if others := other_files(folders[split]):
                listed = ", ".join(f"{number} {ending}" for ending, number in others.items())
                progress.say(f"{folders[split]}: files that are no clips are left out ({listed})")
        if "train" in found:
            missing = sorted(set(vocabulary) - {item.word for item in found["train"]})
            if missing:
                raise UsageError(
                    f"{folders['train']} has no folder {missing[0]!r}, one of the words asked for. Add it."
                )
            if "val" not in found:
                found["train"], found["val"] = hold_out(found["train"], _VAL_SHARE if val_split is None else val_split)
        predict_paths = find_clips(folders["predict"]) if "predict" in folders else ()
        steps = Cache(Path(cache) if cache is not None else next(iter(folders.values())).absolute().parent / ".edgelip")
        stores: dict[Split, Store] = {}
        hashes = {split: _sha256_of(clips) for split, clips in found.items()}
        _warn_of_twins(found, hashes, progress)
        for split, clips in found.items():
            stores[split] = _prepare(split, clips, hashes[split], vocabulary, spec, steps, progress)
        return cls(vocabulary, spec, batch_size, stores, predict_paths)


def _vocabulary(folders: Mapping[str, Path], words: Sequence[str] | None) -> tuple[str, ...]:
    if words is None:
        if "train" in folders:
            return find_words(folders["train"])
        if set(folders) == {"predict"}:
            return ()
        raise UsageError("without a train_folder the words are not known. Give words=, such as model.words.")
    if isinstance(words, str) or not words or len(set(words)) != len(words):
        raise UsageError(f"words is {words!r:.200}; expected a list of different words.")
    return tuple(words)


def _sha256_of(clips: Iterable[WordClip]) -> dict[WordClip, str]:
    digests = {}
    for clip in clips:
        try:
            with clip.path.open("rb") as file:
                digests[clip] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ClipError(f"{clip.path} cannot be read ({error.strerror or error}). Make it readable.") from error
    return digests


def _warn_of_twins(
    found: Mapping[Split, Sequence[WordClip]], hashes: Mapping[Split, Mapping[WordClip, str]], progress: Progress
) -> None:
    """Say so where validation or test clips are training clips too: their accuracy would mean nothing."""
    trained = set(hashes.get("train", {}).values())
    for split, clips in found.items():
        twins = [clip for clip in clips if split != "train" and hashes[split][clip] in trained]
        if twins:
            progress.say(f"{split}: {len(twins)} of {len(clips)} clips are training clips too, such as {twins[0].path}")


def _prepare(
    split: Split,
    clips: Sequence[WordClip],
    hashes: Mapping[WordClip, str],
    words: Sequence[str],
    spec: ClipSpec,
    steps: Cache,
    progress: Progress,
) -> Store:
    """The store of a split, from the cache or decoded into it; goes on where a killed run stood."""
    config = {"clip": spec.to_json(), "words": list(words)}
    inputs = [f"{clip.name} {hashes[clip]}" for clip in clips]
    key = step_key(f"clips-{split}", config, sources=_SOURCES, inputs=inputs)
    if steps.finished(key) is None:
        try:
            steps.folder.mkdir(parents=True, exist_ok=True)
            usable = os.access(steps.folder, os.W_OK)
        except OSError:
            usable = False
        if not usable:
            raise MissingError(f"the cache {steps.folder} cannot be written. Give cache= another folder.")
        with steps.making(key) as work:
            source = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
            with StoreWriter(work, len(clips), spec, words=words, source_sha256=source) as writer:
                _decode_into(writer, clips, progress, name=f"decode {split}")
    return Store.open(steps.folder / key)


def _decode_into(writer: StoreWriter, clips: Sequence[WordClip], progress: Progress, *, name: str) -> None:
    """Decode and write the clips that are missing. Raises ClipError for all that cannot be read, at the end."""
    spec = writer.spec
    labels = {word: label for label, word in enumerate(writer.words)}
    failures: list[str] = []
    with progress.task(name, total=len(clips), unit="clips", done=writer.num_done) as task:
        for start in range(writer.num_done, len(clips), _CHUNK):
            batch, frames, boundaries = clips[start : start + _CHUNK], [], []
            for clip in batch:
                try:
                    clip_TSS, num_frames = read_clip(clip.path, spec)
                except ClipError as error:
                    failures.append(str(error))
                    continue
                frames.append(clip_TSS)
                boundaries.append(boundary_in_clip(0, num_frames - 1, spec))
            if not failures:
                writer.write(
                    start,
                    np.stack(frames),
                    labels_B=np.array([labels[clip.word] for clip in batch]),
                    speakers_B=np.zeros(len(batch), np.int32),
                    boundaries_B2=np.array(boundaries),
                )
            task.advance(len(batch))
    if failures:
        more = f" (and {len(failures) - _NUM_NAMED} more)" if len(failures) > _NUM_NAMED else ""
        listed = " | ".join(failures[:_NUM_NAMED])
        raise ClipError(f"{len(failures)} of {len(clips)} clips cannot be used: {listed}{more}")
    writer.finish()
