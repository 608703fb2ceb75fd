"""Measure bundles side by side: one row each of what a step cost and gained, with intervals against the first.

Axes: N clips, V words.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench import statistics
from edgelip.bench.graph import input_name, int8_coverage, optimised_weights_bytes
from edgelip.bench.isolate import Subject, bench_launches, deployed_logits
from edgelip.runtime.arrays import open_array
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.errors import ClipError, MeasurementError
from edgelip.runtime.measurement import BADGES, BenchRun

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class TestClips:
    """Labels of a clips file, and of speakers if it has them; the frames, of `dtype`, stay in the file."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    path: Path
    labels_N: np.ndarray
    speakers_N: np.ndarray | None
    sha256: str
    dtype: str = "uint8"

    @classmethod
    def open(cls, path: Path) -> TestClips:
        """Read an .npz with `frames`, `labels` whole numbers (N,) and optional `speakers` (N,).

        frames: uint8 (N, T, H, W), or landmarks, float32 (N, T, P, A).
        Raises ClipError if it is something else.
        """
        try:
            with open_array(path, ["frames"]) as stream:
                num_clips, dtype = stream.shape[0] if len(stream.shape) == 4 else 0, str(stream.dtype)
                if stream.dtype not in (np.uint8, np.float32) or not num_clips:
                    raise ValueError(
                        f"frames are {stream.dtype} {stream.shape}; expected uint8 (N > 0, T, H, W) or float32 "
                        "landmarks (N > 0, T, P, A)"
                    )
            labels_N = _read_column(path, "labels", num_clips)
            if labels_N.dtype.kind not in "iu":
                raise ValueError(f"labels are {labels_N.dtype}; expected whole numbers")
            with np.load(path, allow_pickle=False) as archive:
                has_speakers = "speakers" in archive.files
            speakers_N = _read_column(path, "speakers", num_clips) if has_speakers else None
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (ValueError, OSError) as error:
            raise ClipError(f"{path}: {error}. Write the test clips again.") from error
        return cls(path, labels_N, speakers_N, digest, dtype)


@dataclass(frozen=True)
class Result:
    """One file of a bundle: `row` for the report, the raw `runs` of each launch, each clip's logits and correctness."""

    bundle: Path
    row: Row
    runs: tuple[BenchRun, ...]
    logits_NV: np.ndarray
    top1_N: np.ndarray

    def to_json(self) -> dict[str, Any]:
        runs = [run.to_json() for run in self.runs]
        return {"row": self.row, "runs": runs, "top1": self.top1_N.astype(int).tolist()}


def measure_bundles(
    bundles: Sequence[Path],
    clips: Path,
    *,
    engine: str = "ort",
    launches: int = 5,
    seconds: float = 3.0,
    threads: int = 1,
    accuracy_threads: int | None = None,
    baseline: str = "fp16",
    say: Say = lambda line: None,
) -> list[Result]:
    """Accuracy, size, memory and latency of each bundle; differences and ratios are to the first.

    baseline: precision in which the first bundle has a second row, where it has such a file for this engine: an fp32
    file alone flatters whatever is compared with it.
    Accuracy runs on `accuracy_threads` threads (all processors by default), everything else on `threads`.
    Cost: a pass over the clips and `launches` x (`seconds` + warm-up) a bundle, one process at a time.
    Raises what opening or running a bundle raises, ClipError for the clips.
    """
    opened = [Bundle.open(path) for path in bundles]
    test = TestClips.open(Path(clips))
    for bundle in opened:
        if test.dtype != bundle.manifest.clip.stored_dtype:
            wanted = bundle.manifest.clip.stored_dtype
            raise ClipError(
                f"{clips}: frames are {test.dtype}; {bundle.name} takes {wanted}. Write the test clips again."
            )
        if test.labels_N.min() < 0 or test.labels_N.max() >= len(bundle.manifest.vocabulary):
            num_words = len(bundle.manifest.vocabulary)
            raise ClipError(f"{clips}: labels reach {test.labels_N.max()}; {bundle.name} has {num_words} words.")
    subjects = [Subject(bundle.path, engine=engine, threads=threads) for bundle in opened]
    if opened and baseline in opened[0].precisions_for(engine)[1:]:
        opened.insert(1, opened[0])
        subjects.insert(1, replace(subjects[0], precision=baseline))
    accuracies: list[tuple[np.ndarray, np.ndarray]] = []
    logits: list[np.ndarray] = []
    for bundle, subject in zip(opened, subjects, strict=True):
        say(f"accuracy of {_name(bundle, subject)} on {len(test.labels_N)} clips")
        logits_NV = deployed_logits(replace(subject, threads=accuracy_threads or os.cpu_count() or 1), test.path)
        if len(logits_NV) != len(test.labels_N):
            raise MeasurementError(f"{bundle.name} gave {len(logits_NV)} results for {len(test.labels_N)} clips.")
        logits.append(logits_NV)
        top1_N = statistics.accuracy(logits_NV, test.labels_N)
        accuracies.append((top1_N, statistics.accuracy(logits_NV, test.labels_N, top=5)))
    graphs = [_graph_fields(bundle, subject, say) for bundle, subject in zip(opened, subjects, strict=True)]
    runs = bench_launches(subjects, launches=launches, seconds=seconds, say=say)

    results = []
    for bundle, subject, logits_NV, (top1_N, top5_N), graph, launched in zip(
        opened, subjects, logits, accuracies, graphs, runs, strict=True
    ):
        model = bundle.model_for(engine, subject.precision)
        row: Row = {
            "variant": _name(bundle, subject),
            "method": _method(bundle, subject),
            "parameters": bundle.manifest.ledger.get("parameters"),
            "macs": bundle.manifest.ledger.get("macs"),
            "file_bytes": model.path.stat().st_size,
            "bundle_bytes": sum(entry.num_bytes for entry in bundle.manifest.files),
            **graph,
            **process_fields(launched),
            **latency_fields(launched, runs[0]),
            **_accuracy_fields(top1_N, top5_N),
            **_paired_fields(top1_N, accuracies[0][0], test.speakers_N),
            "num_clips": len(test.labels_N),
            "num_launches": launches,
            "engine": engine,
            "precision": model.precision,
            "threads": threads,
            "badge": worst_badge(launched),
            "bundle_sha256": bundle.sha256,
            "clips_sha256": test.sha256,
        }
        results.append(Result(bundle.path, row, tuple(launched), logits_NV, top1_N))
    return results


