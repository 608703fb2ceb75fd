"""Each peer: how it is started, how its output is read, and what it says of its percentiles."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgelip.bench import isolate
from edgelip.errors import MeasurementError, MissingError
from edgelip.runtime.effort import Effort
from edgelip.runtime.measurement import percentile
from peers.environments import LOOPS, last_line, python_of, settings
from peers.subjects import Subject

ROOT = isolate.PACKAGE_ROOT
Say = Callable[[str], None]


@dataclass(frozen=True)
class Reading:
    """What one process says: its p50 by its own definition, or its mean where it has no other; and its version."""

    latency_ms: float
    num_samples: int
    version: str
    badge: str = ""
    first_ms: float | None = None
    wall_ms: float | None = None  # mean of the whole loop a run, where the clock stands inside the engine


@dataclass(frozen=True)
class Peer:
    """measure: one fresh process on a subject, so many seconds, one run lasting about `run_ms`.

    engine: whose file it runs and whose row of ours it is held against. percentiles: how it computes them.
    timed: what lies between its two looks at the clock. environment: name of its requirements, None for ours.
    """

    name: str
    engine: str
    environment: str | None
    percentiles: str
    timed: str
    measure: Callable[[Subject, float, float], Reading]


def _ours(engine: str) -> Callable[[Subject, float, float], Reading]:
    def measure(subject: Subject, seconds: float, run_ms: float) -> Reading:
        chosen = isolate.Subject(subject.bundle, engine=engine, threads=subject.threads)
        run = isolate.bench_once(chosen, effort=Effort(seconds=seconds))
        version = str(run.environment["engine_settings"][{"ort": "onnxruntime"}.get(engine, engine)])
        release = version.split("-")[0]  # OpenVINO names its commit too
        return Reading(percentile(run.latency_ns, 50) / 1e6, len(run.latency_ns), release, run.badge)

    return measure


def _plain_onnxruntime(subject: Subject, seconds: float, run_ms: float) -> Reading:
    arguments = [subject.model("ort")[0], subject.clips, seconds, subject.threads]
    return reading_of_samples(_loop("onnxruntime", "plain_onnxruntime.py", arguments, subject))


def _benchmark_app(subject: Subject, seconds: float, run_ms: float) -> Reading:
    model = subject.model("openvino")[0]
    command = [
        str(python_of("openvino").parent / "benchmark_app"), "-m", str(model), "-d", "CPU", "-hint", "none",
        "-nstreams", "1", "-nthreads", str(subject.threads), "-api", "sync", "-infer_precision", "f32",
        "-inference_only", "False", "-data_shape", json.dumps(list(subject.shape), separators=(",", ":")),
        "-i", ",".join(map(str, subject.clip_files)), "-t", str(max(1, round(seconds))),
    ]  # fmt: skip
    return reading_of_benchmark_app(_output(command, "benchmark_app", subject))


def _torch(kind: str) -> Callable[[Subject, float, float], Reading]:
    def measure(subject: Subject, seconds: float, run_ms: float) -> Reading:
        precision = subject.model("ort")[1]
        if precision != "fp32":
            raise MissingError(f"torch runs no {precision} file; its fake-quantised network is another computation.")
        if subject.checkpoint is None:
            raise MissingError("No checkpoint with these weights is at hand; name the folder of the export's cache.")
        arguments = [kind, subject.checkpoint, subject.clips, subject.logits, seconds, subject.threads]
        return reading_of_samples(_loop("torch", "torch_forward.py", arguments, subject, PYTHONPATH=str(ROOT)))

    return measure


def _olive(subject: Subject, seconds: float, run_ms: float) -> Reading:
    arguments = [subject.model("ort")[0], subject.clips, seconds, subject.threads, run_ms]
    return reading_of_olive(_loop("olive", "olive_evaluator.py", arguments, subject))


def _optimum(subject: Subject, seconds: float, run_ms: float) -> Reading:
    folder = subject.bundle.parent / f"{subject.name}-transformers"
    arguments = [subject.model("ort")[0], folder, seconds, subject.threads, *subject.shape[2:]]
    return reading_of_optimum(_loop("optimum-benchmark", "optimum_inference.py", arguments, subject))


def _onnxruntime_test(subject: Subject, seconds: float, run_ms: float) -> Reading:
    python = python_of("onnxruntime")
    runs = str(max(64, int(seconds * 1000 / run_ms)))
    output = _output([str(python.parent / "onnxruntime_test"), str(subject.model("ort")[0]), runs], "it", subject)
    version = _output([str(python), "-c", "import onnxruntime as o; print(o.__version__)"], "it", subject).strip()
    return reading_of_onnxruntime_test(output, version)


RANK = "nearest rank, all samples kept"
INTERPOLATED = "interpolated between samples (numpy.percentile), nothing clipped"
OURS = {"ort": "edgelip on ONNX Runtime", "openvino": "edgelip on OpenVINO"}
PEERS: tuple[Peer, ...] = (
    Peer(OURS["ort"], "ort", None, RANK, "clip in memory to logits", _ours("ort")),
    Peer("ONNX Runtime, plain loop", "ort", "onnxruntime", RANK, "InferenceSession.run", _plain_onnxruntime),
    Peer(
        "onnxruntime_test", "ort", "onnxruntime", "none: a mean over all runs, the first too",
        "InferenceSession.run on noise, threads of its own choice", _onnxruntime_test,
    ),
    Peer(OURS["openvino"], "openvino", None, RANK, "clip in memory to logits", _ours("openvino")),
    Peer(
        "OpenVINO benchmark_app", "openvino", "openvino", "nearest rank, one percentile a run, 0.01 ms",
        "the request inside the engine, without its binding", _benchmark_app,
    ),
    Peer("torch eager", "ort", "torch", RANK, "forward", _torch("eager")),
    Peer("torch.compile", "ort", "torch", RANK, "forward, compiled before", _torch("compile")),
    Peer("Olive evaluator", "ort", "olive", INTERPOLATED, "InferenceSession.run, one clip over and over", _olive),
    Peer("optimum-benchmark", "ort", "optimum-benchmark", INTERPOLATED, "forward of an ORTModel", _optimum),
)  # fmt: skip


def reading_of_samples(output: str) -> Reading:
    """Of a loop of ours in a peer's environment. Raises MeasurementError if it printed no samples."""
    fields = _json_line(output)
    samples_ns = fields.get("samples_ns")
    if not isinstance(samples_ns, list) or not samples_ns:
        raise MeasurementError("The loop gave no samples.")
    return Reading(
        percentile(samples_ns, 50) / 1e6, len(samples_ns), str(fields["version"]), first_ms=fields.get("first_ms")
    )


