"""`edgelip bench`: rows of results on what deployed files get right, clean and under disturbances.

Axes: N clips.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgelip.bench.accuracy import require_logits
from edgelip.bench.isolate import Subject
from edgelip.bench.suite import TestClips
from edgelip.cache import installed_version
from edgelip.cli.accuracy_row import Answers, Ground, accuracy_row
from edgelip.cli.deployed_passes import Passes, Said
from edgelip.cli.disturbed_clips import evenly_spread, write_disturbed
from edgelip.cli.pairing import find_clips, refuse_unlike
from edgelip.data.disturbances import PACKAGES, SOURCES, require_conditions
from edgelip.errors import UsageError
from edgelip.files import claim, writing
from edgelip.report.results import ResultRow, Target
from edgelip.runtime.bundle import Bundle

SEED = 0  # of the disturbances
_REMEDY = 'Give them: clips = "CLIPS.npz" with frames, labels, in the section [accuracy] of the suite.'


@dataclass(frozen=True)
class _Pair:
    """One file on one target. keys: of its passes, by condition; None: clean."""

    bundle: Bundle
    target: Target
    subject: Subject
    keys: Mapping[str | None, str]

    @property
    def name(self) -> str:
        return f"{self.bundle.name} {self.target.label}"


def accuracy_rows(
    bundles: Sequence[Path],
    targets: Sequence[Target],
    *,
    clips: Path | None,
    robustness: Sequence[str],
    robustness_clips: int = 500,
    threads: int,
    scratch: Path,
    command: str,
    say: Callable[[str], None],
) -> list[ResultRow]:
    """An Accuracy row of bundles[i] on targets[i]; drops are to the first pair, agreement is with its fp32 file.

    clips: .npz as TestClips.open takes it; None: those on which an export measured these bundles. robustness: names of
    edgelip.data.disturbances, each on `robustness_clips` evenly spread clips. threads: of each process.
    scratch: a folder that keeps what passes said, so that the same call goes on after a kill.
    Raises UsageError, ClipError before anything runs, and what running a bundle raises.
    """
    opened = [Bundle.open(path) for path in bundles]
    if not opened:
        return []
    for bundle in opened[1:]:
        refuse_unlike(opened[0], bundle)
    require_conditions(robustness, opened[0].manifest.clip)
    if robustness_clips < 1:
        raise UsageError(f"robustness_clips is {robustness_clips}; expected 1 or more.")
    test = TestClips.open(clips or find_clips(*opened, remedy=_REMEDY))
    test.require_fit(opened[0])
    numbers_N = evenly_spread(len(test.labels_N), robustness_clips)
    passes = Passes(scratch / "cache", threads=threads, say=say)

    def pair(bundle: Bundle, target: Target, conditions: Sequence[str]) -> _Pair:
        return _pair(bundle, target, test, conditions, numbers_N, passes)

    pairs = [pair(bundle, target, robustness) for bundle, target in zip(opened, targets, strict=True)]
    exact = _exact_target(pairs[0])
    if exact is None:
        say(f"{opened[0].name} has no fp32 file: agreement with float32 is left out")
    reference = None if exact is None else pair(opened[0], exact, ())
    with writing(scratch):
        (scratch / "cache").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(scratch / "cache", os.O_RDONLY)
    try:
        claim(descriptor, scratch)
        passes.drop_unfinished()
        said = _run(pairs, reference, test, robustness, numbers_N, passes, scratch / "disturbed")
    finally:
        os.close(descriptor)
    answers = [_answers(each, said) for each in pairs]
    known = None if reference is None else _answers(reference, said)
    ground = Ground(test, answers[0], known, numbers_N, threads)
    return [
        accuracy_row(each.bundle, each.target, what, ground, command=command)
        for each, what in zip(pairs, answers, strict=True)
    ]


def _pair(
    bundle: Bundle,
    target: Target,
    test: TestClips,
    conditions: Sequence[str],
    numbers_N: np.ndarray,
    passes: Passes,
) -> _Pair:
    """Raises BundleError if the bundle has no such file."""
    model = bundle.model_for(target.engine, target.precision or None)
    target = replace(target, precision=model.precision)
    subject = Subject(bundle.path, target.engine, model.precision, target.threads, target.options)
    keys: dict[str | None, str] = {None: passes.key(bundle, subject, {"file": test.sha256})}
    for condition in conditions:
        chosen = {
            "file": test.sha256,
            "num_clips": len(numbers_N),
            "condition": condition,
            "seed": SEED,
            "made_by": [installed_version(name) for name in PACKAGES],
        }
        keys[condition] = passes.key(bundle, subject, chosen, sources=SOURCES)
    return _Pair(bundle, target, subject, keys)


def _exact_target(base: _Pair) -> Target | None:
    """Where the float32 file of the first bundle runs: on the engine of its row, or else on ONNX Runtime."""
    for engine in dict.fromkeys((base.target.engine, "ort")):
        if any(model.precision == "fp32" and engine in model.engines for model in base.bundle.manifest.models):
            options = base.target.options if engine == base.target.engine else {}
            return Target(base.target.device, engine, "fp32", base.target.threads, options)
    return None


def _run(
    pairs: Sequence[_Pair],
    reference: _Pair | None,
    test: TestClips,
    robustness: Sequence[str],
    numbers_N: np.ndarray,
    passes: Passes,
    folder: Path,
) -> dict[str, Said]:
    """What was said in each pass, by its key; the clips of one condition are on disk at a time, in `folder`."""
    everyone = [*pairs, *([] if reference is None else [reference])]
    passes.announce(
        {
            key: len(test.labels_N) if condition is None else len(numbers_N)
            for pair in everyone
            for condition, key in pair.keys.items()
        }
    )
    said: dict[str, Said] = {}

    def run(pair: _Pair, condition: str | None, path: Path, num_clips: int) -> None:
        key, name = pair.keys[condition], f"{pair.name}, {condition or 'clean'}"
        if key not in said:
            found = passes.run(key, pair.subject, path, num_clips, name=name)
            require_logits(found.logits_NV, num_clips, name=name)
            said[key] = found

    for pair in everyone:
        run(pair, None, test.path, len(test.labels_N))
    for condition in robustness:
        path = folder / f"{condition}.npy"
        try:
            if any(passes.kept(pair.keys[condition]) is None for pair in pairs):
                write_disturbed(path, test, pairs[0].bundle.manifest.clip, condition, numbers_N.tolist(), seed=SEED)
            for pair in pairs:
                run(pair, condition, path, len(numbers_N))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return said


def _answers(pair: _Pair, said: Mapping[str, Said]) -> Answers:
    disturbed = {condition: said[key] for condition, key in pair.keys.items() if condition is not None}
    return Answers(pair.name, said[pair.keys[None]], disturbed)
