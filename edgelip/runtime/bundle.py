"""A bundle: the folder that carries a classifier to a device. Opening one proves that it is complete and unchanged.

Nothing in the folder is trusted: sizes are bounded before reading, names cannot leave the folder, no pickle is read.

Axes: N clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Optional, Tuple, Union

import numpy as np

from edgelip.runtime.arrays import open_array
from edgelip.runtime.errors import BundleError
from edgelip.runtime.manifest import MANIFEST_LIMIT_BYTES, FileEntry, Manifest, manifest_from_bytes

MANIFEST_NAME = "manifest.json"
EXPECTED_NAME = "expected.npz"
_EXPECTED_LIMIT_BYTES = 512 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """One ONNX file of a bundle, its content proven when the bundle was opened."""

    path: Path
    precision: str


@dataclass(frozen=True)
class Expected:
    """What the exporter saw: frames_NTHW uint8 (H = W = stored_px) and the logits_NV float32 they must give."""

    frames_NTHW: np.ndarray
    logits_NV: np.ndarray


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file listed in its manifest was there, plain, and had the recorded sha256."""

    path: Path
    manifest: Manifest
    sha256: str  # of manifest.json, which names all the rest

    @classmethod
    def open(cls, path: Union[Path, str]) -> Bundle:
        """Verify the folder `path`; reads every listed file once.

        Raises BundleError naming the file, what was found and what was expected.
        """
        folder = Path(path)
        if not folder.is_dir():
            reason = "is a file" if folder.exists() else "does not exist"
            raise BundleError(f"{folder} {reason}; expected a bundle, a folder with {MANIFEST_NAME}.")
        name = folder.resolve().name
        if not os.path.lexists(folder / MANIFEST_NAME):
            contents = "is empty" if not any(folder.iterdir()) else f"has no {MANIFEST_NAME}"
            raise BundleError(f"{folder} {contents}; expected a bundle. Export it again or copy the whole folder.")
        try:
            content = _read_plain(folder / MANIFEST_NAME, limit_bytes=MANIFEST_LIMIT_BYTES)
            manifest = manifest_from_bytes(content)
            for entry in manifest.files:
                _verify(folder / entry.name, entry)
        except BundleError as error:
            raise BundleError(f"{name}: {error}") from error
        return cls(folder, manifest, hashlib.sha256(content).hexdigest())

    @property
    def name(self) -> str:
        return self.manifest.name

    def model_for(self, engine: str, precision: Optional[str] = None) -> ModelFile:
        """The first model that `engine` takes, or the one of that precision.

        Raises BundleError listing what the bundle has.
        """
        for model in self.manifest.models:
            if engine in model.engines and precision in (None, model.precision):
                return ModelFile(self.path / model.file, model.precision)
        has = "; ".join(f"{model.precision} for {', '.join(model.engines)}" for model in self.manifest.models)
        wanted = f"{precision} model" if precision else "model"
        raise BundleError(f"{self.name} has no {wanted} for engine {engine!r}. It has: {has}.")

    def precisions_for(self, engine: str) -> Tuple[str, ...]:
        """Precisions that `engine` takes, in the manifest's order. Raises BundleError if there are none."""
        self.model_for(engine)
        return tuple(model.precision for model in self.manifest.models if engine in model.engines)

    def expected(self) -> Expected:
        """The stored clips and logits. Raises BundleError if they do not fit the clip contract and vocabulary."""
        spec = self.manifest.clip
        entry = next(entry for entry in self.manifest.files if entry.name == EXPECTED_NAME)
        content = _read_plain(self.path / EXPECTED_NAME, limit_bytes=entry.num_bytes)
        try:
            with open_array(content, ["frames"]) as stream:
                num_clips = stream.shape[0] if stream.shape else 0
                wanted = (num_clips, spec.frames, spec.stored_px, spec.stored_px)
                if stream.dtype != np.uint8 or stream.shape != wanted or num_clips == 0:
                    raise ValueError(f"frames are {stream.dtype} {stream.shape}; expected uint8 (N, {_tail(wanted)})")
                frames_NTHW = stream.read(limit_bytes=_EXPECTED_LIMIT_BYTES)
            with open_array(content, ["logits"]) as stream:
                if stream.dtype != np.float32 or stream.shape != (num_clips, len(self.manifest.vocabulary)):
                    size = (num_clips, len(self.manifest.vocabulary))
                    raise ValueError(f"logits are {stream.dtype} {stream.shape}; expected float32 {size}")
                logits_NV = stream.read(limit_bytes=_EXPECTED_LIMIT_BYTES)
        except ValueError as error:
            raise BundleError(f"{self.name}: {EXPECTED_NAME} {error}. Export the bundle again.") from error
        if not np.isfinite(logits_NV).all():
            raise BundleError(f"{self.name}: {EXPECTED_NAME} logits are not all finite. Export the bundle again.")
        return Expected(frames_NTHW, logits_NV)


def _tail(shape: Tuple[int, ...]) -> str:
    return ", ".join(str(length) for length in shape[1:])


def _open_plain(path: Path) -> Tuple[BinaryIO, int]:
    """The file and its size in bytes; never through a link, never a pipe, device or folder."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise BundleError(f"{path.name} is a link, folder or device; expected a plain file in the bundle.")
        file = open(path, "rb", opener=_open_no_follow)  # noqa: PTH123, SIM115
    except FileNotFoundError as error:
        raise BundleError(f"{path.name} is missing. Export the bundle again or copy it anew.") from error
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read ({error.strerror}).") from error
    return file, os.fstat(file.fileno()).st_size


def _open_no_follow(name: str, flags: int) -> int:
    # The file may have become a link or a pipe since it was looked at.
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _read_plain(path: Path, *, limit_bytes: int) -> bytes:
    file, size = _open_plain(path)
    with file:
        if size > limit_bytes:
            raise BundleError(f"{path.name} has {size} bytes; the limit is {limit_bytes}.")
        return file.read(limit_bytes)


def _verify(path: Path, entry: FileEntry) -> None:
    file, size = _open_plain(path)
    again = "Export the bundle again or copy it anew."
    with file:
        if size != entry.num_bytes:
            raise BundleError(f"{entry.name} has changed: {size} bytes, manifest says {entry.num_bytes}. {again}")
        digest = hashlib.sha256()
        try:
            for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                digest.update(chunk)
        except OSError as error:
            raise BundleError(f"{entry.name} cannot be read ({error.strerror}).") from error
    if digest.hexdigest() != entry.sha256:
        got, wanted = digest.hexdigest()[:8], entry.sha256[:8]
        raise BundleError(f"{entry.name} has changed: sha256 {got}.., manifest says {wanted}... {again}")
