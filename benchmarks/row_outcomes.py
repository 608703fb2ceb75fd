"""One variant of one seed: trained, compressed and exported by a recipe's own steps, then read by its deployed file.

Axes: N clips, V words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgelip.bench.graph import input_name, int8_coverage, optimised_weights_bytes
from edgelip.bench.isolate import Subject, deployed_logits
from edgelip.bench.statistics import accuracy
from edgelip.cache import step_key
from edgelip.cli.measure import clips_file
from edgelip.cli.workshop import Workshop
from edgelip.errors import UsageError
from edgelip.files import claim, write_atomic, writing
from edgelip.models.checkpoint import load_checkpoint
from edgelip.models.kept import keep_checkpoint
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """What the deployed file of one variant is and reads. words: the best word of each test clip; right: of those."""

    variant: str
    seed: int
    method: str
    parameters: int
    macs: int
    precision: str
    file_bytes: int
    resident_weights_bytes: int
    int8_coverage_pct: float
    bundle_sha256: str
    words: tuple[int, ...]
    right: tuple[bool, ...]

    @property
    def right_N(self) -> np.ndarray:
        return np.array(self.right, bool)


def outcome_key(workshop: Workshop, variant: str) -> str:
    return step_key(
        "outcome",
        {},
        sources=["bench/graph.py", "bench/isolate.py", "runtime"],
        inputs=[workshop.bundle_key(variant), workshop.clips.key("test")],
        packages=("onnxruntime",),
    )


def find_outcome(workshop: Workshop, variant: str) -> Outcome | None:
    """What an earlier run found, if it is of the same sources, data and stages."""
    done = workshop.cache.finished(outcome_key(workshop, variant))
    if done is None:
        return None
    fields = json.loads((done / OUTCOME).read_text())
    return Outcome(**fields | {key: tuple(fields[key]) for key in ("words", "right")})


def make_outcome(workshop: Workshop, variant: str) -> Outcome:
    """Train and compress what is not in the cache, export, and read every test clip through ONNX Runtime."""
    bundle = Bundle.open(workshop.bundle(variant))
    store = workshop.clips.store("test")
    workshop.progress.say(f"read {len(store)} test clips: {variant}, seed {workshop.recipe.train.seed}")
    logits_NV = deployed_logits(Subject(bundle.path, threads=os.cpu_count() or 1), clips_file(workshop))
    model, ledger = bundle.model_for("ort"), bundle.manifest.ledger
    clip_11THW = network_input(bundle.expected().frames_NTHW[:1], bundle.manifest.clip)
    outcome = Outcome(
        variant=variant,
        seed=workshop.recipe.train.seed,
        method=str(ledger["method"]),
        parameters=ledger["parameters"],
        macs=ledger["macs"],
        precision=model.precision,
        file_bytes=model.path.stat().st_size,
        resident_weights_bytes=optimised_weights_bytes(model.path),
        int8_coverage_pct=int8_coverage(model.path, {input_name(model.path): clip_11THW}).int8_pct,
        bundle_sha256=bundle.sha256,
        words=tuple(logits_NV.argmax(axis=1).tolist()),
        right=tuple(accuracy(logits_NV, np.asarray(store.labels)).tolist()),
    )
    with workshop.cache.making(outcome_key(workshop, variant)) as work:
        write_atomic(work / OUTCOME, json.dumps(asdict(outcome)) + "\n")
    return outcome


def take_dense(workshop: Workshop, path: Path) -> None:
    """Let a checkpoint stand for the one that this recipe would train.

    Raises UsageError if another architecture, vocabulary, clip or training made it, or another one stands there.
    """
    checkpoint, recipe = load_checkpoint(path), workshop.recipe
    found, train = checkpoint.architecture, recipe.train.model_dump(mode="json", exclude={"start"})
    expected = {
        "backbone": recipe.model.backbone,
        "options": dict(recipe.model.options),
        "words": list(workshop.clips.words),
        "clip": workshop.spec.to_json(),
        "stages": ["train"],
        **{f"train.{key}": value for key, value in train.items()},
    }
    held = {
        "backbone": found.backbone,
        "options": dict(found.options),
        "words": list(found.words),
        "clip": dict(found.clip),
        "stages": [entry["stage"] for entry in found.stages],
        **{f"train.{key}": value for key, value in trained_by(path).items()},
    }
    for key, value in expected.items():
        if _plain(held.get(key)) != _plain(value):
            raise UsageError(f"{path} has {key} {held.get(key)}; the suite asks for {value}. Give another checkpoint.")
    done = workshop.cache.finished(workshop.trained_key)
    if done is not None:
        there = load_checkpoint(done).sha256
        if there != checkpoint.sha256:
            raise UsageError(
                f"{path} holds weights {checkpoint.sha256[:12]}; {done} holds {there[:12]}, which rows hang on. "
                "Choose another --out."
            )
        return
    with workshop.cache.making(workshop.trained_key) as work:
        keep_checkpoint(checkpoint, work, workshop.blobs, by_parts=False)


def trained_by(path: Path) -> dict[str, object]:
    """The training section that made a dense checkpoint. Raises UsageError if none is on record."""
    stages = load_checkpoint(path).architecture.stages
    if not stages or stages[0]["stage"] != "train":
        raise UsageError(f"{path} keeps no record of its training; expected a checkpoint of `edgelip train`.")
    return dict(stages[0]["config"])


@contextmanager
def held(folder: Path, name: str, *, wait_s: float) -> Iterator[None]:
    """Hold one part of the output folder for this process. Raises MissingError if another keeps it for `wait_s`."""
    path = folder / ".cache" / f"{name}.lock"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        claim(lock.fileno(), path, wait_s=wait_s)
        yield


def _plain(value: object) -> object:
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))
