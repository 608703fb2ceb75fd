"""Clips of procedural mouths: any (seed, split, index) rendered alone or in any batch, to the same bits.

Axes: B clip, T frame, H row, W column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from edgelip.data.readers.samples import SPLITS, Split
from edgelip.data.synthetic.articulation import PARAMETERS, boundaries, speak, tracks, viseme_labels
from edgelip.data.synthetic.casting import performers
from edgelip.data.synthetic.geometry import SIDE_PX, lay_out
from edgelip.data.synthetic.hashing import Draws, combine
from edgelip.data.synthetic.render import NOISE_ENTRIES, paint
from edgelip.data.synthetic.side_by_side import side_by_side
from edgelip.data.synthetic.speakers import Spreads, draw_conditions, draw_speakers
from edgelip.data.synthetic.words import TARGETS, Lexicon, lexicon, pronunciations, word_indices
from edgelip.runtime.errors import UsageError

GENERATOR_VERSIONS = (1,)
"""Versions that a recipe may pin. A version's clips never change; a change of looks or difficulty is a new version."""

_CHUNK = 32  # clips whose curves are made at once
_GPU_CHUNK = 256
_SPEAKER_KEY, _CLIP_KEY = 1, 2


@dataclass(frozen=True)
class SyntheticSpec:
    """Which clips exist. Two equal specs describe the same clips, bit for bit on a CPU."""

    words: tuple[str, ...]
    """Label = position. Each must be among the 500 words of the lexicon, in any case."""
    seed: int = 0
    generator: int = 1
    """Version of the generator, one of GENERATOR_VERSIONS."""
    train_speakers: int = 200
    val_speakers: int = 40
    test_speakers: int = 100
    severity: float = 1.0
    """Scales every variation; at 0 only small marks of a face (skin, cupid's bow) and the neighbour words differ."""
    frames: int = 29

    def __post_init__(self) -> None:
        if not self.words:
            raise UsageError("words is empty; expected at least one word. Name words of the 500-word lexicon.")
        word_indices(self.words)
        if self.generator not in GENERATOR_VERSIONS:
            known = ", ".join(map(str, GENERATOR_VERSIONS))
            raise UsageError(
                f"generator is {self.generator}; expected one of {known}. Pin a version that this release has."
            )
        for name in ("train_speakers", "val_speakers", "test_speakers", "frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1. Raise it.")
        if not 0.0 <= self.severity <= 3.0:
            raise UsageError(f"severity is {self.severity}; expected 0 to 3. 1 is the tuned difficulty.")

    def speakers(self, split: Split) -> int:
        """Number of speakers of a split."""
        return {"train": self.train_speakers, "val": self.val_speakers, "test": self.test_speakers}[split]


@dataclass(frozen=True)
class SyntheticBatch:
    """Rendered clips and all that is known about them."""

    frames_BTHW: Tensor
    """uint8 grey, (B, T, 96, 96), 25 fps, the word in the middle."""
    labels_B: Tensor
    """int64, position in `SyntheticSpec.words`."""
    speakers_B: Tensor
    """int64, unique over the three splits: train first, then val, then test."""
    boundary_B2: Tensor
    """int64, first and last frame of the word, inclusive."""
    visemes_BT: Tensor
    """int64, index into words.VISEMES: 0 silence, then Microsoft's 21 classes."""


