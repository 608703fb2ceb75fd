"""A suite in TOML: which bundles are measured on which targets in which scenarios, by `edgelip bench SUITE.toml`.

A tier says how long and how often where the suite does not.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from edgelip.errors import RecipeError
from edgelip.recipe_sections import Strict, explain
from edgelip.registry import nearest
from edgelip.runtime.effort import Effort
from edgelip.runtime.engines.engine import ENGINES
from edgelip.runtime.measurement import COLD_START, MINIMUM_COUNT, MULTI_STREAM, OFFLINE, SINGLE_STREAM, STREAMING

HERE = "here"
MAX_FILE_BYTES = 64 * 1024

Tier = Literal["quick", "standard", "full"]
ScenarioName = Literal["SingleStream", "MultiStream", "Offline", "Streaming", "ColdStart"]


@dataclass(frozen=True)
class Share:
    """What a row of a scenario gets: fresh processes, and in each so many seconds and samples at least."""

    launches: int
    seconds: float = 0.0
    min_count: int = 1


# Durations and counts are MLPerf-style; 5 launches are the least that tell the spread between them, 10 of a cold start.
TIERS: Mapping[str, Mapping[str, Share]] = {
    "quick": {
        SINGLE_STREAM: Share(5, 3, MINIMUM_COUNT[90]),
        MULTI_STREAM: Share(1, 3, MINIMUM_COUNT[99]),
        OFFLINE: Share(1, 3),
        STREAMING: Share(1, 60),
        COLD_START: Share(10),
    },
    "standard": {
        SINGLE_STREAM: Share(5, 30, MINIMUM_COUNT[99]),
        MULTI_STREAM: Share(5, 60, MINIMUM_COUNT[99]),
        OFFLINE: Share(5, 30),
        STREAMING: Share(1, 600, MINIMUM_COUNT[99]),
        COLD_START: Share(20),
    },
    "full": {
        SINGLE_STREAM: Share(5, 600, MINIMUM_COUNT[99]),
        MULTI_STREAM: Share(5, 600, MINIMUM_COUNT[99]),
        OFFLINE: Share(5, 600, 24_576),
        STREAMING: Share(1, 1800, MINIMUM_COUNT[99]),
        COLD_START: Share(20),
    },
}


class TargetSection(Strict):
    """An engine to run on."""

    engine: str
    precision: Literal["fp32", "fp16", "int8", "fp8"] | None = None  # of the bundle's files; default the engine's first
    threads: int = Field(1, ge=1, le=1024)
    options: dict[str, str] = Field(default_factory=dict)  # of the engine, such as { hint = "throughput" }
    first_only: bool = False  # the first variant alone, such as its fp16 file as a baseline

    @model_validator(mode="after")
    def _engine_is_known(self) -> TargetSection:
        if self.engine not in ENGINES:
            raise ValueError(f"there is no engine {self.engine!r}. {nearest(self.engine, ENGINES)}")
        return self


class ScenarioSection(Strict):
    """Traffic to measure under. What is left out comes from the tier."""

    name: ScenarioName
    variants: tuple[str, ...] = ()  # none: all
    first_only: bool = False  # the first variant alone
    launches: int | None = Field(None, ge=1, le=1000)  # fresh processes
    seconds: float | None = Field(None, gt=0, le=86_400)  # of steady running in each
    min_count: int | None = Field(None, ge=1)  # samples in each
    fps: float | None = Field(None, gt=0, le=1000)  # Streaming: frames that arrive a second
    hop_frames: int | None = Field(None, ge=1, le=4096)  # Streaming: from one window to the next
    clips_per_query: int | None = Field(None, ge=1, le=4096)  # MultiStream
    batch: int | None = Field(None, ge=1, le=4096)  # Offline: clips of one inference
    drop_page_cache: bool = False  # ColdStart: as many launches again with the files out of memory

    @model_validator(mode="after")
    def _has_effect(self) -> ScenarioSection:
        self.effort(Share(1), warm_up_cap_s=0).check(self.name)
        if self.drop_page_cache and self.name != COLD_START:
            raise ValueError(f"drop_page_cache has no effect on {self.name}; it belongs to {COLD_START}")
        for key in ("seconds", "min_count"):
            if self.name == COLD_START and key in self.model_fields_set:
                raise ValueError(
                    f"{key} has no effect on {COLD_START}, which ends with the first inference; set launches"
                )
        if self.first_only and self.variants:
            raise ValueError("first_only and variants both say which; leave one out")
        return self

    def effort(self, share: Share, *, warm_up_cap_s: float) -> Effort:
        """What each of its processes is asked for; `share` gives what the section leaves open."""
        return Effort(
            seconds=self.seconds or share.seconds,
            min_count=self.min_count or share.min_count,
            warm_up_cap_s=warm_up_cap_s,
            fps=self.fps,
            hop_frames=self.hop_frames,
            clips_per_query=self.clips_per_query,
            batch=self.batch,
        )


class AccuracySection(Strict):
    """What the deployed files get right."""

    clips: Path | None = None  # .npz of frames and labels; default the test clips of the bundles' export
    robustness: tuple[str, ...] = ()  # conditions of edgelip.data.disturbances
    robustness_clips: int = Field(500, ge=1)  # evenly spread ones, for each condition


class EndToEndSection(Strict):
    """What reading and cropping a video costs before the clip is there."""

    video: Path
    repeats: int = Field(64, ge=11, le=10_000)  # 11 are the least for a median


class SuiteFile(Strict):
    """Everything that one `edgelip bench SUITE.toml` measures. Paths are relative to the file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")  # default the file's own
    device: str = HERE  # a name of export/devices; here: this machine, whatever it is
    exports: tuple[Path, ...] = ()  # folders of exports: every bundle of them
    bundles: tuple[Path, ...] = ()
    variants: tuple[str, ...] = ()  # keep these, in this order; the first is what others are compared with
    target: tuple[TargetSection, ...] = ()  # default the device's own engine
    scenario: tuple[ScenarioSection, ...] = (ScenarioSection(name=SINGLE_STREAM), ScenarioSection(name=COLD_START))
    accuracy: AccuracySection | None = None
    end_to_end: EndToEndSection | None = None
    layers: bool = False  # the time of each layer, where the engine tells it
    energy_s: float = Field(
        0.0, ge=0, le=86_400
    )  # in a SingleStream row's first launch, with a power sensor; 30 or more

    @model_validator(mode="after")
    def _measures_something(self) -> SuiteFile:
        if not self.exports and not self.bundles:
            raise ValueError('it names no bundle; set exports = ["../../export/dist"] or bundles = [...]')
        if not self.scenario and self.accuracy is None:
            raise ValueError("it measures nothing; give [[scenario]] or [accuracy]")
        if len(set(self.variants)) < len(self.variants):
            raise ValueError("variants names one twice; names must differ")
        if self.energy_s and not any(scenario.name == SINGLE_STREAM for scenario in self.scenario):
            raise ValueError(f'energy_s has no effect without [[scenario]] name = "{SINGLE_STREAM}"')
        return self


