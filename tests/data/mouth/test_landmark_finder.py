from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgelip.data.mouth.alignment import aligned_rois
from edgelip.data.mouth.finder import FINDERS
from edgelip.data.mouth.landmark_finder import LandmarkFinder, LegacyLandmarkFinder
from edgelip.data.mouth.legacy_alignment import legacy_rois
from edgelip.data.mouth.reference_face import own_face
from edgelip.data.mouth.track import boxes_from_matrices
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError
from edgelip.registry import lookup

NUM_FRAMES = 13
FRAMES = np.random.default_rng(0).integers(0, 255, (NUM_FRAMES, 200, 220), np.uint8)
LANDMARKS = [None if t == 4 else own_face() * 0.7 + t / 10 for t in range(NUM_FRAMES)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path, "ABOUT/test/ABOUT_00001.pkl", pickle.dumps(LANDMARKS))


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / "landmarks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return tmp_path / "landmarks"


def source_of(tmp_path: Path, name: str = "ABOUT/test/ABOUT_00001.mp4") -> str:
    return str(tmp_path / "lrw" / name)


@pytest.mark.parametrize("finder_class", [LandmarkFinder, LegacyLandmarkFinder])
def test_the_table_names_the_finders(finder_class: type) -> None:
    assert lookup(FINDERS, finder_class.name, kind="mouth finder") is finder_class
    assert not finder_class.in_pieces


def test_crops_are_those_of_the_alignment_and_lost_frames_are_noted(tmp_path: Path, folder: Path) -> None:
    finder = LandmarkFinder(folder, root=tmp_path / "lrw")
    rois, track = finder.crop(FRAMES, source=source_of(tmp_path))
    np.testing.assert_array_equal(rois, aligned_rois(FRAMES, LANDMARKS, own_face()))
    assert track.found_T.tolist() == [t != 4 for t in range(NUM_FRAMES)]
    assert track.notes == (f"lost landmarks interpolated (1 of {NUM_FRAMES} frames)",)
    np.testing.assert_array_equal(track.matrices_T23, finder.track(FRAMES, source=source_of(tmp_path)).matrices_T23)
    warped = cv2.warpAffine(FRAMES[6], track.matrices_T23[6], (96, 96))
    assert np.abs(warped.astype(int) - rois[6]).mean() < 1  # the track leads to the same pixels
    np.testing.assert_allclose(boxes_from_matrices(track.matrices_T23)[:, 2], 96 * 0.7, rtol=1e-3)


def test_one_video_may_come_with_its_file(tmp_path: Path, folder: Path) -> None:
    finder = LandmarkFinder(folder / "ABOUT/test/ABOUT_00001.pkl", root=tmp_path)
    rois, _ = finder.crop(FRAMES, source=str(tmp_path / "my video.mp4"))
    np.testing.assert_array_equal(rois, aligned_rois(FRAMES, LANDMARKS, own_face()))


def test_the_older_tool_is_another_finder(tmp_path: Path, folder: Path) -> None:
    rois, track = LegacyLandmarkFinder(folder, root=tmp_path / "lrw").crop(FRAMES, source=source_of(tmp_path))
    np.testing.assert_array_equal(rois, legacy_rois(FRAMES, LANDMARKS, own_face()))
    assert track.found_T.sum() == NUM_FRAMES - 1


def test_a_users_mean_face_moves_the_crop(tmp_path: Path, folder: Path) -> None:
    np.save(tmp_path / "face.npy", own_face() * 0.8 + 20)
    finder = LandmarkFinder(folder, root=tmp_path / "lrw", mean_face=tmp_path / "face.npy")
    own = LandmarkFinder(folder, root=tmp_path / "lrw")
    boxes = finder.track(FRAMES, source=source_of(tmp_path)).boxes
    np.testing.assert_allclose(boxes[:, 2], 96 * 0.7 / 0.8, rtol=1e-3)
    assert finder.identity()["face_sha256"] != own.identity()["face_sha256"]


def test_finders_survive_the_way_to_another_process(tmp_path: Path, folder: Path) -> None:
    finder = LandmarkFinder(folder, root=tmp_path / "lrw")
    copy = pickle.loads(pickle.dumps(finder))
    expected, got = (each.crop(FRAMES, source=source_of(tmp_path))[0] for each in (finder, copy))
    np.testing.assert_array_equal(got, expected)


