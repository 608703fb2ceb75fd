"""What an engine built for one kind of device: files under `BUNDLE/engines/<device key>/<model>/` and a sidecar.

The engine's own files are plain: trtexec reads the plan, OpenVINO the .xml. Nothing of them is opened before the
sidecar fits: same bundle, same model, same kind of device, every file with its sha256. The manifest does not list them,
so they are worth as much as the folder's owner; a plan runs code, and one of unknown origin should be built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Type

from edgelip.runtime.bundle import Bundle, ModelFile
from edgelip.runtime.engines.engine import Engine, Options, Say, builds, check_options, engine_class
from edgelip.runtime.errors import BundleError, MissingError, UsageError
from edgelip.runtime.manifest import FileEntry, files_from_json, json_object
from edgelip.runtime.plain_files import read_plain, verify_file

ENGINES_FOLDER = "engines"
SIDECAR = "artefact.json"
SCHEMA_VERSION = 1
_SIDECAR_LIMIT_BYTES = 1 << 20
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Artefact:
    """A build that fits this bundle and this machine. main: the file that the engine opens."""

    folder: Path
    engine: str
    device_key: str
    main: Path
    settings: Mapping[str, str]
    files: Mapping[str, FileEntry]

    def line(self) -> str:
        size = sum(entry.num_bytes for entry in self.files.values())
        return f"{self.main} for {self.device_key}, {len(self.files)} files, {size:,} bytes"

    def to_json(self) -> Dict[str, Any]:
        return {
            "folder": str(self.folder),
            "engine": self.engine,
            "device_key": self.device_key,
            "main": self.main.name,
            "settings": dict(self.settings),
            "files": {name: {"sha256": entry.sha256, "bytes": entry.num_bytes} for name, entry in self.files.items()},
        }


def build_artefact(
    bundle: Bundle, *, engine: str, precision: Optional[str] = None, options: Optional[Options] = None, say: Say
) -> Artefact:
    """Build the model that `engine` takes, whole or not at all; one that is there is built anew.

    Raises UsageError where the engine has nothing to build, BundleError if it refuses the model, MissingError where the
    bundle's folder cannot be written.
    """
    kind, options = engine_class(engine), check_options(engine, options or {})
    if not builds(kind):
        raise UsageError(f"Engine {engine!r} runs the ONNX file as it is; there is nothing to build.")
    model = bundle.model_for(engine, precision)
    key = kind.device_key(options)
    folder = _place(bundle, key, model)
    beside = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        result = kind.build(model.path, beside, options=options, say=say)
        files = {path.name: _entry_of(path) for path in sorted(beside.iterdir())}
        sidecar = {
            "schema_version": SCHEMA_VERSION,
            "engine": engine,
            "device_key": key,
            "bundle_sha256": bundle.sha256,
            "model": model.entry.file,
            "model_sha256": _sha256_of(bundle, model),
            "main": result.main,
            "files": files,
            "settings": dict(result.settings),
            "command": _command(bundle, engine, model.precision, options),
        }
        _write_synced(beside / SIDECAR, json.dumps(sidecar, indent=1, sort_keys=True).encode() + b"\n")
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
    except OSError as error:
        raise MissingError(f"{folder} cannot be written ({error.strerror}). Free or choose another place.") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(beside)
    return open_artefact(bundle, model, engine, key)


def find_artefact(bundle: Bundle, model: ModelFile, engine: str, *, options: Options) -> Optional[Artefact]:
    """The build for this machine, if there is one.

    Raises BundleError if it is damaged or belongs to another bundle, and, for an engine that runs builds alone, where
    there are builds for other devices only; MissingError where such an engine has none.
    """
    kind = engine_class(engine)
    key = kind.device_key(options)
    if (_place(bundle, key, model) / SIDECAR).is_file():
        return open_artefact(bundle, model, engine, key)
    if not kind.needs_build:
        return None
    rebuild = _command(bundle, engine, model.precision, {})
    others = _other_keys(bundle, model, kind, engine)
    if others:
        built = " and ".join(others)
        raise BundleError(f"{bundle.name} is built for {built}; this is {key}. Rebuild here: {rebuild}")
    raise MissingError(f"{bundle.name} is not built for {engine} yet, and this is {key}. Build it: {rebuild}")


def open_artefact(bundle: Bundle, model: ModelFile, engine: str, key: str) -> Artefact:
    """Read and prove the build for `key`. Raises BundleError naming what does not fit."""
    folder = _place(bundle, key, model)
    rebuild = f"Rebuild here: {_command(bundle, engine, model.precision, {})}"
    try:
        fields = json_object(read_plain(folder / SIDECAR, limit_bytes=_SIDECAR_LIMIT_BYTES), SIDECAR)
        wanted = {
            "schema_version": SCHEMA_VERSION,
            "engine": engine,
            "device_key": key,
            "bundle_sha256": bundle.sha256,
            "model": model.entry.file,
            "model_sha256": _sha256_of(bundle, model),
        }
        for name, value in wanted.items():
            if fields.get(name) != value:
                raise BundleError(f"{name} is {str(fields.get(name))[:80]!r}; expected {value!r}.")
        listed = fields.get("files")
        files = {entry.name: entry for entry in files_from_json(listed if isinstance(listed, dict) else {})}
        if fields.get("main") not in files:
            raise BundleError(f"main is {str(fields.get('main'))[:80]!r}, which it does not list.")
        for entry in files.values():
            verify_file(folder / entry.name, entry)
    except BundleError as error:
        raise BundleError(f"{bundle.name}: the build for {key} does not fit: {error} {rebuild}") from error
    recorded = fields.get("settings")
    settings = {str(k): str(v) for k, v in recorded.items()} if isinstance(recorded, dict) else {}
    return Artefact(folder, engine, key, folder / fields["main"], settings, files)


def _place(bundle: Bundle, key: str, model: ModelFile) -> Path:
    if not _KEY.fullmatch(key):
        raise UsageError(f"device key is {key!r}; expected {_KEY.pattern}.")
    return bundle.path / ENGINES_FOLDER / key / model.path.stem


def _other_keys(bundle: Bundle, model: ModelFile, kind: Type[Engine], engine: str) -> List[str]:
    """Keys that the model is built for by this engine, without trust in what the sidecars say beside."""
    found = []
    for sidecar in sorted((bundle.path / ENGINES_FOLDER).glob(f"*/{model.path.stem}/{SIDECAR}"))[:64]:
        with contextlib.suppress(BundleError):
            fields = json_object(read_plain(sidecar, limit_bytes=_SIDECAR_LIMIT_BYTES), SIDECAR)
            key = sidecar.parent.parent.name
            if fields.get("engine") == engine and _KEY.fullmatch(key):
                found.append(key)
    return found


def _command(bundle: Bundle, engine: str, precision: str, options: Options) -> str:
    chosen = "".join(f" --option {name}={word}" for name, word in sorted(options.items()))
    return f"python -m edgelip.runtime build {bundle.path} --engine {engine} --precision {precision}{chosen}"


def _sha256_of(bundle: Bundle, model: ModelFile) -> str:
    return next(entry.sha256 for entry in bundle.manifest.files if entry.name == model.entry.file)


def _entry_of(path: Path) -> Dict[str, Any]:
    """sha256 and size of a built file, which is on the disk when this returns."""
    digest = hashlib.sha256()
    with path.open("rb+") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "bytes": path.stat().st_size}


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
