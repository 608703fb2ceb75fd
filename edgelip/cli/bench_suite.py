"""`edgelip bench SUITE.toml`: everything that a suite names, measured in one sitting whose rows are files."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from edgelip.bench.ceiling import Ceiling
from edgelip.bench.figures import measurements_of_video
from edgelip.bench.plan import Plan, PlanRow, find_bundles, plan_of
from edgelip.bench.pytest_json import FILE, pytest_benchmark_json
from edgelip.bench.run import Outcome, Parts, run_plan
from edgelip.bench.sitting import OpenSitting, open_sitting, unfinished_sitting
from edgelip.bench.suite_file import TIERS, SuiteFile, Tier, load_suite_file
from edgelip.cli.bench_place import place_of
from edgelip.cli.result_folders import RUNS
from edgelip.cli.tables import aligned
from edgelip.errors import EdgelipError, MeasurementError, UsageError
from edgelip.files import write_atomic
from edgelip.progress import Progress
from edgelip.registry import nearest
from edgelip.report.from_results import ledger_from_rows
from edgelip.report.results import ResultRow, Sitting
from edgelip.report.tradeoff import terminal_text
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.measurement import Measurement


@dataclass(frozen=True)
class SuiteOptions:
    """What the command line says beside the suite. device: in place of its own; host, ssh_config: how to reach it."""

    tier: str = "quick"
    device: str | None = None
    host: str | None = None
    ssh_config: Path | None = None
    only: tuple[str, ...] = ()
    out: Path = RUNS
    resume: bool = False
    strict: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Done:
    """What is to be printed, and the error that the command ends with, if something was not measured."""

    text: str
    error: EdgelipError | None = None


def bench_suite(path: Path, options: SuiteOptions, *, as_json: bool) -> Done:
    """Measure a suite; a row that fails is told and the rest goes on.

    Raises RecipeError, UsageError or BundleError before anything is measured, MissingError where nothing can be
    written.
    """
    if options.tier not in TIERS:
        raise UsageError(f"There is no tier {options.tier!r}. {nearest(options.tier, TIERS)}")
    suite, progress = load_suite_file(path), Progress()
    place = place_of(suite, options.device, host=options.host, ssh_config=options.ssh_config)
    bundles = find_bundles(suite, only=options.only)
    plan = plan_of(suite, bundles, tier=cast(Tier, options.tier), device=place.device, engine=place.engine)
    for row in plan.rows:
        place.refuse(row)
    _refuse_unusable(suite, bundles, plan)
    if options.dry_run:
        return Done(json.dumps(plan.to_json(), indent=1, default=str) if as_json else _plan_text(plan))
    command = _command(path, options)
    for reason in plan.left_out:
        progress.say(f"left out: {reason}")
    progress.say(f"{suite.name}, {plan.tier}: {len(plan.rows)} rows, about {_duration(plan.estimate_s)}")
    unfinished = _unfinished(options, plan, progress)
    with (
        place.opened(plan, options.out, progress) as (launcher, environment),
        open_sitting(options.out, plan, unfinished=unfinished, command=command, environment=environment) as sitting,
    ):
        parts = Parts(
            launcher=launcher,
            layers=partial(_layers, ceiling_of=cache(_ceiling), say=progress.say) if place.is_local else None,
            accuracy=partial(_accuracy, suite=suite, command=command, progress=progress),
            video=_videos(suite) if suite.end_to_end is not None and place.is_local else None,
            static_graph=place.is_local,
        )
        try:
            outcome = run_plan(plan, sitting, parts, command=command, progress=progress)
        except BaseException:
            progress.say(f"{sitting.folder} is unfinished; the same command with --resume goes on with it")
            raise
        done = sitting.finish(tuple(f"not measured: {label}: {error}" for label, error in outcome.failures.items()))
        _write_pytest_json(sitting, done, plan, outcome)
    text = _json(sitting.folder, done, outcome) if as_json else _text(sitting.folder, done, outcome)
    return Done(text, _error(outcome, sitting.folder, strict=options.strict))


def _refuse_unusable(suite: SuiteFile, bundles: Sequence[Bundle], plan: Plan) -> None:
    """What can be known to be missing before anything runs."""
    if suite.end_to_end is not None and not suite.end_to_end.video.is_file():
        raise UsageError(f"The suite {suite.name} names the video {suite.end_to_end.video}, which is not there.")
    if suite.accuracy is None:
        return
    from edgelip.cli.pairing import find_clips
    from edgelip.data.disturbances import require_conditions

    require_conditions(suite.accuracy.robustness, bundles[0].manifest.clip)
    clips = suite.accuracy.clips or find_clips(*bundles)
    if not clips.is_file():
        raise UsageError(f"The suite {suite.name} names the clips {clips}, which are not there. Run: make export")


def _unfinished(options: SuiteOptions, plan: Plan, progress: Progress) -> Path | None:
    """The sitting to go on with; tells of one that is left lying."""
    found = unfinished_sitting(options.out, plan)
    if options.resume:
        progress.say(f"going on with {found}" if found else "nothing of this plan is unfinished; a new sitting begins")
        return found
    if found:
        progress.say(f"{found} is unfinished; --resume would go on with it. A new sitting begins")
    return None


def _layers(
    row: PlanRow, *, ceiling_of: Callable[[int], Ceiling], say: Callable[[str], None]
) -> Sequence[Mapping[str, Any]]:
    from edgelip.cli.bench_layers import TIMELINES, layer_profile

    target = row.target
    if target.engine not in TIMELINES:
        return []
    try:
        profile = layer_profile(
            row.bundle,
            engine=target.engine,
            precision=target.precision,
            threads=target.threads,
            ceiling=ceiling_of(target.threads),
        )
    except MeasurementError as error:
        say(f"layers of {row.label}: {error}")
        return []
    return profile.rows()


def _ceiling(threads: int) -> Ceiling:
    from edgelip.bench.ceiling import measured_ceiling

    return measured_ceiling(threads)


def _accuracy(
    rows: Sequence[PlanRow], folder: Path, *, suite: SuiteFile, command: str, progress: Progress
) -> Sequence[ResultRow]:
    from edgelip.cli.bench_accuracy import accuracy_rows

    assert suite.accuracy is not None
    return accuracy_rows(
        [row.bundle for row in rows],
        [row.target for row in rows],
        clips=suite.accuracy.clips,
        robustness=suite.accuracy.robustness,
        robustness_clips=suite.accuracy.robustness_clips,
        threads=os.cpu_count() or 1,
        scratch=folder / "accuracy",
        command=command,
        say=progress.say,
    )


def _videos(suite: SuiteFile) -> Callable[[PlanRow], Mapping[str, Measurement]]:
    """Figures of the suite's video, measured once for each kind of clip."""
    from edgelip.cli.bench_video import video_split

    assert suite.end_to_end is not None
    video, repeats = suite.end_to_end.video, suite.end_to_end.repeats
    measured: dict[str, Mapping[str, Measurement]] = {}

    def figures(row: PlanRow) -> Mapping[str, Measurement]:
        spec = Bundle.open(row.bundle).manifest.clip
        kind = json.dumps(spec.to_json())
        if kind not in measured:
            measured[kind] = measurements_of_video(video_split(video, spec, repeats=repeats))
        return measured[kind]

    return figures