def test_the_list_of_persons_says_whose_face_and_which_clips(tmp_path: Path) -> None:
    frames = np.empty(NUM_FRAMES, object)
    frames[:] = [[{"facial_landmarks": own_face()}, {"facial_landmarks": own_face() * 0.5}] for _ in range(NUM_FRAMES)]
    folder = tmp_path / "landmarks" / "ABOUT" / "test"
    folder.mkdir(parents=True)
    np.savez(folder / "ABOUT_00001.npz", data=frames)
    (tmp_path / "persons.csv").write_text("ABOUT/test/ABOUT_00001,1\n")
    finder = LandmarkFinder(tmp_path / "landmarks", root=tmp_path / "lrw", persons=tmp_path / "persons.csv")
    np.testing.assert_allclose(finder.track(FRAMES, source=source_of(tmp_path)).boxes[:, 2], 48, rtol=1e-3)
    digest = hashlib.sha256((tmp_path / "persons.csv").read_bytes()).hexdigest()
    assert finder.identity()["persons_sha256"] == digest
    with pytest.raises(UnusableClip, match=r"ABOUT_2\.mp4 is not in .*persons\.csv.* Add a row ABOUT/test/ABOUT_2,0"):
        finder.track(FRAMES, source=source_of(tmp_path, "ABOUT/test/ABOUT_2.mp4"))


def test_a_clip_names_the_landmark_file_it_depends_on(tmp_path: Path, folder: Path) -> None:
    finder = LandmarkFinder(folder, root=tmp_path / "lrw")
    assert finder.sources(Path(source_of(tmp_path))) == (folder / "ABOUT/test/ABOUT_00001.pkl",)
    assert finder.sources(Path(source_of(tmp_path, "ABOUT/test/X.mp4"))) == ()


def test_a_clip_without_its_landmarks_is_unusable(tmp_path: Path, folder: Path) -> None:
    finder = LandmarkFinder(folder, root=tmp_path / "lrw")
    for source, frames, why in (
        (
            source_of(tmp_path, "ABOUT/test/X.mp4"),
            FRAMES,
            r"X\.mp4 has no landmark file .*X\.pkl \(nor \.pickle, \.npz, \.npy\)",
        ),
        (source_of(tmp_path), FRAMES[:12], r"has landmarks of 13 frames, but .*ABOUT_00001\.mp4 has 12"),
        (str(tmp_path / "elsewhere.mp4"), FRAMES, "does not lie below .*lrw, so its landmarks are unknown"),
    ):
        with pytest.raises(UnusableClip, match=why) as refused:
            finder.crop(frames, source=source)
        assert refused.value.reason == "landmarks"


@pytest.mark.parametrize("finder_class", [LandmarkFinder, LegacyLandmarkFinder])
def test_a_clip_that_cannot_be_aligned_is_named(tmp_path: Path, finder_class: type[LandmarkFinder]) -> None:
    folder = written(tmp_path, "A/test/A_1.pkl", pickle.dumps([None] * NUM_FRAMES))
    with pytest.raises(UnusableClip, match=r"A_1\.pkl has no landmarks in any of 13 frames"):
        finder_class(folder, root=tmp_path / "lrw").track(FRAMES, source=source_of(tmp_path, "A/test/A_1.mp4"))
    written(tmp_path, "A/test/A_1.pkl", pickle.dumps(LANDMARKS[:5]))
    with pytest.raises(UnusableClip, match=r"A_1\.mp4: 5 frames; expected at least 12") as refused:
        finder_class(folder, root=tmp_path / "lrw").track(FRAMES[:5], source=source_of(tmp_path, "A/test/A_1.mp4"))
    assert refused.value.reason == "too short"


def test_folders_faces_and_lists_are_checked_before_the_first_clip(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist; expected a folder of landmark files"):
        LandmarkFinder(tmp_path / "nowhere", root=tmp_path)
    with pytest.raises(UsageError, match=r"mean face .*none\.npy does not exist"):
        LandmarkFinder(folder, root=tmp_path, mean_face=tmp_path / "none.npy")
    with pytest.raises(UsageError, match=r"none\.csv cannot be read as rows path,person_id"):
        LandmarkFinder(folder, root=tmp_path, persons=tmp_path / "none.csv")
