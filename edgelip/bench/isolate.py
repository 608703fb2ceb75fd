"""Run the device side in fresh processes, one at a time, the parent asleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import edgelip.runtime
from edgelip.files import writing
from edgelip.runtime.effort import Effort
from edgelip.runtime.errors import (
    DeviceError,
    EdgelipError,
    GoalMissed,
    MeasurementError,
    MissingError,
    UsageError,
)
from edgelip.runtime.measurement import SINGLE_STREAM, BenchRun

PACKAGE_ROOT = Path(edgelip.runtime.__file__).resolve().parents[2]
_ERRORS = {kind.exit_code: kind for kind in (UsageError, GoalMissed, MissingError, DeviceError, MeasurementError)}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Subject:
    """One model of one bundle on one engine; precision None is the bundle's first for that engine."""

    bundle: Path
    engine: str = "ort"
    precision: str | None = None
    threads: int = 1
    options: Mapping[str, str] = field(default_factory=dict)  # of the engine, such as {"hint": "throughput"}

    def arguments(self) -> list[str]:
        chosen = ["--precision", self.precision] if self.precision else []
        for name, value in sorted(self.options.items()):
            chosen += ["--option", f"{name}={value}"]
        return [str(self.bundle.resolve()), "--engine", self.engine, "--threads", str(self.threads), *chosen]


def bench_launches(
    subjects: Sequence[Subject],
    *,
    launches: int = 5,
    seconds: float = 3.0,
    say: Callable[[str], None] = lambda line: None,
) -> list[list[BenchRun]]:
    """`launches` SingleStream runs of each subject, every run in its own process; result[i] belongs to subjects[i].

    Each launch visits all subjects, beginning with another one, so that a slow minute of the machine falls on all.
    Raises what the failing run raised, with its message.
    """
    if launches < 1 or not subjects:
        raise UsageError(f"launches is {launches} for {len(subjects)} bundles; expected at least one of each.")
    runs: list[list[BenchRun]] = [[] for _ in subjects]
    for launch in range(launches):
        for step in range(len(subjects)):
            index = (launch + step) % len(subjects)
            say(f"launch {launch + 1}/{launches}: {subjects[index].bundle.name}")
            runs[index].append(bench_once(subjects[index], effort=Effort(seconds=seconds)))
    return runs


def bench_once(
    subject: Subject,
    *,
    effort: Effort | None = None,
    scenario: str = SINGLE_STREAM,
    drop_page_cache: bool = False,
    samples_into: Path | None = None,
) -> BenchRun:
    """One run in a fresh process. Raises what it raised, with its message.

    samples_into: a JSON file to leave the run in, its raw samples in a .npz beside it; BenchRun.read reads it.
    """
    with tempfile.TemporaryDirectory(prefix="edgelip-bench-") as folder:
        if samples_into is not None:
            with writing(samples_into):
                samples_into.parent.mkdir(parents=True, exist_ok=True)
        result = Path(folder) / "run.json" if samples_into is None else samples_into.resolve()
        arguments = ["bench", *subject.arguments(), *(effort or Effort()).options(scenario)]
        arguments += ["--drop-page-cache"] if drop_page_cache else []
        started = ["--started-ns", str(time.clock_gettime_ns(time.CLOCK_MONOTONIC))]
        run_runtime([*arguments, "--json", "-o", str(result), *started], threads=subject.threads)
        return BenchRun.read(result)


def deployed_logits(subject: Subject, clips: Path) -> np.ndarray:
    """Scores float32 (N, V) of every clip in `clips`, through the deployed runtime in a fresh process."""
    return deployed_run(subject, clips)[0]


def deployed_run(subject: Subject, clips: Path) -> tuple[np.ndarray, dict[str, str]]:
    """The same, and the settings of the engine that computed them."""
    with tempfile.TemporaryDirectory(prefix="edgelip-bench-") as folder:
        result = Path(folder) / "logits.npy"
        bundle, *options = subject.arguments()
        arguments = ["predict", bundle, str(clips.resolve()), *options, "--logits", str(result), "--json"]
        summary = json.loads(run_runtime(arguments, threads=subject.threads))
        logits_NV: np.ndarray = np.load(result, allow_pickle=False)
        return logits_NV, summary["settings"]


def run_runtime(arguments: Sequence[str], *, threads: int = 1, environment: Mapping[str, str] | None = None) -> str:
    """stdout of `python -m edgelip.runtime ARGUMENTS` in a fresh process; the caller sleeps meanwhile.

    Raises the error that belongs to its exit code, with the last line that it wrote to stderr.
    """
    settings = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(environment or {})}
    done = subprocess.run(
        [sys.executable, "-m", "edgelip.runtime", *arguments],
        cwd=PACKAGE_ROOT,  # where `edgelip` is found, and no stray module of the user's folder
        env=settings,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    raise error_of_exit(done.returncode, done.stderr, what=f"`edgelip.runtime {arguments[0]}`")


def error_of_exit(returncode: int, stderr: str, *, what: str) -> EdgelipError:
    """The error that belongs to the exit code of `what`, a process, with the last line that it wrote to stderr."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    message = (lines[-1] if lines else "").removeprefix("edgelip: ")
    if returncode < 0:
        signal = f"{-returncode}{' (out of memory?)' if returncode == -9 else ''}"
        return MeasurementError(f"the process of {what} was ended by signal {signal}. {message}".rstrip())
    return _ERRORS.get(returncode, EdgelipError)(message or f"{what} failed silently.")