def _write_pytest_json(sitting: OpenSitting, done: Sitting, plan: Plan, outcome: Outcome) -> None:
    planned = {row.stem: row for row in plan.rows if row.launches}
    pairs = ((row, sitting.runs(planned[row.stem])) for row in outcome.rows if row.stem in planned)
    write_atomic(sitting.folder / FILE, json.dumps(pytest_benchmark_json(done, pairs), indent=1) + "\n")


def _error(outcome: Outcome, folder: Path, *, strict: bool) -> EdgelipError | None:
    if outcome.failures:
        label, first = next(iter(outcome.failures.items()))
        count = len(outcome.failures)
        what = "1 row was" if count == 1 else f"{count} rows were"
        return type(first)(f"{what} not measured; {label}: {str(first).rstrip('.')}. See the notes of {folder}.")
    invalid = [row for row in outcome.rows if row.badge != "VALID"]
    if strict and invalid:
        row = invalid[0]
        return MeasurementError(
            f"{len(invalid)} of {len(outcome.rows)} rows are not VALID; {row.variant}, {row.target.label}, "
            f"{row.scenario} is {row.badge}: {'; '.join(row.reasons)}."
        )
    return None


def _text(folder: Path, sitting: Sitting, outcome: Outcome) -> str:
    notes = [note for note in sitting.notes if note.startswith("not measured: ")]
    table = terminal_text(ledger_from_rows(sitting, outcome.rows)) if outcome.rows else "nothing was measured"
    return "\n".join([table, *notes, str(folder)])


def _json(folder: Path, sitting: Sitting, outcome: Outcome) -> str:
    rows = [row.to_json() for row in outcome.rows]
    return json.dumps({"folder": str(folder), "sitting": sitting.to_json(), "rows": rows}, indent=1)


def _plan_text(plan: Plan) -> str:
    rows = [("variant", "target", "scenario", "launches", "about")]
    for row in plan.rows:
        launches = str(row.launches or "")
        rows.append((row.variant, row.target.label, row.scenario, launches, _duration(row.estimate_s)))
    left_out = [f"left out: {reason}" for reason in plan.left_out]
    return "\n".join([*aligned(rows), *left_out, f"{len(plan.rows)} rows, about {_duration(plan.estimate_s)}"])


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _command(path: Path, options: SuiteOptions) -> str:
    """Repeats the sitting."""
    words = ["edgelip", "bench", str(path), "--tier", options.tier]
    for name in ("device", "host", "ssh_config"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    for name in options.only:
        words += ["--only", name]
    return shlex.join(words)
