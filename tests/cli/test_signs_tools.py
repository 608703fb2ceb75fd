"""What the verbs do with clips of landmarks beside training: check clips, sheets, tables, arrays from files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgelip.bench.suite import TestClips
from edgelip.cli.blame_words import visemes_of, word_part, write_sheet
from edgelip.cli.export_checkpoint import check_clips
from edgelip.cli.network_inputs import read_landmarks
from edgelip.cli.preview import write_preview
from edgelip.cli.schedule import schedule_from
from edgelip.cli.source_options import SourceOptions
from edgelip.cli.start import _check_clip
from edgelip.deploy.blame.scoring import Clips
from edgelip.errors import ClipError, RecipeError
from edgelip.recipe_sections import LandmarkVariation, TrainSection
from edgelip.runtime.clip import ClipSpec, network_input
from edgelip.train.landmark_augment import LandmarkAugmentation

SPEC = ClipSpec(kind="landmarks", timing="span", frames=6, points="holistic118", axes=2)
DEBUG = Path(__file__).parents[1] / "recipes" / "signs.toml"


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return check_clips(SPEC)


def write_clips(folder: Path, clips: np.ndarray) -> Path:
    np.savez(folder / "clips.npz", frames=clips, labels=np.arange(len(clips)))
    return folder / "clips.npz"


def test_a_checkpoint_of_signs_is_checked_on_procedural_signs(clips: np.ndarray) -> None:
    assert (clips.dtype, clips.shape) == (np.float32, (4, 6, 118, 2))
    assert network_input(clips, SPEC).std() > 0.5


def test_test_clips_are_frames_or_landmarks(tmp_path: Path, clips: np.ndarray) -> None:
    assert TestClips.open(write_clips(tmp_path, clips)).labels_N.tolist() == [0, 1, 2, 3]
    with pytest.raises(ClipError, match=r"frames are float64 \(4, 6, 118, 2\); expected uint8 .* or float32 landmarks"):
        TestClips.open(write_clips(tmp_path, clips.astype(np.float64)))


def test_blame_draws_the_signs_that_flipped(tmp_path: Path, clips: np.ndarray) -> None:
    flips = [{"clip": 2, "word": "duck", "before": "duck", "after": "cow"}]
    write_sheet(tmp_path / "flipped.png", Clips(write_clips(tmp_path, clips), 4, "0" * 64, SPEC), flips)
    picture = cv2.imread(str(tmp_path / "flipped.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.min() < 100 < picture.max()


def test_signs_are_blamed_by_no_viseme(tmp_path: Path, clips: np.ndarray) -> None:
    test = TestClips.open(write_clips(tmp_path, clips))
    words = ("duck", "cow", "uncle", "zzz")
    said = np.eye(4)
    signs = word_part(words, test, said, said[::-1], visemes=None)
    lips = word_part(words, test, said, said[::-1], visemes=visemes_of(words))
    assert (signs["visemes"], signs["without_pronunciation"]) == ([], [])
    assert "zzz" in lips["without_pronunciation"]


def test_a_recipe_of_signs_is_previewed(tmp_path: Path) -> None:
    out = tmp_path / "signs.png"
    write_preview(DEBUG, SourceOptions(), overrides=(), out=out, split="val", num_clips=3)
    picture = cv2.imread(str(out), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape[0] > 3 * 120


def test_training_varies_signs_by_their_own_keys() -> None:
    section = TrainSection(epochs=1, time_mask_frames=4, landmarks=LandmarkVariation(noise=0.1, rotate_deg=5))
    schedule = schedule_from(section, kind="landmarks", epochs=1, rate=1e-3)
    assert schedule.augmentation == LandmarkAugmentation(flip=True, drop_frames=4, noise=0.1, rotate_deg=5)


def test_training_goes_on_only_from_clips_of_the_same_points() -> None:
    other = ClipSpec(kind="landmarks", timing="span", frames=6, points="holistic130", axes=2)
    _check_clip(Path("a.safetensors"), SPEC, SPEC)
    with pytest.raises(
        RecipeError, match=r"takes clips of points holistic118; \[clip\] gives points holistic130\. Corr"
    ):
        _check_clip(Path("a.safetensors"), SPEC, other)
    with pytest.raises(
        RecipeError, match=r"takes clips of kind landmarks; \[clip\] gives kind video\. Correct \[clip\]"
    ):
        _check_clip(Path("a.safetensors"), SPEC, ClipSpec())


def test_landmarks_are_read_as_stored_or_raw(tmp_path: Path, clips: np.ndarray) -> None:
    np.testing.assert_array_equal(read_landmarks(write_clips(tmp_path, clips), SPEC), clips)
    np.save(tmp_path / "raw.npy", np.random.default_rng(0).random((9, 543, 3)))
    assert read_landmarks(tmp_path / "raw.npy", SPEC).shape == (1, 6, 118, 2)
    np.save(tmp_path / "face.npy", np.zeros((9, 68, 2), np.float32))
    with pytest.raises(ClipError, match=r"face\.npy: landmarks are float32 \(9, 68, 2\); expected float \(T, 543, 3\)"):
        read_landmarks(tmp_path / "face.npy", SPEC)
