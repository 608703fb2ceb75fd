"""The manifest of a bundle: what `manifest.json` may say, read as hostile text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Pattern, Set, Tuple

from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import BundleError, ClipError

SCHEMA_VERSION = 2
EXPECTED_NAME = "expected.npz"
MANIFEST_LIMIT_BYTES = 4 << 20
FILE_LIMIT_BYTES = 2 << 30  # protobuf cannot hold a larger ONNX file
_MAX_FILES, _MAX_WORDS, _MAX_WORD_LENGTH = 64, 100_000, 64

# One plain name: no folders, no hidden files, nothing that a shell or another file system reads differently.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PRECISIONS = ("fp32", "fp16", "int8", "fp8")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+=,-]{0,127}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # what Windows takes these for
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """A file that must lie in the folder with exactly this content."""

    name: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class ModelEntry:
    """An ONNX file and the engines that take it.

    activations: how int8 activations are written, "u8" or "s8"; None for a float file.
    weights: "factors" if the engine builds them at load, from PHM factors or integers, else "dense".
    tolerance: the largest |logit - expected| / max(1, |expected|) that `check` accepts.
    """

    file: str
    precision: str
    activations: Optional[str]
    weights: str
    engines: Tuple[str, ...]
    tolerance: float


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know about a classifier.

    lineage, ledger: what the exporter recorded; carried, not interpreted here.
    """

    name: str
    producer: str
    files: Tuple[FileEntry, ...]
    vocabulary: Tuple[str, ...]
    clip: ClipSpec
    models: Tuple[ModelEntry, ...]
    weights_sha256: str
    lineage: Tuple[Mapping[str, Any], ...]
    ledger: Mapping[str, Any]


def manifest_from_bytes(content: bytes) -> Manifest:
    """Read and check a manifest. Raises BundleError naming the field, what it holds and what was expected."""
    fields = json_object(content, "manifest.json")
    schema = _field(fields, "schema_version", int)
    if schema > SCHEMA_VERSION:
        raise BundleError(f"bundle has schema {schema}; this edgelip reads {SCHEMA_VERSION}. Upgrade edgelip.")
    if schema < SCHEMA_VERSION:
        raise BundleError(f"bundle has schema {schema}; this edgelip reads {SCHEMA_VERSION}. Export the bundle again.")
    try:
        clip = ClipSpec.from_json(_field(fields, "clip", dict))
    except (ClipError, TypeError) as error:
        raise BundleError(f"manifest: {str(error)[:300]}") from error
    files = files_from_json(_field(fields, "files", dict))
    if EXPECTED_NAME not in (entry.name for entry in files):
        raise BundleError(f"manifest lists no {EXPECTED_NAME}, so the bundle cannot check itself. Export it again.")
    models = _models(_field(fields, "models", list), [entry.name for entry in files])
    return Manifest(
        name=_matching(fields, "name", _LABEL),
        producer=_matching(fields, "producer", _LABEL),
        files=files,
        vocabulary=_vocabulary(_field(fields, "vocabulary", list)),
        clip=clip,
        models=models,
        weights_sha256=_matching(fields, "weights_sha256", _SHA256),
        lineage=tuple(_each(_field(fields, "lineage", list), "lineage", dict)),
        ledger=_field(fields, "ledger", dict),
    )


