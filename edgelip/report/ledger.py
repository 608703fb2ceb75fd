"""The compression ledger: one row a deployed variant, what was measured on it, and where."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, get_type_hints

from edgelip.errors import UsageError
from edgelip.report.metrics import end_name, metric
from edgelip.report.strict import check_keys, check_sentences, check_value, is_number

SCHEMA_VERSION = 1
VALID = "VALID"
HERE = "here"  # the device of rows that name none


@dataclass(frozen=True)
class Figure:
    """A measured value; low, high: its 95 % interval, None where none was computed."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_json(cls, values: Any, what: str) -> Self:
        """Raises UsageError beginning with `what` unless these are a finite value, low and high."""
        check_keys(values, [each.name for each in fields(cls)], what, may_miss=("low", "high"))
        if not is_number(values.get("value")):
            raise UsageError(f"{what} has the value {values.get('value')!r}; expected a finite number.")
        for end in ("low", "high"):
            check_value(values.get(end), float | None, f"{what} has {end}")
        return cls(**values)


@dataclass(frozen=True)
class LedgerRow:
    """One variant. None: not measured. `_low`, `_high`: ends of the 95 % interval.

    latency_ratio and top1_drop_points compare with the first row, on the same clips; a drop above 0 is worse.
    sitting: of a joint table, whose times only compare within one; None where all rows were measured side by side.
    Absent in older tables: figures: whatever else was measured, by the names of metrics.METRICS; reasons: why the badge
    is not VALID; target: engine, precision, threads and options in words; energy_boundary: what the energy is of.
    """

    variant: str
    method: str | None
    parameters: int | None
    macs: int | None
    file_bytes: int | None
    resident_weights_bytes: int | None
    peak_memory_mib: float | None
    cold_start_ms: float | None
    latency_p50_ms: float | None
    latency_p50_low_ms: float | None
    latency_p50_high_ms: float | None
    latency_p90_ms: float | None
    latency_p90_low_ms: float | None
    latency_p90_high_ms: float | None
    latency_ratio: float | None
    latency_ratio_low: float | None
    latency_ratio_high: float | None
    top1_pct: float | None
    top1_low_pct: float | None
    top1_high_pct: float | None
    top5_pct: float | None
    top5_low_pct: float | None
    top5_high_pct: float | None
    top1_drop_points: float | None
    top1_drop_low_points: float | None
    top1_drop_high_points: float | None
    mcnemar_p: float | None
    int8_coverage_pct: float | None
    num_clips: int | None
    num_launches: int | None
    engine: str | None
    precision: str | None
    threads: int | None
    badge: str | None
    bundle_sha256: str | None
    sitting: str | None = None
    device: str | None = None
    target: str | None = None
    energy_boundary: str | None = None
    command: str | None = None
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        return self.badge == VALID

    def figure(self, name: str) -> Figure | None:
        """A figure by its name in metrics.METRICS, with its interval; None if it was not measured."""
        if name in self.figures:
            return self.figures[name]
        value = getattr(self, name, None) if metric(name) else None
        if value is None:
            return None
        return Figure(value, getattr(self, end_name(name, "low"), None), getattr(self, end_name(name, "high"), None))

    def value(self, name: str) -> float | None:
        found = self.figure(name)
        return None if found is None else found.value

    def to_json(self) -> dict[str, Any]:
        """Every key; of those that older tables lack, the ones that say something."""
        values = {**asdict(self), "reasons": list(self.reasons)}
        return {key: value for key, value in values.items() if value not in _NEWER.get(key, ())}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises UsageError for a key that is unknown or missing, or a value of another kind."""
        name = values.get("variant") if isinstance(values, Mapping) else None
        where = f"ledger row {name!r}"
        check_keys(values, [each.name for each in fields(cls)], where, may_miss=("sitting", *_NEWER))
        for key, kind in get_type_hints(cls).items():
            if key not in ("reasons", "figures"):
                check_value(values.get(key), kind, f"{where} has {key}")
        reasons, figures = values.get("reasons", ()), values.get("figures", {})
        check_sentences(reasons, f"{where} has reasons")
        if not isinstance(figures, Mapping):
            raise UsageError(f"{where} has figures of kind {type(figures).__name__}; expected a table.")
        for each in figures:
            if metric(each) is None:
                raise UsageError(f"{where} has the figure {each!r}; report/metrics.py lists those that there are.")
        read = {key: Figure.from_json(each, f"{where}, {key},") for key, each in figures.items()}
        return cls(**{**values, "reasons": tuple(reasons), "figures": read})


_NEWER: Mapping[str, Sequence[Any]] = {
    **dict.fromkeys(("device", "target", "energy_boundary", "command"), (None,)),
    "reasons": ([],),
    "figures": ({},),
}


@dataclass(frozen=True)
class LedgerHeader:
    """What the rows share. environment: cpu, os, versions ...: text, numbers, or a table of them.

    test_set: hash of the words, spans or generator of the test clips, whatever their size in pixels; measured_at: ISO
    8601. None in tables of older versions.
    """

    recipe: str | None = None
    command: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    test_clips: int | None = None
    speakers: int | None = None
    test_set: str | None = None
    measured_at: str | None = None
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {**{each.name: getattr(self, each.name) for each in fields(self)}, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises UsageError for an unknown key or a value of another kind; a missing key is not known."""
        known = [each.name for each in fields(cls)]
        check_keys(values, known, "ledger header", may_miss=known)
        for key in ("test_clips", "speakers", "recipe", "command", "test_set", "measured_at"):
            if key in values:
                kind = int | None if key in ("test_clips", "speakers") else str | None
                check_value(values[key], kind, f"ledger header has {key}")
        notes, environment = values.get("notes") or (), values.get("environment") or {}
        if isinstance(notes, str) or not all(isinstance(note, str) for note in notes):
            raise UsageError(f"ledger header has notes {notes!r}; expected a list of sentences.")
        if not isinstance(environment, Mapping):
            raise UsageError(f"ledger header has environment {environment!r}; expected a table such as {{'cpu': ...}}.")
        return cls(**{**values, "notes": tuple(notes), "environment": dict(environment)})


