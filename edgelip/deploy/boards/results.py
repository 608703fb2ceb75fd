"""What a board answers, read as hostile text, and the table of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgelip.deploy.boards.bounded_process import plain_line
from edgelip.deploy.boards.wanted import Wanted
from edgelip.runtime.artefact import SIDECAR
from edgelip.runtime.check import Parity
from edgelip.runtime.errors import BundleError, MeasurementError
from edgelip.runtime.manifest import FileEntry, files_from_json
from edgelip.runtime.measurement import (
    BADGES,
    COLD_START,
    MINIMUM_COUNT,
    MULTI_STREAM,
    OFFLINE,
    SINGLE_STREAM,
    STREAMING,
    BenchRun,
    percentile,
)

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ARTEFACT_LIMIT_BYTES = 8 << 30
_SAMPLES: Mapping[str, tuple[str, ...]] = {  # what a run cannot be without, first what it is about
    SINGLE_STREAM: ("latency", "end_to_end"),
    MULTI_STREAM: ("query",),
    OFFLINE: ("query",),
    STREAMING: ("last_frame_to_word", "latency"),
    COLD_START: (),
}
_MAX = 10**15  # nanoseconds, MiB or clips that nobody has


class BadAnswer(ValueError):
    """What came back is not what was asked for. Short: who asked adds where it came from."""


@dataclass(frozen=True)
class DeviceResult:
    """One bundle on one device. Percentiles are None where there are too few samples, memory where it is unknown.

    latency_*: of a clip; in MultiStream and Offline of a query, in Streaming from the last frame's arrival to the word.
    """

    bundle: str
    bundle_sha256: str
    device: str
    device_key: str
    engine: str
    precision: str
    max_difference: float
    limit: float
    num_clips: int
    num_equal_words: int
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    num_samples: int
    badge: str
    reasons: tuple[str, ...]
    peak_memory_mib: float | None
    scenario: str = SINGLE_STREAM

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def result_from(device: str, device_key: str, wanted: Wanted, parity: Parity, run: BenchRun) -> DeviceResult:
    """Check and bench of one bundle as one row."""

    samples_ns = run.samples_ns[_SAMPLES[run.scenario][0]] if _SAMPLES[run.scenario] else ()

    def latency_ms(percent: int) -> float | None:
        enough = len(samples_ns) >= MINIMUM_COUNT[percent]
        return percentile(samples_ns, percent) / 1e6 if enough else None

    return DeviceResult(
        bundle=wanted.bundle.name,
        bundle_sha256=wanted.bundle.sha256,
        device=device,
        device_key=device_key,
        engine=wanted.engine,
        precision=wanted.precision,
        max_difference=parity.max_difference,
        limit=parity.limit,
        num_clips=parity.num_clips,
        num_equal_words=parity.num_equal_words,
        latency_p50_ms=latency_ms(50),
        latency_p90_ms=latency_ms(90),
        num_samples=len(samples_ns),
        badge=run.badge,
        reasons=run.reasons,
        peak_memory_mib=run.memory_mib.get("peak"),
        scenario=run.scenario,
    )


def json_from_answer(content: bytes) -> Any:
    """JSON with finite numbers and no key twice. Raises BadAnswer."""
    try:
        return json.loads(content.decode(), parse_constant=_refuse, object_pairs_hook=_unique, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"is no JSON that can be read ({plain_line(str(error))[:120]})") from error


def report_from_answer(content: bytes) -> dict[str, Any]:
    """A doctor's report: what a deployment needs of it is there and of the right kind. Raises BadAnswer."""
    report = _object(json_from_answer(content))
    if "too_old" in report:
        _text(report, "too_old")
        return report
    python, numpy = _object(report.get("python")), _object(report.get("numpy"))
    _text(python, "version")
    _text(python, "executable")
    _text(numpy, "version", optional=True)
    for state in _object(report.get("engines")).values():
        for name in ("version", "why_not", "mend"):
            _text(_object(state), name, optional=True)
        if state.get("why_not") is None and not _KEY.fullmatch(str(state.get("device_key"))):
            raise BadAnswer(f"has the device key {_shown(state.get('device_key'))}")
    _text(_object(report.get("machine")), "machine")
    return report


def parity_from_answer(content: bytes, wanted: Wanted) -> Parity:
    """What `check` found for the one model that was asked for. Raises BadAnswer."""
    found = json_from_answer(content)
    entry = _object(found[0] if isinstance(found, list) and len(found) == 1 else None)
    known = {field.name for field in fields(Parity)}
    if set(entry) != known:
        raise BadAnswer(f"has the fields {_shown(sorted(entry))}; expected {sorted(known)}")
    _expect(entry, {"bundle": wanted.bundle.name, "engine": wanted.engine, "precision": wanted.precision})
    key = entry["device_key"]
    if key is not None and not _KEY.fullmatch(str(key)):
        raise BadAnswer(f"has the device key {_shown(key)}")
    for name in ("num_files", "num_clips", "num_equal_words"):
        _number(entry, name, whole=True)
    for name in ("max_difference", "limit"):
        _number(entry, name)
    if not (entry["max_difference"] <= entry["limit"] == wanted.model.entry.tolerance):
        raise BadAnswer(
            f"has max_difference {entry['max_difference']} within {entry['limit']}; the limit of this model is "
            f"{wanted.model.entry.tolerance}"
        )
    if not 0 < entry["num_clips"] >= entry["num_equal_words"]:
        raise BadAnswer(f"has {entry['num_equal_words']} equal words of {entry['num_clips']} clips")
    return Parity(**entry)


