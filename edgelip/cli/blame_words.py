"""The words, visemes and clips of `edgelip blame`.

Axes: N clips, V words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.statistics import accuracy, paired_accuracy_difference
from edgelip.bench.suite import TestClips
from edgelip.bench.words import flips, group_changes, grown_confusions, word_changes
from edgelip.data.preview import contact_sheet, save_png
from edgelip.data.signs.pictures import drawn_points
from edgelip.data.synthetic.words import VISEME_OF_PHONE, VISEMES, pronunciations
from edgelip.deploy.blame.scoring import Clips


def word_part(
    vocabulary: Sequence[str],
    test: TestClips,
    reference_NV: np.ndarray,
    suspect_NV: np.ndarray,
    *,
    visemes: Mapping[str, Sequence[str]] | None,
) -> dict[str, Any]:
    """What is in blame.json under "words". visemes: see `visemes_of`; None for words that are not on lips."""
    unpronounced = [] if visemes is None else [word for word in vocabulary if word not in visemes]
    visemes = visemes or {}
    labels_N = test.labels_N
    before_N, after_N = reference_NV.argmax(axis=1), suspect_NV.argmax(axis=1)
    right, left = accuracy(reference_NV, labels_N), accuracy(suspect_NV, labels_N)
    drop = paired_accuracy_difference(left, right, speakers_N=test.speakers_N)
    changes = word_changes(labels_N, before_N, after_N, vocabulary)
    losing = [
        change.name
        for change in sorted(changes, key=lambda each: each.gained - each.lost)
        if change.lost > change.gained
    ]
    members = {
        label: np.isin(labels_N, [index for index, word in enumerate(vocabulary) if label in visemes.get(word, ())])
        for label in sorted({label for labels in visemes.values() for label in labels})
    }
    # A viseme of every word is the whole test: it blames nothing.
    members = {label: inside_N for label, inside_N in members.items() if not inside_N.all()}
    return {
        "total": {
            "reference_top1_pct": 100 * float(right.mean()),
            "suspect_top1_pct": 100 * float(left.mean()),
            "change_points": [100 * drop.value, 100 * drop.low, 100 * drop.high],
            "lost": int((right & ~left).sum()),
            "gained": int((left & ~right).sum()),
            "p": drop.p,
        },
        "words": [change.to_json() for change in changes],
        "confusions": [each.to_json() for each in grown_confusions(labels_N, before_N, after_N, vocabulary)],
        "visemes": [
            {**change.to_json(), "words": [word for word in losing if change.name in visemes.get(word, ())]}
            for change in group_changes(labels_N, before_N, after_N, members)
        ],
        "without_pronunciation": unpronounced,
        "flips": [flip.to_json() for flip in flips(labels_N, reference_NV, suspect_NV, vocabulary)],
    }


def visemes_of(vocabulary: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Labels such as "P B M" of the mouth shapes of each word that the shipped lexicon pronounces, all its variants."""
    known = pronunciations()
    found: dict[str, tuple[str, ...]] = {}
    for word in vocabulary:
        phones = {phone.rstrip("012") for variant in known.get(word.upper(), ()) for phone in variant}
        if phones:
            found[word] = tuple(sorted({" ".join(VISEMES[VISEME_OF_PHONE[phone]]) for phone in phones}))
    return found


def write_sheet(path: Path, clips: Clips, shown: Sequence[Mapping[str, Any]]) -> None:
    """A contact sheet of flipped clips: "said before > said after (true word)" beside each; none removes an old one."""
    if not shown:
        path.unlink(missing_ok=True)
        return
    chosen = [int(flip["clip"]) for flip in shown]
    frames_BTHW = clips.frames(chosen)
    order = {clip: row for row, clip in enumerate(sorted(chosen))}
    labels = [f"{flip['clip']} {flip['word']}: {flip['before']} > {flip['after']}" for flip in shown]
    every = max(1, frames_BTHW.shape[1] // 12)
    if clips.spec.kind == "landmarks":
        frames_BTHW = drawn_points(frames_BTHW, clips.spec.point_set)
    save_png(path, contact_sheet(frames_BTHW[[order[clip] for clip in chosen]], labels, every=every))
