"""The 500 words and how they are pronounced: CMUdict lines turned into timed segments.

A segment is a stretch with one articulatory target: a phone, or either half of a diphthong. Pronunciations: the CMU
Pronouncing Dictionary (LICENSE-cmudict beside this file). Durations: eSpeak NG en-us at 175 words a minute, measured
over the 500 words; where it has no such phone, the nearest one's.
Axes: N word, A accent variant, S segment.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from edgelip.runtime.errors import UsageError

SILENCE = "SIL"
MONOPHTHONGS = ("AA", "AE", "AH", "AO", "EH", "ER", "IH", "IY", "UH", "UW")
CONSONANTS = (
    "P", "B", "M", "F", "V", "TH", "DH", "T", "D", "N", "L", "S", "Z", "SH", "ZH", "CH", "JH", "K", "G", "NG",
    "HH", "R", "W", "Y",
)  # fmt: skip
TARGETS = (SILENCE, *MONOPHTHONGS, *CONSONANTS)
"""Names of the articulatory targets; a segment's target is an index into this."""

DIPHTHONGS = {"AY": ("AA", "IY"), "EY": ("EH", "IY"), "OY": ("AO", "IY"), "AW": ("AA", "UW"), "OW": ("AO", "UW")}
_FIRST_HALF = 0.55

VISEMES = (
    ("SIL",), ("AE", "AH"), ("AA",), ("AO",), ("EY", "EH", "UH"), ("ER",), ("Y", "IY", "IH"), ("W", "UW"), ("OW",),
    ("AW",), ("OY",), ("AY",), ("HH",), ("R",), ("L",), ("S", "Z"), ("SH", "CH", "JH", "ZH"), ("TH", "DH"),
    ("F", "V"), ("D", "T", "N"), ("K", "G", "NG"), ("P", "B", "M"),
)  # fmt: skip
"""Phones of each viseme label: the 22 classes of Microsoft's speech service, 0 silence."""
VISEME_OF_PHONE = {phone: index for index, phones in enumerate(VISEMES) for phone in phones}

_STRESSED_MS = {
    "AA": 171, "AE": 174, "AH": 131, "AO": 178, "EH": 155, "ER": 183, "IH": 142, "IY": 147, "UH": 130, "UW": 150,
    "AY": 207, "EY": 187, "OY": 230, "AW": 215, "OW": 190,
}  # fmt: skip
_UNSTRESSED_MS = {"AH": 52, "IH": 70, "IY": 73, "ER": 99}
_CONSONANT_MS = {
    "P": 37, "B": 43, "M": 100, "F": 79, "V": 72, "TH": 80, "DH": 50, "T": 46, "D": 49, "N": 90, "L": 59, "S": 82,
    "Z": 91, "SH": 93, "ZH": 80, "CH": 105, "JH": 90, "K": 53, "G": 53, "NG": 95, "HH": 60, "R": 67, "W": 110, "Y": 60,
}  # fmt: skip
_UNSTRESSED_FACTOR = 0.65
_SECONDARY_FACTOR = 0.9
_BEFORE_VOICED = 1.15
_BEFORE_VOICELESS = 0.88  # with the line above the ratio of 1.3 that the phonetics literature reports
_FINAL_FACTOR = 1.15
_VOICED = frozenset(("B", "D", "G", "V", "DH", "Z", "ZH", "JH"))
_VOICELESS = frozenset(("P", "T", "K", "F", "TH", "S", "SH", "CH"))
_NASALS = frozenset(("M", "N", "NG"))


@dataclass(frozen=True)
class Lexicon:
    """Every pronunciation of the 500 words as padded tables."""

    targets_NAS: Tensor
    """int64, index into TARGETS; 0 (silence) where there is no segment."""
    visemes_NAS: Tensor
    """int64, index into VISEMES."""
    durations_NAS: Tensor
    """float32 milliseconds at the reference rate; 0 where there is no segment."""
    num_variants_N: Tensor
    """int64, at least 1."""

    def to(self, device: torch.device) -> Lexicon:
        """The same tables on another device."""
        return Lexicon(
            *(t.to(device) for t in (self.targets_NAS, self.visemes_NAS, self.durations_NAS, self.num_variants_N))
        )


