"""Mouths where 68-point landmark files say they are: a folder of files that mirrors the data root.

Axes as in `alignment`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgelip.data.mouth.alignment import LIPS, alignment_of, cut_around, mapped, roi_corners, roi_matrices, warp
from edgelip.data.mouth.finder import MouthFinder
from edgelip.data.mouth.landmark_checks import check_landmarks
from edgelip.data.mouth.landmark_files import clip_key, read_landmarks, read_persons
from edgelip.data.mouth.legacy_alignment import legacy_roi_matrices, sampled
from edgelip.data.mouth.reference_face import own_face, read_face
from edgelip.data.mouth.track import MouthTrack
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError

SUFFIXES = (".pkl", ".pickle", ".npz", ".npy")
Landmarks = list[np.ndarray | None]


class LandmarkFolder:
    """Landmarks of root/WORD/test/X.mp4 from folder/WORD/test/X.pkl (or .pickle, .npz, .npy).

    folder: such a file itself, where there is one video.
    mean_face: .npy or .npz to align to; the package's own face if None.
    persons: CSV of path,person_id; only the clips in it are known, with that person's face.
    Raises UsageError for a folder, face or list that cannot be used.
    """

    def __init__(self, folder: Path, *, root: Path, mean_face: Path | None = None, persons: Path | None = None) -> None:
        self._folder, self._root, self._persons = Path(folder), Path(root), persons
        if not self._folder.exists():
            raise UsageError(
                f"{folder} does not exist; expected a folder of landmark files that lie as the videos below {root} do, "
                "or the landmark file of the one video."
            )
        if persons is not None:
            _persons_in(persons)
        self.face_P2 = own_face() if mean_face is None else read_face(mean_face)

    def of(self, source: str, frames_THW: np.ndarray) -> Landmarks:
        """One entry for each of the frames of a video. Raises UnusableClip if there are none that can be its."""
        path, person = self.file_of(source)
        landmarks_T = read_landmarks(path, person=person)
        check_landmarks(landmarks_T, frames_THW, self.face_P2, path=path, source=source)
        return landmarks_T

    def identity(self) -> dict[str, Any]:
        """The face to align to and what decides whose is taken; the files themselves are sources of each clip."""
        persons = {} if self._persons is None else {"persons_sha256": _sha256(self._persons.read_bytes())}
        return {"face_sha256": _sha256(self.face_P2.tobytes()), **persons}

    def sources(self, path: Path) -> tuple[Path, ...]:
        """The landmark file of a video, or none."""
        try:
            return (self.file_of(str(path))[0],)
        except UnusableClip:  # said where the clip is made
            return ()

    def file_of(self, source: str) -> tuple[Path, int]:
        """The landmark file of a video, and which person in it."""
        try:
            relative = Path(source).relative_to(self._root)
        except ValueError:
            raise UnusableClip(
                f"{source} does not lie below {self._root}, so its landmarks are unknown. Correct the videos' root.",
                reason="landmarks",
            ) from None
        person = 0
        if self._persons is not None:
            known = _persons_in(self._persons)
            key = clip_key(relative.as_posix())
            if key not in known:
                raise UnusableClip(
                    f"{source} is not in {self._persons}, which says whose face to take. Add a row {key},0.",
                    reason="landmarks",
                )
            person = known[key]
        if self._folder.is_file():
            return self._folder, person
        files = [(self._folder / relative).with_suffix(suffix) for suffix in SUFFIXES]
        path = next((file for file in files if file.is_file()), None)
        if path is None:
            raise UnusableClip(
                f"{source} has no landmark file {files[0]} (nor {', '.join(SUFFIXES[1:])}). "
                "Track its face, or use another mouth finder.",
                reason="landmarks",
            )
        return path, person


class LandmarkFinder(MouthFinder):
    """The reference alignment by landmark files. Parameters and errors as LandmarkFolder."""

    name: ClassVar[str] = "landmarks"
    in_pieces: ClassVar[bool] = False  # a file has one entry for each frame of the whole video

    def __init__(self, folder: Path, *, root: Path, mean_face: Path | None = None, persons: Path | None = None) -> None:
        self._files = LandmarkFolder(folder, root=root, mean_face=mean_face, persons=persons)

    def identity(self) -> Mapping[str, Any]:
        return {"finder": self.name, **self._files.identity()}

    def sources(self, path: Path) -> tuple[Path, ...]:
        return self._files.sources(path)

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        return self._placed(frames_THW, source)[2]

    def crop(self, frames_THW: np.ndarray, *, source: str) -> tuple[np.ndarray, MouthTrack]:
        matrices_T23, corners_T2, track = self._placed(frames_THW, source)
        return cut_around(warp(frames_THW, matrices_T23), corners_T2), track

    def _placed(self, frames_THW: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray, MouthTrack]:
        landmarks_T = self._files.of(source, frames_THW)
        try:
            matrices_T23, smooth_TP2 = alignment_of(landmarks_T, self._files.face_P2)
        except UnusableClip as error:
            raise UnusableClip(f"{source}: {error}", reason=error.reason) from error
        corners_T2 = roi_corners(mapped(smooth_TP2, matrices_T23)[:, LIPS])
        return matrices_T23, corners_T2, _track(roi_matrices(matrices_T23, corners_T2), landmarks_T)


class LegacyLandmarkFinder(MouthFinder):
    """The alignment of the older LRW tool by landmark files, for checkpoints trained on its crops; of gray frames.

    Parameters and errors as LandmarkFolder.
    """

    name: ClassVar[str] = "landmarks-legacy"
    in_pieces: ClassVar[bool] = False

    def __init__(self, folder: Path, *, root: Path, mean_face: Path | None = None, persons: Path | None = None) -> None:
        self._files = LandmarkFolder(folder, root=root, mean_face=mean_face, persons=persons)

    def identity(self) -> Mapping[str, Any]:
        return {"finder": self.name, **self._files.identity()}

    def sources(self, path: Path) -> tuple[Path, ...]:
        return self._files.sources(path)

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        landmarks_T = self._files.of(source, frames_THW)
        try:
            return _track(legacy_roi_matrices(landmarks_T, self._files.face_P2), landmarks_T)
        except UnusableClip as error:
            raise UnusableClip(f"{source}: {error}", reason=error.reason) from error

    def crop(self, frames_THW: np.ndarray, *, source: str) -> tuple[np.ndarray, MouthTrack]:
        track = self.track(frames_THW, source=source)
        return np.stack([sampled(f, m) for f, m in zip(frames_THW, track.matrices_T23, strict=True)]), track


def _track(matrices_T23: np.ndarray, landmarks_T: Landmarks) -> MouthTrack:
    found_T = np.array([points is not None for points in landmarks_T])
    num_lost = int((~found_T).sum())
    notes = (f"lost landmarks interpolated ({num_lost} of {len(found_T)} frames)",) if num_lost else ()
    return MouthTrack(matrices_T23, found_T, notes)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=1)
def _persons_in(csv_path: Path) -> dict[str, int]:
    """Read once a process: LRW has 500,000 rows."""
    return read_persons(csv_path)
