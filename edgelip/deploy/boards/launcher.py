"""Processes of a board, one a call, for a sitting of many: bundles are brought there, built and checked once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgelip.deploy.boards.deployment import Device, Session, alone
from edgelip.deploy.boards.remote import Board
from edgelip.deploy.boards.report import board_report, refuse_lacking
from edgelip.deploy.boards.wanted import Wanted, wanted_models
from edgelip.errors import MissingError
from edgelip.progress import Progress
from edgelip.runtime.effort import Effort
from edgelip.runtime.measurement import SINGLE_STREAM, BenchRun


class BoardLauncher:
    """A board that was looked at. out: folder of what is built there and what it says of its state."""

    def __init__(self, board: Board, device: str, report: Mapping[str, Any], *, out: Path, progress: Progress) -> None:
        self._board, self._device, self._report = board, device, report
        self._out, self._progress = out, progress

    def prepare(self, bundle: Path, *, engine: str, precision: str, threads: int) -> None:
        """Copy, build and check what is not done yet.

        Raises DeviceError, MissingError for an engine that the board lacks, BundleError if the bundle fails there.
        """
        refuse_lacking(self._board, self._report, engine)
        wanted = _wanted(bundle, engine, precision)
        folder = self._out / f"{wanted.bundle.name}-{engine}-{precision}-{threads}t"
        self._session(threads, self._progress).prepare(wanted, folder)

    def launch(
        self,
        bundle: Path,
        *,
        engine: str,
        precision: str,
        threads: int,
        scenario: str = SINGLE_STREAM,
        effort: Effort,
        drop_page_cache: bool = False,
    ) -> BenchRun:
        """One run in a fresh process there, after `prepare`. Raises DeviceError and what it raised."""
        session = self._session(threads, Progress(quiet=True))
        wanted = _wanted(bundle, engine, precision)
        return session.launch(wanted, scenario=scenario, effort=effort, drop_page_cache=drop_page_cache)

    def _session(self, threads: int, progress: Progress) -> Session:
        return Session(
            self._board,
            self._device,
            self._report,
            threads=threads,
            effort=Effort(),
            scenario=SINGLE_STREAM,
            progress=progress,
        )


@contextmanager
def open_board(
    device: Device, engines: Sequence[str], *, out: Path, progress: Progress, ssh_config: Path | None = None
) -> Iterator[tuple[BoardLauncher, Mapping[str, Any]]]:
    """Look at a board and hold `out`/<device> while it is used; its launcher, and the machine that it is.

    Raises DeviceError if it cannot be reached, MissingError if it lacks all of `engines`.
    """
    board, folder = Board(device.host, python=device.python, ssh_config=ssh_config), out / device.name
    with alone(folder):
        progress.say(f"{device.name}: looking at {device.host}")
        report = board_report(board)
        _refuse_lacking_all(board, report, engines)
        environment = {**report["machine"], "board": report.get("board")}
        yield BoardLauncher(board, device.name, report, out=folder, progress=progress), environment


def _refuse_lacking_all(board: Board, report: Mapping[str, Any], engines: Sequence[str]) -> None:
    first: MissingError | None = None
    for engine in engines:
        try:
            refuse_lacking(board, report, engine)
            return
        except MissingError as error:
            first = first or error
    if first is not None:
        raise first


def _wanted(bundle: Path, engine: str, precision: str) -> Wanted:
    (wanted,) = wanted_models([bundle], engine, precision)
    return wanted
