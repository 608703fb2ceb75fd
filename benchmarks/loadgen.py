"""MLPerf-style cross-check: MLCommons LoadGen drives a bundle, and our runner measures the same in turns.

    python benchmarks/loadgen.py export/dist/dense --check                       # SingleStream, half a minute
    python benchmarks/loadgen.py export/dist/dense --scenario MultiStream --seconds 10 --rounds 6

Needs `pip install edgelip[loadgen]`; exit 4 without it. Two comparisons: our percentiles on LoadGen's own samples (from
its trace) against what it reports of them, and our runner in a fresh process against LoadGen, round by round.
--check: exit 3 unless the early-stopping estimates are the same to the nanosecond.
"MLPerf-style": its traffic, counts and estimates; no submission, no MLPerf result.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import Median, environment, interleave, markdown_table, median_interval, ratio
from result_files import exit_code_of, machine_lines, save

from edgelip.bench import isolate
from edgelip.bench.statistics import early_stopping_estimate, minimum_count
from edgelip.errors import GoalMissed, MeasurementError, UsageError
from edgelip.registry import require
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.effort import Effort
from edgelip.runtime.measurement import percentile
from edgelip.runtime.recogniser import Recogniser

SCENARIOS = {"SingleStream": 90.0, "MultiStream": 99.0, "Offline": 0.0}  # percentile of the estimate; 0: clips/s
_ESTIMATES = {
    "SingleStream": "early_stopping_latency_ss",
    "MultiStream": "early_stopping_latency_ms",
}  # keys of its log
CLIPS_PER_QUERY, BATCH = 8, 16
Run = Callable[[np.ndarray], object]  # clips (B, 1, T, H, W) to anything


@dataclass(frozen=True)
class LoadgenRun:
    """What LoadGen reports of one run, and the nanoseconds of each query in its trace.

    estimate_ns: early stopping, None where there were too few queries. clips_per_s: of Offline alone.
    """

    scenario: str
    valid: bool
    p90_ns: int
    estimate_ns: int | None
    clips_per_s: float | None
    query_ns: tuple[int, ...]


def run_loadgen(run: Run, clips_N1THW: np.ndarray, scenario: str, *, seconds: float, run_ms: float) -> LoadgenRun:
    """One LoadGen test in this process. run_ms: about how long one clip takes. Raises MissingError without LoadGen."""
    loadgen: Any = require("mlperf_loadgen", extra="loadgen")

    def issue(queries: Sequence[Any]) -> None:
        for start in range(0, len(queries), BATCH):
            part = queries[start : start + BATCH]
            run(clips_N1THW[[query.index for query in part]])  # together, as our runner does
            if scenario == "Offline":
                answer(part)
        if scenario != "Offline":
            answer(queries)

    def answer(queries: Sequence[Any]) -> None:
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0) for query in queries])

    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1000 * seconds)
    settings.min_query_count = 1 if scenario == "Offline" else minimum_count(SCENARIOS[scenario])
    settings.single_stream_expected_latency_ns = round(run_ms * 1e6)
    settings.multi_stream_expected_latency_ns = round(run_ms * 1e6 * CLIPS_PER_QUERY)
    settings.multi_stream_samples_per_query = CLIPS_PER_QUERY
    settings.offline_expected_qps = 2000 / run_ms  # more than it does: too few clips end before the least duration
    with tempfile.TemporaryDirectory(prefix="loadgen-") as folder:
        output = loadgen.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        log = loadgen.LogSettings()
        log.log_output, log.enable_trace = output, True
        system = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(len(clips_N1THW), len(clips_N1THW), lambda _: None, lambda _: None)
        try:
            loadgen.StartTestWithLogSettings(system, library, settings, log, str(Path(folder) / "none.config"))
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(system)
        detail = (Path(folder) / "mlperf_log_detail.txt").read_text()
        trace = (Path(folder) / "mlperf_log_trace.json").read_text()
    return loadgen_run(detail, trace, scenario)


def loadgen_run(detail: str, trace: str, scenario: str) -> LoadgenRun:
    """What its two logs say. Raises MeasurementError if they are those of an unfinished run."""
    found: dict[str, Any] = {}
    for line in detail.splitlines():
        if line.startswith(":::MLLOG "):
            entry = json.loads(line.removeprefix(":::MLLOG "))
            found[entry["key"]] = entry["value"]
    slowest: dict[int, int] = {}
    pattern = r'"query_seq":([0-9]+),"sample_idx":[0-9]+,"issue_start_ns":([0-9]+),"complete_ns":([0-9]+)'
    for query, begin, end in re.findall(pattern, trace):
        slowest[int(query)] = max(slowest.get(int(query), 0), int(end) - int(begin))
    if "result_validity" not in found or not slowest:
        raise MeasurementError("LoadGen's logs hold no result; its run did not end.")
    estimate = found.get(_ESTIMATES.get(scenario, ""))
    return LoadgenRun(
        scenario=scenario,
        valid=found["result_validity"] == "VALID",
        p90_ns=int(found["result_90.00_percentile_latency_ns"]),
        estimate_ns=int(estimate) if estimate else None,
        clips_per_s=float(found["result_samples_per_second"]) if "result_samples_per_second" in found else None,
        query_ns=tuple(slowest[query] for query in sorted(slowest)),
    )


def same_samples(run: LoadgenRun) -> tuple[float, float]:
    """LoadGen's early-stopping estimate and ours of the same queries, in ns. Raises MeasurementError without one."""
    if run.estimate_ns is None:
        count = len(run.query_ns)
        raise MeasurementError(f"LoadGen gives no early-stopping estimate of {count} queries. Measure longer.")
    return float(run.estimate_ns), early_stopping_estimate(run.query_ns, SCENARIOS[run.scenario])