def json_object(content: bytes, name: str) -> Dict[str, Any]:
    """The JSON object in the file `name`: no key twice, numbers finite. Raises BundleError if it is anything else."""
    try:
        fields = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_bounded_int,
            parse_float=_finite_float,
            parse_constant=_finite_float,
        )
    except (ValueError, RecursionError) as error:
        reason = str(error)[:200]
        raise BundleError(f"{name} is not readable JSON ({reason}). Export the bundle again.") from error
    if not isinstance(fields, dict):
        raise BundleError(f"{name} holds a {type(fields).__name__}; expected an object.")
    return fields


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _bounded_int(text: str) -> int:
    if len(text) > 20:  # Python before 3.11 takes minutes over millions of digits
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _field(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in fields:
        raise BundleError(f"manifest has no {name!r}. Export the bundle again.")
    value = fields[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"manifest {name} is {_shown(value)}; expected {_KINDS[kind]}.")
    return value


def _matching(fields: Mapping[str, Any], name: str, pattern: Pattern[str]) -> str:
    value: str = _field(fields, name, str)
    if not pattern.fullmatch(value):
        raise BundleError(f"manifest {name} is {_shown(value)}; expected {pattern.pattern}.")
    return value


def _one_of(fields: Mapping[str, Any], name: str, allowed: Tuple[Any, ...]) -> Any:
    value = fields.get(name)
    if value is not None and not isinstance(value, str) or value not in allowed:
        raise BundleError(f"manifest {name} is {_shown(value)}; expected {' or '.join(map(_shown, allowed))}.")
    return value


def _each(values: List[Any], name: str, kind: type) -> List[Any]:
    for value in values:
        if not isinstance(value, kind):
            raise BundleError(f"manifest {name} holds {_shown(value)}; expected {_KINDS[kind]} each.")
    return values


def files_from_json(entries: Mapping[str, Any]) -> Tuple[FileEntry, ...]:
    """Read a list of files: plain names, sizes bounded. Raises BundleError naming the entry that is not so."""
    if len(entries) > _MAX_FILES:
        raise BundleError(f"manifest lists {len(entries)} files; the limit is {_MAX_FILES}.")
    files: List[FileEntry] = []
    folded: Set[str] = set()
    for name, entry in entries.items():
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(f"manifest lists the file {_shown(name)}; expected a plain name inside the bundle.")
        if not isinstance(entry, dict):
            raise BundleError(f"manifest entry of {name} is {_shown(entry)}; expected sha256 and bytes.")
        num_bytes = _field(entry, "bytes", int)
        if not 0 <= num_bytes <= FILE_LIMIT_BYTES:
            raise BundleError(f"manifest says {name} has {num_bytes} bytes; the limit is {FILE_LIMIT_BYTES}.")
        if name.lower() in folded or _DEVICE.fullmatch(name):
            raise BundleError(
                f"manifest lists the file {_shown(name)}, which other systems take for a device or for another listed "
                "file; expected names that differ by more than case."
            )
        folded.add(name.lower())
        files.append(FileEntry(name, _matching(entry, "sha256", _SHA256), num_bytes))
    return tuple(files)


def _models(entries: List[Any], files: List[str]) -> Tuple[ModelEntry, ...]:
    models: List[ModelEntry] = []
    for entry in _each(entries, "models", dict):
        file = _matching(entry, "file", _FILE_NAME)
        if file not in files:
            raise BundleError(f"manifest gives model {file}, which it does not list among its files.")
        if not file.endswith(".onnx") or file in (model.file for model in models):
            raise BundleError(f"manifest gives {file} as a model; expected an .onnx file, each once.")
        precision = _one_of(entry, "precision", PRECISIONS)
        engines = _each(_field(entry, "engines", list), "engines", str)
        if not engines or not all(_LABEL.fullmatch(engine) for engine in engines):
            raise BundleError(f"manifest engines of {file} are {_shown(engines)}; expected names such as 'ort'.")
        models.append(
            ModelEntry(
                file=file,
                precision=precision,
                activations=_one_of(entry, "activations", ("u8", "s8") if precision == "int8" else (None,)),
                weights=_one_of(entry, "weights", ("dense", "factors")),
                engines=tuple(engines),
                tolerance=_tolerance(entry, file),
            )
        )
    if not models:
        raise BundleError("manifest lists no model. Export the bundle again.")
    return tuple(models)


def _vocabulary(words: List[Any]) -> Tuple[str, ...]:
    if not 1 <= len(words) <= _MAX_WORDS:
        raise BundleError(f"manifest vocabulary has {len(words)} words; expected 1 to {_MAX_WORDS}.")
    for word in _each(words, "vocabulary", str):
        if not (0 < len(word) <= _MAX_WORD_LENGTH and word.isprintable()):
            raise BundleError(f"manifest vocabulary holds {_shown(word)}; expected 1 to {_MAX_WORD_LENGTH} characters.")
    if len(set(words)) != len(words):
        raise BundleError("manifest vocabulary holds the same word twice.")
    return tuple(words)


def _tolerance(entry: Mapping[str, Any], file: str) -> float:
    limit = entry.get("tolerance")
    if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not limit > 0:
        raise BundleError(f"manifest tolerance of {file} is {_shown(limit)}; expected a number above 0.")
    return float(limit)


def _shown(value: Any) -> str:
    text = ascii(value) if value is None or isinstance(value, (str, int, float)) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


_KINDS: Dict[type, str] = {int: "a whole number", str: "text", list: "a list", dict: "an object"}
