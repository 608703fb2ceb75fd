"""The finder against a stand-in for mediapipe that has the members of version 1.2 that it uses."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgelip.data.mouth import face_mesh
from edgelip.data.mouth.face_mesh import FaceMeshFinder
from edgelip.data.mouth.finder import FINDERS
from edgelip.data.unusable import UnusableClip
from edgelip.errors import MissingError, UsageError
from edgelip.registry import lookup

HEIGHT, WIDTH = 120, 200


def mesh(eye_px: float, x: float, y: float, roll_deg: float = 0.0, num_points: int = 478) -> np.ndarray:
    """Outer eye corners `eye_px` apart, lips a ring around (x, y), all else in the middle."""
    points = np.zeros((num_points, 2))
    points[list(face_mesh.OUTER_CORNERS)] = [[-eye_px / 2, -eye_px], [eye_px / 2, -eye_px]]
    for lips, radius in ((face_mesh.OUTER_LIPS, eye_px / 3), (face_mesh.INNER_LIPS, eye_px / 5)):
        angle = np.arange(20) / 20 * 2 * np.pi
        points[list(lips)] = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    turn = np.radians(roll_deg)
    return points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + [x, y]


class FakeLandmarker:
    """Gives the faces of a script, one list a frame."""

    def __init__(self, script: list[list[np.ndarray]]) -> None:
        self.script, self.stamps = list(script), []

    def __enter__(self) -> FakeLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def detect_for_video(self, image: Any, stamp_ms: int) -> Any:
        assert image.data.shape == (HEIGHT, WIDTH, 3)
        assert image.data.flags.c_contiguous
        assert image.data.dtype == np.uint8
        assert (image.data == image.data[..., :1]).all()
        self.stamps.append(stamp_ms)
        faces = self.script[len(self.stamps) - 1]
        return SimpleNamespace(
            face_landmarks=[[SimpleNamespace(x=x / WIDTH, y=y / HEIGHT) for x, y in face] for face in faces]
        )


class FakeMediapipe:
    """`options` is what the finder asked for last."""

    __version__ = "1.2.2"
    ImageFormat = SimpleNamespace(SRGB=1)

    def __init__(self, landmarker: FakeLandmarker, error: Exception | None = None) -> None:
        self.Image = lambda image_format, data: SimpleNamespace(data=data)

        def create(options: Any) -> FakeLandmarker:
            self.options = options
            if error is not None:
                raise error
            return landmarker

        self.tasks = SimpleNamespace(
            BaseOptions=lambda model_asset_path: model_asset_path,
            vision=SimpleNamespace(
                RunningMode=SimpleNamespace(VIDEO="video"),
                FaceLandmarkerOptions=lambda **options: options,
                FaceLandmarker=SimpleNamespace(create_from_options=create),
            ),
        )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "face_landmarker.task", "w") as archive:
        archive.writestr("face_detector.tflite", b"")
    return tmp_path / "face_landmarker.task"


def install(monkeypatch: pytest.MonkeyPatch, script: list[list[np.ndarray]], **options: Any) -> FakeMediapipe:
    fake = FakeMediapipe(FakeLandmarker(script), **options)
    monkeypatch.setitem(sys.modules, "mediapipe", fake)
    return fake


def frames(num_frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (num_frames, HEIGHT, WIDTH), np.uint8)


def test_the_table_names_the_finder() -> None:
    assert lookup(FINDERS, "mediapipe", kind="mouth finder") is FaceMeshFinder


@pytest.mark.parametrize("num_points", [468, 478])
def test_boxes_follow_lips_and_eye_corners(monkeypatch: pytest.MonkeyPatch, model: Path, num_points: int) -> None:
    script = [[mesh(50, 90 + t, 70, roll_deg=10.0 * t, num_points=num_points)] for t in range(3)]
    fake = install(monkeypatch, script)
    rois, track = FaceMeshFinder(model).crop(frames(3), source="a.mp4")
    side = 50 * 96 / (88 * 0.953)
    expected = [[90 + t, 70, side, 10 * t] for t in range(3)]
    np.testing.assert_allclose(track.boxes, expected, atol=1e-6)
    assert rois.shape == (3, 96, 96)
    assert track.found_T.all()
    assert fake.options == {"base_options": str(model), "running_mode": "video", "num_faces": 2}


def test_stamps_rise_from_frame_to_frame(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    landmarker = FakeLandmarker([[mesh(50, 90, 70)]] * 3)
    monkeypatch.setitem(sys.modules, "mediapipe", FakeMediapipe(landmarker))
    FaceMeshFinder(model).track(frames(3), source="a.mp4")
    assert landmarker.stamps == [0, 40, 80]
    assert landmarker.closed


def test_a_lost_face_is_nan_in_the_track_and_filled_in_the_crop(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    install(monkeypatch, [[mesh(50, 90, 70)], [], [mesh(50, 94, 70)]] * 2)
    finder = FaceMeshFinder(model)
    assert np.isnan(finder.track(frames(3), source="a.mp4").matrices_T23[1]).all()
    install(monkeypatch, [[mesh(50, 90, 70)], [], [mesh(50, 94, 70)]])
    rois, track = finder.crop(frames(3), source="a.mp4")
    assert track.found_T.tolist() == [True, False, True]
    assert rois[1].any()


def test_of_two_faces_the_largest_is_followed_and_said(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    small, large = mesh(30, 50, 70), mesh(50, 150, 70)
    script = [[small, large], [large + 2, small + 2], [mesh(80, 52, 70), large], [small]]
    install(monkeypatch, script)
    track = FaceMeshFinder(model).track(frames(4), source="a.mp4")
    assert track.boxes[:3, 0].round().tolist() == [150, 152, 150]
    assert track.notes == ("2 faces in 3 of 4 frames: the largest was followed",)


def test_a_video_without_a_face_is_unusable(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    install(monkeypatch, [[], []])
    with pytest.raises(UnusableClip, match=r"a\.mp4 shows no face in any of 2 frames") as refused:
        FaceMeshFinder(model).crop(frames(2), source="a.mp4")
    assert refused.value.reason == "no face"


def test_the_identity_is_that_of_the_model_and_the_package(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    install(monkeypatch, [])
    identity = FaceMeshFinder(model).identity()
    assert identity["mediapipe"] == "1.2.2"
    assert len(identity["model_sha256"]) == 64
    assert str(model) not in identity.values()


def test_a_missing_model_or_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    for missing in (None, tmp_path / "none.task"):
        with pytest.raises(MissingError, match=r"needs its model; got .*none.* by --mouth-model, or use --mouth haar"):
            FaceMeshFinder(missing)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingError, match=r'pip install "edgelip\[mediapipe\]"'):
        FaceMeshFinder(model)


def test_a_file_that_is_no_model_is_refused(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.task").write_text("no zip")
    with pytest.raises(UsageError, match=r"text\.task is no \.task file of MediaPipe"):
        FaceMeshFinder(tmp_path / "text.task")
    install(monkeypatch, [], error=RuntimeError("Expected uncompressed\nzip archive."))
    with pytest.raises(UsageError, match=r"can open \(Expected uncompressed zip archive\.\)"):
        FaceMeshFinder(model).track(frames(1), source="a.mp4")
    install(monkeypatch, [[mesh(50, 90, 70)[:400]]])
    with pytest.raises(UsageError, match="gives 400 points a face; expected 468 or 478"):
        FaceMeshFinder(model).track(frames(1), source="a.mp4")
