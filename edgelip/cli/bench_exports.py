"""`edgelip bench --report`: every row of several exports timed again in one sitting, so that their times compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

from edgelip.bench.isolate import Subject, bench_launches
from edgelip.bench.suite import latency_fields, process_fields, worst_badge
from edgelip.cli.result_folders import read_ledgers
from edgelip.errors import UsageError
from edgelip.progress import Progress
from edgelip.report.joint import check_test_sets, joint_ledger
from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.tradeoff import terminal_text, write_report
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.measurement import BenchRun

_COLUMNS = {each.name for each in fields(LedgerRow)}


def bench_exports(
    folders: Sequence[Path],
    *,
    out: Path,
    engine: str | None,
    threads: int,
    launches: int,
    seconds: float,
    as_json: bool,
) -> str:
    """Write the joint table of exports to `out`: accuracy and size as they were measured, times and memory anew.

    engine: default the one that accuracy was measured on. Returns the table.
    Raises UsageError where tables cannot be joined, a bundle is not the one of its row, or the engine is another.
    """
    ledgers = read_ledgers(folders)
    check_test_sets(ledgers)
    found = {
        name: _subjects(folder, ledger, engine=engine, threads=threads)
        for folder, (name, ledger) in zip(folders, ledgers.items(), strict=True)
    }
    subjects = [subject for subjects in found.values() for subject in subjects]
    runs = iter(bench_launches(subjects, launches=launches, seconds=seconds, say=Progress().say))
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    timed = {name: _timed(ledgers[name], [next(runs) for _ in found[name]], moment) for name in ledgers}
    joined = joint_ledger(timed, command=f"edgelip bench {' '.join(map(str, folders))} --report {out}")
    write_report(joined, out)
    return joined.to_json() if as_json else terminal_text(joined)


def _subjects(folder: Path, ledger: Ledger, *, engine: str | None, threads: int) -> list[Subject]:
    """What each row ran, found among the bundles of its export by the hash that the row bears."""
    bundles = [Bundle.open(path.parent) for path in sorted(folder.glob("*/manifest.json"))]
    known: Mapping[str, Bundle] = {bundle.sha256: bundle for bundle in bundles}
    subjects = []
    for row in ledger.rows:
        bundle = known.get(row.bundle_sha256 or "")
        if bundle is None:
            raise UsageError(
                f"{folder} holds no bundle of its row {row.variant!r} (sha256 {str(row.bundle_sha256)[:12]}): it has "
                "changed since. Export it again."
            )
        if engine not in (None, row.engine):
            raise UsageError(
                f"the accuracy of {row.variant!r} in {folder} was measured on engine {row.engine!r}, not {engine!r}. "
                f"Export it with --set bench.engine={engine}."
            )
        subjects.append(Subject(bundle.path, engine=str(row.engine), precision=row.precision, threads=threads))
    return subjects


def _timed(ledger: Ledger, runs: Sequence[Sequence[BenchRun]], moment: str) -> Ledger:
    """The table with times of this sitting, ratios to its own first row."""
    rows = []
    for row, launched in zip(ledger.rows, runs, strict=True):
        measured = {**process_fields(launched), **latency_fields(launched, runs[0])}
        times = {key: value for key, value in measured.items() if key in _COLUMNS}
        badge, threads = worst_badge(launched), launched[0].threads
        rows.append(replace(row, **times, badge=badge, threads=threads, num_launches=len(launched), sitting=None))
    header = replace(ledger.header, environment=dict(runs[0][0].environment), measured_at=moment)
    return Ledger(header, tuple(rows))
