from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgelip.data.synthetic.articulation import (
    BILABIALS,
    CLOSURE,
    FRAME_MS,
    LABIODENTAL,
    LABIODENTALS,
    PARAMETERS,
    ROUNDING,
    Utterance,
    boundaries,
    frame_times,
    speak,
    tracks,
    viseme_labels,
)  # fmt: skip
from edgelip.data.synthetic.hashing import Draws
from edgelip.data.synthetic.speakers import Speakers, Spreads, draw_speakers
from edgelip.data.synthetic.words import TARGETS, VISEME_OF_PHONE, lexicon, pronunciations, word_indices

FRAMES = 29


def voices(count: int, spreads: Spreads, seed: int = 0) -> tuple[Draws, Speakers]:
    draws = Draws(torch.arange(count) + 1000 * seed)
    return draws, draw_speakers(draws, spreads, 500, len(TARGETS), len(PARAMETERS))


def said(phones: list[str], durations_ms: list[float], start_ms: float) -> Utterance:
    durations_BS = torch.tensor([durations_ms])
    ends_BS = durations_BS.cumsum(1)
    starts_BS = ends_BS - durations_BS + start_ms
    targets_BS = torch.tensor([[TARGETS.index(phone) for phone in phones]])
    visemes_BS = torch.tensor([[VISEME_OF_PHONE[phone] for phone in phones]])
    return Utterance(
        targets_BS, visemes_BS, starts_BS, durations_BS, starts_BS[:, 0], starts_BS[:, -1] + durations_BS[:, -1]
    )


def seen(utterance: Utterance, names: tuple[str, ...]) -> list[tuple[int, Tensor]]:
    """(clip, frames inside the segment) of every used segment of `names` that lies within the clip."""
    times_T = frame_times(FRAMES, torch.device("cpu"))
    found = []
    wanted = torch.tensor([TARGETS.index(name) for name in names])
    hard_BS = torch.isin(utterance.targets_BS, wanted) & (utterance.durations_BS > 0)
    for b, s in torch.nonzero(hard_BS).tolist():
        start, end = utterance.starts_BS[b, s], utterance.starts_BS[b, s] + utterance.durations_BS[b, s]
        if start >= times_T[0] and end <= times_T[-1]:
            found.append((b, torch.nonzero((times_T >= start) & (times_T <= end))[:, 0]))
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 2.0))
def test_lips_always_meet_for_bilabials_and_teeth_for_labiodentals(seed: int, severity: float) -> None:
    """Whatever the neighbours, the rate and the speaker, some frame of each shows the contact."""
    spreads = Spreads().scaled(severity)
    draws, speakers = voices(60, spreads, seed)
    utterance = speak(draws.integers("word", 500), draws, speakers, spreads, lexicon())
    tracks_BPT = tracks(utterance, draws, speakers, spreads, FRAMES)
    for names, parameter in ((BILABIALS, CLOSURE), (LABIODENTALS, LABIODENTAL)):
        contacts = seen(utterance, names)
        assert len(contacts) > 10
        for b, frames in contacts:
            assert float(tracks_BPT[b, parameter, frames].max()) == 1.0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(BILABIALS + LABIODENTALS),
    st.sampled_from(["AA", "AE", "IY", "UW", "W", "S", "M", "F"]),
    st.floats(-20, 20),
    st.floats(44, 110),
)
def test_contact_is_reached_between_any_neighbours_at_any_sampling_phase(
    phone: str, neighbour: str, phase_ms: float, contact_ms: float
) -> None:
    spreads = Spreads().scaled(0.0)
    draws, speakers = voices(1, spreads)
    utterance = said([neighbour, phone, neighbour], [180.0, contact_ms, 180.0], -180.0 + phase_ms)
    parameter = CLOSURE if phone in BILABIALS else LABIODENTAL
    track_T = tracks(utterance, draws, speakers, spreads, FRAMES)[0, parameter]
    inside = (frame_times(FRAMES, torch.device("cpu")) >= phase_ms) & (
        frame_times(FRAMES, torch.device("cpu")) <= phase_ms + contact_ms
    )
    assert float(track_T[inside].max()) == 1.0


