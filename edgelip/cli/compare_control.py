"""`edgelip compare A --control N`: how often does a comparison alarm for nothing on this machine?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgelip.bench.compare import PERCENTS, Comparison, Side, compare_sides
from edgelip.bench.statistics import wilson_interval
from edgelip.cli.compare import (
    RESULT,
    CompareOptions,
    Outcome,
    default_folder,
    header,
    open_bundles,
    repeating_command,
    subject_of,
    write_result,
)
from edgelip.errors import MeasurementError
from edgelip.files import replace_folder
from edgelip.progress import Progress
from edgelip.runtime.validity import not_valid

ALLOWED_PCT = 5.0  # false alarms of a 95 % interval


def control_run(path: Path, options: CompareOptions, *, num_comparisons: int, as_json: bool) -> Outcome:
    """Compare a bundle with itself, each time from fresh processes, and count intervals that exclude 1."""
    (bundle,) = open_bundles([path], options)
    subject = subject_of(path, options)
    out = options.out or default_folder("control", bundle.name)
    found: list[Comparison] = []
    with replace_folder(out, only_if_holds=RESULT) as work:
        told = header(options, command=f"{repeating_command([path], options)} --control {num_comparisons}")
        with Progress().task("control", total=num_comparisons, unit="comparisons") as task:
            for index in range(num_comparisons):
                effort = replace(options.effort, seed=options.effort.seed + index)
                found += compare_sides(Side(bundle.name, subject), [Side(bundle.name, subject)], effort)
                task.advance(1)
        result: dict[str, Any] = {
            **told,
            "least_pct": options.least_pct,
            "bundles": [{"name": bundle.name, "bundle_sha256": bundle.sha256}],
            "control": True,
            "false_alarms": {f"p{percent}": false_alarms(found, percent) for percent in PERCENTS},
            "comparisons": [each.to_json() for each in found],
            "invalid": sorted({reason for each in found for reason in each.invalid}),
        }
        write_result(work, result, found)
    lines = control_lines(result, num_comparisons)
    text = json.dumps(result, indent=1) if as_json else "\n".join([*lines, "", str(out)])
    unfit = [line for line in lines if "not fit" in line]
    error = MeasurementError(unfit[0]) if unfit and options.strict else None
    return Outcome(text, error)


def false_alarms(comparisons: Sequence[Comparison], percent: int) -> dict[str, Any]:
    """Intervals that exclude 1 among those that there are, with Wilson's interval of their share in percent."""
    effects = [each.effects[percent] for each in comparisons if percent in each.effects]
    if not effects:
        return {"of": 0, "alarms": 0, "share_pct": None}
    alarms = sum(effect.excludes_one for effect in effects)
    share = wilson_interval(alarms, len(effects))
    return {
        "of": len(effects),
        "alarms": alarms,
        "share_pct": [100 * share.value, 100 * share.low, 100 * share.high],
    }


def control_lines(result: dict[str, Any], num_comparisons: int) -> list[str]:
    """A line a percentile, and whether this machine is fit for a claim."""
    name = result["bundles"][0]["name"]
    lines = [f"A/A control: {name} against itself, {num_comparisons} times {result['pairs']} pairs of launches"]
    for percentile, counted in result["false_alarms"].items():
        if counted["share_pct"] is None:
            lines.append(f"{percentile}: too few samples; measure with longer windows or more blocks.")
            continue
        share, low, high = counted["share_pct"]
        lines.append(
            f"{percentile}: {counted['alarms']} false alarms of {counted['of']}, {share:.1f} % (95 % {low:.1f} to "
            f"{high:.1f} %; expected {ALLOWED_PCT:g} %)"
        )
        if low > ALLOWED_PCT:
            lines.append(f"{percentile}: this machine is not fit for the claim: it alarms too often for nothing.")
    note = not_valid(result["invalid"], what="control")
    return lines if note is None else [*lines, note]