def _read_column(path: Path, name: str, num_clips: int) -> np.ndarray:
    with open_array(path, [name]) as stream:
        if stream.shape != (num_clips,):
            raise ValueError(f"{name} have shape {stream.shape}; expected ({num_clips},)")
        return stream.read(limit_bytes=1 << 30)


def _name(bundle: Bundle, subject: Subject) -> str:
    return bundle.name if subject.precision is None else f"{bundle.name}-{subject.precision}"


def _method(bundle: Bundle, subject: Subject) -> str:
    """The steps to a bundle as it says them, with the precision that was asked for."""
    method = str(bundle.manifest.ledger.get("method", ""))
    if subject.precision is None:
        return method
    return f"{method.removesuffix('fp32').strip()} {subject.precision}".strip()


def _graph_fields(bundle: Bundle, subject: Subject, say: Say) -> Row:
    """Resident weights and int8 coverage; None on engines other than ONNX Runtime, which do not tell."""
    if subject.engine != "ort":
        return {"resident_weights_bytes": None, "int8_coverage_pct": None}
    say(f"graph of {_name(bundle, subject)}")
    path = bundle.model_for(subject.engine, subject.precision).path
    clip_11THW = network_input(bundle.expected().frames_NTHW[:1], bundle.manifest.clip)
    coverage = int8_coverage(path, {input_name(path): clip_11THW})
    return {"resident_weights_bytes": optimised_weights_bytes(path), "int8_coverage_pct": coverage.int8_pct}


def process_fields(runs: Sequence[BenchRun]) -> Row:
    """Medians over launches of what each process has once."""
    peaks = [run.memory_mib["peak"] for run in runs]
    known = [peak for peak in peaks if peak is not None]
    return {
        "peak_memory_mib": float(np.median(known)) if known else None,
        "cold_start_ms": float(np.median([run.cold_start_ms["total"] for run in runs])),
        "load_ms": float(np.median([run.cold_start_ms["engine"] for run in runs])),
        "first_inference_ms": float(np.median([run.cold_start_ms["first_inference"] for run in runs])),
    }


def latency_fields(runs: Sequence[BenchRun], base: Sequence[BenchRun]) -> Row:
    """Percentiles of latency with their intervals, and the ratio to `base`, whose launches ran beside."""
    samples_ms = [np.asarray(run.latency_ns) / 1e6 for run in runs]
    base_ms = [np.asarray(run.latency_ns) / 1e6 for run in base]
    row: Row = {}
    for percent in (50, 90):
        row.update(_named(f"latency_p{percent}", "_ms", statistics.launch_percentile(samples_ms, percent)))
    ratio = statistics.Estimate(1.0, 1.0, 1.0) if runs is base else statistics.launch_ratio(samples_ms, base_ms, 50)
    row.update({"latency_ratio": ratio.value, "latency_ratio_low": ratio.low, "latency_ratio_high": ratio.high})
    end_to_end_ms = [np.asarray(run.end_to_end_ns) / 1e6 for run in runs]
    row["end_to_end_p50_ms"] = statistics.launch_percentile(end_to_end_ms, 50).value
    return row


def _accuracy_fields(top1_N: np.ndarray, top5_N: np.ndarray) -> Row:
    row: Row = {}
    for name, correct_N in (("top1", top1_N), ("top5", top5_N)):
        share = statistics.wilson_interval(int(correct_N.sum()), len(correct_N))
        row.update(_named(name, "_pct", share, scale=100))
    return row


def _paired_fields(top1_N: np.ndarray, base_N: np.ndarray, speakers_N: np.ndarray | None) -> Row:
    """How many points of top-1 were lost against the first bundle: positive is worse."""
    drop = statistics.paired_accuracy_difference(base_N, top1_N, speakers_N=speakers_N)
    row = _named("top1_drop", "_points", statistics.Estimate(drop.value, drop.low, drop.high), scale=100)
    return {**row, "mcnemar_p": drop.p}


def _named(name: str, unit: str, estimate: statistics.Estimate, *, scale: float = 1) -> Row:
    fields: Mapping[str, float] = asdict(estimate)
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {f"{name}{ends[key]}{unit}": scale * value for key, value in fields.items()}


def worst_badge(runs: Sequence[BenchRun]) -> str:
    """VALID only if every launch was; else the badge that most launches bear."""
    badges = [run.badge for run in runs if run.badge != "VALID"]
    return max(BADGES, key=badges.count) if badges else "VALID"