def run_from_answer(content: bytes, wanted: Wanted, *, scenario: str = SINGLE_STREAM) -> BenchRun:
    """What `bench` measured in the scenario that was asked for, every sample of it. Raises BadAnswer."""
    entry = _object(json_from_answer(content))
    _expect(
        entry,
        {
            "bundle": wanted.bundle.name,
            "bundle_sha256": wanted.bundle.sha256,
            "engine": wanted.engine,
            "precision": wanted.precision,
            "scenario": scenario,
        },
    )
    if entry.get("badge") not in BADGES:
        raise BadAnswer(f"has the badge {_shown(entry.get('badge'))}")
    samples_ns = _object(entry.get("samples_ns"))
    for name in _SAMPLES[scenario]:
        samples = samples_ns.get(name)
        if not isinstance(samples, list) or not samples or not all(_is_whole(sample) for sample in samples):
            raise BadAnswer(f"has {name} that are not all whole nanoseconds")
    for name in ("threads", "batch"):
        _number(entry, name, whole=True, least=1)
    _text(entry, "command")
    reasons = entry.get("reasons")
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise BadAnswer("has reasons that are no list of texts")
    for name in ("memory_mib", "cold_start_ms"):
        for key, value in _object(entry.get(name)).items():
            if value is not None:
                _number(entry[name], key, least=-_MAX)  # memory may have become free meanwhile
    for key, value in _object(entry.get("summary")).items():
        if not isinstance(value, (str, bool)):
            _number(entry["summary"], key)
    for name in ("environment", "warm_up"):
        _object(entry.get(name))
    if entry.get("energy") is not None:
        for name in ("num_clips", "gross_j_per_clip"):
            _number(_object(entry["energy"]), name)
        _text(entry["energy"], "boundary")
    try:
        return BenchRun.from_json({**entry, "reasons": [plain_line(reason) for reason in reasons]})
    except MeasurementError as error:
        raise BadAnswer(plain_line(str(error))) from error


def built_key(content: bytes, engine: str, device_key: str) -> str:
    """The device key of the one build that was asked for. Raises BadAnswer."""
    found = json_from_answer(content)
    entry = _object(found[0] if isinstance(found, list) and len(found) == 1 else None)
    _expect(entry, {"engine": engine, "device_key": device_key})
    return device_key


def built_files(content: bytes, wanted: Wanted, device_key: str) -> tuple[FileEntry, ...]:
    """The files that a build's sidecar lists: plain names, of a sane size. Raises BadAnswer."""
    sidecar = _object(json_from_answer(content))
    _expect(
        sidecar,
        {
            "engine": wanted.engine,
            "device_key": device_key,
            "bundle_sha256": wanted.bundle.sha256,
            "model": wanted.model.entry.file,
        },
    )
    try:
        files = files_from_json(_object(sidecar.get("files")))
    except BundleError as error:
        raise BadAnswer(plain_line(str(error))) from error
    if SIDECAR in (entry.name for entry in files):
        raise BadAnswer(f"lists {SIDECAR} itself")
    if sum(entry.num_bytes for entry in files) > _ARTEFACT_LIMIT_BYTES:
        raise BadAnswer(f"lists more than {_ARTEFACT_LIMIT_BYTES >> 30} GiB of files")
    return files


_COLUMNS = ("bundle", "device key", "engine", "precision", "max diff", "words", "p50 ms", "p90 ms", "n", "badge", "MiB")


def results_table(results: Sequence[DeviceResult]) -> str:
    """One line a bundle; what is not VALID stands last. MiB: peak memory of the process."""
    rows = [_COLUMNS]
    for result in sorted(results, key=lambda result: result.badge != "VALID"):
        words = f"{result.num_equal_words}/{result.num_clips}"
        figures = (result.latency_p50_ms, result.latency_p90_ms)
        p50, p90 = ("—" if figure is None else f"{figure:.3f}" for figure in figures)
        peak = "—" if result.peak_memory_mib is None else f"{result.peak_memory_mib:.0f}"
        rows.append(
            (result.bundle, result.device_key, result.engine, result.precision, f"{result.max_difference:.1e}", words,
             p50, p90, str(result.num_samples), result.badge, peak)
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = [f"{result.bundle}: {reason}" for result in results for reason in result.reasons]
    return "\n".join([*lines, *reasons])


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no finite number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer(f"holds {_shown(value)} where an object should stand")
    return value


def _text(entry: Mapping[str, Any], name: str, *, optional: bool = False) -> None:
    value = entry.get(name)
    if not isinstance(value, str) and not (optional and value is None):
        raise BadAnswer(f"has the {name} {_shown(value)}")


def _number(entry: Mapping[str, Any], name: str, *, whole: bool = False, least: int = 0) -> None:
    value = entry.get(name)
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= _MAX:
        raise BadAnswer(f"has the {name} {_shown(value)}")


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX


def _expect(entry: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        if entry.get(name) != value:
            raise BadAnswer(f"has the {name} {_shown(entry.get(name))}; expected {value!r}")


def _shown(value: Any) -> str:
    return ascii(value)[:80]
