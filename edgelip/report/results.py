"""What a sitting of measurements leaves: a folder with its description and one file a row.

    <results>/<moment>-<suite>/
      sitting.json
      <row>.json                            one variant on one target in one scenario, intervals over its launches
      <row>/launch-1.json, launch-1.npz     each process that ran for it, every raw sample

Reading a row opens one small file; the samples stay on disk until somebody asks for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edgelip.errors import UsageError
from edgelip.files import write_atomic
from edgelip.registry import nearest
from edgelip.report.metrics import KINDS, metric
from edgelip.report.strict import check_sentences, check_value, is_number, json_from_file, names_in
from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.measurement import BADGES, Measurement

SCHEMA_VERSION = 1
SITTING = "sitting.json"
_LARGEST_ROW_BYTES = 16 << 20
_REMEDY = "Measure that row again, or move it away."


@dataclass(frozen=True)
class Target:
    """Where and with what a bundle ran. device: a name of export/devices, or 'here'."""

    device: str
    engine: str
    precision: str
    threads: int
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As in a table: 'ort int8 1t hint=throughput'."""
        options = [f"{name}={value}" for name, value in sorted(self.options.items())]
        return " ".join([self.engine, self.precision, f"{self.threads}t", *options])

    @classmethod
    def from_json(cls, values: Any) -> Target:
        """Raises UsageError if a value is of another kind, TypeError if one is missing or unknown."""
        target = cls(**values)
        for key in ("device", "engine", "precision"):
            check_value(getattr(target, key), str, f"the target has {key}")
        if not isinstance(target.threads, int) or not isinstance(target.options, Mapping):
            raise UsageError(f"the target is {values}; expected a number of threads and a table of options.")
        return target


@dataclass(frozen=True)
class ResultRow:
    """One variant on one target in one scenario.

    scenario: one of metrics.KINDS. reasons: why the badge is not VALID. measurements: by the names of metrics.METRICS.
    details: what a view of the page shows beyond numbers, such as layers or words. command: repeats this row.
    """

    variant: str
    bundle_sha256: str
    target: Target
    scenario: str
    measured_at: str
    command: str
    badge: str
    reasons: tuple[str, ...]
    num_launches: int
    measurements: Mapping[str, Measurement]
    environment: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scenario not in KINDS:
            raise UsageError(f"{self.variant}: scenario is {self.scenario!r}. {nearest(self.scenario, KINDS)}")
        if self.badge not in BADGES:
            raise UsageError(f"{self.variant}: badge is {self.badge!r}; expected one of {', '.join(BADGES)}.")
        for name, each in self.measurements.items():
            if metric(name) is None or name != each.name:
                raise UsageError(f"{self.variant}: there is no figure {each.name!r}; report/metrics.py lists them.")
            numbers = (each.value, *(each.interval or ()))
            if not all(map(is_number, numbers)) or len(numbers) not in (1, 3):
                expected = "expected a finite number and its interval"
                raise UsageError(f"{self.variant}: {name} is {list(numbers)}; {expected}.")

    @property
    def stem(self) -> str:
        """Name of its file and folder."""
        return row_stem(self.variant, self.target, self.scenario)

    def value(self, name: str) -> float | None:
        """A figure, None where it was not measured."""
        found = self.measurements.get(name)
        return None if found is None else found.value

    def to_json(self) -> dict[str, Any]:
        measurements = [each.to_json() for each in self.measurements.values()]
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "measurements": measurements}

    @classmethod
    def from_json(cls, values: Any, *, source: Path) -> ResultRow:
        """Raises UsageError naming `source` for another schema version, or fields that do not fit."""
        content = _checked(values, cls, source)
        try:
            for key in ("variant", "bundle_sha256", "scenario", "measured_at", "command", "badge"):
                check_value(content[key], str, f"the row has {key}")
            check_sentences(content["reasons"], "the row has reasons")
            for key in ("environment", "details"):
                if not isinstance(content.get(key, {}), Mapping):
                    raise UsageError(f"the row has {key} of kind {type(content[key]).__name__}; expected a table.")
            found = [Measurement.from_json(each) for each in content["measurements"]]
            return cls(
                **{
                    **content,
                    "target": Target.from_json(content["target"]),
                    "reasons": tuple(content["reasons"]),
                    "measurements": {each.name: each for each in found},
                }
            )
        except KeyError as error:
            raise UsageError(f"{source}: the row lacks {error}. {_REMEDY}") from error
        except (MeasurementError, UsageError, TypeError, AttributeError) as error:
            raise UsageError(f"{source}: {str(error).rstrip('.')}. {_REMEDY}") from error


