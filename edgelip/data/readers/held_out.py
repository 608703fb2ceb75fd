"""Clips held out of training by the hash of their names or of their speakers': never by order, machine or chance."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from edgelip.data.readers.samples import Sample, Split
from edgelip.errors import UsageError


def hold_out(
    samples: Iterable[Sample], share: float, split: Split = "val"
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split into (kept, held out); those held out get the split `split`.

    Where the speaker of every clip is known and there are two or more: whole speakers, about that share of the clips,
    leaving each word a clip to train on. Else of every word with two clips or more its share, at least one and never
    all. Raises UsageError for a share outside 0..1 and where nothing can be held out.
    """
    found = list(samples)
    if not 0 < share < 1:
        raise UsageError(
            f"the share of clips held out for {_PURPOSE[split]} is {share!r}; expected more than 0, less than 1."
        )
    held = _by_speaker(found, share) if held_out_by(found) == "speaker" else _by_clip(found, share, split)
    kept = [sample for sample in found if sample.name not in held]
    moved = [replace(sample, split=split) for sample in found if sample.name in held]
    return _sorted(kept), _sorted(moved)


def held_out_by(samples: Sequence[Sample]) -> Literal["speaker", "clip"]:
    """What `hold_out` keeps together."""
    speakers = {sample.speaker for sample in samples}
    return "speaker" if len(speakers) > 1 and "" not in speakers else "clip"


def _by_clip(samples: Sequence[Sample], share: float, split: Split) -> set[str]:
    by_word: dict[str, list[str]] = {}
    for sample in samples:
        by_word.setdefault(sample.word, []).append(sample.name)
    held: set[str] = set()
    for names in by_word.values():
        names.sort(key=_hash)
        held.update(names[: min(len(names) - 1, max(1, round(share * len(names))))])
    if not held:
        raise UsageError(
            f"no word has two clips, so none can be held out for {_PURPOSE[split]}. Add clips, or a {split}_folder."
        )
    return held


def _by_speaker(samples: Sequence[Sample], share: float) -> set[str]:
    clips: dict[str, list[Sample]] = {}
    for sample in samples:
        clips.setdefault(sample.speaker, []).append(sample)
    left = Counter(sample.word for sample in samples)
    target, held = share * len(samples), set[str]()
    for speaker in sorted(clips, key=_hash):
        own = clips[speaker]
        if held and abs(len(held) + len(own) - target) >= abs(len(held) - target):
            continue
        words = Counter(sample.word for sample in own)
        if any(left[word] == number for word, number in words.items()):
            continue  # a word would have no clip to train on
        left -= words
        held.update(sample.name for sample in own)
    if not held:
        raise UsageError(
            f"none of {len(clips)} speakers can be held out: each alone says some word. Add clips, or split them by "
            "folders."
        )
    return held


_PURPOSE = {"val": "validation", "test": "testing", "train": "training"}


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _sorted(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.name))
