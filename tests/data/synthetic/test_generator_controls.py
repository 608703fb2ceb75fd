"""The controls at a scale that a test can afford: linear probes on articulatory tracks and on small pictures.

The measurement with a trained network is benchmarks/generator_controls.py.
Axes: N clip, P articulatory parameter, T frame, V word.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from edgelip.data.synthetic.articulation import PARAMETERS, boundaries, speak, tracks
from edgelip.data.synthetic.clips import SyntheticSpec, render_clips
from edgelip.data.synthetic.hashing import Draws
from edgelip.data.synthetic.speakers import Spreads, draw_speakers
from edgelip.data.synthetic.words import TARGETS, lexicon, word_indices

WORDS = (
    "BILLION", "MILLION", "SPEND", "SPENT", "PRICE", "PRESS", "BEFORE", "BECOME", "POWER", "PARTY", "PEOPLE", "POINT",
    "FAMILY", "FOLLOWING", "FUTURE", "FORMER", "WOMEN", "WATER", "WITHOUT", "MOMENT", "MEETING", "LEVEL", "LIVING",
    "SIMPLY", "SEVEN",
)  # fmt: skip
CHANCE_PCT = 100 / len(WORDS)
CLIPS = 5000
TRAINED = 4000


@cache
def speech() -> tuple[Tensor, Tensor, Tensor]:
    """Tracks (N, P, T), labels and word lengths in frames; every clip a speaker of its own."""
    spreads, draws = Spreads(), Draws(torch.arange(CLIPS))
    labels_N = torch.arange(CLIPS) % len(WORDS)
    speakers = draw_speakers(draws, spreads, 500, len(TARGETS), len(PARAMETERS))
    utterance = speak(torch.tensor(word_indices(WORDS))[labels_N], draws, speakers, spreads, lexicon())
    first_N, last_N = boundaries(utterance, 29).unbind(1)
    parts = []
    for rows in torch.arange(CLIPS).split(250):
        part = type(utterance)(*(getattr(utterance, name)[rows] for name in utterance.__dataclass_fields__))
        mine = Draws(draws.keys_B[rows])
        own = draw_speakers(mine, spreads, 500, len(TARGETS), len(PARAMETERS))
        parts.append(tracks(part, mine, own, spreads, 29))
    return torch.cat(parts), labels_N, last_N - first_N + 1


def linear_probe_pct(features_NF: Tensor, labels_N: Tensor, trained: int, ridge: float) -> float:
    """Top-1 of ridge regression onto the words, on the clips after the first `trained`."""
    x = features_NF.double()
    x = (x - x[:trained].mean(0)) / (x[:trained].std(0) + 1e-3)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    wanted_NV = torch.nn.functional.one_hot(labels_N, len(WORDS)).double()
    gram = x[:trained].T @ x[:trained] + ridge * trained * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x[:trained].T @ wanted_NV[:trained])
    right = (x[trained:] @ weights).argmax(1) == labels_N[trained:]
    return 100 * float(right.double().mean())


def test_one_frame_tells_less_than_half_of_what_the_clip_tells() -> None:
    tracks_NPT, labels_N, _ = speech()
    full_pct = linear_probe_pct(tracks_NPT.flatten(1), labels_N, TRAINED, 1e-3)
    best_pct = max(linear_probe_pct(tracks_NPT[:, :, t], labels_N, TRAINED, 1e-3) for t in range(29))
    assert full_pct > 5 * CHANCE_PCT
    assert best_pct <= 0.5 * full_pct


def test_frames_without_their_order_tell_less_than_half() -> None:
    """Moments over time are all that a linear probe can know of shuffled frames."""
    tracks_NPT, labels_N, _ = speech()
    full_pct = linear_probe_pct(tracks_NPT.flatten(1), labels_N, TRAINED, 1e-3)
    moments_NF = torch.cat([tracks_NPT.mean(2), tracks_NPT.std(2), tracks_NPT.sort(2).values.flatten(1)], 1)
    assert linear_probe_pct(moments_NF, labels_N, TRAINED, 1e-2) <= 0.5 * full_pct


def test_length_of_the_word_tells_at_most_12_percent() -> None:
    _, labels_N, lengths_N = speech()
    counts_LV = torch.zeros(30, len(WORDS))
    counts_LV.index_put_((lengths_N[:TRAINED], labels_N[:TRAINED]), torch.ones(TRAINED), accumulate=True)
    guesses = counts_LV.argmax(1)[lengths_N[TRAINED:]]
    assert 100 * float((guesses == labels_N[TRAINED:]).double().mean()) <= 12.0


def test_clip_without_its_mouth_tells_nothing() -> None:
    batch = render_clips(SyntheticSpec(WORDS), "train", range(1000), mouth="hidden")
    small = torch.nn.functional.avg_pool2d(batch.frames_BTHW[:, ::7].float(), 12).flatten(1)
    pct = linear_probe_pct(small, batch.labels_B, 700, 0.1)
    spread_pct = 100 * (0.04 * 0.96 / 300) ** 0.5
    assert pct <= CHANCE_PCT + 3 * spread_pct
