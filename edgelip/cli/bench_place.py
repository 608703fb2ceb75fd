"""Where a suite is measured: on this machine if it is of the device's kind, else on the device over ssh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelip.bench.plan import Plan, PlanRow
from edgelip.bench.run import Launcher, LocalLauncher
from edgelip.bench.suite_file import HERE, SuiteFile
from edgelip.cli.deploy_device import DEVICES, Placement
from edgelip.errors import UsageError
from edgelip.files import writing
from edgelip.progress import Progress
from edgelip.runtime.measurement import BenchRun

if TYPE_CHECKING:
    from edgelip.deploy.boards.launcher import BoardLauncher
    from edgelip.deploy.target import Device


@dataclass(frozen=True)
class Place:
    """A device and how to reach it. described: None for `here`; host: None on this machine."""

    device: str
    described: Device | None = None
    host: str | None = None
    ssh_config: Path | None = None

    @property
    def is_local(self) -> bool:
        return self.host is None

    @property
    def engine(self) -> str:
        """Of a suite that names none."""
        return "ort" if self.described is None else self.described.engine

    def refuse(self, row: PlanRow) -> None:
        """Raises UsageError for a row that the device does not take."""
        from edgelip.deploy.target import refuse_precision

        if self.described is not None:
            refuse_precision(self.described, row.target.engine, row.target.precision)
        if not self.is_local and row.target.options:
            raise UsageError(f"options of an engine are not carried to {self.device}; leave them out of [[target]].")

    @contextmanager
    def opened(self, plan: Plan, root: Path, progress: Progress) -> Iterator[tuple[Launcher, Mapping[str, Any]]]:
        """What starts the processes of a plan, and the machine that they run on. root: of the sittings."""
        if self.host is None or self.described is None:
            from edgelip.runtime.sensors.process import environment

            yield LocalLauncher(), environment()
            return
        from edgelip.deploy.boards.launcher import open_board

        # Beside the sittings: what is built for a board, and what it said.
        device = Placement(self.device, self.host, self.engine, self.described.python)
        engines = sorted({row.target.engine for row in plan.rows})
        with open_board(device, engines, out=root / DEVICES, progress=progress, ssh_config=self.ssh_config) as (
            board,
            environment_there,
        ):
            yield _OnBoard(board), environment_there


@dataclass(frozen=True)
class _OnBoard:
    """The launcher of a board, asked for rows of a plan."""

    board: BoardLauncher

    def prepare(self, row: PlanRow) -> None:
        target = row.target
        self.board.prepare(row.bundle, engine=target.engine, precision=target.precision, threads=target.threads)

    def launch(self, row: PlanRow, number: int, into: Path) -> BenchRun:
        run = self.board.launch(
            row.bundle,
            engine=row.target.engine,
            precision=row.target.precision,
            threads=row.target.threads,
            scenario=row.scenario,
            effort=row.effort_of(number),
            drop_page_cache=row.is_dropped(number),
        )
        with writing(into):
            into.parent.mkdir(parents=True, exist_ok=True)
        run.write(into)
        return run


def place_of(suite: SuiteFile, device: str | None, *, host: str | None, ssh_config: Path | None) -> Place:
    """Where to measure `suite`: on `device` if it is given, else on the suite's own.

    host: reach it there by ssh, whatever this machine is. Raises UsageError for a device that has no description.
    """
    name = device or suite.device
    if name == HERE:
        if (host, ssh_config) != (None, None):
            raise UsageError("--host and --ssh-config say how to reach a device; name it with --device.")
        return Place(HERE)
    from edgelip.deploy.target import load_device

    described = load_device(name)
    if host is None and is_here(described):
        return Place(described.name, described)
    return Place(described.name, described, host or described.host, ssh_config)


def is_here(device: Device) -> bool:
    """Whether this machine is of the device's kind: its processor, an NVIDIA GPU in it, a Jetson, a Raspberry Pi."""
    import platform

    from edgelip.runtime.sensors import board, nvml

    if device.arch != platform.machine():
        return False
    if device.kind == "x86":
        return True
    if device.kind == "gpu":
        return bool(nvml.gpus())
    model = board.jetson_model() if device.kind == "jetson" else board.raspberry_pi_model()
    return model is not None