@dataclass(frozen=True)
class Ledger:
    """A header and its rows; the first row is what the others are compared with."""

    header: LedgerHeader
    rows: tuple[LedgerRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise UsageError("a ledger of 0 rows; expected at least 1 measured variant. Measure one first.")
        names = [row.variant for row in self.rows]
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            raise UsageError(f"ledger has variant {repeated[0]!r} twice; expected distinct names. Rename one.")

    @property
    def sittings(self) -> tuple[str | None, ...]:
        """The sittings that the rows were measured in, in order."""
        return tuple(dict.fromkeys(row.sitting for row in self.rows))

    @property
    def devices(self) -> tuple[str, ...]:
        return devices_of(self.rows)

    def shown_rows(self) -> tuple[LedgerRow, ...]:
        """The rows as tables show them: those that are not VALID last, else in the order measured."""
        return tuple(sorted(self.rows, key=lambda row: not row.is_valid))

    def to_json(self) -> str:
        """JSON text: schema_version, header, rows in the order measured."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "header": self.header.to_json(),
            "rows": [row.to_json() for row in self.rows],
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_rows(cls, header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Self:
        """From what was measured. Raises UsageError where a key or a value does not fit."""
        return cls(LedgerHeader.from_json(header), tuple(LedgerRow.from_json(row) for row in rows))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The inverse of `to_json`. Raises UsageError if the text is damaged or of another schema version."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the ledger is not JSON ({error}). Measure again.") from error
        return cls.from_content(content)

    @classmethod
    def from_content(cls, content: Any) -> Self:
        """From what the JSON text holds."""
        check_keys(content, ["schema_version", "header", "rows"], "ledger")
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise UsageError(f"the ledger has schema version {version!r}; expected {SCHEMA_VERSION}. Update edgelip.")
        if not isinstance(content["rows"], list):
            raise UsageError(f"the ledger has rows of kind {type(content['rows']).__name__}; expected a list.")
        return cls.from_rows(content["header"], content["rows"])


def devices_of(rows: Iterable[LedgerRow]) -> tuple[str, ...]:
    """The devices that the rows were measured on, in order; 'here' for those that name none."""
    return tuple(dict.fromkeys(row.device or HERE for row in rows))


def check_one_device(devices: Sequence[str], *, what: str) -> None:
    """Raises UsageError if there are several."""
    if len(devices) > 1:
        raise UsageError(
            f"{what} holds rows of {len(devices)} devices: {', '.join(devices)}. Figures of different devices do not "
            "compare; choose one with --device NAME."
        )
