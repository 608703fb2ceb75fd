"""Measure bundles side by side: one row each of what a step cost and gained, with intervals against the first.

Axes: N clips, V words.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench import statistics
from edgelip.bench.accuracy import accuracy_fields, named, paired_fields, require_logits
from edgelip.bench.isolate import Subject, bench_launches, deployed_logits
from edgelip.bench.static import method_of, row_name, static_fields
from edgelip.runtime.arrays import open_array
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.errors import ClipError
from edgelip.runtime.measurement import BenchRun
from edgelip.runtime.validity import gravest

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

    def require_fit(self, bundle: Bundle) -> None:
        """Raises ClipError if they are no clips of the bundle, or have labels that it has no word for."""
        spec, num_words = bundle.manifest.clip, len(bundle.manifest.vocabulary)
        low, high = int(self.labels_N.min()), int(self.labels_N.max())
        if low < 0 or high >= num_words:
            raise ClipError(f"{self.path}: labels reach from {low} to {high}; {bundle.name} has {num_words} words.")
        try:
            with open_array(self.path, ["frames"]) as stream:
                network_input(next(stream.batches(1)), spec)
        except ValueError as error:
            raise ClipError(f"{self.path}: {error} They are not clips of {bundle.name}.") from error


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
        test.require_fit(bundle)
    subjects = [Subject(bundle.path, engine=engine, threads=threads) for bundle in opened]
    if opened and baseline in opened[0].precisions_for(engine)[1:]:
        opened.insert(1, opened[0])
        subjects.insert(1, replace(subjects[0], precision=baseline))
    accuracies: list[tuple[np.ndarray, np.ndarray]] = []
    logits: list[np.ndarray] = []
    for bundle, subject in zip(opened, subjects, strict=True):
        say(f"accuracy of {row_name(bundle, subject)} on {len(test.labels_N)} clips")
        logits_NV = deployed_logits(replace(subject, threads=accuracy_threads or os.cpu_count() or 1), test.path)
        logits.append(require_logits(logits_NV, len(test.labels_N), name=bundle.name))
        top1_N = statistics.accuracy(logits_NV, test.labels_N)
        accuracies.append((top1_N, statistics.accuracy(logits_NV, test.labels_N, top=5)))
    statics = [static_fields(bundle, subject, say=say) for bundle, subject in zip(opened, subjects, strict=True)]
    runs = bench_launches(subjects, launches=launches, seconds=seconds, say=say)

    results = []
    for bundle, subject, logits_NV, (top1_N, top5_N), static, launched in zip(
        opened, subjects, logits, accuracies, statics, runs, strict=True
    ):
        row: Row = {
            "variant": row_name(bundle, subject),
            "method": method_of(bundle, subject.precision),
            **static,
            **process_fields(launched),
            **latency_fields(launched, runs[0]),
            **accuracy_fields(top1_N, top5_N),
            **paired_fields(top1_N, accuracies[0][0], test.speakers_N),
            "num_clips": len(test.labels_N),
            "num_launches": launches,
            "engine": engine,
            "precision": bundle.model_for(engine, subject.precision).precision,
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
        row.update(named(f"latency_p{percent}", "_ms", statistics.launch_percentile(samples_ms, percent)))
    ratio = statistics.Estimate(1.0, 1.0, 1.0) if runs is base else statistics.launch_ratio(samples_ms, base_ms, 50)
    row.update({"latency_ratio": ratio.value, "latency_ratio_low": ratio.low, "latency_ratio_high": ratio.high})
    end_to_end_ms = [np.asarray(run.end_to_end_ns) / 1e6 for run in runs]
    row["end_to_end_p50_ms"] = statistics.launch_percentile(end_to_end_ms, 50).value
    return row


def worst_badge(runs: Sequence[BenchRun]) -> str:
    """VALID only if every launch was; else the gravest badge of them."""
    return gravest(run.badge for run in runs)
