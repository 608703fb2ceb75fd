"""What a measurement is: raw samples with their unit, the machine, and whether they can be believed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from edgelip.runtime.errors import MeasurementError

SCHEMA_VERSION = 1

# Fewest samples for the early-stopping estimate at confidence 0.99: the smallest q with P[Bin(q, 1 - p) <= 1] <= 0.01.
MINIMUM_COUNT: Dict[float, int] = {50: 11, 90: 64, 95: 130, 99: 662, 99.9: 6636}

BADGES = ("VALID", "NOISY", "THROTTLED", "FALLBACK", "TOO-FEW", "UNCONTROLLED")


@dataclass(frozen=True)
class Measurement:
    """One quantity. interval: its 95 % interval, None where none was computed."""

    name: str
    value: float
    unit: str
    num_samples: int
    interval: Optional[Tuple[float, float]] = None
    badge: str = "VALID"

    def __post_init__(self) -> None:
        if self.badge not in BADGES:
            raise MeasurementError(f"badge is {self.badge!r}; expected one of {', '.join(BADGES)}.")

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Measurement:
        """Raises MeasurementError if a field is unknown or missing."""
        interval = fields.get("interval")
        try:
            return cls(**{**fields, "interval": tuple(interval) if interval else None})
        except TypeError as error:
            raise MeasurementError(f"measurement has fields {sorted(fields)} ({error}). Measure again.") from error


@dataclass(frozen=True)
class BenchRun:
    """One process that ran one model of one bundle, batch 1, next clip when the previous is done.

    latency_ns: tensor to logits. end_to_end_ns: the same clips, uint8 frames to word, with crop, normalise and softmax.
    cold_start_ms: imports (from process start), bundle (verify), engine (load), first_inference, total.
    memory_mib: rss_before_load, rss_after_load, rss_after_run, peak (high-water mark from before the load), pss and uss
    after the run; on a Jetson gpu_mapped, and everywhere available_drop of the whole machine since before the load.
    reasons: why the badge is not VALID. energy: as energy.energy_of_loop gives it, with the boundary of its numbers;
    None where it was not asked for.
    """

    bundle: str
    bundle_sha256: str
    engine: str
    precision: str
    threads: int
    badge: str
    reasons: Tuple[str, ...]
    command: str
    environment: Mapping[str, Any]
    warm_up: Mapping[str, Any]
    cold_start_ms: Mapping[str, float]
    memory_mib: Mapping[str, Optional[float]]
    latency_ns: Tuple[int, ...]
    end_to_end_ns: Tuple[int, ...]
    energy: Optional[Mapping[str, Any]] = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> BenchRun:
        """Raises MeasurementError if the fields are those of another schema."""
        schema = fields.get("schema_version")
        if schema != SCHEMA_VERSION:
            wanted = f"this edgelip reads {SCHEMA_VERSION}. Measure again."
            raise MeasurementError(f"measurement has schema {schema}; {wanted}")
        try:
            lists = {name: tuple(fields[name]) for name in ("reasons", "latency_ns", "end_to_end_ns")}
            return cls(**{**fields, **lists})
        except (KeyError, TypeError) as error:
            raise MeasurementError(f"measurement has fields {sorted(fields)} ({error}). Measure again.") from error

    def measurements(self) -> Tuple[Measurement, ...]:
        """The figures of this one run, without intervals: those need several launches.

        A percentile with too few samples is left out.
        """
        found = []
        for name, samples_ns in (("latency", self.latency_ns), ("end_to_end", self.end_to_end_ns)):
            for percent in (50, 90, 95, 99):
                if len(samples_ns) >= MINIMUM_COUNT[percent]:
                    value_ms = percentile(samples_ns, percent) / 1e6
                    found.append(
                        Measurement(f"{name}_p{percent}_ms", value_ms, "ms", len(samples_ns), badge=self.badge)
                    )
        found.append(Measurement("cold_start_ms", self.cold_start_ms["total"], "ms", 1, badge=self.badge))
        peak_mib = self.memory_mib["peak"]
        if peak_mib is not None:
            found.append(Measurement("peak_memory_mib", peak_mib, "MiB", 1, badge=self.badge))
        if self.energy is not None:
            for name in ("gross_j_per_clip", "above_idle_j_per_clip"):
                unit = f"J ({self.energy['boundary']})"
                found.append(Measurement(name, self.energy[name], unit, self.energy["num_clips"], badge=self.badge))
        return tuple(found)


def percentile(samples: Sequence[float], percent: float) -> float:
    """Nearest rank (inverted CDF): the smallest sample that at least `percent` % of them do not exceed.

    Raises MeasurementError without samples.
    """
    if not len(samples) or not 0 < percent <= 100:
        what = f"percentile {percent} of {len(samples)} samples"
        raise MeasurementError(f"{what}; expected 0 < percent <= 100 and at least one sample.")
    rank = math.ceil(percent * len(samples) / 100 - 1e-9)  # 99.9 % of 1000 is 999, whatever the last bit says
    return float(sorted(samples)[rank - 1])
