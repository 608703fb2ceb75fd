"""Bundles to a board over ssh and their results back: look, copy, build, check, bench, each step once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from edgelip.deploy.boards import scripts as board_scripts
from edgelip.deploy.boards.copies import bundle_folder, copy_to_board, runtime_folder
from edgelip.deploy.boards.device_side import files_sha256, runtime_files
from edgelip.deploy.boards.remote import Board
from edgelip.deploy.boards.report import board_report, refuse_lacking, understood
from edgelip.deploy.boards.results import (
    DeviceResult,
    built_files,
    built_key,
    json_from_answer,
    parity_from_answer,
    result_from,
    run_from_answer,
)
from edgelip.deploy.boards.step_record import StepRecord, content_key
from edgelip.deploy.boards.wanted import Wanted, builds, wanted_models
from edgelip.files import claim, writing
from edgelip.progress import Progress
from edgelip.runtime.artefact import ENGINES_FOLDER, SIDECAR
from edgelip.runtime.effort import Effort
from edgelip.runtime.measurement import SINGLE_STREAM, BenchRun

DOCTOR, CHECK, BENCH = "doctor.json", "check.json", "bench.json"
_SIDECAR_LIMIT_BYTES = 1 << 20
_BUILD_S, _CHECK_S, _BENCH_S = 6 * 3600.0, 3600.0, 1800.0


class Device(Protocol):
    """What a deployment asks of a device description."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def python(self) -> str: ...


def deploy_bundles(
    bundles: Sequence[Path],
    device: Device,
    *,
    out: Path,
    engine: str | None = None,
    precision: str | None = None,
    threads: int = 1,
    effort: Effort | None = None,
    scenario: str = SINGLE_STREAM,
    progress: Progress,
    ssh_config: Path | None = None,
) -> list[DeviceResult]:
    """Copy, build, check and bench every bundle on the device; results under `out`/<device>/<bundle>/.

    effort, scenario: how long to measure, and under which traffic. engine, precision: default the device's engine and
    the first model of a bundle that it takes. A step that is done for the same contents, sources and machine is not
    done again, so after any interruption the same call goes on.
    Raises DeviceError if the board cannot be reached or answers nonsense, MissingError for what it lacks, BundleError
    if a bundle fails there, UsageError for an effort that does not fit the scenario.
    """
    (effort or Effort()).check(scenario)
    board = Board(device.host, python=device.python, ssh_config=ssh_config)
    wanted = wanted_models(bundles, engine or device.engine, precision)
    with alone(out / device.name):
        progress.say(f"{device.name}: looking at {device.host}")
        report = board_report(board)
        refuse_lacking(board, report, engine or device.engine)
        session = Session(
            board, device.name, report, threads=threads, effort=effort or Effort(), scenario=scenario,
            progress=progress,
        )  # fmt: skip
        return [session.deploy(one, out / device.name / one.bundle.name) for one in wanted]