def reading_of_onnxruntime_test(output: str, version: str) -> Reading:
    """Raises MeasurementError if there is no mean."""
    mean, runs = re.search(r"avg latency: ([0-9.e+-]+) ms", output), re.search(r"iterations: ([0-9]+)", output)
    if mean is None or runs is None:
        raise MeasurementError(f"onnxruntime_test gave no mean: {last_line(output)}")
    return Reading(float(mean.group(1)), int(runs.group(1)), version)


def reading_of_olive(output: str) -> Reading:
    """Raises MeasurementError if there is no p50."""
    fields = _json_line(output)
    try:
        value = float(fields["result"]["latency-p50"]["value"])
    except (KeyError, TypeError) as error:
        raise MeasurementError(f"Olive gave no latency-p50, but {json.dumps(fields)[:120]}.") from error
    return Reading(value, int(fields["num_samples"]), str(fields["version"]))


def reading_of_optimum(output: str) -> Reading:
    """Raises MeasurementError if there is no latency of the forward pass."""
    fields = _json_line(output)
    try:
        latency = fields["report"]["forward"]["latency"]
        return Reading(float(latency["p50"]) * 1e3, len(latency["values"]), str(fields["version"]))
    except (KeyError, TypeError) as error:
        raise MeasurementError(f"optimum-benchmark gave no forward latency, but {json.dumps(fields)[:120]}.") from error


def reading_of_benchmark_app(output: str) -> Reading:
    """Its console output: the median in ms or in us, the count and the build. Raises MeasurementError without them."""
    median = re.search(r"Median:\s+([0-9.]+) (ms|us|µs|μs)", output)
    count = re.search(r"Count:\s+([0-9]+) iterations", output)
    duration = re.search(r"Duration:\s+([0-9.]+) ms", output)
    build = re.search(r"Build \.+ ([0-9.]+)", output)
    if median is None or count is None or build is None:
        raise MeasurementError(f"benchmark_app gave no median, count or build: {last_line(output)}")
    value = float(median.group(1)) / (1 if median.group(2) == "ms" else 1e3)
    wall_ms = float(duration.group(1)) / int(count.group(1)) if duration else None
    return Reading(value, int(count.group(1)), build.group(1), wall_ms=wall_ms)


def _json_line(output: str) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    try:
        fields = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise MeasurementError(f"The peer gave no result: {last_line(output)}") from error
    if not isinstance(fields, dict):
        raise MeasurementError(f"The peer gave a {type(fields).__name__}; expected a table.")
    return fields


def _loop(environment: str, script: str, arguments: Sequence[object], subject: Subject, **more: str) -> str:
    command = [str(python_of(environment)), str(LOOPS / script), *map(str, arguments)]
    return _output(command, environment, subject, **more)


def _output(command: Sequence[str], what: str, subject: Subject, *, limit_s: float = 600.0, **more: str) -> str:
    """stdout of a peer's process. Raises MeasurementError with its last line if it fails or takes too long."""
    try:
        done = subprocess.run(
            command, cwd=subject.bundle.parent, env=settings(subject.threads, **more), capture_output=True, text=True,
            errors="replace", check=False, timeout=limit_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"{what} did not end within {limit_s:.0f} s.") from error
    if done.returncode:
        raise MeasurementError(f"{what} fails: {last_line(done.stderr or done.stdout)}")
    return done.stdout
