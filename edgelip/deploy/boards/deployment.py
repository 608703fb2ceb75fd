"""Bundles to a board over ssh and their results back: look, copy, build, check, bench, each step once.

On the board ~/.cache/edgelip/ holds `runtime-<hash>/` and `bundle-<hash>/`; a copy that is not whole yet ends in .part.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from edgelip.deploy.boards import scripts as board_scripts
from edgelip.deploy.boards.device_side import files_sha256, runtime_files, write_files
from edgelip.deploy.boards.remote import Board
from edgelip.deploy.boards.remote_failures import GOES_ON, no_space
from edgelip.deploy.boards.report import board_report, refuse_lacking, understood
from edgelip.deploy.boards.results import (
    BadAnswer,
    DeviceResult,
    built_files,
    built_key,
    json_from_answer,
    parity_from_answer,
    result_from,
    run_from_answer,
)
from edgelip.deploy.boards.step_record import StepRecord, content_key
from edgelip.deploy.boards.wanted import Wanted, builds, bundle_files, wanted_models
from edgelip.errors import DeviceError
from edgelip.files import claim, writing
from edgelip.progress import Progress
from edgelip.runtime.artefact import ENGINES_FOLDER, SIDECAR
from edgelip.runtime.bench import Effort

REMOTE_ROOT = ".cache/edgelip"
DOCTOR, CHECK, BENCH = "doctor.json", "check.json", "bench.json"
_SIDECAR_LIMIT_BYTES = 1 << 20
_SETTLE_S, _BUILD_S, _CHECK_S, _BENCH_S = 1800.0, 6 * 3600.0, 3600.0, 1800.0
_SPARE_BYTES = 8 << 20  # results and logs of the board itself


Files = Mapping[str, tuple[str, int]]  # sha256 and size by name


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
    progress: Progress,
    ssh_config: Path | None = None,
) -> list[DeviceResult]:
    """Copy, build, check and bench every bundle on the device; results under `out`/<device>/<bundle>/.

    effort: how long to measure. engine, precision: default the device's engine and the first model of a bundle that it
    takes. A step that is done for the same contents, sources and machine is not done again, so after any interruption
    the same call goes on.
    Raises DeviceError if the board cannot be reached or answers nonsense, MissingError for what it lacks, BundleError
    if a bundle fails there.
    """
    board = Board(device.host, python=device.python, ssh_config=ssh_config)
    wanted = wanted_models(bundles, engine or device.engine, precision)
    with _alone(out / device.name):
        progress.say(f"{device.name}: looking at {device.host}")
        report = board_report(board)
        refuse_lacking(board, report, engine or device.engine)
        session = _Session(board, device.name, report, threads=threads, effort=effort or Effort(), progress=progress)
        return [session.deploy(one, out / device.name / one.bundle.name) for one in wanted]


class _Session:
    """One board in one state, to which bundle after bundle goes."""

    def __init__(
        self, board: Board, device: str, report: Mapping[str, Any], *, threads: int, effort: Effort, progress: Progress
    ) -> None:
        self.board, self.device, self.report = board, device, report
        self.threads, self.effort, self.progress = threads, effort, progress

    def deploy(self, wanted: Wanted, folder: Path) -> DeviceResult:
        """All steps of one bundle that are not done yet; results in `folder`."""
        record, keys = StepRecord(folder), self._keys(wanted)
        pending = [step for step in keys if not record.is_done(step, keys[step])]
        if not pending:
            self._say(wanted, f"nothing to do, {folder} holds its results")
        else:
            copied = self._copy(wanted)
            if copied and "build" in keys and "build" not in pending:
                pending.insert(0, "build")  # what was built there has gone with the copy
            for number, step in enumerate(pending, start=1):
                self._say(wanted, f"{step} ({number} of {len(pending)})")
                self._steps[step](self, wanted, record, keys[step])
        return self._result(wanted, folder)

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
        keys["bench"] = content_key(**base, threads=self.threads, effort=asdict(self.effort))
        if not builds(wanted.engine):
            del keys["build"]
        return keys

    def _copy(self, wanted: Wanted) -> bool:
        """Bring over what is not whole there, the runtime and the bundle; whether the bundle was not."""
        runtime, bundle = self._runtime_folder(), _bundle_folder(wanted)
        folders = {runtime: _listed(runtime_files()), bundle: bundle_files(wanted.bundle)}
        state = self._settle(wanted, folders)
        num_bytes = sum(size for final in state["missing"] for _, size in folders[final].values())
        needs_bytes = max(0, num_bytes - state["held_bytes"]) + _SPARE_BYTES
        if state["missing"] and state["free_bytes"] < needs_bytes:
            raise no_space(self.board.place, needs_mib=needs_bytes / 2**20, free_mib=state["free_bytes"] / 2**20)
        if runtime in state["missing"]:
            with tempfile.TemporaryDirectory(prefix="edgelip-runtime-") as folder:
                write_files(runtime_files(), Path(folder))
                self._send("the runtime", Path(folder), folders[runtime], runtime)
        if bundle in state["missing"]:
            self._send(f"the bundle {wanted.bundle.name}", wanted.bundle.path, folders[bundle], bundle)
        if state["missing"] and self._settle(wanted, folders)["missing"]:
            raise DeviceError(f"the copy of {wanted.bundle.name} arrived damaged on {self.board.host}. {GOES_ON}")
        return bundle in state["missing"]

    def _settle(self, wanted: Wanted, folders: Mapping[str, Files]) -> Mapping[str, Any]:
        order = json.dumps(folders).encode()
        answer = self.board.run(
            board_scripts.SETTLE,
            [str(len(order))],
            payload=order,
            doing=f"looking what it holds of {wanted.bundle.name}",
            seconds=_SETTLE_S,
            limit_bytes=1 << 16,
        )
        return understood(self.board, "list of files", partial(_settled, folders=folders), answer)

    def _send(self, what: str, source: Path, files: Files, final: str) -> None:
        doing = f"copying {what}"
        total = sum(size for _, size in files.values()) // 1000 + 1
        with self.progress.task(f"{self.device}: {doing}", total=total, unit="kB") as task:
            sent = self.board.send(
                source,
                list(files),
                f"{final}.part",
                doing=doing,
                shown=lambda done: task.advance(done // 1000 - task.done),
            )
            task.advance(task.total - task.done, note=f"{sent.literal_bytes // 1000} kB went over the line")

    def _write_report(self, wanted: Wanted, record: StepRecord, key: str) -> None:
        record.write("doctor", key, {DOCTOR: _pretty(self.report)})

    def _build(self, wanted: Wanted, record: StepRecord, key: str) -> None:
        answer = self._verb("build", wanted, [], seconds=_BUILD_S)
        device_key = self._device_key(wanted)
        understood(self.board, "build", partial(built_key, engine=wanted.engine, device_key=device_key), answer)
        place = f"{ENGINES_FOLDER}/{device_key}/{wanted.model.path.stem}"
        remote, doing = f"{_bundle_folder(wanted)}/{place}", f"fetching what was built of {wanted.bundle.name}"
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
        effort = self.effort
        options = ["--threads", str(self.threads), "--seconds", f"{effort.seconds:g}"]
        options += ["--min-count", str(effort.min_count), "--warm-up-cap", f"{effort.warm_up_cap_s:g}"]
        answer = self._verb("bench", wanted, options, seconds=effort.seconds + effort.warm_up_cap_s + _BENCH_S)
        understood(self.board, "bench", partial(run_from_answer, wanted=wanted), answer)
        record.write("bench", key, {BENCH: _pretty(json_from_answer(answer))})

    _steps = {"doctor": _write_report, "build": _build, "check": _check, "bench": _bench}  # noqa: RUF012

    def _verb(self, verb: str, wanted: Wanted, options: Sequence[str], *, seconds: float) -> bytes:
        """What a verb of the runtime there prints as JSON."""
        arguments = [self._runtime_folder(), _bundle_folder(wanted), str(self.threads), verb]
        chosen = ["--engine", wanted.engine, "--precision", wanted.precision, "--json", *options]
        return self.board.run(
            board_scripts.ATTENDED, [*arguments, *chosen], doing=f"running {verb} of {wanted.bundle.name}",
            seconds=seconds, heard=lambda line: self._say(wanted, line),
        )  # fmt: skip

    def _result(self, wanted: Wanted, folder: Path) -> DeviceResult:
        parity = parity_from_answer((folder / CHECK).read_bytes(), wanted)
        run = run_from_answer((folder / BENCH).read_bytes(), wanted)
        return result_from(self.device, self._device_key(wanted), wanted, parity, run)

    def _device_key(self, wanted: Wanted) -> str:
        return str(self.report["engines"][wanted.engine]["device_key"])

    def _runtime_folder(self) -> str:
        return f"{REMOTE_ROOT}/runtime-{files_sha256(runtime_files())[:16]}"

    def _say(self, wanted: Wanted, line: str) -> None:
        self.progress.say(f"{self.device}: {wanted.bundle.name}: {line}")


def _bundle_folder(wanted: Wanted) -> str:
    return f"{REMOTE_ROOT}/bundle-{wanted.bundle.sha256[:16]}"


def _listed(files: Mapping[str, bytes]) -> dict[str, tuple[str, int]]:
    return {name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}


def _settled(answer: bytes, folders: Mapping[str, Files]) -> Mapping[str, Any]:
    state = json_from_answer(answer)
    if not isinstance(state, dict) or set(state) != {"missing", "free_bytes", "held_bytes"}:
        raise BadAnswer(f"is {ascii(state)[:80]}")
    if not all(type(state[name]) is int for name in ("free_bytes", "held_bytes")):
        raise BadAnswer("has sizes that are no numbers")
    if not isinstance(state["missing"], list) or not all(final in folders for final in state["missing"]):
        raise BadAnswer("names folders that nobody asked for")
    return state


def _pretty(answer: Any) -> bytes:
    return (json.dumps(answer, indent=1) + "\n").encode()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the results of one device for this process."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        claim(descriptor, folder, wait_s=0)
        yield
    finally:
        os.close(descriptor)
