"""What the cache of frozen features saves: an epoch of training on pixels beside one on cached features.

    python benchmarks/feature_cache.py                                      # the small network, minutes on two cores
    python benchmarks/feature_cache.py --backbone dctcn_dense --clips 96 --out DIR --check

Frontend and trunk are frozen, temporal net and head are trained: `train.freeze`, without and with
`train.feature_cache`. Clips are noise at the contract of LRW (29 x 96 x 96), which costs the same as lips. A round fits
each subject for two epochs from the same weights, each round beginning with another subject; what counts is the second
epoch, its validation included. Filling the cache is timed apart, once a precision. Weights and logits of the subjects
are compared after the same training without any variation. --check exits 3 on a miss.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Median, environment, interleave, markdown_table, median_interval, ratio, significant
from result_files import exit_code_of, machine_lines, save
from torch import nn

from edgelip.cache import Cache
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.errors import GoalMissed
from edgelip.models.zoo import build_classifier
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec, network_input
from edgelip.train.feature_cache import FeatureCaching, fit_on_features
from edgelip.train.fit import FitResult, fit
from edgelip.train.freezing import Freezing
from edgelip.train.module import Schedule

PIXELS, FP32, FP16 = "pixels", "cached fp32", "cached fp16"
FROZEN = Freezing(("frontend", "trunk"))
WORDS = tuple(f"WORD{number}" for number in range(20))
SPEEDUP_LIMIT = 3.0  # of an epoch; measured far above, below it the cache is not worth its disk
WEIGHTS_LIMIT = 1e-5  # fp32 features give the weights of pixels
TOY_SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)
TOY_OPTIONS = {"stem_width": 8, "trunk_widths": [8], "temporal_width": 8, "temporal_blocks": 1}


@dataclass(frozen=True)
class Finding:
    """A number with its interval, and the limit that it must keep: at least, or at most where `at_most`."""

    what: str
    value: Median
    limit: float | None = None
    at_most: bool = False

    @property
    def missed(self) -> bool:
        if self.limit is None:
            return False
        return self.value.value > self.limit if self.at_most else self.value.value < self.limit

    def cells(self) -> list[str]:
        limit = "" if self.limit is None else f"{'<=' if self.at_most else '>='} {self.limit:g}"
        verdict = "" if self.limit is None else ("MISS" if self.missed else "pass")
        text = self.value.text() if self.value.low is not None else significant(self.value.value)
        return [self.what, text, limit, verdict]


@dataclass(frozen=True, eq=False)
class Bench:
    """The network, its clips and how long an epoch is."""

    network: nn.Module
    train: Store
    val: Store
    spec: ClipSpec
    schedule: Schedule
    steps: Cache

    def fit(self, subject: str) -> FitResult:
        """Trained for the schedule's epochs, from the same weights each time."""
        with tempfile.TemporaryDirectory(prefix="edgelip-") as folder:
            shared: dict[str, Any] = {
                "train": self.train, "val": self.val, "spec": self.spec, "schedule": self.schedule,
                "workspace": Path(folder), "progress": Progress(quiet=True), "name": subject, "freezing": FROZEN,
            }  # fmt: skip
            if subject == PIXELS:
                return fit(self.network, **shared)
            caching = FeatureCaching(self.steps, "fp16" if subject == FP16 else "fp32")
            return fit_on_features(self.network, caching=caching, **shared)

    def epoch_s(self, subject: str) -> float:
        return self.fit(subject).history[-1]["seconds"]


def noise_store(folder: Path, num_clips: int, spec: ClipSpec, *, seed: int) -> Store:
    rng = np.random.default_rng(seed)
    labels = np.arange(num_clips) % len(WORDS)
    with StoreWriter(folder, num_clips, spec, words=WORDS, source_sha256=f"{seed:064x}") as writer:
        for start in range(0, num_clips, 16):
            some = labels[start : start + 16]
            frames = rng.integers(0, 256, (len(some), *spec.stored_shape), dtype=np.uint8)
            writer.write(start, frames, labels_B=some, speakers_B=np.zeros(len(some), np.int32))
        return writer.finish()


def logits_of(result: FitResult, store: Store, spec: ClipSpec) -> np.ndarray:
    with torch.inference_mode():
        made: np.ndarray = result.model(torch.from_numpy(network_input(np.asarray(store.frames[:16]), spec))).numpy()
    return made


def weight_difference(one: FitResult, other: FitResult) -> float:
    there = other.model.state_dict()
    return max(float((tensor - there[name]).abs().max()) for name, tensor in one.model.state_dict().items())


