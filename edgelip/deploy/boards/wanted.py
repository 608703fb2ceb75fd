"""What a device is asked to run: bundles, opened, each with one model for one engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgelip.errors import UsageError
from edgelip.runtime.bundle import MANIFEST_NAME, Bundle, ModelFile
from edgelip.runtime.engines.engine import ENGINES
from edgelip.runtime.engines.engine import builds as kind_builds
from edgelip.runtime.manifest import MANIFEST_LIMIT_BYTES
from edgelip.runtime.plain_files import read_plain
from edgelip.runtime.signature import SIGNATURE_NAME


@dataclass(frozen=True)
class Wanted:
    """One model of one bundle on one engine."""

    bundle: Bundle
    model: ModelFile
    engine: str

    @property
    def precision(self) -> str:
        return self.model.precision


def wanted_models(bundles: Sequence[Path], engine: str, precision: str | None) -> list[Wanted]:
    """Each bundle opened, with the model to run. Raises UsageError for a choice that cannot be deployed."""
    if engine not in ENGINES:
        raise UsageError(f"There is no engine {engine!r}. Known: {', '.join(ENGINES)}.")
    if not bundles:
        raise UsageError("There is no bundle to deploy; expected at least one folder with manifest.json.")
    found: list[Wanted] = []
    for path in bundles:
        bundle = Bundle.open(path)
        same = [one for one in found if one.bundle.name == bundle.name]
        if same:
            raise UsageError(
                f"{same[0].bundle.path} and {path} are both named {bundle.name!r}, so their results would share a "
                "folder. Deploy one at a time, or export one under another name."
            )
        found.append(Wanted(bundle, bundle.model_for(engine, precision), engine))
    return found


def bundle_files(bundle: Bundle) -> dict[str, tuple[str, int]]:
    """sha256 and size by name of what travels: the manifest, all that it lists, and its signature if it has one."""
    files = {entry.name: (entry.sha256, entry.num_bytes) for entry in bundle.manifest.files}
    for name in (MANIFEST_NAME, SIGNATURE_NAME):
        if (bundle.path / name).is_file():
            content = read_plain(bundle.path / name, limit_bytes=MANIFEST_LIMIT_BYTES)
            files[name] = (hashlib.sha256(content).hexdigest(), len(content))
    return files


def builds(engine: str) -> bool:
    """Whether an engine makes something of an ONNX file; its package need not be here for that."""
    return kind_builds(_engine_kind(engine))


def engine_package(engine: str) -> str:
    """What must be importable on the device for an engine; it need not be here."""
    return str(_engine_kind(engine).package)


def _engine_kind(engine: str) -> Any:
    module, _, name = ENGINES[engine].partition(":")
    return getattr(import_module(module), name)
