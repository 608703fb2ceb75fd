"""The accuracy half of `edgelip compare`: deployed files on the same clips, and the budget as a gate.

Axes: N clips.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.isolate import Subject, deployed_logits
from edgelip.bench.statistics import accuracy, paired_accuracy_difference, wilson_interval
from edgelip.bench.suite import TestClips
from edgelip.cli.pairing import find_clips, refuse_unlike
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.bundle import Bundle

Say = Callable[[str], None]


def accuracy_part(
    bundles: Sequence[Bundle], subjects: Sequence[Subject], clips: Path | None, *, required: bool, say: Say
) -> dict[str, Any]:
    """What is in compare.json under "accuracy": a row a bundle, drops against the first in points; or why not.

    required: raise the UsageError that says why not.
    """
    try:
        for bundle in bundles[1:]:
            refuse_unlike(bundles[0], bundle)
        test = TestClips.open(clips or find_clips(bundles[0], bundles[-1]))
        for bundle in bundles:
            test.require_fit(bundle)
    except UsageError as error:
        if required or (clips is not None and isinstance(error, ClipError)):
            raise
        return {"not_compared": str(error)}
    known: dict[str, np.ndarray] = {}
    rows = []
    for bundle, subject in zip(bundles, subjects, strict=True):
        if bundle.sha256 not in known:
            say(f"accuracy of {bundle.name} on {len(test.labels_N):,} clips")
            logits_NV = deployed_logits(replace(subject, threads=os.cpu_count() or 1), test.path)
            known[bundle.sha256] = accuracy(logits_NV, test.labels_N)
        rows.append(accuracy_row(bundle.name, known[bundle.sha256], known[bundles[0].sha256], test.speakers_N))
    return {
        "rows": rows,
        "num_clips": len(test.labels_N),
        "num_speakers": None if test.speakers_N is None else len(np.unique(test.speakers_N)),
        "clips_sha256": test.sha256,
    }


def accuracy_row(name: str, right_N: np.ndarray, base_N: np.ndarray, speakers_N: np.ndarray | None) -> dict[str, Any]:
    """Top-1 of one bundle and its drop from the base: positive is worse; lost and gained clips, exact McNemar's p."""
    share = wilson_interval(int(right_N.sum()), len(right_N))
    drop = paired_accuracy_difference(base_N, right_N, speakers_N=speakers_N)
    return {
        "name": name,
        "top1_pct": [100 * share.value, 100 * share.low, 100 * share.high],
        "drop_points": [100 * drop.value, 100 * drop.low, 100 * drop.high],
        "lost": int((base_N & ~right_N).sum()),
        "gained": int((right_N & ~base_N).sum()),
        "p": drop.p,
    }


def over_budget(part: dict[str, Any], budget_points: float) -> list[str]:
    """A line for each bundle that may lose as much as the budget or more: the upper bound of its drop decides."""
    lines = []
    for row in part["rows"][1:]:
        value, low, high = row["drop_points"]
        if not high < budget_points:
            lines.append(
                f"{row['name']} loses {value:.2f} points and may lose {high:.2f} (95 % [{low:.2f}, {high:.2f}], "
                f"{part['num_clips']:,} clips); the budget is {budget_points:g}"
            )
    return lines
