"""The runtime and a bundle on a board: what lies there whole, and the copy of what does not.

On the board ~/.cache/edgelip/ holds `runtime-<hash>/` and `bundle-<hash>/`; a copy that is not whole yet ends in .part.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgelip.deploy.boards import scripts as board_scripts
from edgelip.deploy.boards.device_side import files_sha256, runtime_files, write_files
from edgelip.deploy.boards.remote import Board
from edgelip.deploy.boards.remote_failures import GOES_ON, no_space
from edgelip.deploy.boards.report import understood
from edgelip.deploy.boards.results import BadAnswer, json_from_answer
from edgelip.deploy.boards.wanted import Wanted, bundle_files
from edgelip.errors import DeviceError
from edgelip.progress import Progress

REMOTE_ROOT = ".cache/edgelip"
_SETTLE_S = 1800.0
_SPARE_BYTES = 8 << 20  # results and logs of the board itself

Files = Mapping[str, tuple[str, int]]  # sha256 and size by name


def runtime_folder() -> str:
    """Where the runtime lies on a board."""
    return f"{REMOTE_ROOT}/runtime-{files_sha256(runtime_files())[:16]}"


def bundle_folder(wanted: Wanted) -> str:
    """Where a bundle lies on a board."""
    return f"{REMOTE_ROOT}/bundle-{wanted.bundle.sha256[:16]}"


def copy_to_board(board: Board, wanted: Wanted, *, device: str, progress: Progress) -> bool:
    """Bring over what is not whole there, the runtime and the bundle; whether the bundle was not.

    Raises MissingError without room there, DeviceError if what arrived is damaged.
    """
    runtime, bundle = runtime_folder(), bundle_folder(wanted)
    folders = {runtime: _listed(runtime_files()), bundle: bundle_files(wanted.bundle)}
    state = _settle(board, wanted, folders)
    num_bytes = sum(size for final in state["missing"] for _, size in folders[final].values())
    needs_bytes = max(0, num_bytes - state["held_bytes"]) + _SPARE_BYTES
    if state["missing"] and state["free_bytes"] < needs_bytes:
        raise no_space(board.place, needs_mib=needs_bytes / 2**20, free_mib=state["free_bytes"] / 2**20)
    send = partial(_send, board, device=device, progress=progress)
    if runtime in state["missing"]:
        with tempfile.TemporaryDirectory(prefix="edgelip-runtime-") as folder:
            write_files(runtime_files(), Path(folder))
            send("the runtime", Path(folder), folders[runtime], runtime)
    if bundle in state["missing"]:
        send(f"the bundle {wanted.bundle.name}", wanted.bundle.path, folders[bundle], bundle)
    if state["missing"] and _settle(board, wanted, folders)["missing"]:
        raise DeviceError(f"the copy of {wanted.bundle.name} arrived damaged on {board.host}. {GOES_ON}")
    return bundle in state["missing"]


def _settle(board: Board, wanted: Wanted, folders: Mapping[str, Files]) -> Mapping[str, Any]:
    order = json.dumps(folders).encode()
    answer = board.run(
        board_scripts.SETTLE,
        [str(len(order))],
        payload=order,
        doing=f"looking what it holds of {wanted.bundle.name}",
        seconds=_SETTLE_S,
        limit_bytes=1 << 16,
    )
    return understood(board, "list of files", partial(_settled, folders=folders), answer)


def _send(board: Board, what: str, source: Path, files: Files, final: str, *, device: str, progress: Progress) -> None:
    doing = f"copying {what}"
    total = sum(size for _, size in files.values()) // 1000 + 1
    with progress.task(f"{device}: {doing}", total=total, unit="kB") as task:
        sent = board.send(
            source,
            list(files),
            f"{final}.part",
            doing=doing,
            shown=lambda done: task.advance(done // 1000 - task.done),
        )
        task.advance(task.total - task.done, note=f"{sent.literal_bytes // 1000} kB went over the line")


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
