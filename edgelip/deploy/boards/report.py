"""What a board is and has, asked before anything is copied to it; nothing is left there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edgelip.deploy.boards import scripts as board_scripts
from edgelip.deploy.boards.bounded_process import plain_line
from edgelip.deploy.boards.device_side import runtime_files, zip_of
from edgelip.deploy.boards.remote import Board
from edgelip.deploy.boards.remote_failures import no_rsync
from edgelip.deploy.boards.results import BadAnswer, report_from_answer
from edgelip.errors import DeviceError, MissingError

_LIMIT_BYTES = 4 << 20

Answer = TypeVar("Answer")


def board_report(board: Board) -> dict[str, Any]:
    """The doctor's report of the board; nothing is left there."""
    packed = zip_of(runtime_files())
    doing = "looking what it has"
    answer = board.run(
        board_scripts.REPORT, [str(len(packed))], payload=packed, doing=doing, seconds=300,
        limit_bytes=_LIMIT_BYTES,
    )  # fmt: skip
    if answer and not answer.startswith(b"{"):
        raise DeviceError(
            f"{board.host} puts text before its answers ({plain_line(answer[:200].decode(errors='replace'))[:80]}), "
            "which rsync cannot read either. Let the start-up files of its shell, such as ~/.bashrc, print for "
            "interactive shells only."
        )
    return understood(board, "report", report_from_answer, answer)


def refuse_lacking(board: Board, report: Mapping[str, Any], engine: str) -> None:
    """Raises MissingError for the first thing that the board lacks to run bundles, with the command that mends it."""
    host = board.host
    if "too_old" in report:
        oldest = ".".join(map(str, board_scripts.OLDEST_PYTHON))
        raise MissingError(
            f"{board.python} on {host} is Python {report['too_old']}; edgelip.runtime needs {oldest} or newer. Name "
            "a newer one as `python` in the device's description."
        )
    if report["numpy"].get("why_not"):
        _refuse(board, f"numpy: {report['numpy']['why_not']}", report["numpy"]["mend"])
    state = report["engines"].get(engine)
    if state is None:
        raise MissingError(f"{host} does not know the engine {engine!r}; it has {', '.join(report['engines'])}.")
    if state["why_not"]:
        _refuse(board, f"the engine {engine!r}: {state['why_not']}", state["mend"])
    if not report["rsync"]:
        raise no_rsync(board.place)


def _refuse(board: Board, what: str, mend: str | None) -> None:
    remedy = f". Mend it there: {plain_line(mend)}" if mend else ""
    raise MissingError(f"{board.host} lacks {plain_line(what)}{remedy}")


def understood(board: Board, what: str, read: Callable[[bytes], Answer], answer: bytes) -> Answer:
    """The answer as `read` understands it. Raises DeviceError, naming the board, if it is none."""
    try:
        return read(answer)
    except BadAnswer as error:
        raise DeviceError(
            f"the {what} that {board.host} sent {error}. Nothing of it was kept; see what answers there."
        ) from error
