"""The folder of a sitting while it is measured: begun, gone on with after a kill, held by one process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgelip.bench.plan import Plan, PlanRow
from edgelip.errors import MissingError, UsageError
from edgelip.files import claim, write_atomic, writing
from edgelip.report.results import Sitting, read_sitting, sittings_in, write_sitting
from edgelip.report.strict import json_from_file
from edgelip.runtime.measurement import BenchRun

PLAN = "plan.json"
_LARGEST_PLAN_BYTES = 64 << 20
_SPARE_BYTES = 8 << 20  # rows and tables
_BYTES_PER_S = 400_000  # of samples: 8 arrays of 8 bytes at 6,000 clips/s


@dataclass(frozen=True)
class OpenSitting:
    """A sitting that this process holds. resumed: it was begun before."""

    folder: Path
    sitting: Sitting
    resumed: bool

    def launch_path(self, stem: str, number: int) -> Path:
        return self.folder / stem / f"launch-{number}.json"

    def kept_run(self, stem: str, number: int, bundle_sha256: str) -> BenchRun | None:
        """What a launch has left; None if it has not, or not whole, or of another bundle."""
        path = self.launch_path(stem, number)
        try:
            run = BenchRun.read(path) if path.is_file() else None
        except (UsageError, RuntimeError):
            return None
        return run if run is not None and run.bundle_sha256 == bundle_sha256 else None

    def runs(self, row: PlanRow) -> list[BenchRun]:
        """What the launches of a row have left, in their order."""
        found = [self.kept_run(row.stem, number + 1, row.bundle_sha256) for number in range(row.launches)]
        return [run for run in found if run is not None]

    def require_room(self, seconds: float) -> None:
        """Raises MissingError where the samples of a launch of `seconds` may not fit on the disk."""
        needs_bytes = _SPARE_BYTES + round(seconds * _BYTES_PER_S)
        free_bytes = shutil.disk_usage(self.folder).free
        if free_bytes < needs_bytes:
            raise MissingError(
                f"cannot write {self.folder}: {free_bytes / 1e6:.1f} MB are free, the next launch may need "
                f"{needs_bytes / 1e6:.1f} MB. Free space, then give the same command with --resume."
            )

    def finish(self, notes: tuple[str, ...]) -> Sitting:
        """Write that all of it is measured."""
        done = replace(self.sitting, finished_at=now(), notes=(*self.sitting.notes, *notes))
        write_sitting(self.folder, done)
        return done


@contextmanager
def open_sitting(
    root: Path,
    plan: Plan,
    *,
    unfinished: Path | None,
    command: str,
    environment: Mapping[str, Any],
) -> Iterator[OpenSitting]:
    """A new folder of `root` for the plan, or the one that `unfinished` is, held until the block ends.

    Raises MissingError if another process holds it, or nothing can be written there.
    """
    folder = unfinished or _new_folder(root, plan)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        claim(descriptor, folder, wait_s=0)
        if unfinished is not None:
            older = read_sitting(folder)
            sitting = replace(older, notes=(*older.notes, f"gone on with at {now()}, begun at {older.started_at}"))
        else:
            content = json.dumps({"key": plan.key, **plan.to_json()}, indent=1, default=str) + "\n"
            write_atomic(folder / PLAN, content)
            sitting = Sitting(
                suite=plan.suite.name,
                tier=plan.tier,
                device=plan.device,
                first=plan.first,
                command=command,
                started_at=now(),
                finished_at=None,
                environment=environment,
                notes=tuple(f"left out: {reason}" for reason in plan.left_out),
            )
        write_sitting(folder, sitting)
        yield OpenSitting(folder, sitting, unfinished is not None)
    finally:
        os.close(descriptor)


def unfinished_sitting(root: Path, plan: Plan) -> Path | None:
    """The newest sitting in `root` that was begun for the same plan and not ended."""
    for folder in reversed(sittings_in(root) if root.is_dir() else []):
        try:
            key = json_from_file(folder / PLAN, largest_bytes=_LARGEST_PLAN_BYTES, remedy="")["key"]
            if key == plan.key and read_sitting(folder).finished_at is None:
                return folder
        except (UsageError, KeyError, TypeError):  # not a plan, or not whole: not this one
            continue
    return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _new_folder(root: Path, plan: Plan) -> Path:
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    folder, count = root / f"{moment}-{plan.suite.name}", 1
    with writing(folder):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another one began in this second
                count += 1
                folder = root / f"{moment}-{plan.suite.name}-{count}"