def main(argv: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    require("mlperf_loadgen", extra="loadgen")
    if not (options.seconds > 0 and options.rounds >= 1 and options.threads >= 1):
        asked = f"seconds {options.seconds}, rounds {options.rounds}, threads {options.threads}"
        raise UsageError(f"{asked}; expected more than 0 of each.")
    scenario = options.scenario
    bundle = Bundle.open(options.bundle)
    clips_N1THW = network_input(bundle.expected().frames_NTHW, bundle.manifest.clip)
    subject = isolate.Subject(bundle.path, engine=options.engine, threads=options.threads)
    theirs: list[LoadgenRun] = []
    with Recogniser(bundle, engine=options.engine, threads=options.threads) as recogniser:
        settings = recogniser.settings
        run_ms = _run_ms(recogniser.engine.infer, clips_N1THW)

        def loadgen_value() -> float:
            theirs.append(
                run_loadgen(recogniser.engine.infer, clips_N1THW, scenario, seconds=options.seconds, run_ms=run_ms)
            )
            _say(f"LoadGen: {_figure(theirs[-1]):.4g}")
            return _figure(theirs[-1])

        def our_value() -> float:
            count = 1 if scenario == "Offline" else minimum_count(SCENARIOS[scenario])
            effort = Effort(seconds=options.seconds, min_count=count)
            run = isolate.bench_once(subject, effort=effort, scenario=scenario)
            value = _our_figure(run.samples_ns, run.summary, scenario)
            _say(f"edgelip: {value:.4g} ({run.badge})")
            return value

        values = interleave({"edgelip": our_value, "LoadGen": loadgen_value}, rounds=options.rounds)
    pairs = [] if scenario == "Offline" else [same_samples(run) for run in theirs]
    numbers = {
        "command": shlex.join(["python", "benchmarks/loadgen.py", *(argv if argv is not None else sys.argv[1:])]),
        "environment": environment({f"engine {name}": value for name, value in settings.items()}),
        "values": values,
        "estimates_ns": pairs,
        "loadgen": [{**asdict(run), "query_ns": len(run.query_ns)} for run in theirs],
    }
    sections = _sections(bundle.name, scenario, theirs, pairs, values, numbers)
    print("\n\n".join(sections))
    if options.out is not None:
        save(options.out, f"loadgen-{scenario.lower()}", numbers=numbers, sections=sections)
    differing = [pair for pair in pairs if pair[0] != pair[1]]
    if options.check and differing:
        theirs_ns, ours_ns = differing[0]
        raise GoalMissed(f"Of the same samples LoadGen estimates {theirs_ns:.0f} ns, edgelip {ours_ns:.0f}.")


def _figure(run: LoadgenRun) -> float:
    """p90 of a clip or p99 of a query in ms, as nearest rank of its samples; of Offline clips/s."""
    if run.clips_per_s is not None:
        return run.clips_per_s
    return percentile(run.query_ns, SCENARIOS[run.scenario]) / 1e6


def _our_figure(samples_ns: Mapping[str, Sequence[int]], summary: Mapping[str, Any], scenario: str) -> float:
    if scenario == "Offline":
        return float(summary["clips_per_s"])
    stream = samples_ns["latency" if scenario == "SingleStream" else "query"]
    return percentile(stream, SCENARIOS[scenario]) / 1e6


def _run_ms(run: Run, clips_N1THW: np.ndarray) -> float:
    """Milliseconds of one clip, after a few; LoadGen plans its queries by it."""
    samples_ms = []
    for index in range(30):
        begin = time.perf_counter()
        run(clips_N1THW[index % len(clips_N1THW) :][:1])
        samples_ms.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(samples_ms[10:]))


def _sections(
    name: str,
    scenario: str,
    theirs: Sequence[LoadgenRun],
    pairs: Sequence[tuple[float, float]],
    values: Mapping[str, Sequence[float]],
    numbers: Mapping[str, Any],
) -> list[str]:
    unit = "clips/s" if scenario == "Offline" else f"p{SCENARIOS[scenario]:g} ms"
    beside: Median = ratio(values["edgelip"], values["LoadGen"])
    rows = [
        ["LoadGen", median_interval(values["LoadGen"]).text(), f"{sum(run.valid for run in theirs)} of {len(theirs)}"],
        ["edgelip", median_interval(values["edgelip"]).text(), "-"],
        ["edgelip / LoadGen", beside.text(4), "-"],
    ]
    estimates = [
        [str(len(run.query_ns)), f"{ours:.0f}", f"{mine:.0f}", "same" if ours == mine else "DIFFERENT"]
        for run, (ours, mine) in zip(theirs, pairs, strict=False)
    ]
    head = ["queries", "LoadGen's early-stopping estimate, ns", "edgelip's of the same samples", ""]
    return [
        f"# {name}: MLPerf-style {scenario}, LoadGen and edgelip in turns",
        markdown_table(["", unit, "valid runs"], rows),
        *([markdown_table(head, estimates)] if estimates else []),
        machine_lines(numbers["environment"]),
        f"`{numbers['command']}`",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loadgen.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--scenario", choices=tuple(SCENARIOS), default="SingleStream")
    parser.add_argument("--engine", default="ort")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (default: 2)")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="exit 3 unless the estimates are the same")
    return parser


def _say(line: str) -> None:
    print(f"loadgen: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(exit_code_of(main, None, name="loadgen"))