class Session:
    """One board in one state, to which bundle after bundle goes."""

    def __init__(
        self,
        board: Board,
        device: str,
        report: Mapping[str, Any],
        *,
        threads: int,
        effort: Effort,
        scenario: str,
        progress: Progress,
    ) -> None:
        self.board, self.device, self.report = board, device, report
        self.threads, self.effort, self.scenario, self.progress = threads, effort, scenario, progress

    def deploy(self, wanted: Wanted, folder: Path) -> DeviceResult:
        """All steps of one bundle that are not done yet; results in `folder`."""
        record, keys = StepRecord(folder), self._keys(wanted)
        pending = [step for step in keys if not record.is_done(step, keys[step])]
        if not pending:
            self._say(wanted, f"nothing to do, {folder} holds its results")
        else:
            self._do(wanted, record, keys, pending)
        return self._result(wanted, folder)

    def prepare(self, wanted: Wanted, folder: Path) -> None:
        """The same without the measurement: the bundle lies there whole, built and checked."""
        record, keys = StepRecord(folder), self._keys(wanted)
        pending = [step for step in keys if step != "bench" and not record.is_done(step, keys[step])]
        self._do(wanted, record, keys, pending)

    def launch(
        self, wanted: Wanted, *, scenario: str = SINGLE_STREAM, effort: Effort, drop_page_cache: bool = False
    ) -> BenchRun:
        """One run of what `prepare` brought there, in a fresh process. Raises DeviceError and what it raised."""
        answer = self._bench_answer(wanted, scenario, effort, ["--drop-page-cache"] if drop_page_cache else [])
        return understood(self.board, "bench", partial(run_from_answer, wanted=wanted, scenario=scenario), answer)

    def _do(self, wanted: Wanted, record: StepRecord, keys: Mapping[str, str], steps: Sequence[str]) -> None:
        pending = [*steps]
        was_copied = copy_to_board(self.board, wanted, device=self.device, progress=self.progress)
        if was_copied and "build" in keys and "build" not in pending:
            pending.insert(0, "build")  # what was built there has gone with the copy
        for number, step in enumerate(pending, start=1):
            self._say(wanted, f"{step} ({number} of {len(pending)})")
            self._steps[step](self, wanted, record, keys[step])

    def _keys(self, wanted: Wanted) -> dict[str, str]:
        """Steps in their order, each with a hash of all that it depends on."""
        runtime = files_sha256(runtime_files())
        state = self.report["engines"][wanted.engine]
        facts = {
            "python": self.report["python"]["version"],
            "numpy": self.report["numpy"]["version"],
            "machine": self.report["machine"]["machine"],
            "engine": [wanted.engine, state["version"], state["device_key"]],
        }
        base = {"bundle": wanted.bundle.sha256, "runtime": runtime, "facts": facts, "model": wanted.model.entry.file}
        keys = {"doctor": content_key(runtime=runtime, facts=facts), "build": content_key(**base)}
        keys["check"] = content_key(**base, threads=self.threads)
        keys["bench"] = content_key(**base, threads=self.threads, effort=asdict(self.effort), scenario=self.scenario)
        if not builds(wanted.engine):
            del keys["build"]
        return keys

    def _write_report(self, wanted: Wanted, record: StepRecord, key: str) -> None:
        record.write("doctor", key, {DOCTOR: _pretty(self.report)})

    def _build(self, wanted: Wanted, record: StepRecord, key: str) -> None:
        answer = self._verb("build", wanted, [], seconds=_BUILD_S)
        device_key = self._device_key(wanted)
        understood(self.board, "build", partial(built_key, engine=wanted.engine, device_key=device_key), answer)
        place = f"{ENGINES_FOLDER}/{device_key}/{wanted.model.path.stem}"
        remote, doing = f"{bundle_folder(wanted)}/{place}", f"fetching what was built of {wanted.bundle.name}"
        sidecar = self.board.run(
            board_scripts.READ,
            [f"{remote}/{SIDECAR}", "0", str(_SIDECAR_LIMIT_BYTES)],
            doing=doing,
            limit_bytes=_SIDECAR_LIMIT_BYTES,
        )
        entries = understood(self.board, SIDECAR, partial(built_files, wanted=wanted, device_key=device_key), sidecar)
        for entry in entries:
            self.board.fetch(
                f"{remote}/{entry.name}", record.folder / place / entry.name, num_bytes=entry.num_bytes,
                sha256=entry.sha256, doing=doing,
            )  # fmt: skip
        present = tuple(f"{place}/{entry.name}" for entry in entries)
        record.write("build", key, {f"{place}/{SIDECAR}": sidecar}, present=present)

    def _check(self, wanted: Wanted, record: StepRecord, key: str) -> None:
        answer = self._verb("check", wanted, ["--threads", str(self.threads)], seconds=_CHECK_S)
        understood(self.board, "check", partial(parity_from_answer, wanted=wanted), answer)
        record.write("check", key, {CHECK: _pretty(json_from_answer(answer))})

    def _bench(self, wanted: Wanted, record: StepRecord, key: str) -> None:
        answer = self._bench_answer(wanted, self.scenario, self.effort, [])
        understood(self.board, "bench", partial(run_from_answer, wanted=wanted, scenario=self.scenario), answer)
        record.write("bench", key, {BENCH: _pretty(json_from_answer(answer))})

    def _bench_answer(self, wanted: Wanted, scenario: str, effort: Effort, more: Sequence[str]) -> bytes:
        options = ["--threads", str(self.threads), *effort.options(scenario), *more]
        seconds = effort.seconds + effort.warm_up_cap_s + 3 * effort.energy_s + _BENCH_S
        return self._verb("bench", wanted, options, seconds=seconds)

    _steps = {"doctor": _write_report, "build": _build, "check": _check, "bench": _bench}  # noqa: RUF012

    def _verb(self, verb: str, wanted: Wanted, options: Sequence[str], *, seconds: float) -> bytes:
        """What a verb of the runtime there prints as JSON."""
        arguments = [runtime_folder(), bundle_folder(wanted), str(self.threads), verb]
        chosen = ["--engine", wanted.engine, "--precision", wanted.precision, "--json", *options]
        return self.board.run(
            board_scripts.ATTENDED, [*arguments, *chosen], doing=f"running {verb} of {wanted.bundle.name}",
            seconds=seconds, heard=lambda line: self._say(wanted, line),
        )  # fmt: skip

    def _result(self, wanted: Wanted, folder: Path) -> DeviceResult:
        parity = parity_from_answer((folder / CHECK).read_bytes(), wanted)
        run = run_from_answer((folder / BENCH).read_bytes(), wanted, scenario=self.scenario)
        return result_from(self.device, self._device_key(wanted), wanted, parity, run)

    def _device_key(self, wanted: Wanted) -> str:
        return str(self.report["engines"][wanted.engine]["device_key"])

    def _say(self, wanted: Wanted, line: str) -> None:
        self.progress.say(f"{self.device}: {wanted.bundle.name}: {line}")


def _pretty(answer: Any) -> bytes:
    return (json.dumps(answer, indent=1) + "\n").encode()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the results of one device for this process."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        claim(descriptor, folder, wait_s=0)
        yield
    finally:
        os.close(descriptor)
