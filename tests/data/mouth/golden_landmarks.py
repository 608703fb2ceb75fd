"""What the reference tools were given and gave back, where the reference outputs lie beside the checkout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

Landmarks = list[np.ndarray | None]


@dataclass(frozen=True, eq=False)
class GoldenClip:
    folder: Path

    @property
    def face(self) -> np.ndarray:
        return np.load(self.folder / "20words_mean_face.npy")

    @property
    def frames_bgr(self) -> np.ndarray:
        return np.load(self.folder / "video_bgr.npy")

    @property
    def frames_gray(self) -> np.ndarray:
        return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in self.frames_bgr])

    @property
    def landmarks(self) -> Landmarks:
        return self._without_lost("landmarks_full.npy")

    @property
    def keypoints(self) -> Landmarks:
        return self._without_lost("ef_keypoints4.npy")

    def array(self, name: str) -> np.ndarray:
        loaded = np.load(self.folder / name)
        return loaded if name.endswith(".npy") else loaded["data"]

    def _without_lost(self, name: str) -> Landmarks:
        lost = set(json.loads((self.folder / "landmarks_missing_frames.json").read_text()))
        return [None if t in lost else points for t, points in enumerate(np.load(self.folder / name))]


def assert_nearly_equal_images(images: np.ndarray, expected: np.ndarray, *, at_most: int) -> None:
    """Within 1 grey level on 99.9 % of the pixels, and never further apart than `at_most`."""
    assert images.shape == expected.shape
    assert images.dtype == np.uint8
    apart = np.abs(images.astype(int) - expected.astype(int))
    assert apart.max() <= at_most
    assert (apart <= 1).mean() >= 0.999
