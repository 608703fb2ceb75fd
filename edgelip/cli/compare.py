"""`edgelip compare A B`: is B faster, slower, less accurate than A, and how sure is that?"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.compare import PERCENTS, Comparison, Effort, Side, compare_sides, samples_of
from edgelip.bench.effects import Effect
from edgelip.bench.isolate import Subject
from edgelip.bench.statistics import launch_percentile
from edgelip.cli.compare_accuracy import accuracy_part, over_budget
from edgelip.cli.result_folders import RUNS
from edgelip.cli.tables import aligned
from edgelip.errors import GoalMissed, MeasurementError, UsageError
from edgelip.files import replace_folder
from edgelip.progress import Progress
from edgelip.report.results import SITTING
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines.engine import engine_class
from edgelip.runtime.measurement import MINIMUM_COUNT
from edgelip.runtime.sensors import process as sensors
from edgelip.runtime.validity import not_valid

RESULT, SAMPLES = "compare.json", "samples.npz"
COLUMNS = ("bundle", "p50 ms", "p50 to A", "p90 ms", "p90 to A", "p", "p50 is")


@dataclass(frozen=True)
class CompareOptions:
    """least_pct: smaller effects are no news. budget_points: of accuracy; None gates nothing."""

    engine: str = "ort"
    precision: str | None = None
    threads: int = 1
    effort: Effort = field(default_factory=Effort)
    least_pct: float = 2.0
    clips: Path | None = None
    accuracy: bool = True
    budget_points: float | None = None
    out: Path | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.least_pct <= 100:
            raise UsageError(f"least is {self.least_pct:g} %; expected 0 to 100.")
        if self.budget_points is not None and not 0 < self.budget_points <= 100:
            raise UsageError(f"budget is {self.budget_points:g} points; expected more than 0, at most 100.")
        if not self.accuracy and (self.clips or self.budget_points is not None):
            raise UsageError("--no-accuracy measures no accuracy; leave --clips and --budget out.")


@dataclass(frozen=True)
class Outcome:
    """What to print, and the error to end with afterwards: a budget missed, or evidence that is not valid."""

    text: str
    error: GoalMissed | MeasurementError | None = None


def compare_bundles(paths: Sequence[Path], options: CompareOptions, *, as_json: bool) -> Outcome:
    """Time every bundle against the first, compare accuracies, and keep all samples in a folder."""
    bundles = open_bundles(paths, options)
    subjects = [subject_of(path, options) for path in paths]
    out = options.out or default_folder("compare", *(bundle.name for bundle in bundles))
    progress = Progress()
    with replace_folder(out, only_if_holds=RESULT) as work:
        result: dict[str, Any] = {
            **header(options, command=repeating_command(paths, options)),
            "least_pct": options.least_pct,
            "bundles": [{"name": bundle.name, "bundle_sha256": bundle.sha256} for bundle in bundles],
            "control": len({bundle.sha256 for bundle in bundles}) == 1,
        }
        if options.accuracy:
            required = options.budget_points is not None or options.clips is not None
            result["accuracy"] = accuracy_part(bundles, subjects, options.clips, required=required, say=progress.say)
        sides = [Side(bundle.name, subject) for bundle, subject in zip(bundles, subjects, strict=True)]
        comparisons = compare_sides(sides[0], sides[1:], options.effort, say=progress.say)
        result["comparisons"] = [_described(each, options.least_pct) for each in comparisons]
        result["invalid"] = sorted({reason for each in comparisons for reason in each.invalid})
        result["load_average_after"] = sensors.load_average()
        write_result(work, result, comparisons)
    text = json.dumps(result, indent=1) if as_json else "\n".join([*_lines(result, comparisons), "", str(out)])
    return Outcome(text, _error(result, options))


def open_bundles(paths: Sequence[Path], options: CompareOptions) -> list[Bundle]:
    """All whole, and with a model for the engine, before the first is measured."""
    engine_class(options.engine)  # a missing package is said before anything large is read
    for path in paths:
        if (path / SITTING).exists() or (path / RESULT).exists() or path.suffix == ".json":
            raise UsageError(
                f"{path} holds results, not a bundle: figures of two sittings or devices are not compared. "
                "Give bundles, to be timed side by side here."
            )
    bundles = [Bundle.open(path) for path in paths]
    for bundle in bundles:
        bundle.model_for(options.engine, options.precision)
    return bundles


def default_folder(*words: str) -> Path:
    """A new folder beside the sittings."""
    moment = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    return RUNS / re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join([moment, *words]))[:120]


def write_result(folder: Path, result: Mapping[str, Any], comparisons: Sequence[Comparison]) -> None:
    """compare.json, and all samples beside it."""
    np.savez_compressed(folder / SAMPLES, **samples_of(comparisons))  # type: ignore[arg-type]
    (folder / RESULT).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


def subject_of(path: Path, options: CompareOptions) -> Subject:
    """The bundle as these options run it."""
    return Subject(path, engine=options.engine, precision=options.precision, threads=options.threads)


def header(options: CompareOptions, *, command: str) -> dict[str, Any]:
    """How and where it was measured."""
    effort = options.effort
    return {
        "schema_version": 1,
        "command": command,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "engine": options.engine,
        "threads": options.threads,
        "pairs": effort.pairs,
        "blocks": effort.blocks,
        "window_ms": effort.window_ms,
        "seed": effort.seed,
        "pinned": effort.pin,
        "environment": dict(sensors.environment()),
        "load_average_before": sensors.load_average(),
        "clock_mhz": sensors.clock_mhz(),
    }


def repeating_command(paths: Sequence[Path], options: CompareOptions) -> str:
    """What repeats the measurement."""
    effort = options.effort
    words = ["edgelip", "compare", *map(str, paths), "--engine", options.engine, "--threads", str(options.threads)]
    words += ["--precision", options.precision] if options.precision else []
    words += ["--pairs", str(effort.pairs), "--blocks", str(effort.blocks), "--window-ms", f"{effort.window_ms:g}"]
    words += ["--least", f"{options.least_pct:g}", "--seed", str(effort.seed)]
    words += ["--clips", str(options.clips)] if options.clips else []
    words += [] if options.accuracy else ["--no-accuracy"]
    words += [] if options.budget_points is None else ["--budget", f"{options.budget_points:g}"]
    return shlex.join(words)


def _described(comparison: Comparison, least_pct: float) -> dict[str, Any]:
    verdicts = {f"p{percent}": effect.verdict(least_pct) for percent, effect in comparison.effects.items()}
    return {**comparison.to_json(), "verdict": verdicts}


def _error(result: Mapping[str, Any], options: CompareOptions) -> GoalMissed | MeasurementError | None:
    note = not_valid(result["invalid"])
    if options.strict and note is not None:
        return MeasurementError(note)
    if options.budget_points is not None:
        lines = over_budget(result["accuracy"], options.budget_points)
        if lines:
            return GoalMissed(f"{'; '.join(lines)}. Test on more clips, or allow more.")
    return None


def _lines(result: Mapping[str, Any], comparisons: Sequence[Comparison]) -> list[str]:
    base, least_pct = comparisons[0].base, float(result["least_pct"])
    names = " against ".join([", ".join(each.other for each in comparisons), base])
    lines = [
        f"{names}: {result['engine']}, {result['threads']} threads, batch 1, {result['pairs']} pairs of launches, "
        f"{result['blocks']} blocks ABBA or BAAB of {result['window_ms']:g} ms windows"
    ]
    if result["control"]:
        lines.append("A/A control: the bundles are the same, so every verdict but 'no evidence' is a false alarm.")
    lines += ["", *aligned([COLUMNS, _base_cells(comparisons[0]), *(_cells(each, least_pct) for each in comparisons)])]
    for each in comparisons:
        lines += ["", *_verdict_lines(each, least_pct)]
    lines += _accuracy_lines(result.get("accuracy"))
    note = not_valid(result["invalid"])
    lines += [] if note is None else ["", note]
    several = len(comparisons) > 1
    notes = [f"{each.other}: {note}" if several else note for each in comparisons for note in each.notes]
    return lines + ([""] if notes else []) + [f"Note: {note}." for note in notes]


def _base_cells(comparison: Comparison) -> tuple[str, ...]:
    p50, p90 = (_milliseconds(comparison, "A", percent) for percent in PERCENTS)
    return (f"{comparison.base} (A)", p50, "1", p90, "1", "", "")


def _cells(comparison: Comparison, least_pct: float) -> tuple[str, ...]:
    p50, p90 = (_milliseconds(comparison, "B", percent) for percent in PERCENTS)
    effects = [comparison.effects.get(percent) for percent in PERCENTS]
    main = effects[0]
    sure = "-" if main is None else f"{main.p_family:.2g}"
    verdict = "-" if main is None else main.verdict(least_pct)
    return (comparison.other, p50, _ratio(effects[0]), p90, _ratio(effects[1]), sure, verdict)


def _milliseconds(comparison: Comparison, letter: str, percent: int) -> str:
    launches = [
        np.concatenate([block.side(letter) for block in pair.blocks]).astype(float) / 1e6 for pair in comparison.pairs
    ]
    if min(map(len, launches)) < MINIMUM_COUNT[percent]:
        return "-"
    found = launch_percentile(launches, percent)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _ratio(effect: Effect | None) -> str:
    return "-" if effect is None else f"{effect.ratio:.4f} [{effect.low:.4f}, {effect.high:.4f}]"


def _verdict_lines(comparison: Comparison, least_pct: float) -> list[str]:
    lines = []
    for percent in PERCENTS:
        effect = comparison.effects.get(percent)
        head = f"p{percent} of {comparison.other}"
        if effect is None:
            lines.append(f"{head}: too few samples; measure with longer windows or more blocks.")
            continue
        verdict = effect.verdict(least_pct)
        said = (
            f"no evidence of {least_pct:g} % or more"
            if verdict == "no evidence"
            else f"{verdict} than {comparison.base}"
        )
        small = "; it differs, by less" if verdict == "no evidence" and effect.excludes_one else ""
        lines.append(
            f"{head}: {said}{small}. The data exclude {effect.excluded()} (95 %, {effect.num_pairs} pairs, "
            f"{effect.between_launches_pct:.2f} % sd between launches)."
        )
    return lines


def _accuracy_lines(part: Mapping[str, Any] | None) -> list[str]:
    if part is None:
        return []
    if "not_compared" in part:
        return ["", f"Accuracy was not compared: {part['not_compared']}"]
    by = "clips" if part["num_speakers"] is None else f"{part['num_speakers']} speakers"
    rows = [("bundle", "top-1 %", "drop in points", "lost", "gained", "p (McNemar)")]
    for row in part["rows"]:
        cells = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in (row["top1_pct"], row["drop_points"])]
        rows.append((row["name"], *cells, str(row["lost"]), str(row["gained"]), f"{row['p']:.2g}"))
    head = f"Accuracy of the deployed files on {part['num_clips']:,} clips, the same for all; drops resampled by {by}:"
    return ["", head, *aligned(rows)]
