"""A contact sheet: clips as rows of frames, to look at before training on them.

Axes: B clip, T frame, H row, W column.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgelip.runtime.errors import ClipError, MissingError, ShapeError, UsageError

_MARGIN_PX = 2
_LABEL_PX_PER_LETTER = 11
_BACKGROUND = 255


def contact_sheet(
    frames_BTHW: npt.NDArray[np.uint8], labels: Sequence[str], *, every: int = 2
) -> npt.NDArray[np.uint8]:
    """One grey picture, uint8 (height, width): a row for each clip, its label left of every `every`-th frame.

    Raises ClipError if the frames are not uint8 (B, T, H, W), ShapeError if there is not one label a clip, UsageError
    if `every` < 1.
    """
    if frames_BTHW.dtype != np.uint8 or frames_BTHW.ndim != 4 or 0 in frames_BTHW.shape:
        raise ClipError(
            f"frames_BTHW is {frames_BTHW.dtype} of shape {frames_BTHW.shape}; "
            "expected uint8 (B, T, H, W), nothing empty. Stack the clips as uint8 grey frames."
        )
    if len(labels) != len(frames_BTHW):
        raise ShapeError(
            f"labels has {len(labels)} entries; expected {len(frames_BTHW)}, one a clip. Pass the word of each clip."
        )
    if every < 1:
        raise UsageError(f"every is {every}; expected at least 1. Use 1 to show all frames.")
    shown = frames_BTHW[:, ::every]
    num_clips, num_frames, height, width = shown.shape
    left = _LABEL_PX_PER_LETTER * max(len(label) for label in labels) + 2 * _MARGIN_PX
    cell_h, cell_w = height + _MARGIN_PX, width + _MARGIN_PX
    sheet = np.full((num_clips * cell_h + _MARGIN_PX, left + num_frames * cell_w + _MARGIN_PX), _BACKGROUND, np.uint8)
    for row, label in enumerate(labels):
        top = _MARGIN_PX + row * cell_h
        baseline = (_MARGIN_PX, top + height // 2 + 5)
        cv2.putText(sheet, label, baseline, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0,), 1, cv2.LINE_AA)
        for column in range(num_frames):
            start = left + column * cell_w
            sheet[top : top + height, start : start + width] = shown[row, column]
    return sheet


def png_bytes(image: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file of a grey picture."""
    done: bool
    encoded: npt.NDArray[Any]
    done, encoded = cv2.imencode(".png", image)
    if not done:
        raise UsageError(f"image is {image.dtype} of shape {image.shape}; expected uint8 (H, W). Pass a grey picture.")
    return encoded.tobytes()


def save_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write a PNG that appears whole or not at all. Raises MissingError if the folder cannot be written."""
    content = png_bytes(image)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise MissingError(
            f"Cannot write {path}: {error.strerror}; expected a writable folder with free space. Choose another."
        ) from error
