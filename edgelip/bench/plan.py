"""What a suite comes to: a list of rows, each with its bundle, target, scenario and effort, before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgelip.bench.suite_file import TIERS, ScenarioSection, SuiteFile, TargetSection, Tier
from edgelip.errors import BundleError, UsageError
from edgelip.registry import nearest
from edgelip.report.metrics import ACCURACY, STATIC
from edgelip.report.results import Target, row_stem
from edgelip.report.strict import json_from_file
from edgelip.runtime.bundle import MANIFEST_NAME, Bundle
from edgelip.runtime.effort import Effort
from edgelip.runtime.measurement import COLD_START, SINGLE_STREAM

START_S = 1.2  # what a process takes beside its measured seconds: imports, load, warm-up
STATIC_S, ACCURACY_S, LAYERS_S = 2.0, 15.0, 5.0  # guesses, for the time that a sitting is said to take
_IDLE_S = 60.0  # around a measurement of energy
_LARGEST_TABLE_BYTES = 64 << 20


@dataclass(frozen=True)
class PlanRow:
    """One row of results to be. launches: processes of its own, the last `dropped_launches` of them with the bundle's
    files out of the page cache; energy_s: of the first one.
    """

    variant: str
    bundle: Path
    bundle_sha256: str
    target: Target
    scenario: str
    launches: int = 0
    dropped_launches: int = 0
    effort: Effort = field(default_factory=Effort)
    energy_s: float = 0.0

    @property
    def stem(self) -> str:
        return row_stem(self.variant, self.target, self.scenario)

    @property
    def label(self) -> str:
        """As in a message: 'phm4, ort int8 1t, SingleStream'."""
        return f"{self.variant}, {self.target.label}, {self.scenario}"

    @property
    def launch_s(self) -> float:
        """About how long one launch takes."""
        return START_S + (self.effort.seconds if self.scenario != COLD_START else 0.0)

    @property
    def estimate_s(self) -> float:
        if not self.launches:
            return ACCURACY_S if self.scenario == ACCURACY else STATIC_S
        return self.launches * self.launch_s + (self.energy_s + _IDLE_S if self.energy_s else 0.0)

    def effort_of(self, number: int) -> Effort:
        """Of launch `number`, from 1: the first one measures energy too."""
        return replace(self.effort, energy_s=self.energy_s if number == 1 else 0.0)

    def is_dropped(self, number: int) -> bool:
        """Whether launch `number` finds the bundle's files out of the page cache."""
        return number > self.launches - self.dropped_launches

    def to_json(self) -> dict[str, Any]:
        """All that the row depends on; not where the bundle lies."""
        plain = {name: value for name, value in asdict(self).items() if name != "bundle"}
        return {**plain, "target": {**plain["target"], "options": dict(self.target.options)}}


