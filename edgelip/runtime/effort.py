"""How long to measure, what traffic a scenario makes, and how the command line says both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

from edgelip.runtime.errors import UsageError
from edgelip.runtime.measurement import (
    COLD_START,
    MINIMUM_COUNT,
    MULTI_STREAM,
    OFFLINE,
    SCENARIOS,
    SINGLE_STREAM,
    STREAMING,
)

CLIPS_PER_QUERY, OFFLINE_BATCH, HOP_FRAMES = 8, 16, 1  # where nothing else is asked for
_OWNERS = {"clips_per_query": MULTI_STREAM, "batch": OFFLINE, "fps": STREAMING, "hop_frames": STREAMING}


@dataclass(frozen=True)
class Effort:
    """How long to measure: until both `seconds` and `min_count` are reached; warm-up gives up after `warm_up_cap_s`.

    min_count: of clips; of queries in MultiStream, of windows in Streaming.
    energy_s: how long to run once more with a power sensor beside it, and to idle before and after, at most 30 s each;
    0 leaves it out.
    The traffic, None for the default: clips_per_query of MultiStream, 8; batch of Offline, the clips of one inference,
    16 where the model takes any number; fps and hop_frames of Streaming, the clip contract's rate and a window for
    every frame.
    """

    seconds: float = 3.0
    min_count: int = MINIMUM_COUNT[90]
    warm_up_cap_s: float = 10.0
    energy_s: float = 0.0
    clips_per_query: Optional[int] = None
    batch: Optional[int] = None
    fps: Optional[float] = None
    hop_frames: Optional[int] = None

    def __post_init__(self) -> None:
        for name, most in (("seconds", 86_400), ("energy_s", 86_400), ("warm_up_cap_s", 3600)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 0 to {most}.")
        if self.min_count < 1:
            raise UsageError(f"min_count is {self.min_count}; expected 1 or more.")
        for name in ("clips_per_query", "batch", "hop_frames"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 4096:
                raise UsageError(f"{name} is {value}; expected 1 to 4096.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"fps is {self.fps}; expected above 0, at most 1000.")

    def check(self, scenario: str) -> None:
        """Raises UsageError for an unknown scenario, or a setting that has no effect on it."""
        if scenario not in SCENARIOS:
            raise UsageError(f"There is no scenario {scenario!r}. Known: {', '.join(SCENARIOS)}.")
        for name, owner in _OWNERS.items():
            if getattr(self, name) is not None and scenario != owner:
                raise UsageError(f"{name} has no effect on {scenario}; it belongs to {owner}. Leave it out.")
        if self.energy_s and scenario == COLD_START:
            raise UsageError(f"energy_s has no effect on {scenario}: it runs no loop. Leave it out.")

    def options(self, scenario: str = SINGLE_STREAM) -> List[str]:
        """The options of `python -m edgelip.runtime bench` that stand for these. Raises UsageError as `check` does."""
        self.check(scenario)
        found = ["--seconds", f"{self.seconds:g}", "--min-count", str(self.min_count)]
        found += ["--warm-up-cap", f"{self.warm_up_cap_s:g}"]
        if scenario != SINGLE_STREAM:
            found += ["--scenario", scenario]
        if self.energy_s:
            found += ["--energy", f"{self.energy_s:g}"]
        for name in _OWNERS:
            value = getattr(self, name)
            if value is not None:
                found += [f"--{name.replace('_', '-')}", f"{value:.12g}"]
        return found
