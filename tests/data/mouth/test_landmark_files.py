from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.data.mouth.landmark_files import LIMIT_BYTES, clip_key, read_landmarks, read_persons
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError

POINTS = np.arange(136.0).reshape(68, 2)
CLIP = [None, POINTS, POINTS + 1, None, POINTS + 2]


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def person(offset: float) -> dict[str, Any]:
    return {"facial_landmarks": POINTS + offset, "bbox": np.zeros(4, np.float32)}


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    return path


def assert_is_the_clip(landmarks: list[np.ndarray | None]) -> None:
    assert len(landmarks) == len(CLIP)
    for got, expected in zip(landmarks, CLIP, strict=True):
        if expected is None:
            assert got is None
        else:
            assert got is not None
            assert got.dtype == np.float64
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "value",
    [
        CLIP,
        tuple(CLIP),
        [None if points is None else points.tolist() for points in CLIP],
        [None if points is None else list(points) for points in CLIP],
        [[] if points is None else points.astype(np.float32) for points in CLIP],
        [None if points is None else points.astype(np.int32) for points in CLIP],
        objects([None if points is None else points.tolist() for points in CLIP]),
    ],
)
def test_a_pickled_list_is_read_whatever_a_frame_is_written_as(tmp_path: Path, value: Any) -> None:
    assert_is_the_clip(read_landmarks(written(tmp_path, pickle.dumps(value))))


def test_arrays_of_numbers_mark_lost_frames_by_nan(tmp_path: Path) -> None:
    array = np.stack([np.full((68, 2), np.nan) if points is None else points for points in CLIP])
    np.save(tmp_path / "a.npy", array)
    assert_is_the_clip(read_landmarks(tmp_path / "a.npy"))
    for name in ("data", "landmarks", "arr_0"):
        assert_is_the_clip(read_landmarks(written(tmp_path, npz(**{name: array}))))


def test_the_older_file_gives_the_person_asked_for_and_none_where_there_are_fewer(tmp_path: Path) -> None:
    frames = [[], [person(0)], [person(5), person(1)], [person(9)], [person(5), person(2)]]
    path = written(tmp_path, npz(data=objects(frames)))
    second = read_landmarks(path, person=1)
    assert [points is None for points in second] == [True, True, False, True, False]
    np.testing.assert_array_equal(second[2], POINTS + 1)
    np.testing.assert_array_equal(read_landmarks(path)[2], POINTS + 5)


def test_the_older_file_is_read_where_all_frames_have_as_many_persons(tmp_path: Path) -> None:
    table = np.empty((3, 2), object)
    for t in range(3):
        table[t] = [person(t), person(10 + t)]
    landmarks = read_landmarks(written(tmp_path, npz(data=table)), person=1)
    np.testing.assert_array_equal(landmarks[2], POINTS + 12)


def with_point(value: float) -> np.ndarray:
    points = POINTS.copy()
    points[3, 1] = value
    return points


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": 1}, "holds something of type dict; expected one array"),
        (None, "holds nothing"),
        ([], "holds 0 frames; expected 1 to 30000"),
        ([None] * 30_001, "holds 30001 frames"),
        ([np.zeros((68, 3))], r"has float64 \(68, 3\) in frame 0; expected one array \(68, 2\)"),
        ([None, np.zeros((67, 2))], r"has float64 \(67, 2\) in frame 1"),
        ([np.zeros((68, 2), bool)], "has bool"),
        ([np.zeros((68, 2), complex)], "neither numbers nor objects"),
        ([[[True, False]] * 68], "values that are no numbers in frame 0"),
        ([[["1", "2"]] * 68], "values that are no numbers in frame 0"),
        ([[[10**400, 1]] * 68], "a number too large for a pixel in frame 0"),
        ([[[1, 2, 3]] * 68], "has a list of 68 in frame 0"),
        (["face"], "has something of type str in frame 0"),
        ([with_point(np.nan)], r"has point 3 of frame 0 at \[6.0, nan\]; expected pixels, or None"),
        ([with_point(-np.inf)], "has point 3 of frame 0"),
        ([np.full((68, 2), np.inf)], "has point 0 of frame 0"),
        ([with_point(1e30)], r"has points 1e\+30 px away in frame 0"),
        (np.zeros((5, 68)), r"holds an array of shape \(5, 68\); expected \(frames, 68, 2\)"),
        (np.zeros((5, 2, 68)), "holds an array of shape"),
        ([[{"box": 1}]], "a person without 'facial_landmarks'"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, value: Any, why: str) -> None:
    path = written(tmp_path, pickle.dumps(value))
    with pytest.raises(UnusableClip, match=rf"x\.pkl .*{why}.*Track the face again") as refused:
        read_landmarks(path)
    assert refused.value.reason == "landmarks"


