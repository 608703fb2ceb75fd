"""The rows of compression_rows.py as Markdown and JSON, and which limits they keep.

Axes: S seeds, N clips.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import markdown_table
from result_files import machine_lines
from row_latency import Latency
from row_outcomes import Outcome
from row_suites import Limit, Suite

from edgelip.bench.statistics import Estimate, PairedDifference, pooled_accuracy_difference
from edgelip.files import write_atomic

NOTES = (
    "Accuracy: of the deployed file in ONNX Runtime, mean over the seeds. Drop: against the first row, mean over the "
    "seeds, above 0 is worse; 95 % by bootstrap over seeds and speakers, McNemar's p exact over all pairs. "
    "Same word: share of clips that get the first row's word. File: the ONNX file that ONNX Runtime takes. int8: share "
    "of multiply-accumulates that integer kernels run.",
    "Latency: p50 of batch 1 from tensor to logits, bundles of the first seed in fresh processes taking turns; times "
    "faster than the first row, geometric mean over launches side by side, 95 % by bootstrap over launches.",
)


@dataclass(frozen=True)
class Rows:
    """All that was found: outcomes by variant and seed, and what failed."""

    suite: Suite
    outcomes: Sequence[Outcome]
    speakers_N: np.ndarray
    latencies: Sequence[Latency]
    failed: Mapping[str, str]
    about: Mapping[str, Any]

    def of(self, variant: str) -> dict[int, Outcome]:
        return {outcome.seed: outcome for outcome in self.outcomes if outcome.variant == variant}

    def drop(self, variant: str, against: str) -> PairedDifference | None:
        """Share of clips lost, over the seeds that both have; above 0 is worse."""
        ours, theirs = self.of(variant), self.of(against)
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        other_SN, base_SN = (np.stack([side[seed].right_N for seed in seeds]) for side in (theirs, ours))
        return pooled_accuracy_difference(other_SN, base_SN, speakers_N=self.speakers_N)

    def file_bytes(self, variant: str) -> float | None:
        sizes = [outcome.file_bytes for outcome in self.of(variant).values()]
        return float(np.mean(sizes)) if sizes else None


@dataclass(frozen=True)
class Finding:
    """One limit and what was measured of it; None: not measured."""

    what: str
    measured: str | None
    limit: str
    met: bool

    @property
    def verdict(self) -> str:
        return "not measured" if self.measured is None else "pass" if self.met else "MISS"


def findings(rows: Rows) -> list[Finding]:
    """Verdicts are those of the mean; the interval says how sure it is."""
    found: list[Finding] = []
    for limit in rows.suite.limits:
        found += _findings_of(rows, limit)
    return found


def _findings_of(rows: Rows, limit: Limit) -> list[Finding]:
    pair, found = f"{limit.variant} against {limit.against}", []
    if limit.drop_points is not None:
        drop = rows.drop(limit.variant, limit.against)
        met = drop is not None and 100 * drop.value <= limit.drop_points
        found.append(Finding(f"{pair}: drop, points", _points(drop), f"<= {limit.drop_points:g}", met))
    if limit.smaller is not None:
        ours, theirs = rows.file_bytes(limit.variant), rows.file_bytes(limit.against)
        times = theirs / ours if ours and theirs else None
        text = None if times is None else f"{times:.1f}"
        found.append(Finding(f"{pair}: times smaller", text, f">= {limit.smaller:g}", (times or 0) >= limit.smaller))
    if limit.faster is not None:
        sittings = [each for each in rows.latencies if {limit.variant, limit.against} <= each.samples_ms.keys()]
        for sitting in sittings:
            speedup = sitting.speedup(limit.variant, limit.against)
            what = f"{pair}: times faster, {_threads(sitting.threads)}"
            badges = {sitting.badges[limit.variant], sitting.badges[limit.against]} - {"VALID"}
            text = _interval(speedup, 2) + "".join(f" {badge}" for badge in sorted(badges))
            found.append(Finding(what, text, f">= {limit.faster:g}", speedup.value >= limit.faster))
        if not sittings:
            found.append(Finding(f"{pair}: times faster", None, f">= {limit.faster:g}", False))
    return found


def write_tables(rows: Rows, out: Path, seeds: Sequence[int]) -> tuple[str, list[str]]:
    """Write `<suite>-seeds-0-1-2.{md,json}`. Returns the text, and the limits that are missed or not measured."""
    found, stem = findings(rows), f"{rows.suite.name}-seeds-{'-'.join(map(str, seeds))}"
    text = markdown(rows, found)
    content = {
        "schema_version": 1,
        **rows.about,
        "seeds": list(seeds),
        "rows": [_row_json(rows, name) for name in rows.suite.variants if rows.of(name)],
        "latency": [_latency_json(rows, sitting) for sitting in rows.latencies],
        "limits": [
            {"what": each.what, "measured": each.measured, "limit": each.limit, "verdict": each.verdict}
            for each in found
        ],
        "failed": dict(rows.failed),
    }
    write_atomic(out / f"{stem}.md", text)
    write_atomic(out / f"{stem}.json", json.dumps(content, indent=1) + "\n")
    return text, [each.what for each in found if each.verdict != "pass"]


def markdown(rows: Rows, found: Sequence[Finding]) -> str:
    names = [name for name in rows.suite.variants if rows.of(name)]
    parts = [f"# {rows.suite.name}: accuracy rows, {rows.about['date']}"]
    if found:
        cells = [[each.what, each.measured or "-", each.limit, each.verdict] for each in found]
        parts.append(markdown_table(["limit", "measured (95 %)", "", ""], cells))
    head = ["variant", "method", "file, kB", "smaller", "int8, %", "top-1, %", "by seed", "drop, points", "p"]
    head.append("same word, %")
    parts.append(markdown_table(head, [_accuracy_cells(rows, name) for name in names]))
    for sitting in rows.latencies:
        timed = [name for name in names if name in sitting.samples_ms]
        cells = [_latency_cells(rows, sitting, name) for name in timed]
        head = [f"variant, {_threads(sitting.threads)}", "p50, ms", "times faster", "badge"]
        parts.append(markdown_table(head, cells) + f"\n\nLoad average before: {sitting.load_average:.2f}.")
    parts += NOTES[: 2 if rows.latencies else 1]
    if rows.failed:
        parts.append("Failed:\n" + "\n".join(f"- {row}: {why}" for row, why in rows.failed.items()))
    parts += [
        f"Test clips: {rows.about['test_clips']}.",
        f"`{rows.about['command']}`",
        machine_lines(rows.about["environment"]),
    ]
    return "\n\n".join(parts) + "\n"


def _accuracy_cells(rows: Rows, name: str) -> list[str]:
    first, found = rows.suite.variants[0], rows.of(name)
    example = next(iter(found.values()))
    size, base = rows.file_bytes(name), rows.file_bytes(first)
    scores = _scores_pct(found)
    drop, same = rows.drop(name, first), _same_word_pct(found, rows.of(first))
    return [
        name,
        example.method,
        f"{(size or 0) / 1e3:.1f}",
        f"{base / size:.1f}" if size and base else "-",
        f"{np.mean([each.int8_coverage_pct for each in found.values()]):.1f}",
        f"{np.mean([*scores.values()]):.2f}",
        ", ".join(f"{score:.1f}" for score in scores.values()),
        "-" if name == first else _points(drop) or "-",
        "-" if name == first or drop is None else "< 0.001" if drop.p < 0.001 else f"{drop.p:.3f}",
        "-" if name == first or same is None else f"{same:.1f}",
    ]


def _latency_cells(rows: Rows, sitting: Latency, name: str) -> list[str]:
    first = rows.suite.variants[0]
    faster = _interval(sitting.speedup(name, first), 2) if first in sitting.samples_ms else "-"
    return [name, _interval(sitting.p50_ms(name), 3), "1" if name == first else faster, sitting.badges[name]]


def _row_json(rows: Rows, name: str) -> dict[str, Any]:
    first, found = rows.suite.variants[0], rows.of(name)
    drop, example = rows.drop(name, first), next(iter(found.values()))
    scores, base = _scores_pct(found), _scores_pct(rows.of(first))
    return {
        "variant": name,
        "method": example.method,
        "precision": example.precision,
        "parameters": example.parameters,
        "macs": example.macs,
        "file_bytes": [each.file_bytes for each in found.values()],
        "resident_weights_bytes": [each.resident_weights_bytes for each in found.values()],
        "int8_coverage_pct": [each.int8_coverage_pct for each in found.values()],
        "top1_pct": scores,
        "top1_drop_points": None if drop is None else [100 * drop.value, 100 * drop.low, 100 * drop.high],
        "top1_drop_points_by_seed": {seed: round(base[seed] - scores[seed], 4) for seed in scores if seed in base},
        "mcnemar_p": None if drop is None else drop.p,
        "same_word_pct": _same_word_pct(found, rows.of(first)),
        "bundle_sha256": {seed: each.bundle_sha256 for seed, each in found.items()},
        "right": {seed: "".join("01"[hit] for hit in each.right) for seed, each in found.items()},
    }


def _latency_json(rows: Rows, sitting: Latency) -> dict[str, Any]:
    first = rows.suite.variants[0]
    return {
        "threads": sitting.threads,
        "load_average": sitting.load_average,
        "variants": {
            name: {
                "p50_ms": _triple(sitting.p50_ms(name)),
                "times_faster": _triple(sitting.speedup(name, first)) if first in sitting.samples_ms else None,
                "badge": sitting.badges[name],
                "num_launches": len(launches),
                "num_samples": [len(launch) for launch in launches],
            }
            for name, launches in sitting.samples_ms.items()
        },
    }


def _scores_pct(found: Mapping[int, Outcome]) -> dict[int, float]:
    return {seed: 100 * float(found[seed].right_N.mean()) for seed in sorted(found)}


def _same_word_pct(ours: Mapping[int, Outcome], theirs: Mapping[int, Outcome]) -> float | None:
    seeds = ours.keys() & theirs.keys()
    shares = [np.mean(np.equal(ours[seed].words, theirs[seed].words)) for seed in seeds]
    return 100 * float(np.mean(shares)) if shares else None


def _points(drop: PairedDifference | None) -> str | None:
    return None if drop is None else _interval(Estimate(100 * drop.value, 100 * drop.low, 100 * drop.high), 2)


def _interval(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _triple(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
