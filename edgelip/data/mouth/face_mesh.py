"""Mouths by MediaPipe's FaceLandmarker, where the package is installed and its model file at hand.

Axes: T frames, H rows, W columns; M = 478 points of the face mesh (x, y); a mesh point is named by its index.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgelip.data.mouth.finder import MouthFinder
from edgelip.data.mouth.track import OUTER_EYES_PX, ROI_PX, MouthTrack, matrices_from_boxes
from edgelip.data.unusable import UnusableClip
from edgelip.errors import MissingError, UsageError
from edgelip.registry import require

OUTER_CORNERS = (33, 263)  # of the right and the left eye
OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
_LIPS = (*OUTER_LIPS, *INNER_LIPS)
# Since its attention model FaceLandmarker puts the outer corners 0.953 as far apart as the FaceMesh that the GRID crops
# were made with: mean of six talkers, 0.939 to 0.969.
_CORNERS_PX = OUTER_EYES_PX * 0.953
_FRAME_MS = 40  # only the order counts: the tracker takes frames as consecutive
_MOST_FACES = 2
_LEAST_MESH = max(_LIPS) + 1
_REMEDY = "Give MediaPipe's face_landmarker.task by --mouth-model, or use --mouth haar, which needs no model."


class FaceMeshFinder(MouthFinder):
    """Follows the largest face. model: MediaPipe's face_landmarker.task, a file of 3.8 MB that MediaPipe offers apart.

    By MediaPipe's privacy notice pictures stay on the machine, but the package reports metrics of its use to Google.
    Raises MissingError without the package or the file.
    """

    name: ClassVar[str] = "mediapipe"

    def __init__(self, model: Path | None) -> None:
        if model is None or not Path(model).is_file():
            raise MissingError(f"the mouth finder mediapipe needs its model; got {model or 'none'}. {_REMEDY}")
        if not zipfile.is_zipfile(model):
            raise UsageError(f"{model} is no .task file of MediaPipe. {_REMEDY}")
        require("mediapipe", extra="mediapipe")
        self._model = Path(model)

    def identity(self) -> Mapping[str, Any]:
        version = require("mediapipe", extra="mediapipe").__version__
        digest = hashlib.sha256(self._model.read_bytes()).hexdigest()
        return {"finder": self.name, "model_sha256": digest, "mediapipe": version}

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        meshes_T, num_several = self._followed(frames_THW)
        found_T = np.array([mesh is not None for mesh in meshes_T])
        if not found_T.any():
            raise UnusableClip(
                f"{source} shows no face in any of {len(found_T)} frames; expected one that looks at the camera.",
                reason="no face",
            )
        boxes_T4 = np.array([np.full(4, np.nan) if mesh is None else box_of(mesh) for mesh in meshes_T])
        notes = []
        if num_several:
            notes.append(f"{_MOST_FACES} faces in {num_several} of {len(found_T)} frames: the largest was followed")
        return MouthTrack(matrices_from_boxes(boxes_T4), found_T, tuple(notes))

    def _followed(self, frames_THW: np.ndarray) -> tuple[list[np.ndarray | None], int]:
        """The mesh of one face in each frame, and in how many frames there were several."""
        mediapipe = require("mediapipe", extra="mediapipe")
        scale_2 = np.array(frames_THW.shape[:0:-1], np.float64)
        meshes_T: list[np.ndarray | None] = []
        num_several = 0
        last: np.ndarray | None = None
        with self._landmarker(mediapipe) as landmarker:
            for t, frame_HW in enumerate(frames_THW):
                image = mediapipe.Image(
                    image_format=mediapipe.ImageFormat.SRGB,
                    data=np.ascontiguousarray(np.broadcast_to(frame_HW[..., None], (*frame_HW.shape, 3))),
                )
                faces = landmarker.detect_for_video(image, t * _FRAME_MS).face_landmarks
                meshes = [np.array([(point.x, point.y) for point in face]) * scale_2 for face in faces]
                num_several += len(meshes) > 1
                meshes_T.append(choose(meshes, last))
                last = meshes_T[-1] if meshes else last
        return meshes_T, num_several

    def _landmarker(self, mediapipe: Any) -> Any:
        tasks = mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(self._model)),
            running_mode=tasks.vision.RunningMode.VIDEO,
            num_faces=_MOST_FACES,
        )
        try:
            return tasks.vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            detail = " ".join(str(error).split())[:160]
            raise UsageError(f"{self._model} is no model that MediaPipe can open ({detail}). {_REMEDY}") from error


def box_of(mesh_M2: np.ndarray) -> np.ndarray:
    """Centre of the lips, side of the ROI in the mesh's pixels, roll in degrees."""
    if len(mesh_M2) < _LEAST_MESH:
        raise UsageError(f"the model gives {len(mesh_M2)} points a face; expected 468 or 478. {_REMEDY}")
    right, left = mesh_M2[list(OUTER_CORNERS)]
    along = left - right
    side_px = float(np.hypot(*along)) * ROI_PX / _CORNERS_PX
    return np.array([*mesh_M2[list(_LIPS)].mean(axis=0), side_px, np.degrees(np.arctan2(along[1], along[0]))])


def choose(meshes: list[np.ndarray], last: np.ndarray | None) -> np.ndarray | None:
    """The face nearest to the one that was followed; the largest if there was none."""
    if not meshes:
        return None
    if last is None:
        return max(meshes, key=lambda mesh: float(np.ptp(mesh, axis=0).prod()))
    middle = last.mean(axis=0)
    return min(meshes, key=lambda mesh: float(np.hypot(*(mesh.mean(axis=0) - middle))))