def test_open_vowel_between_vowels_leaves_the_lips_apart() -> None:
    spreads = Spreads().scaled(0.0)
    draws, speakers = voices(1, spreads)
    track_T = tracks(said(["AH", "AA", "AH"], [150.0, 200.0, 150.0], -250.0), draws, speakers, spreads, FRAMES)[0]
    assert float(track_T[CLOSURE, 14]) < 0.1
    assert float(track_T[0, 14]) > 0.75


def test_rounding_begins_before_its_vowel() -> None:
    """Cohen and Massaro's anticipation: the S of 'soon' is rounder than the S of 'seen'."""
    spreads = Spreads().scaled(0.0)
    draws, speakers = voices(1, spreads)
    soon, seen_ = (
        tracks(said(["S", vowel, "N"], [90.0, 150.0, 90.0], -165.0), draws, speakers, spreads, FRAMES)[0, ROUNDING, 11]
        for vowel in ("UW", "IY")
    )
    assert float(soon) > float(seen_) + 0.15


def test_tracks_stay_within_zero_and_one() -> None:
    spreads = Spreads().scaled(3.0)
    draws, speakers = voices(64, spreads)
    tracks_BPT = tracks(
        speak(draws.integers("word", 500), draws, speakers, spreads, lexicon()), draws, speakers, spreads, FRAMES
    )
    assert float(tracks_BPT.min()) >= 0.0
    assert float(tracks_BPT.max()) <= 1.0


def test_word_lies_in_the_middle_of_the_clip() -> None:
    spreads = Spreads()
    draws, speakers = voices(400, spreads)
    utterance = speak(draws.integers("word", 500), draws, speakers, spreads, lexicon())
    middle_B = (utterance.word_start_B + utterance.word_end_B) * 0.5
    assert float(middle_B.abs().mean()) < FRAME_MS
    assert float(middle_B.mean()) == pytest.approx(0.0, abs=6.0)


def test_boundary_frames_span_the_word() -> None:
    utterance = said(["AA", "T"], [200.0, 100.0], -150.0)
    assert boundaries(utterance, FRAMES).tolist() == [[11, 17]]  # -120 ms .. 120 ms


def test_viseme_labels_name_the_phone_heard_at_each_frame() -> None:
    utterance = said(["AA", "M"], [200.0, 100.0], -150.0)
    labels_T = viseme_labels(utterance, FRAMES)[0].tolist()
    assert labels_T[:11] == [0] * 11
    assert labels_T[11:16] == [VISEME_OF_PHONE["AA"]] * 5
    assert labels_T[16:18] == [VISEME_OF_PHONE["M"]] * 2
    assert labels_T[18:] == [0] * 11


def test_faster_speakers_say_shorter_words() -> None:
    spreads = Spreads()
    draws, speakers = voices(300, spreads)
    words_B = torch.full((300,), word_indices(["PEOPLE"])[0])
    utterance = speak(words_B, draws, speakers, spreads, lexicon())
    lengths_B = utterance.word_end_B - utterance.word_start_B
    fast_B = speakers.rate_B > 1.0
    assert float(lengths_B[fast_B].mean()) < 0.9 * float(lengths_B[~fast_B].mean())


def test_accent_of_a_speaker_chooses_the_variant() -> None:
    spreads = Spreads()
    draws, speakers = voices(200, spreads)
    row = word_indices(["AGAIN"])[0]
    assert len(pronunciations()["AGAIN"]) == 2
    utterance = speak(torch.full((200,), row), draws, speakers, spreads, lexicon())
    num_segments_B = (utterance.durations_BS > 0).sum(1)
    assert len(set((speakers.accent_bits_BN[:, row] % 2).tolist())) == 2
    assert num_segments_B.float().std() > 0
