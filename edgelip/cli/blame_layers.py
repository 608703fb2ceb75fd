"""The layers of `edgelip blame`: what each costs in accuracy and gains in latency, and what to exclude.

Axes: N clips, V words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.latency_ratio import interleaved_ratio
from edgelip.bench.statistics import accuracy, mcnemar_p
from edgelip.bench.suite import TestClips
from edgelip.deploy.blame.exclusion import Lineage, exclusions
from edgelip.deploy.blame.layered_graph import LayeredGraph
from edgelip.deploy.blame.scoring import Deadline, Scorer
from edgelip.deploy.blame.study import Study, Trial, study_layers
from edgelip.errors import UsageError
from edgelip.runtime.bundle import Bundle, ModelFile
from edgelip.runtime.clip import network_input

ENOUGH = 0.8  # of the clips lost: the smallest set of layers that regains as much is advised
CHANCE = 0.05


def layer_part(
    reference: Bundle,
    suspect: Bundle,
    files: tuple[ModelFile, ModelFile],
    test: TestClips,
    scorer: Scorer,
    suspect_NV: np.ndarray,
    *,
    deadline: Deadline,
    together: int,
    lost: int,
) -> dict[str, Any]:
    """What is in blame.json under "layers". suspect_NV: its logits; lost: clips it has fewer right.

    Where layers cannot be looked at, the entry "reason" says why: the words still can.
    """
    if files[0].precision != "fp32":
        return {"reason": f"{reference.name} has no fp32 file for ONNX Runtime: there is nothing to put back."}
    try:
        graphs = LayeredGraph(reference, files[0]), LayeredGraph(suspect, files[1])
    except UsageError as error:
        return {"reason": str(error)}
    clip_11THW = network_input(suspect.expected().frames_NTHW[:1], suspect.manifest.clip)

    def ratio(model: Path, base: Path) -> tuple[float, float, float]:
        found = interleaved_ratio(model, base, clip_11THW, threads=scorer.threads)
        return found.value, found.low, found.high

    study = study_layers(*graphs, scorer, deadline=deadline, ratio=ratio, together=together)
    right_N = accuracy(suspect_NV, test.labels_N)
    lineages = reference.manifest.lineage, suspect.manifest.lineage

    def row(trial: Trial) -> dict[str, Any]:
        return _row(trial, test.labels_N, right_N, lineages)

    rows = [{**row(trial), **_noise_fields(study, trial.layers[0])} for trial in study.trials]
    joint = [row(trial) for trial in study.together]
    return {
        "reason": None if study.trials or study.undone else "no layer of the two can be compared.",
        "logits_db": finite(study.logits_db),
        "trained_on": study.trained_on,
        "rows": rows,
        "together": joint,
        "everything": None if study.everything is None else row(study.everything),
        "apart": dict(study.apart),
        "undone": [{"layer": name, **_noise_fields(study, name)} for name in study.undone],
        "advice": _advice([*rows, *joint], lost),
    }


def finite(value: float | None) -> float | None:
    """None for what JSON has no number for."""
    return value if value is not None and math.isfinite(value) else None


def _row(trial: Trial, labels_N: np.ndarray, right_N: np.ndarray, lineages: tuple[Lineage, Lineage]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layers": list(trial.layers),
        "weights": list(trial.weights),
        "logits_db": finite(trial.logits_db),
        "regained_db": finite(trial.regained_db),
        "top1_pct": None,
        "regained_clips": None,
        "p": None,
        "latency_ratio": None if trial.latency_ratio is None else list(trial.latency_ratio),
        "exclusions": [asdict(each) for each in exclusions(*lineages, trial.layers)],
    }
    if trial.said_N is not None:
        back_N = trial.said_N == labels_N
        gained, lost = int((back_N & ~right_N).sum()), int((right_N & ~back_N).sum())
        row |= {"top1_pct": 100 * float(back_N.mean()), "regained_clips": gained - lost, "p": mcnemar_p(gained, lost)}
    return row


def _noise_fields(study: Study, name: str) -> dict[str, Any]:
    noise, moved = study.noise[name], study.moved[name]
    return {
        "inside_db": finite(noise.inside_db),
        "alone_db": finite(noise.alone_db),
        "chain": noise.alone_db is None,  # of factors: it has no output alone
        "moved_pct": None if moved is None else 100 * moved,
    }


def _advice(rows: Sequence[dict[str, Any]], lost: int) -> dict[str, Any] | None:
    """The smallest set of layers that regains most of what was lost, else that which regains the most beyond chance."""
    tried = [row for row in rows if row["regained_clips"] is not None and row["regained_clips"] > 0]
    sure = [row for row in tried if row["p"] < CHANCE]
    if lost <= 0 or not sure:
        return None
    enough = [row for row in sure if row["regained_clips"] >= ENOUGH * lost]
    best = min(enough, key=lambda row: (len(row["layers"]), -row["regained_clips"]), default=None)
    return best or max(sure, key=lambda row: (row["regained_clips"], -len(row["layers"])))
