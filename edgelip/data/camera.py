"""A camera as a source of gray frames with their times, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from edgelip.data.video import WORK_PX, StampedFrame
from edgelip.errors import DeviceError, UsageError

MAX_SECONDS = 600.0
_MISSES = 30  # reads in a row that bring nothing


def record(
    index: int,
    *,
    seconds: float,
    open_camera: Callable[[int], Any] = cv2.VideoCapture,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[StampedFrame]:
    """Frames of camera `index` as they come, uint8 gray, stamped with when they were read, for `seconds`.

    The camera is closed when the iterator ends or is dropped. Raises DeviceError if it cannot be opened or goes silent,
    UsageError for another time than 0 to 600 s.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise UsageError(f"seconds is {seconds:g}; expected above 0, at most {MAX_SECONDS:g}. Record less.")
    if index < 0:
        raise UsageError(f"camera index is {index}; expected 0 or more. Use 0 for the first camera.")
    return _frames(index, seconds, open_camera, clock)


def _frames(
    index: int, seconds: float, open_camera: Callable[[int], Any], clock: Callable[[], float]
) -> Iterator[StampedFrame]:
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)  # a camera that is not there is our own one line, not OpenCV's several
    try:
        camera = open_camera(index)
    finally:
        log.setLogLevel(level)
    try:
        if not camera.isOpened():
            raise DeviceError(
                f"camera {index} cannot be opened; expected a camera that no other program uses. "
                "Plug it in, allow access to it, or give another index."
            )
        yield from _read(index, camera, seconds, clock)
    finally:
        camera.release()


def _read(index: int, camera: Any, seconds: float, clock: Callable[[], float]) -> Iterator[StampedFrame]:
    held: tuple[float, np.ndarray] | None = None  # how long a frame lasts is known when the next one comes
    first_s, lasted_s, num_misses = 0.0, 1 / 30, 0
    while True:
        done, picture = camera.read()
        now_s = clock()
        if not done or picture is None:
            num_misses += 1
            if num_misses == _MISSES:
                raise DeviceError(f"camera {index} gives no frames; expected some. Plug it in again.")
            continue
        num_misses = 0
        gray_HW = _gray(picture)
        if held is None:
            first_s = now_s
        elif now_s - first_s > held[0]:
            lasted_s = now_s - first_s - held[0]
            yield StampedFrame(held[0], lasted_s, held[1])
        if held is not None and now_s - first_s >= seconds:
            return
        held = now_s - first_s, gray_HW


def _gray(picture: np.ndarray) -> np.ndarray:
    gray_HW: np.ndarray = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    scale = WORK_PX / max(gray_HW.shape)
    return gray_HW if scale >= 1 else cv2.resize(gray_HW, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