def render_clips(
    spec: SyntheticSpec,
    split: Split,
    indices: Sequence[int] | Tensor,
    *,
    device: str | torch.device = "cpu",
    mouth: Literal["speaking", "hidden"] = "speaking",
    spreads: Spreads | None = None,
) -> SyntheticBatch:
    """Render clips `indices` of a split; any index >= 0 exists. Label of index i: i modulo the number of words.

    `mouth="hidden"` leaves the mouth out (same speaker, camera and noise), for the background-only control. `spreads`
    replaces the tuned variation, before severity scales it. Raises UsageError for an unknown split or a negative index.
    """
    if split not in SPLITS:
        raise UsageError(f"split is {split!r}; expected one of {', '.join(SPLITS)}. Name one of them.")
    if mouth not in ("speaking", "hidden"):
        raise UsageError(f"mouth is {mouth!r}; expected 'speaking' or 'hidden'. Name one of them.")
    indices_B = torch.as_tensor(indices, dtype=torch.int64, device=device).reshape(-1)
    if indices_B.numel() and int(indices_B.min()) < 0:
        raise UsageError(f"indices hold {int(indices_B.min())}; expected integers >= 0. Count clips from 0.")
    scaled = (spreads or Spreads()).scaled(spec.severity)

    num_clips = indices_B.numel()
    batch = SyntheticBatch(
        frames_BTHW=indices_B.new_empty((num_clips, spec.frames, SIDE_PX, SIDE_PX), dtype=torch.uint8),
        labels_B=indices_B % len(spec.words),
        speakers_B=torch.empty_like(indices_B),
        boundary_B2=indices_B.new_empty((num_clips, 2)),
        visemes_BT=indices_B.new_empty((num_clips, spec.frames)),
    )

    def render(rows: slice) -> None:
        _render_chunk(batch, rows, spec, split, indices_B[rows], mouth == "speaking", scaled)

    on_cpu = indices_B.device.type == "cpu"
    num_threads = torch.get_num_threads() if on_cpu else 1
    chunk = max(1, min(_CHUNK, -(-num_clips // num_threads))) if on_cpu else _GPU_CHUNK
    chunks = [slice(start, min(start + chunk, num_clips)) for start in range(0, num_clips, chunk)]
    if on_cpu:
        side_by_side(render, chunks, num_threads)
    else:
        for rows in chunks:
            render(rows)
    return batch


@cache
def _lexicon_on(device: torch.device) -> Lexicon:
    return lexicon().to(device)


def _render_chunk(
    batch: SyntheticBatch,
    rows: slice,
    spec: SyntheticSpec,
    split: Split,
    indices_B: Tensor,
    visible: bool,
    spreads: Spreads,
) -> None:
    """Fill `rows` of the batch under construction."""
    device = indices_B.device
    split_key = SPLITS.index(split)
    labels_B = indices_B % len(spec.words)
    numbers_B = _speaker_numbers(spec, split, indices_B)
    root_B = torch.full_like(indices_B, spec.seed)
    clip_draws = Draws(combine(root_B, _CLIP_KEY, split_key, indices_B))
    speaker_draws = Draws(combine(root_B, _SPEAKER_KEY, split_key, numbers_B))
    speakers = draw_speakers(speaker_draws, spreads, len(pronunciations()), len(TARGETS), len(PARAMETERS))
    conditions = draw_conditions(clip_draws, spreads, spec.frames, NOISE_ENTRIES)
    rows_N = torch.tensor(word_indices(spec.words), device=device)
    utterance = speak(rows_N[labels_B], clip_draws, speakers, spreads, _lexicon_on(device))
    tracks_BPT = tracks(utterance, clip_draws, speakers, spreads, spec.frames)
    layout = lay_out(tracks_BPT, speakers, conditions, visible=visible)
    paint(layout, conditions, batch.frames_BTHW[rows])
    earlier = sum(spec.speakers(other) for other in SPLITS[:split_key])
    batch.speakers_B[rows] = numbers_B + earlier
    batch.boundary_B2[rows] = boundaries(utterance, spec.frames)
    batch.visemes_BT[rows] = viseme_labels(utterance, spec.frames)


def _speaker_numbers(spec: SyntheticSpec, split: Split, indices_B: Tensor) -> Tensor:
    """Speaker of each clip within its split."""
    return performers(
        indices_B,
        num_words=len(spec.words),
        num_performers=spec.speakers(split),
        seed=spec.seed,
        split_key=SPLITS.index(split),
    )
