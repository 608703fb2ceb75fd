"""A bundle: the folder that carries a classifier to a device. Opening one proves that it is complete and unchanged.

Nothing in the folder is trusted: sizes are bounded before reading, names cannot leave the folder, no pickle is read,
and an ONNX file is vetted before an engine sees it.

Axes: N clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple, Union

import numpy as np

from edgelip.runtime.arrays import open_array
from edgelip.runtime.errors import BundleError
from edgelip.runtime.manifest import (
    EXPECTED_NAME,
    MANIFEST_LIMIT_BYTES,
    Manifest,
    ModelEntry,
    manifest_from_bytes,
)
from edgelip.runtime.plain_files import open_plain, read_plain, verify_file
from edgelip.runtime.signature import read_public_key, verify_signature
from edgelip.runtime.vetting.model import vet_file

MANIFEST_NAME = "manifest.json"
_EXPECTED_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True)
class ModelFile:
    """One ONNX file of a bundle, its content proven when the bundle was opened."""

    path: Path
    entry: ModelEntry

    @property
    def precision(self) -> str:
        return self.entry.precision


@dataclass(frozen=True)
class Expected:
    """What the exporter saw: stored clips, as ClipSpec.stored_shape says, and the logits_NV float32 they must give."""

    frames_NTHW: np.ndarray
    logits_NV: np.ndarray


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every listed file was there, plain, with the recorded sha256; every model is a sane network."""

    path: Path
    manifest: Manifest
    sha256: str  # of manifest.json, which names all the rest

    @classmethod
    def open(cls, path: Union[Path, str], *, required_key: Union[Path, str, None] = None) -> Bundle:
        """Verify the folder `path`; reads every listed file once.

        required_key: file of the public key that must have signed the manifest.
        Raises BundleError naming the file, what was found and what was expected.
        """
        folder = Path(path)
        if not folder.is_dir():
            reason = "is a file" if folder.exists() else "does not exist"
            raise BundleError(f"{folder} {reason}; expected a bundle, a folder with {MANIFEST_NAME}.")
        label = folder.resolve().name
        if not os.path.lexists(folder / MANIFEST_NAME):
            contents = "is empty" if not any(folder.iterdir()) else f"has no {MANIFEST_NAME}"
            raise BundleError(f"{folder} {contents}; expected a bundle. Export it again or copy the whole folder.")
        try:
            content = read_plain(folder / MANIFEST_NAME, limit_bytes=MANIFEST_LIMIT_BYTES)
            if required_key is not None:
                verify_signature(folder, content, read_public_key(Path(required_key)))
            manifest = manifest_from_bytes(content)
            for entry in manifest.files:
                verify_file(folder / entry.name, entry)
            sizes = {entry.name: entry.num_bytes for entry in manifest.files}
            for name in (name for name in sizes if name.endswith(".onnx")):
                with open_plain(folder / name)[0] as file:
                    vet_file(file, name=name, clip=manifest.clip, num_words=len(manifest.vocabulary), files=sizes)
        except BundleError as error:
            raise BundleError(f"{label}: {error}") from error
        return cls(folder, manifest, hashlib.sha256(content).hexdigest())

    @property
    def name(self) -> str:
        return self.manifest.name

    def model_for(self, engine: str, precision: Optional[str] = None) -> ModelFile:
        """The first model that `engine` takes, or the first of that precision.

        Raises BundleError listing what the bundle has.
        """
        for model in self.manifest.models:
            if engine in model.engines and precision in (None, model.precision):
                return ModelFile(self.path / model.file, model)
        has = "; ".join(f"{model.precision} for {', '.join(model.engines)}" for model in self.manifest.models)
        wanted = f"{precision} model" if precision else "model"
        raise BundleError(f"{self.name} has no {wanted} for engine {engine!r}. It has: {has}.")

    def precisions_for(self, engine: str) -> Tuple[str, ...]:
        """Precisions that `engine` takes, in the manifest's order. Raises BundleError if there are none."""
        self.model_for(engine)
        return tuple(dict.fromkeys(model.precision for model in self.manifest.models if engine in model.engines))

    def expected(self) -> Expected:
        """The stored clips and logits. Raises BundleError if they do not fit the clip contract and vocabulary."""
        spec = self.manifest.clip
        entry = next(entry for entry in self.manifest.files if entry.name == EXPECTED_NAME)
        content = read_plain(self.path / EXPECTED_NAME, limit_bytes=entry.num_bytes)
        try:
            with open_array(content, ["frames"]) as stream:
                num_clips = stream.shape[0] if stream.shape else 0
                wanted = (num_clips, *spec.stored_shape)
                if stream.dtype != np.dtype(spec.stored_dtype) or stream.shape != wanted or num_clips == 0:
                    tail = f"{spec.stored_dtype} (N, {_tail(wanted)})"
                    raise ValueError(f"frames are {stream.dtype} {stream.shape}; expected {tail}")
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
