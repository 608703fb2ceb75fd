"""Timed segments to articulatory tracks: dominance-function coarticulation, with lip contacts that always happen.

Model: Cohen & Massaro (1993), z(t) = sum_s D_s(t) T_s / sum_s D_s(t) per parameter,
D_s = strength * exp(-(|t - centre| * theta)^1.25).
Axes: B clip, S segment, P articulatory parameter, T frame, G target (words.TARGETS).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from edgelip.data.synthetic.hashing import Draws, decay, sum_in_halves
from edgelip.data.synthetic.speakers import Speakers, Spreads
from edgelip.data.synthetic.words import TARGETS, Lexicon

FRAME_MS = 40.0  # 25 fps
PARAMETERS = ("jaw", "width", "rounding", "closure", "labiodental", "tongue", "teeth")
JAW, WIDTH, ROUNDING, CLOSURE, LABIODENTAL, TONGUE, TEETH = range(7)
BILABIALS = ("P", "B", "M")
LABIODENTALS = ("F", "V")

_REST = (0.06, 0.48, 0.12, 0.9, 0.0, 0.0, 0.1)
_TARGETS: dict[tuple[str, ...], tuple[float, ...]] = {
    ("SIL",): _REST,
    ("AA",): (1.0, 0.4, 0.1, 0, 0, 0, 0.3),
    ("AE",): (0.85, 0.7, 0, 0, 0, 0.1, 0.5),
    ("AH",): (0.55, 0.5, 0.05, 0, 0, 0, 0.3),
    ("AO",): (0.75, 0.25, 0.6, 0, 0, 0, 0.15),
    ("EH",): (0.6, 0.65, 0, 0, 0, 0.1, 0.5),
    ("ER",): (0.35, 0.35, 0.5, 0, 0, 0.1, 0.3),
    ("IH",): (0.35, 0.7, 0, 0, 0, 0.2, 0.6),
    ("IY",): (0.2, 0.95, 0, 0, 0, 0.2, 0.8),
    ("UH",): (0.35, 0.3, 0.65, 0, 0, 0, 0.15),
    ("UW",): (0.2, 0.1, 1.0, 0, 0, 0, 0.1),
    BILABIALS: (0.1, 0.5, 0.2, 1.0, 0, 0, 0),
    LABIODENTALS: (0.2, 0.5, 0.1, 0.5, 1.0, 0, 0.7),
    ("TH", "DH"): (0.25, 0.5, 0.05, 0, 0, 1.0, 0.7),
    ("T", "D", "N"): (0.25, 0.55, 0.05, 0, 0, 0.55, 0.7),
    ("L",): (0.4, 0.5, 0.05, 0, 0, 0.8, 0.5),
    ("S", "Z"): (0.1, 0.65, 0.05, 0, 0, 0.2, 1.0),
    ("SH", "ZH", "CH", "JH"): (0.15, 0.3, 0.7, 0, 0, 0.2, 0.9),
    ("K", "G", "NG"): (0.35, 0.5, 0.05, 0, 0, 0.05, 0.3),
    ("HH",): (0.4, 0.5, 0.05, 0, 0, 0, 0.3),
    ("R",): (0.25, 0.3, 0.6, 0, 0, 0.15, 0.4),
    ("W",): (0.15, 0.1, 1.0, 0.1, 0, 0, 0.1),
    ("Y",): (0.2, 0.85, 0.05, 0, 0, 0.2, 0.6),
}
"""Invented starting values, 0..1, not measured on people."""

_STRENGTH: dict[tuple[str, ...], float] = {
    BILABIALS: 1.6, LABIODENTALS: 1.5, ("W",): 1.35, ("SH", "ZH", "CH", "JH"): 1.2, ("R",): 1.05, ("L",): 0.85,
    ("TH", "DH"): 0.8, ("T", "D", "N"): 0.55, ("S", "Z"): 0.6, ("K", "G", "NG"): 0.35, ("HH",): 0.05, ("SIL",): 0.8,
}  # fmt: skip
_ROUNDING_STRENGTH = 1.5
_ROUNDING_REACH = 1.7  # rounding begins several segments early
_REST_PULL = 0.02
_RAMP_MS = 34.0
_SHORTEST_CONTACT_MS = 44.0  # longer than a frame, so two contacts in a row keep a frame each
_NUM_NEIGHBOURS = 4
_SLOTS = (
    2 * _NUM_NEIGHBOURS + 1
)  # words and pauses take turns: word, pause, word, pause, WORD, pause, word, pause, word
_LONGEST_WORD_MS = 26.0 * FRAME_MS
_GRID_PER_MS = 16.0  # times lie on a grid of 1/16 ms, so their sums are exact


@dataclass(frozen=True)
class Utterance:
    """What is said when. Time 0 is the middle of the clip; all in milliseconds."""

    targets_BS: Tensor
    visemes_BS: Tensor
    starts_BS: Tensor
    durations_BS: Tensor
    """0 marks an unused place."""
    word_start_B: Tensor
    word_end_B: Tensor


@cache
def target_table() -> Tensor:
    """Target of every parameter, (G, P) float32."""
    values = {name: row for names, row in _TARGETS.items() for name in names}
    return torch.tensor([values[name] for name in TARGETS], dtype=torch.float32)


@cache
def strength_table() -> Tensor:
    """Strength of every target on every parameter, (G, P) float32: its resistance to coarticulation."""
    values = {name: value for names, value in _STRENGTH.items() for name in names}
    strength_GP = torch.tensor([[values.get(name, 1.0)] * len(PARAMETERS) for name in TARGETS], dtype=torch.float32)
    rounded_G = target_table()[:, ROUNDING] >= 0.5
    strength_GP[rounded_G, ROUNDING] *= _ROUNDING_STRENGTH
    # Alveolars need the tongue and the teeth, not the lips.
    for name in ("T", "D", "N", "S", "Z", "TH", "DH", "L"):
        strength_GP[TARGETS.index(name), TONGUE:] = 1.1
    return strength_GP


def _is_one_of(targets_BS: Tensor, names: tuple[str, ...]) -> Tensor:
    found_BS = torch.zeros_like(targets_BS, dtype=torch.bool)
    for name in names:
        found_BS = found_BS | (targets_BS == TARGETS.index(name))
    return found_BS


def _on_grid(ms: Tensor) -> Tensor:
    return torch.floor(ms * _GRID_PER_MS + 0.5) * (1.0 / _GRID_PER_MS)


def speak(words_B: Tensor, draws: Draws, speakers: Speakers, spreads: Spreads, lexicon: Lexicon) -> Utterance:
    """Time the word of each clip between two random words on either side, some after a pause.

    words_B: int64 rows of the 500-word list. The middle of the word lies at time 0 but for the centre jitter.
    """
    num_words = lexicon.targets_NAS.shape[0]
    num_segments = lexicon.targets_NAS.shape[2]
    neighbours_BK = draws.integers("neighbours", num_words, _NUM_NEIGHBOURS)
    half = _NUM_NEIGHBOURS // 2
    words_BW = torch.cat([neighbours_BK[:, :half], words_B[:, None], neighbours_BK[:, half:]], 1)
    accents_BW = speakers.accent_bits_BN.gather(1, words_BW) % lexicon.num_variants_N[words_BW]
    targets_BWS = lexicon.targets_NAS[words_BW, accents_BW]
    visemes_BWS = lexicon.visemes_NAS[words_BW, accents_BW]
    durations_BWS = lexicon.durations_NAS[words_BW, accents_BW]

    pauses_BK = draws.chance("pause", spreads.pause_share, _NUM_NEIGHBOURS)
    pause_ms_BK = draws.uniform("pause length", _NUM_NEIGHBOURS, low=60.0, high=320.0) * pauses_BK
    rate_B = speakers.rate_B * draws.lognormal("rate", sd=spreads.clip_log_rate)
    noise_BWS = draws.lognormal("duration", *durations_BWS.shape[1:], sd=spreads.log_duration)
    durations_BWS = durations_BWS * noise_BWS / rate_B[:, None, None]
    # A phrase slows down before its end.
    slow_BW = torch.ones_like(words_BW, dtype=torch.float32)
    slow_BW[:, :-1] += 0.25 * pauses_BK
    used_BWS = durations_BWS > 0
    last_two_BWS = used_BWS & ~torch.nn.functional.pad(used_BWS, (0, 2))[..., 2:]
    durations_BWS = torch.where(last_two_BWS, durations_BWS * slow_BW[..., None], durations_BWS)
    contact_BWS = _is_one_of(targets_BWS, BILABIALS + LABIODENTALS)
    length_BW1 = sum_in_halves(durations_BWS, 2)[..., None]
    durations_BWS = durations_BWS * (_LONGEST_WORD_MS / length_BW1.clamp(min=_LONGEST_WORD_MS))
    durations_BWS = torch.where(contact_BWS, durations_BWS.clamp(min=_SHORTEST_CONTACT_MS), durations_BWS)
    durations_BWS = _on_grid(durations_BWS)

    def with_pauses(words_BWS: Tensor, pauses_BK: Tensor) -> Tensor:
        parts = []
        for w in range(words_BWS.shape[1]):
            parts.append(words_BWS[:, w])
            if w < _NUM_NEIGHBOURS:
                parts.append(pauses_BK[:, w : w + 1])
        return torch.cat(parts, 1)

    silence_BK = torch.zeros_like(neighbours_BK)
    durations_BS = with_pauses(durations_BWS, _on_grid(pause_ms_BK))
    ends_BS = torch.cumsum(durations_BS, 1)
    starts_BS = ends_BS - durations_BS
    first = half * (num_segments + 1)
    word_start_B = starts_BS[:, first]
    word_end_B = ends_BS[:, first + num_segments - 1]
    # The camera's clock is not the speaker's: the phase alone moves by half a frame either way.
    phase_B = draws.uniform("phase", low=-0.5 * FRAME_MS, high=0.5 * FRAME_MS)
    middle_B = _on_grid(
        (word_start_B + word_end_B) * 0.5 + draws.normal("centre", sd=spreads.centre_jitter_ms) + phase_B
    )
    return Utterance(
        targets_BS=with_pauses(targets_BWS, silence_BK),
        visemes_BS=with_pauses(visemes_BWS, silence_BK),
        starts_BS=starts_BS - middle_B[:, None],
        durations_BS=durations_BS,
        word_start_B=word_start_B - middle_B,
        word_end_B=word_end_B - middle_B,
    )


def frame_times(frames: int, device: torch.device) -> Tensor:
    """Milliseconds of each frame from the middle frame, (T,)."""
    return (torch.arange(frames, device=device) - (frames - 1) // 2).to(torch.float32) * FRAME_MS


def contact(utterance: Utterance, names: tuple[str, ...], frames: int) -> Tensor:
    """How fully the lips touch for the phones `names`, (B, T) in 0..1: exactly 1 in at least one frame of each.

    The plateau is never shorter than a frame period, so some frame falls in it; before and after it a ramp.
    """
    times_T = frame_times(frames, utterance.starts_BS.device)
    hard_BS = _is_one_of(utterance.targets_BS, names) & (utterance.durations_BS > 0)
    half_BS = (utterance.durations_BS * 0.5 - 10.0).clamp(min=0.5 * FRAME_MS)
    centres_BS = utterance.starts_BS + utterance.durations_BS * 0.5
    outside_BST = (times_T - centres_BS[..., None]).abs() - half_BS[..., None]
    hold_BST = (1.0 - outside_BST * (1.0 / _RAMP_MS)).clamp(0.0, 1.0)
    return torch.where(hard_BS[..., None], hold_BST, 0.0).amax(1)


def tracks(utterance: Utterance, draws: Draws, speakers: Speakers, spreads: Spreads, frames: int) -> Tensor:
    """Articulatory parameters over time, (B, P, T) float32 in 0..1."""
    device = utterance.starts_BS.device
    used_BS = utterance.durations_BS > 0
    rest_P = torch.tensor(_REST, device=device)
    targets_BSP = target_table().to(device)[utterance.targets_BS]
    own_BSP = speakers.idiosyncrasy_BGP.gather(1, utterance.targets_BS[..., None].expand(-1, -1, len(PARAMETERS)))
    gain_B11 = (speakers.gain_B * draws.lognormal("gain", sd=spreads.clip_log_gain))[:, None, None]
    noise_BSP = draws.normal("target", *targets_BSP.shape[1:], sd=spreads.target_noise)
    voiced_BS1 = (utterance.targets_BS > 0)[..., None]
    varied_BSP = rest_P + (targets_BSP - rest_P) * gain_B11 + own_BSP + noise_BSP + speakers.offset_BP[:, None, :]
    # Closure and contact are aims, not amounts: a lazy speaker still closes the lips.
    aimed_BSP = torch.where(voiced_BS1, varied_BSP, targets_BSP)
    aimed_BSP[..., CLOSURE] = targets_BSP[..., CLOSURE]
    aimed_BSP[..., LABIODENTAL] = targets_BSP[..., LABIODENTAL]
    strength_BSP = strength_table().to(device)[utterance.targets_BS] * used_BS[..., None]

    reach_P = torch.ones(len(PARAMETERS), device=device)
    reach_P[ROUNDING] = _ROUNDING_REACH
    spread_BS = (0.55 * utterance.durations_BS + 18.0) * speakers.coarticulation_B[:, None]
    theta_BSP = 1.0 / (spread_BS[..., None] * reach_P)
    centres_BS = utterance.starts_BS + 0.5 * utterance.durations_BS
    lag_BST = (frame_times(frames, device) - centres_BS[..., None]).abs()
    scaled_BSPT = lag_BST[:, :, None, :] * theta_BSP[..., None]
    dominance_BSPT = decay(scaled_BSPT * scaled_BSPT.sqrt().sqrt()) * strength_BSP[..., None]
    total_BPT = sum_in_halves(dominance_BSPT, 1) + _REST_PULL
    weighted_BPT = sum_in_halves(dominance_BSPT * aimed_BSP[..., None], 1) + _REST_PULL * rest_P[:, None]
    tracks_BPT = (weighted_BPT / total_BPT).clamp(0.0, 1.0)

    bilabial_BT = contact(utterance, BILABIALS, frames)
    labiodental_BT = contact(utterance, LABIODENTALS, frames) * (1.0 - torch.floor(bilabial_BT))
    tracks_BPT[:, CLOSURE] = torch.maximum(tracks_BPT[:, CLOSURE] * (1.0 - labiodental_BT), bilabial_BT)
    tracks_BPT[:, LABIODENTAL] = torch.maximum(tracks_BPT[:, LABIODENTAL] * (1.0 - bilabial_BT), labiodental_BT)
    return tracks_BPT


def boundaries(utterance: Utterance, frames: int) -> Tensor:
    """First and last frame of the word, inclusive, (B, 2) int64."""
    times_T = frame_times(frames, utterance.starts_BS.device)
    first_B = (times_T < utterance.word_start_B[:, None]).sum(1)
    last_B = (times_T <= utterance.word_end_B[:, None]).sum(1) - 1
    first_B = first_B.clamp(0, frames - 1)
    return torch.stack([first_B, torch.maximum(last_B.clamp(0, frames - 1), first_B)], 1)


def viseme_labels(utterance: Utterance, frames: int) -> Tensor:
    """Viseme (index into words.VISEMES) of the segment at each frame, silence where there is none, (B, T) int64."""
    times_T = frame_times(frames, utterance.starts_BS.device)
    starts_BS1 = utterance.starts_BS[..., None]
    inside_BST = (times_T >= starts_BS1) & (times_T < starts_BS1 + utterance.durations_BS[..., None])
    return (inside_BST * utterance.visemes_BS[..., None]).sum(1)