def test_a_pickle_with_code_is_refused_in_one_line_that_names_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    for content in (pickle.dumps([POINTS, Trap()]), npz(data=objects([Trap()]))):
        with pytest.raises(UnusableClip, match=r"asks to run posix\.mkdir; .* nothing of it was run") as refused:
            read_landmarks(written(tmp_path, content))
        assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_landmark_files_are_refused(tmp_path: Path) -> None:
    for content, why in (
        (b"", "is empty"),
        (b"x,y\n1,2\n", "no whole pickle, .npy or .npz"),
        (npz(rois=np.zeros(3)), "has no array 'data' or 'landmarks' or 'arr_0'; it holds rois.npy"),
        (npz(data=np.zeros((29, 96, 96), np.uint8)), r"holds an array of shape \(29, 96, 96\)"),
        (npz(data=POINTS[None])[:-40], "no whole landmark file"),
        (pickle.dumps(CLIP)[:-40], "no whole pickle"),
        (b"\x93NUMPY\x01\x00", "no whole landmark file"),
    ):
        with pytest.raises(UnusableClip, match=why):
            read_landmarks(written(tmp_path, content))
    with pytest.raises(UnusableClip, match="is a folder"):
        read_landmarks(tmp_path)
    with pytest.raises(UnusableClip, match="cannot be read: No such file"):
        read_landmarks(tmp_path / "none.pkl")


def test_large_files_and_packed_ones_are_refused_unread(tmp_path: Path) -> None:
    large = tmp_path / "large.pkl"
    with large.open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(UnusableClip, match=f"has {LIMIT_BYTES + 1} bytes; a landmark file has at most {LIMIT_BYTES}"):
        read_landmarks(large)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(LIMIT_BYTES + 1))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    with pytest.raises(UnusableClip, match=f"unpacks to more than {LIMIT_BYTES} bytes"):
        read_landmarks(tmp_path / "bomb.npz")


SEEDS = [pickle.dumps([POINTS[:, :], None]), npz(data=objects([[person(0)]])), npz(data=POINTS[None])]


@settings(max_examples=150)
@given(st.sampled_from(SEEDS), st.data())
def test_a_file_with_a_few_bytes_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, data: st.DataObject
) -> None:
    content = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.pkl"
    path.write_bytes(bytes(content))
    said = ""
    try:
        read_landmarks(path)
    except UnusableClip as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


@pytest.mark.parametrize("header", ["", "path,person_id\n"])
def test_persons_are_read_by_path_without_suffix(tmp_path: Path, header: str) -> None:
    path = tmp_path / "persons.csv"
    path.write_text(header + "ABOUT/test/ABOUT_00001,1\n\nABOUT/test/A.B_2.mp4, 0\nABOUT\\test\\C,3\n")
    assert read_persons(path) == {"ABOUT/test/ABOUT_00001": 1, "ABOUT/test/A.B_2": 0, "ABOUT/test/C": 3}
    assert clip_key("ABOUT/test/A.B_2.mp4") == clip_key("ABOUT/test/A.B_2") == "ABOUT/test/A.B_2"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no rows"),
        ("path,person_id\n", "has no rows"),
        ("a,b\n", "line 1 is 'a,b'; expected path,person_id"),
        ("a,0\nb\n", "line 2 is 'b'"),
        ("a,0\nb,-1\n", "line 2"),
        ("a,0\nb,1,2\n", "line 2"),
        ("a,99999\n", "line 1"),
        ("a,0\na.mp4,1\n", "line 2 gives 'a' a second person"),
        ("\xff\xfe,0", "cannot be read"),
    ],
)
def test_a_list_of_persons_that_cannot_be_used_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "persons.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=why):
        read_persons(path)


def test_a_list_of_persons_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as rows path,person_id"):
        read_persons(tmp_path / "none.csv")
