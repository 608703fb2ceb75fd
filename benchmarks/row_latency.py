"""Latency of bundles side by side, kept raw beside the rows; a bundle that has changed since is not measured."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from row_outcomes import Outcome

from edgelip.bench.isolate import Subject, bench_launches
from edgelip.bench.statistics import Estimate, launch_percentile, launch_ratio
from edgelip.files import write_atomic
from edgelip.progress import Progress
from edgelip.runtime.bundle import Bundle

PATTERN = "latency-{threads}.json"


@dataclass(frozen=True)
class Latency:
    """One sitting: samples in milliseconds of every launch of every variant, and the worst badge of each."""

    threads: int
    samples_ms: Mapping[str, Sequence[np.ndarray]]
    badges: Mapping[str, str]
    load_average: float  # of the machine before the first launch

    def p50_ms(self, variant: str) -> Estimate:
        return launch_percentile(self.samples_ms[variant], 50)

    def speedup(self, variant: str, against: str) -> Estimate:
        """How many times faster, by p50 of launches that ran side by side."""
        return launch_ratio(self.samples_ms[against], self.samples_ms[variant], 50)


def measure_latency(
    bundles: Sequence[Path], out: Path, *, threads: int, launches: int, seconds: float, progress: Progress
) -> None:
    """Launch every bundle `launches` times in turns, and keep the raw samples."""
    subjects, load = [Subject(path, threads=threads) for path in bundles], os.getloadavg()[0]
    runs = bench_launches(subjects, launches=launches, seconds=seconds, say=progress.say)
    content = {
        "threads": threads,
        "load_average": load,
        "environment": dict(runs[0][0].environment),
        "variants": {
            path.name: {
                "bundle_sha256": Bundle.open(path).sha256,
                "badges": [run.badge for run in launched],
                "latency_us": [[round(sample / 1e3, 1) for sample in run.latency_ns] for run in launched],
            }
            for path, launched in zip(bundles, runs, strict=True)
        },
    }
    write_atomic(out / PATTERN.format(threads=threads), json.dumps(content) + "\n")


def read_latency(out: Path, outcomes: Iterable[Outcome]) -> list[Latency]:
    """The sittings that were kept, with the variants whose bundle is still one of `outcomes`."""
    known = {outcome.bundle_sha256 for outcome in outcomes}
    sittings = []
    for path in sorted(out.glob(PATTERN.format(threads="*"))):
        content: dict[str, Any] = json.loads(path.read_text())
        kept = {name: entry for name, entry in content["variants"].items() if entry["bundle_sha256"] in known}
        sittings.append(
            Latency(
                threads=content["threads"],
                samples_ms={
                    name: [np.asarray(launch) / 1e3 for launch in entry["latency_us"]] for name, entry in kept.items()
                },
                badges={
                    name: next((badge for badge in entry["badges"] if badge != "VALID"), "VALID")
                    for name, entry in kept.items()
                },
                load_average=content["load_average"],
            )
        )
    return sittings