def load_suite_file(path: Path) -> SuiteFile:
    """Read and check a suite; its paths become absolute. Raises RecipeError naming the file and what is wrong."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise RecipeError(f"{path} is larger than {MAX_FILE_BYTES} bytes; a suite is written in a few hundred.")
        tree = tomllib.loads(text.decode("utf-8"))
    except FileNotFoundError as error:
        found = sorted(str(other) for other in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        there = f" Suites there: {', '.join(found)}." if found else ""
        raise RecipeError(f"There is no suite {path}.{there}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}") from error
    try:
        suite = SuiteFile.model_validate({"name": path.stem, **tree})
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, SuiteFile)}") from error
    return _anchored(suite, path.resolve().parent)


def _anchored(suite: SuiteFile, folder: Path) -> SuiteFile:
    changes: dict[str, object] = {
        "exports": tuple((folder / each).resolve() for each in suite.exports),
        "bundles": tuple((folder / each).resolve() for each in suite.bundles),
    }
    if suite.accuracy is not None and suite.accuracy.clips is not None:
        changes["accuracy"] = suite.accuracy.model_copy(update={"clips": (folder / suite.accuracy.clips).resolve()})
    if suite.end_to_end is not None:
        changes["end_to_end"] = suite.end_to_end.model_copy(
            update={"video": (folder / suite.end_to_end.video).resolve()}
        )
    return suite.model_copy(update=changes)
