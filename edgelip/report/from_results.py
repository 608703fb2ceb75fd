"""The ledger of a sitting: what was measured of a variant on a target, in whatever scenarios, as one row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from edgelip.errors import UsageError
from edgelip.registry import nearest
from edgelip.report.ledger import VALID, Figure, Ledger, LedgerHeader, LedgerRow, check_one_device
from edgelip.report.metrics import ACCURACY, KINDS, STATIC, end_name, has_enough, metric
from edgelip.report.results import ResultRow, Sitting
from edgelip.runtime.measurement import SINGLE_STREAM, Measurement
from edgelip.runtime.validity import gravest

Key = tuple[str, str]  # variant, label of the target
_CORE = {each.name for each in fields(LedgerRow)}
_WHOLE = ("parameters", "macs", "file_bytes", "resident_weights_bytes")


def ledger_from_rows(sitting: Sitting, rows: Sequence[ResultRow], *, device: str | None = None) -> Ledger:
    """One row a variant and target, the first variant first, then as they were measured.

    device: take the rows of this one only. Raises UsageError without rows, or for rows of several devices.
    """
    devices = tuple(dict.fromkeys(row.target.device for row in rows))
    if device is not None:
        rows = [row for row in rows if row.target.device == device]
        if devices and not rows:
            raise UsageError(
                f"the sitting of {sitting.started_at} has no row of {device!r}. {nearest(device, devices)}"
            )
    else:
        check_one_device(devices, what=f"the sitting of {sitting.started_at}")
    if not rows:
        raise UsageError(f"the sitting of {sitting.started_at} holds no results. `edgelip bench SUITE.toml` measures.")
    names, groups = names_of(rows), _groups(rows)
    ordered = sorted(
        groups.items(),
        key=lambda item: (item[0][0] != sitting.first, not _is_base(item[1]), _begun(item[1]), names[item[0]]),
    )
    ledger_rows = tuple(_ledger_row(names[key], group) for key, group in ordered)
    accuracy = [row for row in rows if row.scenario == ACCURACY]
    header = LedgerHeader(
        recipe=sitting.suite,
        command=sitting.command,
        environment=sitting.environment,
        test_clips=max((row.num_clips for row in ledger_rows if row.num_clips is not None), default=None),
        speakers=_shared(accuracy, "speakers", int),
        test_set=_shared(accuracy, "test_set", str),
        measured_at=sitting.started_at,
        notes=(*sitting.notes, *_cut_short(sitting)),
    )
    return Ledger(header, ledger_rows)


def names_of(rows: Iterable[ResultRow]) -> dict[Key, str]:
    """A name for each variant and target: the variant's, with the target where it ran on several."""
    keys = list(dict.fromkeys((row.variant, row.target.label) for row in rows))
    targets: dict[str, int] = {}
    for variant, _ in keys:
        targets[variant] = targets.get(variant, 0) + 1
    return {(variant, label): f"{variant} @ {label}" if targets[variant] > 1 else variant for variant, label in keys}


def _groups(rows: Iterable[ResultRow]) -> dict[Key, list[ResultRow]]:
    groups: dict[Key, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.variant, row.target.label), []).append(row)
    for (variant, label), group in groups.items():
        bundles = {row.bundle_sha256 for row in group}
        if len(bundles) > 1:
            hashes = ", ".join(sorted(each[:12] for each in bundles))
            raise UsageError(
                f"{variant} on {label} has rows of {len(bundles)} bundles ({hashes}): it changed within the sitting. "
                "Measure it again."
            )
        kinds = [row.scenario for row in group]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise UsageError(
                    f"{variant} on {label} has {kinds.count(kind)} rows of {kind}; expected one. Remove one."
                )
    return groups


def _ledger_row(name: str, group: Sequence[ResultRow]) -> LedgerRow:
    by_kind = {row.scenario: row for row in sorted(group, key=lambda row: KINDS.index(row.scenario))}
    found, taken_from = _figures(by_kind)
    values: dict[str, Any] = {each.name: None for each in fields(LedgerRow)}
    figures = {}
    for figure_name, each in found.items():
        has_ends = end_name(figure_name, "low") in _CORE
        if figure_name in _CORE:
            values[figure_name] = round(each.value) if figure_name in _WHOLE else each.value
            if has_ends:
                values[end_name(figure_name, "low")], values[end_name(figure_name, "high")] = each.low, each.high
        if figure_name not in _CORE or (not has_ends and each.low is not None):
            figures[figure_name] = each
    headline = by_kind.get(SINGLE_STREAM) or max(group, key=lambda row: row.num_launches)
    accuracy, static, energy = by_kind.get(ACCURACY), by_kind.get(STATIC), taken_from.get("energy_gross_j")
    target = headline.target
    values.update(
        variant=name,
        method=_text(static.details.get("method")) if static else None,
        num_clips=accuracy.measurements["top1_pct"].num_samples if accuracy and "top1_pct" in found else None,
        num_launches=headline.num_launches,
        engine=target.engine,
        precision=target.precision,
        threads=target.threads,
        badge=gravest([row.badge for row in group]),
        bundle_sha256=headline.bundle_sha256,
        device=target.device,
        target=target.label,
        energy_boundary=_boundary(energy) if energy else None,
        command=headline.command,
        reasons=tuple(_reasons(by_kind.values())),
        figures=figures,
    )
    return LedgerRow(**values)


def _figures(by_kind: Mapping[str, ResultRow]) -> tuple[dict[str, Figure], dict[str, ResultRow]]:
    """Each figure from the first kind of row that a table takes it from, and that row."""
    found: dict[str, Measurement] = {}
    taken_from: dict[str, ResultRow] = {}
    for row in by_kind.values():
        for name, each in row.measurements.items():
            known = metric(name)
            if known is None or row.scenario not in known.kinds or not has_enough(each):
                continue
            rank = known.kinds.index
            if name not in found or rank(row.scenario) < rank(taken_from[name].scenario):
                found[name], taken_from[name] = each, row
    return {name: Figure(each.value, *(each.interval or (None, None))) for name, each in found.items()}, taken_from


def _reasons(rows: Iterable[ResultRow]) -> Iterable[str]:
    for row in rows:
        if row.badge != VALID:
            yield f"{row.scenario} {row.badge}" + (f": {'; '.join(row.reasons)}" if row.reasons else "")


def _boundary(row: ResultRow) -> str | None:
    boundary = _text(row.environment.get("energy_boundary"))
    return f"{boundary}, {row.scenario}" if boundary else row.scenario


def _is_base(group: Sequence[ResultRow]) -> bool:
    """Whether the ratios of the sitting are to this target of the first variant."""
    return any(
        row.value("latency_ratio") == 1 and row.measurements["latency_ratio"].interval == (1, 1) for row in group
    )


def _begun(group: Sequence[ResultRow]) -> str:
    return min(row.measured_at for row in group)


def _shared(rows: Sequence[ResultRow], key: str, kind: type) -> Any:
    """What all rows say under `key`, None if they differ or say nothing."""
    said = {row.details.get(key) for row in rows if isinstance(row.details.get(key), kind)}
    return said.pop() if len(said) == 1 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _cut_short(sitting: Sitting) -> Sequence[str]:
    return () if sitting.finished_at else ("The sitting was cut short or is still going on: rows are missing.",)
