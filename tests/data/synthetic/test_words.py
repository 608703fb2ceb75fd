from __future__ import annotations

import pytest

from edgelip.data.synthetic.words import TARGETS, VISEMES, lexicon, pronunciations, segments_from_phones, word_indices
from edgelip.runtime.errors import UsageError


def test_lexicon_holds_the_500_words_in_list_order() -> None:
    words = list(pronunciations())
    assert len(words) == 500
    assert words[0] == "ABOUT"
    assert words[499] == "YOUNG"
    assert words == sorted(words)


def test_mean_pronunciation_has_the_published_number_of_phones() -> None:
    """5.47 phones a word, counted over the first variants of the list."""
    lengths = [len(variants[0]) for variants in pronunciations().values()]
    assert sum(lengths) / 500 == pytest.approx(5.47, abs=0.005)


def test_mean_word_lasts_about_as_long_as_measured_speech() -> None:
    """eSpeak NG en-us at 175 words a minute: mean 484 ms, range 282 to 825."""
    durations_N = lexicon().durations_NAS[:, 0].sum(1)
    assert float(durations_N.mean()) == pytest.approx(484, rel=0.1)
    assert float(durations_N.min()) > 150
    assert float(durations_N.max()) < 1000


def test_every_word_becomes_segments_with_targets_and_visemes() -> None:
    tables = lexicon()
    used = tables.durations_NAS > 0
    assert bool((tables.targets_NAS[used] > 0).all())
    assert bool((tables.targets_NAS < len(TARGETS)).all())
    assert bool((tables.visemes_NAS[used] > 0).all())
    assert bool((tables.visemes_NAS < len(VISEMES)).all())
    assert bool(used[:, 0, 0].all())


def test_variants_of_the_dictionary_are_kept() -> None:
    abuse = word_indices(["abuse"])[0]
    assert pronunciations()["ABUSE"] == (("AH0", "B", "Y", "UW1", "S"), ("AH0", "B", "Y", "UW1", "Z"))
    assert int(lexicon().num_variants_N[abuse]) == 2


def test_diphthong_becomes_two_segments_in_the_ratio_55_to_45() -> None:
    first, second = segments_from_phones(["M", "AY1"])[1:]
    assert (first[0], second[0]) == ("AA", "IY")
    assert first[1] == second[1] == "AY"
    assert first[2] / second[2] == pytest.approx(55 / 45)


def test_vowel_is_longer_before_a_voiced_consonant() -> None:
    spend = segments_from_phones(["S", "P", "EH1", "N", "D"])
    spent = segments_from_phones(["S", "P", "EH1", "N", "T"])
    assert spend[2][2] / spent[2][2] == pytest.approx(1.3, rel=0.02)


def test_words_are_found_in_any_case() -> None:
    assert word_indices(["about", "Young"]) == [0, 499]


def test_unknown_word_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(
        UsageError, match=r"^Word 'MILION' is not among the 500 words of the synthetic lexicon\. Nearest: 'MILLION'\.$"
    ):
        word_indices(["ABOUT", "MILION"])


def test_repeated_word_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^Word 'about' is listed twice; expected distinct words, a label each\. Remove one\.$"
    ):
        word_indices(["ABOUT", "about"])
