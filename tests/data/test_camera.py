from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from edgelip.data.camera import record
from edgelip.errors import DeviceError, UsageError


class FakeCamera:
    """What record needs of cv2.VideoCapture: pictures of one brightness after the other, some of them missing."""

    def __init__(self, index: int, *, opened: bool = True, missing: tuple[int, ...] = (), height: int = 4) -> None:
        self.index, self._opened, self._missing, self._height = index, opened, missing, height
        self.released = False
        self._numbers = count()

    def isOpened(self) -> bool:
        return self._opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        number = next(self._numbers)
        if number in self._missing:
            return False, None
        return True, np.full((self._height, 2 * self._height, 3), number, np.uint8)

    def release(self) -> None:
        self.released = True


def clock_of(*steps_s: float):
    times = iter(100 + np.cumsum([0, *steps_s, *[0.04] * 1000]))
    return lambda: float(next(times))


def test_frames_are_stamped_with_when_they_came() -> None:
    camera = FakeCamera(2)
    frames = list(record(2, seconds=0.3, open_camera=lambda _: camera, clock=clock_of(0.03, 0.05, 0.1, 0.2)))
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 0.03, 0.08, 0.18], atol=1e-9)
    np.testing.assert_allclose([frame.duration_s for frame in frames], [0.03, 0.05, 0.1, 0.2], atol=1e-9)
    assert [int(frame.gray_HW[0, 0]) for frame in frames] == [0, 1, 2, 3]
    assert frames[0].gray_HW.shape == (4, 8)
    assert camera.released


def test_a_read_that_brings_nothing_is_no_frame() -> None:
    camera = FakeCamera(0, missing=(1, 2))
    frames = list(record(0, seconds=0.3, open_camera=lambda _: camera, clock=clock_of()))
    assert [int(frame.gray_HW[0, 0]) for frame in frames][:2] == [0, 3]


def test_a_large_picture_is_scaled_down() -> None:
    camera = FakeCamera(0, height=1080 * 2)
    frame = next(record(0, seconds=0.1, open_camera=lambda _: camera, clock=clock_of()))
    assert frame.gray_HW.shape == (960, 1920)


def test_the_camera_is_released_when_the_frames_are_dropped() -> None:
    camera = FakeCamera(0)
    frames = record(0, seconds=5, open_camera=lambda _: camera, clock=clock_of())
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert camera.released


def test_what_cannot_be_recorded_is_refused() -> None:
    shut = FakeCamera(3, opened=False)
    with pytest.raises(DeviceError, match=r"camera 3 cannot be opened; expected a camera that no other program uses\."):
        list(record(3, seconds=1, open_camera=lambda _: shut))
    assert shut.released
    silent = FakeCamera(0, missing=tuple(range(100)))
    with pytest.raises(DeviceError, match=r"camera 0 gives no frames; expected some\. Plug it in again\."):
        list(record(0, seconds=1, open_camera=lambda _: silent, clock=clock_of()))
    with pytest.raises(UsageError, match=r"seconds is 0; expected above 0, at most 600\. Record less\."):
        record(0, seconds=0)
    with pytest.raises(UsageError, match=r"camera index is -1; expected 0 or more\. Use 0 for the first camera\."):
        record(-1, seconds=1)


def test_a_machine_without_cameras_says_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceError, match="camera 97 cannot be opened"):
        list(record(97, seconds=1))
    assert capfd.readouterr() == ("", "")
