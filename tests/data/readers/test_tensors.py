"""Clips in memory become a store as files do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clips import SPEC, WORDS, frames, write_npz

from edgelip.data.clip_files import read_clip
from edgelip.data.readers.tensors import clips_from_tensors, labels_from_words, store_tensors
from edgelip.errors import ClipError, UsageError


def test_a_clip_in_memory_is_cut_as_one_in_a_file(tmp_path: Path) -> None:
    clips = [frames("ABOUT", number, num_frames=length) for number, length in enumerate((3, 6, 9))]
    store = store_tensors(tmp_path / "store", clips, np.array([1, 0, 1], np.int32), WORDS, SPEC, what="train")
    assert store.labels.tolist() == [1, 0, 1]
    for number, clip in enumerate(clips):
        expected = read_clip(write_npz(tmp_path / "a.npz", clip), SPEC)
        np.testing.assert_array_equal(store.frames[number], expected)
    with pytest.raises(ClipError, match=r"^train clip 0 is 32x32 px; expected mouth crops of 24x24 px\."):
        store_tensors(tmp_path / "other", [frames("ABOUT", 0, side_px=32)], np.array([0]), WORDS, SPEC, what="train")


def test_arrays_and_tensors_and_lists_are_clips() -> None:
    array = np.stack([frames("ABOUT", number) for number in range(2)])
    for given in (array, torch.from_numpy(array), list(array), [torch.from_numpy(clip) for clip in array]):
        clips = clips_from_tensors(given, "train")
        np.testing.assert_array_equal(np.stack(clips), array)
    with pytest.raises(ClipError, match=r"^val clip 1 is float32 \(6, 24, 24\); expected uint8 .* 0 to 255"):
        clips_from_tensors([array[0], array[1].astype(np.float32)], "val")
    with pytest.raises(ClipError, match=r"^val clip 0 is uint8 \(0, 24, 24\); expected uint8"):
        clips_from_tensors([array[0][:0]], "val")
    with pytest.raises(UsageError, match=r"^val has no clip; expected uint8 \(N, T, H, W\)"):
        clips_from_tensors([], "val")


def test_labels_are_words_or_their_places() -> None:
    assert labels_from_words(["BELOW", "ABOUT"], WORDS, 2, "train").tolist() == [1, 0]
    assert labels_from_words(torch.tensor([1, 0]), WORDS, 2, "train").tolist() == [1, 0]
    for labels, message in (
        (["BELOW"], r"train has labels of shape \(1,\) for 2 clips; expected one a clip\."),
        (["BELOW", "BELLOW"], r"train has the label 'BELLOW', which is no word of words=\['ABOUT', 'BELOW'\]\."),
        ([0, 2], r"train clip 1 has label 2; expected a word's place, 0 to 1\."),
        ([0, -1], r"train clip 1 has label -1; expected a word's place, 0 to 1\."),
        ([0.0, 1.0], r"train has labels of float64; expected words, or whole numbers from 0\."),
    ):
        with pytest.raises(UsageError, match=message):
            labels_from_words(labels, WORDS, 2, "train")
