"""How often the paired test calls a drop of accuracy that was planted in the logits of a real bundle.

Axes: N clips, V words.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgelip.bench.statistics import accuracy, mcnemar_p, paired_accuracy_difference
from edgelip.bench.suite import TestClips

_SEEDS, _DROP_POINTS, _LEVEL = 200, 1.0, 0.05


def planted_drop(logits_NV: np.ndarray, test: TestClips) -> dict[str, Any]:
    """1 point of clips that were right turned wrong, and 0 to 2 % of the clips changed beside it, as a coin falls.

    called: exact McNemar's p < 5 %. interval_above_0: so says the paired bootstrap. unpaired_called: the shares
    compared as if of different clips. no_drop_called: McNemar's with only the changes beside, which are no drop.
    """
    right_N = accuracy(logits_NV, test.labels_N)
    count = len(right_N)
    rows = []
    for discordance_pct in (0.0, 1.0, 2.0):
        found = {"called": 0, "interval_above_0": 0, "unpaired_called": 0, "no_drop_called": 0}
        for seed in range(_SEEDS):
            rng = np.random.default_rng(seed)
            num_beside = round(discordance_pct / 100 * count)
            gained = int(rng.binomial(num_beside, 0.5))
            for drop in (round(_DROP_POINTS / 100 * count), 0):
                other_N = _changed(right_N, lost=drop + num_beside - gained, gained=gained, rng=rng)
                counts = int((right_N & ~other_N).sum()), int((other_N & ~right_N).sum())
                small = mcnemar_p(*counts) < _LEVEL
                if not drop:
                    found["no_drop_called"] += small
                    continue
                found["called"] += small
                found["interval_above_0"] += paired_accuracy_difference(right_N, other_N, seed=seed).low > 0
                found["unpaired_called"] += _unpaired_p(int(right_N.sum()), int(other_N.sum()), count) < _LEVEL
        rows.append({"discordance_beside_pct": discordance_pct, **found, "of": _SEEDS})
    return {"num_clips": count, "top1_pct": 100 * float(right_N.mean()), "drop_points": _DROP_POINTS, "rows": rows}


def _changed(right_N: np.ndarray, *, lost: int, gained: int, rng: np.random.Generator) -> np.ndarray:
    other_N = right_N.copy()
    wrong = np.flatnonzero(~right_N)
    other_N[rng.choice(np.flatnonzero(right_N), lost, replace=False)] = False
    other_N[rng.choice(wrong, min(gained, len(wrong)), replace=False)] = True
    return other_N


def _unpaired_p(first: int, second: int, count: int) -> float:
    """p of two shares that are taken for those of different clips."""
    pooled = (first + second) / (2 * count)
    error = math.sqrt(max(pooled * (1 - pooled) * 2 / count, 1e-12))
    return math.erfc(abs(first - second) / count / error / math.sqrt(2))
