"""A row of results from what deployed files said: shares right, differences on the same clips, words, errors to see.

Axes: N clips, V words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from edgelip.bench import accuracy as figures
from edgelip.bench import statistics
from edgelip.bench.statistics import Estimate
from edgelip.bench.suite import TestClips
from edgelip.cli.deployed_passes import Said
from edgelip.cli.error_sheet import sheet_text, wrong_clips
from edgelip.data.disturbances import DISTURBANCES
from edgelip.data.synthetic.look_alikes import look_alikes
from edgelip.report.metrics import ACCURACY, ROBUST, metric
from edgelip.report.results import ResultRow, Target
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.measurement import Measurement
from edgelip.runtime.sensors.process import environment


@dataclass(frozen=True)
class Answers:
    """clean: of all test clips; disturbed: of those `numbers_N` of Ground, by condition."""

    name: str
    clean: Said
    disturbed: Mapping[str, Said]


@dataclass(frozen=True)
class Ground:
    """What the rows of one call share. base: whose drops are 0; reference: the float32 file, where there is one.

    numbers_N: of the clips that were disturbed; threads: of the processes.
    """

    test: TestClips
    base: Answers
    reference: Answers | None
    numbers_N: np.ndarray
    threads: int


def accuracy_row(bundle: Bundle, target: Target, said: Answers, ground: Ground, *, command: str) -> ResultRow:
    """The row of one file on one target."""
    test, words, spec = ground.test, bundle.manifest.vocabulary, bundle.manifest.clip
    logits_NV = said.clean.logits_NV
    alike = look_alikes(words) if spec.kind == "video" else {}
    base_NV = None if said is ground.base else ground.base.clean.logits_NV
    details: dict[str, Any] = {
        "words": figures.word_rows(logits_NV, test.labels_N, words),
        "look_alikes": {word: list(others) for word, others in alike.items()},
        "base": ground.base.name,
        "reference": None if ground.reference is None else ground.reference.name,
        "test_set": test.sha256,
        "speakers": None if test.speakers_N is None else len(np.unique(test.speakers_N)),
        "threads": ground.threads,
    }
    sheet = sheet_text(test, spec, wrong_clips(logits_NV, base_NV, test.labels_N, words))
    if sheet is not None:
        details["sheet_png"] = sheet
    if said.disturbed:
        details["robustness"] = {
            "num_clips": len(ground.numbers_N),
            "clean_top1_pct": 100 * float(_right(said, test)[ground.numbers_N].mean()),
            "does": {condition: DISTURBANCES[condition].does for condition in said.disturbed},
        }
    hard_N = figures.of_words(test.labels_N, words, alike)
    measurements = [*_clean_figures(said, ground, hard_N), *_robust_figures(said, ground)]
    return ResultRow(
        variant=bundle.name,
        bundle_sha256=bundle.sha256,
        target=target,
        scenario=ACCURACY,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        badge="VALID",
        reasons=(),
        num_launches=1,
        measurements={each.name: each for each in measurements},
        environment={**environment(), "engine_settings": dict(said.clean.settings)},
        details=details,
    )


def _right(said: Answers, test: TestClips) -> np.ndarray:
    return statistics.accuracy(said.clean.logits_NV, test.labels_N)


def _clean_figures(said: Answers, ground: Ground, hard_N: np.ndarray) -> list[Measurement]:
    test, logits_NV = ground.test, said.clean.logits_NV
    labels_N, speakers_N = test.labels_N, test.speakers_N
    right_N, num_clips = _right(said, test), len(test.labels_N)
    drop = figures.paired_drop(right_N, _right(ground.base, test), speakers_N)
    error = figures.calibration_error(logits_NV, labels_N, speakers_N=speakers_N)
    top5 = figures.top_share(statistics.accuracy(logits_NV, labels_N, top=5))
    found = [
        _percent("top1_pct", figures.top_share(right_N), num_clips),
        _percent("top5_pct", top5, num_clips),
        _percent("top1_drop_points", Estimate(drop.value, drop.low, drop.high), num_clips),
        _figure("mcnemar_p", drop.p, num_clips),
        _percent("calibration_error_pct", error, num_clips),
    ]
    if hard_N.any():
        found.append(_percent("hard_top1_pct", figures.top_share(right_N[hard_N]), int(hard_N.sum())))
    if ground.reference is not None:
        alike = figures.agreement(logits_NV, ground.reference.clean.logits_NV, speakers_N=speakers_N)
        kl = alike.kl_nats
        found += [
            _percent("agreement_pct", alike.same, num_clips),
            _figure("max_logit_difference", alike.largest_difference, num_clips),
            _figure("kl_nats", kl.value, num_clips, (kl.low, kl.high)),
        ]
    return found


def _robust_figures(said: Answers, ground: Ground) -> list[Measurement]:
    """Of each condition the share right, and what was lost against the same clips undisturbed."""
    test, numbers_N = ground.test, ground.numbers_N
    speakers_N = None if test.speakers_N is None else test.speakers_N[numbers_N]
    clean_N = _right(said, test)[numbers_N]
    found = []
    for condition, answers in said.disturbed.items():
        right_N = statistics.accuracy(answers.logits_NV, test.labels_N[numbers_N])
        drop = figures.paired_drop(right_N, clean_N, speakers_N)
        lost = Estimate(drop.value, drop.low, drop.high)
        found.append(_percent(f"{ROBUST}{condition}_pct", figures.top_share(right_N), len(numbers_N)))
        found.append(_percent(f"{ROBUST}{condition}_drop_points", lost, len(numbers_N)))
    return found


def _percent(name: str, share: Estimate, num_samples: int) -> Measurement:
    return _figure(name, 100 * share.value, num_samples, (100 * share.low, 100 * share.high))


def _figure(name: str, value: float, num_samples: int, interval: tuple[float, float] | None = None) -> Measurement:
    known = metric(name)
    assert known is not None, name
    return Measurement(name, value, known.unit, num_samples, interval)
