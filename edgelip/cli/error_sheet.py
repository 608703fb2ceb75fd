"""A contact sheet of clips that a file gets wrong, small enough to lie in a row of results.

Axes: N clips, B clips shown, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from edgelip.bench.accuracy import shares
from edgelip.bench.suite import TestClips
from edgelip.bench.words import flips
from edgelip.cli.disturbed_clips import pieces
from edgelip.data.preview import contact_sheet, png_bytes
from edgelip.data.signs.pictures import drawn_points
from edgelip.runtime.clip import ClipSpec

LARGEST_BYTES = 300_000
_MOST_CLIPS, _NUM_FRAMES, _SIDE_PX = 10, 10, 64


def wrong_clips(
    logits_NV: np.ndarray, base_NV: np.ndarray | None, labels_N: np.ndarray, words: Sequence[str]
) -> list[tuple[int, str]]:
    """Clips to show, and "word > said" of each: those that the base has right, the largest change first.

    base_NV None: of the base itself, those that it is surest of.
    """
    said_N = logits_NV.argmax(axis=1)
    if base_NV is not None:
        changed = flips(labels_N, base_NV, logits_NV, words)
        chosen = [flip.clip for flip in changed if flip.kind == "lost"]
    else:
        wrong = np.flatnonzero(said_N != labels_N)
        chosen = wrong[np.argsort(-shares(logits_NV)[wrong].max(axis=1), kind="stable")].tolist()
    return [(clip, f"{words[labels_N[clip]]} > {words[said_N[clip]]}") for clip in chosen[:_MOST_CLIPS]]


def sheet_text(test: TestClips, spec: ClipSpec, shown: Sequence[tuple[int, str]]) -> str | None:
    """PNG of the clips in base64, at most 300 kB of text: fewer clips where they would not fit; None of none."""
    if not shown:
        return None
    stored: dict[int, np.ndarray] = {}
    for chosen, clips_BTHW in pieces(test.path, sorted(clip for clip, _ in shown)):
        stored.update(zip(chosen, clips_BTHW, strict=True))
    clips_BTHW = np.stack([stored[clip] for clip, _ in shown])
    clips_BTHW = clips_BTHW[:, np.unique(np.linspace(0, spec.frames - 1, _NUM_FRAMES).round().astype(int))]
    if spec.kind == "landmarks":
        clips_BTHW = drawn_points(clips_BTHW, spec.point_set, side_px=_SIDE_PX)
    elif clips_BTHW.shape[2] > _SIDE_PX:
        small = [cv2.resize(frame, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA) for frame in _frames(clips_BTHW)]
        clips_BTHW = np.stack(small).reshape(*clips_BTHW.shape[:2], _SIDE_PX, _SIDE_PX)
    labels = [label for _, label in shown]
    for count in range(len(shown), 0, -1):
        text = base64.b64encode(png_bytes(contact_sheet(clips_BTHW[:count], labels[:count], every=1))).decode()
        if len(text) <= LARGEST_BYTES:
            return text
    return None


def _frames(clips_BTHW: np.ndarray) -> np.ndarray:
    frames_NHW: np.ndarray = clips_BTHW.reshape(-1, *clips_BTHW.shape[2:])
    return frames_NHW
