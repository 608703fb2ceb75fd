"""What a preparation will take, before it starts: clips, room on the disk, time at a measured rate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgelip.data.clip_maker import ClipMaker
from edgelip.data.readers.samples import Sample, Split
from edgelip.data.stores.shard_task import source_of
from edgelip.data.stores.store_folder import gigabytes
from edgelip.errors import ClipError

_PROBE_S = 4.0
_PROBE_CLIPS = 24
_BLOCKS = 3


@dataclass(frozen=True)
class Plan:
    """found, done: samples of each split, and those that an earlier run has been through.

    clip_bytes: of one stored clip with its place in the index. rate: clips a second of one worker, None if unknown;
    num_timed: how many clips that is measured on. workers: 0 where a cluster decides.
    """

    found: Mapping[Split, int]
    done: Mapping[Split, int]
    clip_bytes: int
    rate: float | None
    num_timed: int
    workers: int
    free_bytes: int

    @property
    def num_missing(self) -> int:
        return sum(self.found.values()) - sum(self.done.values())

    @property
    def needs_bytes(self) -> int:
        """Room for what is missing, if all of it can be used."""
        return self.num_missing * self.clip_bytes

    def seconds(self, num_clips: int) -> float | None:
        """Time for so many clips, where each worker is as fast as the one that was measured."""
        if num_clips == 0:
            return 0.0
        return None if self.rate is None else num_clips / (self.rate * max(self.workers, 1))

    def text(self, *, scale_to: int | None = None) -> str:
        """A line a split and one for all; scale_to: also what so many clips of this kind would take."""
        rows: list[tuple[str, int, int]] = [(split, number, self.done[split]) for split, number in self.found.items()]
        rows.append(("all", sum(self.found.values()), sum(self.done.values())))
        lines = [f"{'split':<6} {'clips':>9} {'made':>9} {'room':>8} {'time':>10}"]
        for name, number, done in rows:
            room = gigabytes(number * self.clip_bytes)
            lines.append(f"{name:<6} {number:>9,} {done:>9,} {room:>8} {duration(self.seconds(number - done)):>10}")
        lines.append(self.rate_text())
        fits = "" if self.needs_bytes <= self.free_bytes else ": too small, the preparation would not start"
        lines.append(f"disk: {gigabytes(self.needs_bytes)} to write, {gigabytes(self.free_bytes)} free{fits}")
        if scale_to is not None:
            room, time_text = gigabytes(scale_to * self.clip_bytes), duration(self.seconds(scale_to))
            lines.append(f"{scale_to:,} clips of this kind: {room}, {time_text}")
        return "\n".join(lines)

    def rate_text(self) -> str:
        """The measured rate, and what it leaves out."""
        if self.rate is None:
            return "rate: not measured, nothing is left to make"
        workers = f"{self.workers} worker(s)" if self.workers else "the workers of the cluster; times are for one"
        return f"rate: {self.rate:.1f} clips/s a worker ({self.num_timed} clips timed here, not written), {workers}"

    def to_json(self, *, scale_to: int | None = None) -> dict[str, object]:
        """The same figures for machines; times in seconds."""
        figures: dict[str, object] = {
            "splits": {split: {"clips": number, "made": self.done[split]} for split, number in self.found.items()},
            "clip_bytes": self.clip_bytes,
            "needs_bytes": self.needs_bytes,
            "free_bytes": self.free_bytes,
            "clips_per_s_per_worker": self.rate,
            "clips_timed": self.num_timed,
            "workers": self.workers,
            "seconds": self.seconds(self.num_missing),
        }
        if scale_to is not None:
            scaled = {"clips": scale_to, "bytes": scale_to * self.clip_bytes, "seconds": self.seconds(scale_to)}
            figures["scaled"] = scaled
        return figures


def measured_rate(samples: Sequence[Sample], maker: ClipMaker) -> tuple[float | None, int]:
    """Clips a second of one worker, and on how many clips that is measured: up to 24 in three places, 4 s at most.

    A clip that cannot be used takes its time too. The first one, which also loads libraries, is not counted.
    """
    if not samples:
        return None, 0
    ordered = sorted(samples, key=lambda sample: sample.name)
    size = max(1, min(_PROBE_CLIPS // _BLOCKS, len(ordered) // (2 * _BLOCKS)))
    starts = [len(ordered) * block // _BLOCKS for block in range(_BLOCKS)]
    chosen = [sample for start in starts for sample in ordered[start : start + size]]  # words of one video together
    _make(ordered[-1], maker)
    num_timed, started = 0, time.perf_counter()
    for sample in chosen:
        _make(sample, maker)
        num_timed += 1
        if time.perf_counter() - started > _PROBE_S:
            break
    return num_timed / (time.perf_counter() - started), num_timed


def duration(seconds: float | None) -> str:
    """In the unit that people would use: "12 s", "3.5 min", "10.2 h"."""
    if seconds is None:
        return "unknown"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"


def _make(sample: Sample, maker: ClipMaker) -> None:
    source_of(sample, maker)
    try:
        maker.make(sample)
    except ClipError:  # counted when it is prepared
        return