@cache
def pronunciations() -> dict[str, tuple[tuple[str, ...], ...]]:
    """ARPAbet phones with stress digits of every variant, by upper-case word, in the order of the LRW list."""
    table: dict[str, list[tuple[str, ...]]] = {}
    for line in (files(__package__) / "lrw500.cmudict").read_text(encoding="utf-8").splitlines():
        spelling, *phones = line.split()
        table.setdefault(spelling.split("(")[0].upper(), []).append(tuple(phones))
    return {word: tuple(variants) for word, variants in sorted(table.items())}


def word_indices(words: Sequence[str]) -> list[int]:
    """Row of each word (any case) in the 500-word list.

    Raises UsageError naming the nearest known word, or a word listed twice.
    """
    known = list(pronunciations())
    rows = {word: row for row, word in enumerate(known)}
    found: list[int] = []
    for word in words:
        row = rows.get(word.upper())
        if row is None:
            nearest = difflib.get_close_matches(word.upper(), known, n=1, cutoff=0.0)[0]
            raise UsageError(
                f"Word {word!r} is not among the 500 words of the synthetic lexicon. Nearest: {nearest!r}."
            )
        if row in found:
            raise UsageError(f"Word {word!r} is listed twice; expected distinct words, a label each. Remove one.")
        found.append(row)
    return found


def segments_from_phones(phones: Sequence[str]) -> list[tuple[str, str, float]]:
    """(target, phone, milliseconds) of each segment of one pronunciation in ARPAbet with stress digits."""
    bare = [phone.rstrip("012") for phone in phones]
    last_vowel = max(i for i, phone in enumerate(bare) if phone in _STRESSED_MS)
    segments: list[tuple[str, str, float]] = []
    for i, (phone, name) in enumerate(zip(phones, bare, strict=True)):
        if name in _STRESSED_MS:
            stress = phone[-1]
            ms = float(_STRESSED_MS[name])
            if stress == "0":
                ms = float(_UNSTRESSED_MS.get(name, ms * _UNSTRESSED_FACTOR))
            elif stress == "2":
                ms *= _SECONDARY_FACTOR
        else:
            ms = float(_CONSONANT_MS[name])
        if name in _STRESSED_MS or name in _NASALS:
            following = [other for other in bare[i + 1 : i + 3] if other not in _NASALS][:1]
            if following and following[0] in _VOICED:
                ms *= _BEFORE_VOICED
            elif following and following[0] in _VOICELESS:
                ms *= _BEFORE_VOICELESS
        if i >= last_vowel:
            ms *= _FINAL_FACTOR
        if name in DIPHTHONGS:
            first, second = DIPHTHONGS[name]
            segments += [(first, name, ms * _FIRST_HALF), (second, name, ms * (1.0 - _FIRST_HALF))]
        else:
            segments.append((name, name, ms))
    return segments


@cache
def lexicon() -> Lexicon:
    """The tables of all 500 words, on the CPU."""
    words = [[segments_from_phones(phones) for phones in variants] for variants in pronunciations().values()]
    num_variants = max(len(variants) for variants in words)
    num_segments = max(len(segments) for variants in words for segments in variants)
    shape = (len(words), num_variants, num_segments)
    targets_NAS = torch.zeros(shape, dtype=torch.int64)
    visemes_NAS = torch.zeros(shape, dtype=torch.int64)
    durations_NAS = torch.zeros(shape, dtype=torch.float32)
    for n, variants in enumerate(words):
        for a, segments in enumerate(variants):
            for s, (target, phone, ms) in enumerate(segments):
                targets_NAS[n, a, s] = TARGETS.index(target)
                visemes_NAS[n, a, s] = VISEME_OF_PHONE[phone]
                durations_NAS[n, a, s] = ms
    return Lexicon(targets_NAS, visemes_NAS, durations_NAS, torch.tensor([len(variants) for variants in words]))
