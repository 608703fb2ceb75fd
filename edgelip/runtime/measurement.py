"""What a measurement is: raw samples with their unit, the machine, and whether they can be believed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from edgelip.runtime.errors import BundleError, MeasurementError
from edgelip.runtime.plain_files import read_plain, write_plain
from edgelip.runtime.samples import packed_samples, samples_from_json, unpacked_samples

SCHEMA_VERSION = 2
RUN_LIMIT_BYTES = 256 << 20  # of a run as JSON, samples and all

SINGLE_STREAM, MULTI_STREAM, OFFLINE = "SingleStream", "MultiStream", "Offline"
STREAMING, COLD_START = "Streaming", "ColdStart"
SCENARIOS = (SINGLE_STREAM, MULTI_STREAM, OFFLINE, STREAMING, COLD_START)

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
    """One process that ran one model of one bundle in one scenario; edgelip.runtime.scenarios says what each does.

    batch: clips a query. samples_ns: every sample in the order it was taken, by name. SingleStream and Streaming:
    latency (tensor to logits), end_to_end (frames to word), and its parts crop, normalise, model, label, one each a
    clip; copy (host to engine) where the engine can tell. MultiStream and Offline: query (tensors to logits of all its
    clips) and query_end_to_end. Streaming: last_frame_to_word from the scheduled arrival, late (how long after it the
    work began). What does not apply is absent.
    summary: duration_s, num_clips, and by scenario clips_per_s, missed, real_time_factor, ...
    cold_start_ms: imports (from process start), bundle (verify), engine (load), first_inference, total of these, and
    new_shape, the first inference of another batch size; None where the model has one size only.
    memory_mib: rss_before_load, rss_after_load, rss_after_run, peak (high-water mark from before the load), pss and uss
    after the run; arena, the engine's activations; device_context, device_model and device_run, what CUDA itself,
    loading and running took of a GPU's own memory; on a Jetson gpu_mapped, and everywhere available_drop of the whole
    machine since before the load. None where nobody tells.
    reasons: why the badge is not VALID. energy: as energy.energy_of_loop gives it, with the boundary of its numbers;
    None where it was not asked for.
    """

    bundle: str
    bundle_sha256: str
    engine: str
    precision: str
    threads: int
    scenario: str
    batch: int
    badge: str
    reasons: Tuple[str, ...]
    command: str
    environment: Mapping[str, Any]
    warm_up: Mapping[str, Any]
    cold_start_ms: Mapping[str, Optional[float]]
    memory_mib: Mapping[str, Optional[float]]
    samples_ns: Mapping[str, Tuple[int, ...]]
    summary: Mapping[str, Any]
    energy: Optional[Mapping[str, Any]] = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise MeasurementError(f"scenario is {self.scenario!r}; expected one of {', '.join(SCENARIOS)}.")
        if self.badge not in BADGES:
            raise MeasurementError(f"badge is {self.badge!r}; expected one of {', '.join(BADGES)}.")

    @property
    def latency_ns(self) -> Tuple[int, ...]:
        """Tensor to logits of one clip each; none in scenarios without single clips."""
        return self.samples_ns.get("latency", ())

    @property
    def end_to_end_ns(self) -> Tuple[int, ...]:
        """Frames to word of one clip each; none in scenarios without single clips."""
        return self.samples_ns.get("end_to_end", ())

    def to_json(self) -> Dict[str, Any]:
        """All of it, samples inline: for a stream."""
        # Not asdict: it would copy millions of samples one by one.
        plain = {name: value for name, value in vars(self).items() if name != "samples_ns"}
        return {**plain, "samples_ns": {name: list(samples) for name, samples in self.samples_ns.items()}}

    @classmethod
    def from_json(cls, values: Any) -> BenchRun:
        """A run with its samples inline. Raises MeasurementError if the fields are those of another schema."""
        content = _checked(values)
        for name in ("environment", "warm_up", "cold_start_ms", "memory_mib", "summary"):
            if not isinstance(content.get(name, {}), Mapping):
                raise MeasurementError(f"measurement has the {name} {ascii(content[name])[:60]}; expected an object.")
        for name in ("bundle", "bundle_sha256", "engine", "precision", "scenario", "badge", "command"):
            if not isinstance(content.get(name, ""), str):
                raise MeasurementError(f"measurement has the {name} {ascii(content[name])[:60]}; expected a text.")
        for name in ("threads", "batch"):
            value = content.get(name, 1)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise MeasurementError(f"measurement has the {name} {ascii(value)[:60]}; expected 1 or more.")
        try:
            samples = samples_from_json(content["samples_ns"])
            return cls(**{**content, "reasons": tuple(content["reasons"]), "samples_ns": samples})
        except (KeyError, TypeError, ValueError) as error:
            raise MeasurementError(f"measurement has fields {sorted(content)} ({error}). Measure again.") from error

    def write(self, path: Union[Path, str]) -> None:
        """The run at `path`, its samples beside it as .npz, each whole or not at all.

        Raises MissingError where the disk or a permission forbids it.
        """
        path = Path(path)
        content, entry = packed_samples(self.samples_ns, path.with_suffix(".npz").name)
        write_plain(path.with_suffix(".npz"), content)
        fields_json = replace(self, samples_ns={}).to_json()
        del fields_json["samples_ns"]
        write_plain(path, (json.dumps({**fields_json, "samples": entry}, indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Union[Path, str]) -> BenchRun:
        """A run as `write` left it, or one with its samples inline.

        Raises MeasurementError naming the file that is missing, cut short, changed since, or of another schema.
        """
        path = Path(path)
        try:
            values = json.loads(read_plain(path, limit_bytes=RUN_LIMIT_BYTES).decode())
            content = dict(_checked(values))
            if "samples" in content:
                content["samples_ns"] = unpacked_samples(path.parent, content.pop("samples"))
            return cls.from_json(content)
        except (BundleError, MeasurementError, ValueError, RecursionError) as error:
            # A BundleError speaks of bundles where it tells how to mend.
            reason = " ".join(str(error).split())[:300].replace(" Export the bundle again or copy it anew.", "")
            again = "" if "Measure again" in reason else " Measure again, or bring both of its files anew."
            raise MeasurementError(f"{path}: {reason}{again}") from error

    def measurements(self) -> Tuple[Measurement, ...]:
        """The figures of this one run, without intervals: those need several launches.

        A percentile with too few samples is left out.
        """
        found = []
        for name, samples_ns in self.samples_ns.items():
            for percent in (50, 90, 95, 99):
                if len(samples_ns) >= MINIMUM_COUNT[percent]:
                    value_ms = percentile(samples_ns, percent) / 1e6
                    found.append(self._measurement(f"{name}_p{percent}_ms", value_ms, "ms", len(samples_ns)))
        for name, unit in (("clips_per_s", "clips/s"), ("miss_pct", "%"), ("real_time_factor", "s/s")):
            if self.summary.get(name) is not None:
                found.append(self._measurement(name, self.summary[name], unit, int(self.summary["num_clips"])))
        for name, part_ms in self.cold_start_ms.items():
            if part_ms is not None and (self.scenario == COLD_START or name == "total"):
                found.append(self._measurement(_COLD.get(name, f"cold_{name}_ms"), part_ms, "ms", 1))
        peak_mib = self.memory_mib.get("peak")
        if peak_mib is not None:
            found.append(self._measurement("peak_memory_mib", peak_mib, "MiB", 1))
        if self.energy is not None:
            for name in ("gross_j_per_clip", "above_idle_j_per_clip"):
                unit = f"J ({self.energy['boundary']})"
                found.append(self._measurement(name, self.energy[name], unit, self.energy["num_clips"]))
        return tuple(found)

    def _measurement(self, name: str, value: float, unit: str, num_samples: int) -> Measurement:
        return Measurement(name, value, unit, num_samples, badge=self.badge)


_COLD = {"total": "cold_start_ms", "first_inference": "cold_first_ms"}


def _checked(values: Any) -> Mapping[str, Any]:
    """The fields of a run. Raises MeasurementError if it is none, or of another schema."""
    if not isinstance(values, Mapping):
        raise MeasurementError(f"measurement is a {type(values).__name__}; expected an object. Measure again.")
    schema = values.get("schema_version")
    if schema != SCHEMA_VERSION:
        wanted = f"this edgelip reads {SCHEMA_VERSION}. Measure again."
        raise MeasurementError(f"measurement has schema {ascii(schema)[:80]}; {wanted}")
    known = {*(field.name for field in fields(BenchRun)), "samples"}
    unknown = [str(name)[:80] for name in values if name not in known]
    if unknown:
        raise MeasurementError(f"measurement has the unknown field {unknown[0]!r}. Measure again.")
    return values


def percentile(samples: Sequence[float], percent: float) -> float:
    """Nearest rank (inverted CDF): the smallest sample that at least `percent` % of them do not exceed.

    Raises MeasurementError without samples.
    """
    if not len(samples) or not 0 < percent <= 100:
        what = f"percentile {percent} of {len(samples)} samples"
        raise MeasurementError(f"{what}; expected 0 < percent <= 100 and at least one sample.")
    rank = math.ceil(percent * len(samples) / 100 - 1e-9)  # 99.9 % of 1000 is 999, whatever the last bit says
    return float(sorted(samples)[rank - 1])
