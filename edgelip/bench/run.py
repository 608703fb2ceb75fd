"""A plan measured row by row: a fresh process a launch, each kept as it ends, a row written when all its launches are.

A row that fails leaves its reason and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgelip.bench.figures import measurements_of, reasons_of
from edgelip.bench.isolate import Subject, bench_once
from edgelip.bench.plan import LAYERS_S, Plan, PlanRow, interleaved
from edgelip.bench.sitting import OpenSitting, now
from edgelip.bench.static import method_of, static_fields
from edgelip.bench.suite import worst_badge
from edgelip.errors import EdgelipError, MeasurementError
from edgelip.progress import Progress, Task
from edgelip.report.metrics import ACCURACY, METRICS, STATIC
from edgelip.report.results import ResultRow, read_rows, write_row
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.measurement import SINGLE_STREAM, BenchRun, Measurement, percentile

Details = Mapping[str, Any]
Extra = TypeVar("Extra")
VIDEO = "the video of [end_to_end]"


class Launcher(Protocol):
    """Where processes are started: here, or on a board."""

    def prepare(self, row: PlanRow) -> None:
        """Bring there what the launches of a row need. Raises what forbids it."""

    def launch(self, row: PlanRow, number: int, into: Path) -> BenchRun:
        """Run launch `number` of a row in a fresh process and leave it in `into`. Raises what it raised."""


class LocalLauncher:
    """Processes of this machine; this one sleeps on a pipe meanwhile."""

    def prepare(self, row: PlanRow) -> None:
        """Nothing: bundles are opened where they lie."""

    def launch(self, row: PlanRow, number: int, into: Path) -> BenchRun:
        return bench_once(
            _subject(row),
            effort=row.effort_of(number),
            scenario=row.scenario,
            drop_page_cache=row.is_dropped(number),
            samples_into=into,
        )


@dataclass(frozen=True)
class Parts:
    """What the caller adds to a sitting, from floors above.

    layers: of a Static row, for details. accuracy: the Accuracy rows of some plan rows. video: figures that a video
    adds to a SingleStream row. static_graph: whether a file's graph may be run here to see what it comes to.
    """

    launcher: Launcher = field(default_factory=LocalLauncher)
    layers: Callable[[PlanRow], Sequence[Details]] | None = None
    accuracy: Callable[[Sequence[PlanRow], Path], Sequence[ResultRow]] | None = None
    video: Callable[[PlanRow], Mapping[str, Measurement]] | None = None
    static_graph: bool = True


@dataclass(frozen=True)
class Outcome:
    """Rows that were measured, and the first error of each that was not, by its label."""

    rows: tuple[ResultRow, ...]
    failures: Mapping[str, EdgelipError]


def run_plan(plan: Plan, sitting: OpenSitting, parts: Parts, *, command: str, progress: Progress) -> Outcome:
    """Measure what `sitting` does not hold yet. command: repeats the sitting, and with --only one of its rows.

    Raises MissingError where nothing can be written, and what is no EdgelipError; a failing row raises nothing.
    """
    with progress.task(plan.suite.name, total=round(plan.estimate_s), unit="s") as task:
        return _Run(plan, sitting, parts, command, progress, _Planned(task)).all()


class _Planned:
    """Progress in seconds of the plan, which may be fractions."""

    def __init__(self, task: Task) -> None:
        self._task, self._done_s = task, 0.0

    def advance(self, seconds: float, note: str) -> None:
        self._done_s += seconds
        self._task.advance(min(round(self._done_s), self._task.total) - self._task.done, note=note)


class _Run:
    def __init__(
        self, plan: Plan, sitting: OpenSitting, parts: Parts, command: str, progress: Progress, planned: _Planned
    ) -> None:
        self.plan, self.sitting, self.parts, self.command = plan, sitting, parts, command
        self.progress, self.planned = progress, planned
        self.rows = {row.stem: row for row in read_rows(sitting.folder)}
        self.failures: dict[str, EdgelipError] = {}
        self._broken: set[tuple[str, str]] = set()  # variants on targets of which a process failed

    def all(self) -> Outcome:
        self._prepare([row for row in self.plan.rows if row.launches and row.stem not in self.rows])
        self._statics(self.plan.rows_of(STATIC))
        for scenario in dict.fromkeys(row.scenario for row in self.plan.rows if row.launches):
            self._launches(self.plan.rows_of(scenario))
        self._accuracies(self.plan.rows_of(ACCURACY))
        return Outcome(tuple(self.rows[row.stem] for row in self.plan.rows if row.stem in self.rows), self.failures)

    def _prepare(self, rows: Sequence[PlanRow]) -> None:
        """Once for each bundle on each target, before anything is timed; all rows of one that fails are given up."""
        asked: dict[tuple[str, str], EdgelipError | None] = {}
        for row in rows:
            place = (row.variant, row.target.label)
            if place not in asked:
                self._guarded(row, self.parts.launcher.prepare)
                asked[place] = self.failures.get(row.label)
            elif (error := asked[place]) is not None:
                self.failures[row.label] = error

    def _statics(self, rows: Sequence[PlanRow]) -> None:
        for row in rows:
            if row.stem not in self.rows:
                self._guarded(row, self._static_row)
            self.planned.advance(row.estimate_s + (LAYERS_S if self.plan.suite.layers else 0), row.label)

    def _launches(self, rows: Sequence[PlanRow]) -> None:
        """Launches of one scenario, its rows in turn."""
        left = {row.stem: row.launches for row in rows}
        for row, number in interleaved(rows):
            if row.stem not in self.rows and row.label not in self.failures:
                self._guarded(row, partial(self._launch, number=number))
            left[row.stem] -= 1
            self.planned.advance(row.estimate_s / row.launches, f"{row.label} {number}/{row.launches}")
            if not left[rows[0].stem]:  # ratios are to it
                for complete in [each for each in rows if not left[each.stem]]:
                    if complete.stem not in self.rows and complete.label not in self.failures:
                        self._guarded(complete, partial(self._timed_row, first=rows[0]))

    def _accuracies(self, rows: Sequence[PlanRow]) -> None:
        """All at once: they are compared with the first. What did not run before is not asked again."""
        runs = [row for row in rows if (row.variant, row.target.label) not in self._broken]
        if any(row.stem not in self.rows for row in runs) and self.parts.accuracy is not None:
            try:
                if runs[0] is not rows[0]:
                    raise MeasurementError(f"drops are to {rows[0].variant}, which did not run")
                for found in self.parts.accuracy(runs, self.sitting.folder):
                    self._keep(found)
            except EdgelipError as error:
                self.sitting.require_room(0)
                self.failures[ACCURACY] = error
                self.progress.say(f"{ACCURACY}: {error}")
        if rows:
            self.planned.advance(sum(row.estimate_s for row in rows), ACCURACY)

    def _launch(self, row: PlanRow, *, number: int) -> None:
        if self.sitting.kept_run(row.stem, number, row.bundle_sha256) is None:
            self.sitting.require_room(row.launch_s)
            self.parts.launcher.launch(row, number, self.sitting.launch_path(row.stem, number))

    def _guarded(self, row: PlanRow, step: Callable[[PlanRow], None]) -> None:
        """Do a step of a row; if it fails the row is given up, unless the disk is full."""
        try:
            step(row)
        except EdgelipError as error:
            self.sitting.require_room(0)
            self.failures[row.label] = error
            if row.launches:
                self._broken.add((row.variant, row.target.label))
            self.progress.say(f"{row.label}: {error}")

    def _keep(self, row: ResultRow) -> None:
        write_row(self.sitting.folder, row)
        self.rows[row.stem] = row

    def _timed_row(self, row: PlanRow, *, first: PlanRow) -> None:
        runs = self.sitting.runs(row)
        whole = len(runs) - row.dropped_launches
        plain, dropped = runs[:whole], runs[whole:]
        badge = worst_badge(runs)
        base: Sequence[BenchRun] = ()
        if row.scenario == SINGLE_STREAM:
            base = plain if row is first else self.sitting.runs(first)
        found = measurements_of(plain, base=base, dropped=dropped, badge=badge)
        if row.scenario == SINGLE_STREAM and self.parts.video is not None:
            found.update(self._beside(VIDEO, self.parts.video, row) or {})
        environment = dict(runs[0].environment)
        energy = next((run.energy for run in runs if run.energy is not None), None)
        if energy is not None:
            environment["energy_boundary"] = energy["boundary"]
        details = {"launches": [_launch_details(run) for run in runs]}
        self._keep(self._row(row, badge, reasons_of(runs), len(runs), found, environment, details))

    def _beside(self, label: str, measure: Callable[[PlanRow], Extra], row: PlanRow) -> Extra | None:
        """What is measured beside a row, which stands without it too."""
        try:
            return None if label in self.failures else measure(row)
        except EdgelipError as error:
            self.failures[label] = error
            self.progress.say(f"{label}: {error}")
            return None

    def _static_row(self, row: PlanRow) -> None:
        bundle, target = Bundle.open(row.bundle), row.target
        fields = static_fields(bundle, _subject(row), graph=self.parts.static_graph)
        found = {
            name: Measurement(name, float(value), METRICS[name].unit, 1)
            for name, value in fields.items()
            if value is not None
        }
        usual = bundle.model_for(target.engine).precision == target.precision
        details: dict[str, Any] = {"method": method_of(bundle, None if usual else target.precision)}
        if self.plan.suite.layers and self.parts.layers is not None:
            details["layers"] = self._beside(f"layers of {row.variant}, {target.label}", self.parts.layers, row) or []
        self._keep(self._row(row, "VALID", (), 0, found, self.sitting.sitting.environment, details))

    def _row(
        self,
        row: PlanRow,
        badge: str,
        reasons: tuple[str, ...],
        num_launches: int,
        found: Mapping[str, Measurement],
        environment: Details,
        details: Details,
    ) -> ResultRow:
        return ResultRow(
            variant=row.variant,
            bundle_sha256=row.bundle_sha256,
            target=row.target,
            scenario=row.scenario,
            measured_at=now(),
            command=f"{self.command} --only {row.variant}",
            badge=badge,
            reasons=reasons,
            num_launches=num_launches,
            measurements=found,
            environment=environment,
            details=details,
        )


def _subject(row: PlanRow) -> Subject:
    target = row.target
    return Subject(row.bundle, target.engine, target.precision, target.threads, target.options)


def _launch_details(run: BenchRun) -> dict[str, Any]:
    """What the view of a row shows of one launch."""
    name = next((name for name in ("latency", "query", "last_frame_to_word") if run.samples_ns.get(name)), None)
    p50 = None if name is None else percentile(run.samples_ns[name], 50) / 1e6
    return {"badge": run.badge, "p50_ms": p50, "cold_start_ms": run.cold_start_ms.get("total")}