@dataclass(frozen=True)
class Plan:
    """The rows of one sitting in their order. left_out: what the suite asked for and the bundles do not hold."""

    suite: SuiteFile
    tier: Tier
    device: str
    rows: tuple[PlanRow, ...]
    left_out: tuple[str, ...] = ()

    @property
    def first(self) -> str:
        """The variant that ratios and drops are to."""
        return self.rows[0].variant

    @property
    def estimate_s(self) -> float:
        layers_s = LAYERS_S * sum(row.scenario == STATIC for row in self.rows) if self.suite.layers else 0.0
        return sum(row.estimate_s for row in self.rows) + layers_s

    def rows_of(self, scenario: str) -> list[PlanRow]:
        return [row for row in self.rows if row.scenario == scenario]

    def to_json(self) -> dict[str, Any]:
        kept = {"accuracy", "end_to_end", "layers", "name"}
        return {
            "suite": self.suite.model_dump(mode="json", include=kept),
            "tier": self.tier,
            "device": self.device,
            "rows": [row.to_json() for row in self.rows],
        }

    @property
    def key(self) -> str:
        """Hash by which an unfinished sitting is known to be of this plan."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def find_bundles(suite: SuiteFile, *, only: Sequence[str] = ()) -> list[Bundle]:
    """The bundles of a suite, opened, in its order; of an export without one, in that of its table.

    only: keep these beside the first. Raises UsageError or BundleError naming what is not there, and the remedy.
    """
    paths = [path for export in suite.exports for path in _bundles_of_export(export)]
    for path in suite.bundles:
        if not (path / MANIFEST_NAME).is_file():
            raise UsageError(f"The suite {suite.name} names the bundle {path}, which is not there. Run: make export")
        paths.append(path)
    found: dict[str, Bundle] = {}
    for path in paths:
        bundle = Bundle.open(path)
        if bundle.name in found:
            raise UsageError(
                f"{found[bundle.name].path} and {path} are both named {bundle.name!r}. Let the suite name one of them."
            )
        found[bundle.name] = bundle
    asked = [*suite.variants, *(name for section in suite.scenario for name in section.variants)]
    for name in asked:
        if name not in (found if name in suite.variants else suite.variants or found):
            places = ", ".join(map(str, suite.exports)) or "its bundles"
            raise UsageError(
                f"The suite {suite.name} names the variant {name!r}, which {places} do not hold. "
                f"{nearest(name, found)} Or run: make export"
            )
    ordered = [found[name] for name in suite.variants or found]
    for name in only:
        if name not in [bundle.name for bundle in ordered]:
            raise UsageError(f"--only {name}: no such variant. {nearest(name, [bundle.name for bundle in ordered])}")
    return [bundle for bundle in ordered if not only or bundle.name in (ordered[0].name, *only)]


def plan_of(suite: SuiteFile, bundles: Sequence[Bundle], *, tier: Tier, device: str, engine: str = "ort") -> Plan:
    """The rows that a suite makes of its bundles. engine: of a suite without [[target]].

    Raises UsageError if nothing is left to measure, or two sections ask for one row.
    """
    sections = suite.target or (TargetSection(engine=engine),)
    pairs, left_out = _pairs(sections, bundles, device)
    if not pairs:
        raise UsageError(f"The suite {suite.name} leaves nothing to measure: {'; '.join(left_out)}.")
    rows = [_row(bundle, target, STATIC) for bundle, target in pairs]
    for section in suite.scenario:
        for bundle, target in pairs[:1] if section.first_only else pairs:
            if not section.variants or bundle.name in section.variants:
                rows.append(_timed_row(suite, section, tier, bundle, target))
    if suite.accuracy is not None:
        rows += [_row(bundle, target, ACCURACY) for bundle, target in pairs]
    stems = [row.stem for row in rows]
    for row in rows:
        if stems.count(row.stem) > 1:
            raise UsageError(
                f"The suite {suite.name} asks twice for the row {row.label}. Give each row to one section."
            )
    return Plan(suite, tier, device, tuple(rows), tuple(left_out))


def interleaved(rows: Sequence[PlanRow]) -> Iterator[tuple[PlanRow, int]]:
    """Every launch of `rows`, numbered from 1: each round visits all of them, beginning with another one.

    So a slow minute of the machine falls on all.
    """
    for number in range(max((row.launches for row in rows), default=0)):
        for step in range(len(rows)):
            row = rows[(number + step) % len(rows)]
            if number < row.launches:
                yield row, number + 1


def _bundles_of_export(folder: Path) -> list[Path]:
    found = [path.parent for path in folder.glob(f"*/{MANIFEST_NAME}")]
    if not found:
        what = "holds no bundle" if folder.is_dir() else "is not there"
        raise UsageError(f"The export {folder} {what}; expected folders with {MANIFEST_NAME}. Run: make export")
    order = _table_order(folder / "tradeoff.json")
    return sorted(found, key=lambda path: (order.get(path.name, len(order)), path.name))


def _table_order(path: Path) -> Mapping[str, int]:
    """Place of each variant in an export's table; nothing if there is none, or it cannot be read."""
    try:
        rows = json_from_file(path, largest_bytes=_LARGEST_TABLE_BYTES, remedy="")["rows"]
        return {str(row["variant"]): place for place, row in enumerate(rows)}
    except (UsageError, KeyError, TypeError):
        return {}


def _pairs(
    sections: Sequence[TargetSection], bundles: Sequence[Bundle], device: str
) -> tuple[list[tuple[Bundle, Target]], list[str]]:
    """Each bundle on each target that it has a file for, the first bundle's pairs together; and what is left out."""
    pairs, left_out = [], []
    for place, bundle in enumerate(bundles):
        for section in sections:
            if section.first_only and place:
                continue
            try:
                precision = bundle.model_for(section.engine, section.precision).precision
            except (BundleError, UsageError) as error:
                left_out.append(str(error).partition(". It has")[0])
                continue
            pairs.append((bundle, Target(device, section.engine, precision, section.threads, section.options)))
    return pairs, left_out


def _row(bundle: Bundle, target: Target, scenario: str, **more: Any) -> PlanRow:
    return PlanRow(bundle.name, bundle.path, bundle.sha256, target, scenario, **more)


def _timed_row(suite: SuiteFile, section: ScenarioSection, tier: Tier, bundle: Bundle, target: Target) -> PlanRow:
    share = TIERS[tier][section.name]
    launches = section.launches or share.launches
    dropped = launches if section.drop_page_cache else 0
    effort = section.effort(share, warm_up_cap_s=10.0 if tier == "quick" else 60.0)
    energy_s = suite.energy_s if section.name == SINGLE_STREAM else 0.0
    return _row(
        bundle,
        target,
        section.name,
        launches=launches + dropped,
        dropped_launches=dropped,
        effort=effort,
        energy_s=energy_s,
    )
