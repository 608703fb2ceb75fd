from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgelip.data.preview import contact_sheet, save_png
from edgelip.runtime.errors import ClipError, MissingError, ShapeError, UsageError


def clips(num_clips: int = 2, frames: int = 5) -> np.ndarray:
    return np.arange(num_clips * frames * 8 * 6, dtype=np.uint32).reshape(num_clips, frames, 8, 6).astype(np.uint8)


def test_sheet_shows_every_second_frame_beside_the_word() -> None:
    frames = clips()
    sheet = contact_sheet(frames, ["ABOUT", "YES"])
    assert sheet.dtype == np.uint8
    right = sheet[:, -3 * 8 - 2 :]
    for row in range(2):
        for column in range(3):
            cell = right[2 + row * 10 : 10 + row * 10, column * 8 : column * 8 + 6]
            assert np.array_equal(cell, frames[row, 2 * column])


def test_word_is_written_left_of_its_row() -> None:
    left = contact_sheet(np.full((2, 2, 40, 40), 255, np.uint8), ["MMMM", ""])[:, :48]
    assert left[:42].min() < 100
    assert left[44:].min() == 255


def test_sheet_refuses_frames_of_the_wrong_kind() -> None:
    with pytest.raises(
        ClipError,
        match=r"^frames_BTHW is float64 of shape \(1, 2, 3, 4\); expected uint8 \(B, T, H, W\), nothing empty\. Stack",
    ):
        contact_sheet(np.zeros((1, 2, 3, 4)), ["A"])  # type: ignore[arg-type]
    with pytest.raises(
        ShapeError, match=r"^labels has 1 entries; expected 2, one a clip\. Pass the word of each clip\.$"
    ):
        contact_sheet(clips(), ["A"])
    with pytest.raises(UsageError, match=r"^every is 0; expected at least 1\. Use 1 to show all frames\.$"):
        contact_sheet(clips(), ["A", "B"], every=0)


def test_saved_picture_reads_back_and_leaves_nothing_beside(tmp_path: Path) -> None:
    image = clips()[0, 0]
    save_png(tmp_path / "new" / "sheet.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "new" / "sheet.png"), cv2.IMREAD_GRAYSCALE), image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_picture_that_cannot_be_written_is_reported_and_leaves_the_old_one(tmp_path: Path) -> None:
    in_the_way = tmp_path / "sheet.png"
    (in_the_way / "child").mkdir(parents=True)
    with pytest.raises(
        MissingError,
        match=r"^Cannot write .*sheet\.png: .*; expected a writable folder with free space\. Choose another\.$",
    ):
        save_png(in_the_way, clips()[0, 0])
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