def measure(bench: Bench, *, rounds: int, toy: bool) -> tuple[list[Finding], dict[str, list[float]]]:
    """All findings, and the seconds of every epoch timed."""
    filled, results = {}, {}
    for subject in (PIXELS, FP32, FP16):  # warm-up, and the caches are filled
        say(f"{subject}: first run")
        started = time.perf_counter()
        results[subject] = bench.fit(subject)
        filled[subject] = time.perf_counter() - started - sum(epoch["seconds"] for epoch in results[subject].history)
    disk = disk_mb(bench.steps.folder)
    subjects: dict[str, Callable[[], float]] = {
        name: (lambda name=name: bench.epoch_s(name))
        for name in (PIXELS, FP32, FP16)  # type: ignore[misc]
    }
    samples = interleave(subjects, rounds=rounds)
    saved = ratio(samples[PIXELS], samples[FP16])
    epoch = {name: median_interval(seconds) for name, seconds in samples.items()}
    whole, stored = results[PIXELS], (FP32, FP16)
    logits = {name: logits_of(result, bench.val, bench.spec) for name, result in results.items()}
    weights = {name: exact(weight_difference(whole, results[name])) for name in stored}
    reads = {name: exact(float(np.abs(logits[name] - logits[PIXELS]).max())) for name in stored}
    gain_s = epoch[PIXELS].value - epoch[FP16].value
    paid = exact(filled[FP16] / gain_s if gain_s > 0 else math.inf)
    findings = [
        *(Finding(f"epoch on {name}, s", epoch[name]) for name in samples),
        Finding("epoch on pixels / on cached fp16", saved, None if toy else SPEEDUP_LIMIT),
        Finding("epoch on pixels / on cached fp32", ratio(samples[PIXELS], samples[FP32])),
        *(Finding(f"filling the cache, {name}, s", exact(filled[name])) for name in stored),
        Finding("epochs after which fp16 has paid for itself", paid),
        *(Finding(f"disk, {name}, MB", exact(disk[name])) for name in stored),
        Finding("largest difference of weights, fp32 and pixels", weights[FP32], WEIGHTS_LIMIT, at_most=True),
        Finding("largest difference of weights, fp16 and pixels", weights[FP16]),
        *(Finding(f"largest difference of logits, {name} and pixels", reads[name]) for name in stored),
        Finding("standard deviation of the logits", exact(float(logits[PIXELS].std()))),
    ]
    return findings, samples


def disk_mb(steps: Path) -> dict[str, float]:
    """What the features of both splits take, by precision."""
    found = dict.fromkeys((FP32, FP16), 0.0)
    for folder in steps.glob("features-*"):
        name = FP16 if json.loads((folder / "features.json").read_bytes())["precision"] == "fp16" else FP32
        found[name] += sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return found


def exact(value: float) -> Median:
    return Median(value, None, None)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(findings: Sequence[Finding]) -> str:
    return markdown_table(["measured", "median (95 %)", "limit", ""], [finding.cells() for finding in findings])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="small", help="network of the catalogue, freshly drawn")
    parser.add_argument("--clips", type=int, default=320, help="training clips; a quarter as many for validation")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pool", type=int, default=1, help="as [clip] pool: 2 gives frames of 44 px")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-feature-cache")
    parser.add_argument("--check", action="store_true", help="exit 3 if a limit is missed")
    parser.add_argument("--toy", action="store_true", help="a tiny network and few clips, without limit of time")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    toy = arguments.toy
    spec = TOY_SPEC if toy else ClipSpec(pool=arguments.pool)
    schedule = Schedule(epochs=2, batch_size=8 if toy else 32, learning_rate=1e-3, precision=arguments.precision)
    torch.manual_seed(0)
    options = TOY_OPTIONS if toy else None
    network = build_classifier(arguments.backbone, num_words=len(WORDS), options=options)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    about: dict[str, Any] = {
        "date": today,
        "network": arguments.backbone,
        "toy": toy,
        "clips": arguments.clips,
        "clip": spec.to_json(),
        "precision": arguments.precision,
        "command": shlex.join(["python", "benchmarks/feature_cache.py", *(sys.argv[1:] if argv is None else argv)]),
        "threads": torch.get_num_threads(),
        "environment": environment({"torch": torch.__version__, "numpy": np.__version__}),
    }
    with tempfile.TemporaryDirectory(prefix="edgelip-features-") as temporary:
        folder = Path(temporary)
        train = noise_store(folder / "train", arguments.clips, spec, seed=0)
        val = noise_store(folder / "val", max(16, arguments.clips // 4), spec, seed=1)
        bench = Bench(network, train, val, spec, schedule, Cache(folder / "cache"))
        findings, samples = measure(bench, rounds=arguments.rounds, toy=toy)
    about["load_average_after"] = os.getloadavg()[0]
    out = arguments.out or Path(__file__).parent / "results" / f"{today}-feature-cache"
    numbers = {
        **about,
        "findings": [{**asdict(each), "missed": each.missed} for each in findings],
        "samples_s": samples,
    }
    title = f"# Cache of frozen features: {arguments.backbone}, {today}"
    size = f"{spec.frames} x {spec.input_px} x {spec.input_px}"
    text = f"{arguments.clips} training clips of {size}, {arguments.precision}, batch {schedule.batch_size}."
    sections = [title, text, table(findings), f"`{about['command']}`", machine_lines(about["environment"])]
    save(out, "feature_cache", numbers=numbers, sections=sections)
    print(table(findings))
    missed = [finding.what for finding in findings if finding.missed]
    if arguments.check and missed:
        raise GoalMissed(f"{len(missed)} limits are missed: {'; '.join(missed)}. See {out / 'feature_cache.md'}.")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="feature_cache")


if __name__ == "__main__":
    sys.exit(main())
