from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sign_files import REAL, made_raw, needs_real, parquet_table, write_parquet

from edgelip.data.signs import parquet_landmarks
from edgelip.data.signs.parquet_landmarks import read_parquet
from edgelip.data.unusable import UnusableClip

TWICE = np.asarray(parquet_table(made_raw())["landmark_index"]).copy()
TWICE[5] = 4


def test_a_file_gives_frames_by_points_by_axes(tmp_path: Path) -> None:
    got = read_parquet(write_parquet(tmp_path / "a.parquet", made_raw()))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, made_raw())


def test_rows_in_any_order_give_the_same(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(3 * 543)
    table = parquet_table(made_raw())
    shuffled = {name: np.asarray(column)[order] for name, column in table.items()}
    np.testing.assert_array_equal(
        read_parquet(write_parquet(tmp_path / "a.parquet", made_raw(), **shuffled)), made_raw()
    )


def test_coordinates_alone_are_taken_in_the_order_of_the_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", made_raw(), frame=None, row_id=None, type=None, landmark_index=None)
    np.testing.assert_array_equal(read_parquet(path), made_raw())


def test_empty_cells_are_lost_points(tmp_path: Path) -> None:
    x = [None if value != value else float(value) for value in made_raw()[..., 0].reshape(-1)]
    np.testing.assert_array_equal(read_parquet(write_parquet(tmp_path / "a.parquet", made_raw(), x=x)), made_raw())


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"z": None}, r"has no column 'z'; expected columns frame, type, landmark_index, x, y, z and 543 rows a frame"),
        ({"type": None}, r"has no column 'type'; expected columns frame"),
        ({"y": ["high"] * 1629}, r"column 'y' holds (large_)?string; expected numbers"),
        ({"type": ["foot"] * 1629}, r"has the type 'foot'; expected face, left_hand, pose, right_hand\."),
        ({"type": [None, *["face"] * 1628]}, r"has the type an empty one; expected face"),
        ({"type": [None] * 1629}, r"has the type (None|an empty one); expected face"),
        ({"landmark_index": [500] * 1629}, r"has a landmark_index that its type does not have\."),
        ({"landmark_index": [-1] * 1629}, r"has a landmark_index that its type does not have\."),
        ({"landmark_index": TWICE}, r"lacks landmarks in some of its 3 frames, or has one twice"),
        ({"frame": [0] * 1629}, r"lacks landmarks in some of its 1 frames, or has one twice"),
        ({"frame": [None] * 1629}, r"column 'frame' holds null; expected numbers|has a frame without a number"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path: Path, columns: dict[str, object], said: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", made_raw(), **columns)
    with pytest.raises(UnusableClip, match=rf"a\.parquet:? {said}") as caught:
        read_parquet(path)
    assert caught.value.reason == "landmarks"


def test_a_file_that_lost_a_row_is_refused(tmp_path: Path) -> None:
    cut = {name: list(column)[:-1] for name, column in parquet_table(made_raw()).items()}  # type: ignore[call-overload]
    path = write_parquet(tmp_path / "a.parquet", made_raw(), **cut)
    with pytest.raises(UnusableClip, match=r"has 1628 rows; expected 543 a frame, 1 to 5000 frames\."):
        read_parquet(path)


def test_a_long_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", made_raw())
    monkeypatch.setattr(parquet_landmarks, "MAX_FRAMES", 2)
    with pytest.raises(UnusableClip, match=r"has 1629 rows; expected 543 a frame, 1 to 2 frames\."):
        read_parquet(path)
    monkeypatch.setattr(parquet_landmarks, "_MAX_BYTES", 1000)
    with pytest.raises(UnusableClip, match=r"bytes; one sign has at most 1000\.") as caught:
        read_parquet(path)
    assert caught.value.reason == "too large"


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", made_raw())
    content = path.read_bytes()
    for damage in (b"", b"nonsense" * 100, content[: len(content) // 2], b"PAR1" + b"\0" * 100 + b"PAR1"):
        path.write_bytes(damage)
        with pytest.raises(
            UnusableClip, match=r"a\.parquet cannot be read as parquet \(.+\)\. Copy it again\."
        ) as caught:
            read_parquet(path)
        assert caught.value.reason == "damaged"
    with pytest.raises(UnusableClip, match=r"b\.parquet does not exist; expected a parquet file of one sign\."):
        read_parquet(tmp_path / "b.parquet")


@needs_real
def test_real_files_agree_with_the_array_that_holds_them_all() -> None:
    with np.load(REAL / "asl_gestures_543.npz") as archive:
        xyz, offsets = archive["xyz"], archive["offsets"]
    paths = sorted((REAL / "train_landmark_files").glob("*/*.parquet"))
    assert len(paths) == 3
    for path in paths:
        number = int(path.stem) - 1000
        expected = xyz[offsets[number] : offsets[number + 1]]  # rounded to halves
        got = read_parquet(path)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