@dataclass(frozen=True)
class Sitting:
    """One run of a suite on one device. first: the variant that ratios and drops are to.

    finished_at: None if it was cut short. device: as in Target. environment: the machine at the start. command: repeats
    all of it.
    """

    suite: str
    tier: str
    device: str
    first: str
    command: str
    started_at: str
    finished_at: str | None
    environment: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, values: Any, *, source: Path) -> Sitting:
        """Raises UsageError naming `source` for another schema version, or fields that do not fit."""
        content = _checked(values, cls, source)
        try:
            check_sentences(content.get("notes", []), "the sitting has notes")
            sitting = cls(**{**content, "notes": tuple(content.get("notes", []))})
            for key in ("suite", "tier", "device", "first", "command", "started_at"):
                check_value(content[key], str, f"the sitting has {key}")
            check_value(content["finished_at"], str | None, "the sitting has finished_at")
            if not isinstance(sitting.environment, Mapping):
                raise UsageError(f"the sitting has the environment {sitting.environment!r}; expected a table.")
        except (TypeError, UsageError) as error:
            raise UsageError(f"{source}: {str(error).rstrip('.')}. Measure again, or move this folder away.") from error
        return sitting


def row_stem(variant: str, target: Target, scenario: str) -> str:
    """Name of a row's file and folder, before there is a row."""
    words = f"{variant}--{target.label.replace(' ', '-')}--{scenario}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", words)


def write_row(folder: Path, row: ResultRow) -> Path:
    """Write `row` into a sitting's folder, whole or not at all, over an older measurement of the same.

    Raises UsageError if the file of another row has its name, as of variants called 'a b' and 'a_b'.
    """
    path = folder / f"{row.stem}.json"
    if path.is_file():
        older = _row(path)
        if (older.variant, older.target, older.scenario) != (row.variant, row.target, row.scenario):
            raise UsageError(f"{path} holds {older.variant!r} on {older.target.label}; rename {row.variant!r}.")
    write_atomic(path, json.dumps(row.to_json(), indent=1, allow_nan=False) + "\n")
    return path


def write_sitting(folder: Path, sitting: Sitting) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SITTING, json.dumps(sitting.to_json(), indent=1, allow_nan=False) + "\n")


def read_sitting(folder: Path) -> Sitting:
    """Raises UsageError if there is none or it is damaged."""
    path = folder / SITTING
    if not path.is_file():
        raise UsageError(f"There is no {path}. `edgelip bench SUITE.toml` measures and writes one.")
    return Sitting.from_json(_json(path), source=path)


def read_rows(folder: Path) -> Iterator[ResultRow]:
    """The rows of a sitting, by name. Raises UsageError for a file that is cut, damaged or of another schema."""
    for name in names_in(folder):
        stem, _, suffix = name.rpartition(".")
        if suffix == "json" and not name.startswith(".") and stem.rpartition("--")[2] in KINDS:
            yield _row(folder / name)


def sittings_in(folder: Path) -> list[Path]:
    """Folders of sittings below `folder`, or itself, by name, which begins with the moment.

    Raises UsageError if the folder cannot be read.
    """
    names = names_in(folder)
    return [folder] if SITTING in names else [folder / name for name in names if (folder / name / SITTING).is_file()]


def _row(path: Path) -> ResultRow:
    return ResultRow.from_json(_json(path), source=path)


def _json(path: Path) -> Any:
    return json_from_file(path, largest_bytes=_LARGEST_ROW_BYTES, remedy=_REMEDY)


def _checked(values: Any, kind: type, source: Path) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UsageError(f"{source} holds a {type(values).__name__}; expected a table. Measure again.")
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{source} has schema version {version!r}; this edgelip reads {SCHEMA_VERSION}. Measure again, or report "
            "the results of each version with the edgelip that wrote them."
        )
    content = {key: value for key, value in values.items() if key != "schema_version"}
    known = [each.name for each in fields(kind)]
    for key in content:
        if key not in known:
            raise UsageError(f"{source} has the unknown key {key!r}. {nearest(str(key), known)}")
    return content
