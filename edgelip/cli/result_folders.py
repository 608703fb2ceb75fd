"""Finding results: the table of an export, a sitting, or the newest finished one of a folder of sittings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgelip.errors import UsageError
from edgelip.registry import nearest
from edgelip.report.from_results import ledger_from_rows
from edgelip.report.ledger import Ledger, check_one_device
from edgelip.report.results import SITTING, ResultRow, read_rows, read_sitting, sittings_in
from edgelip.report.strict import json_from_file

RUNS, EXPORT = Path("benchmarks/runs"), Path("export/dist")
TABLE = "tradeoff.json"
_LARGEST_TABLE_BYTES = 64 << 20


@dataclass(frozen=True)
class Results:
    """The ledger of `folder`, and the rows that it was made of; none of an export."""

    folder: Path
    ledger: Ledger
    rows: tuple[ResultRow, ...] = ()


def default_folder() -> Path:
    """benchmarks/runs if it holds a sitting, else export/dist. Raises UsageError if neither holds results."""
    if RUNS.is_dir() and sittings_in(RUNS):
        return RUNS
    if (EXPORT / TABLE).is_file():
        return EXPORT
    raise UsageError(
        f"no results: {RUNS} holds no sitting and {EXPORT} no {TABLE}. `edgelip bench SUITE.toml` or "
        "`edgelip export RECIPE` measures; or name a FOLDER."
    )


def read_results(folder: Path, *, device: str | None = None, across_devices: bool = True) -> Results:
    """What is in `folder`: a sitting, else an export's table, else the newest finished sitting below.

    across_devices: of a folder of sittings of several devices, whether the newest is taken without naming one.
    Raises UsageError if there is nothing, or nothing of `device`.
    """
    sittings = sittings_in(folder)
    if sittings != [folder] and (folder / TABLE).is_file():
        return _of_device(Results(folder, read_ledger(folder)), device)
    if not sittings:
        raise UsageError(
            f"{folder} holds no results: neither {TABLE} nor {SITTING}, nor folders with one. "
            "`edgelip bench SUITE.toml` or `edgelip export RECIPE` measures."
        )
    chosen = folder if sittings == [folder] else _newest(folder, sittings, device, across_devices)
    rows = tuple(read_rows(chosen))
    ledger = ledger_from_rows(read_sitting(chosen), rows, device=device)
    return Results(chosen, ledger, tuple(row for row in rows if device in (None, row.target.device)))


def read_ledger(folder: Path) -> Ledger:
    """The table of an export. Raises UsageError if there is none or it is damaged."""
    path = folder / TABLE
    if not path.is_file():
        raise UsageError(f"There is no {path}. `edgelip export RECIPE` measures and writes one.")
    remedy = "Measure again, or move it away."
    try:
        return Ledger.from_content(json_from_file(path, largest_bytes=_LARGEST_TABLE_BYTES, remedy=remedy))
    except UsageError as error:
        raise UsageError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from error


def read_ledgers(folders: Sequence[Path], *, device: str | None = None) -> dict[str, Ledger]:
    """The tables of several folders by their recipes, or by their folders where recipes share a name."""
    ledgers = [read_results(folder, device=device).ledger for folder in folders]
    recipes = [ledger.header.recipe for ledger in ledgers]
    distinct = len({*recipes}) == len(recipes)
    names = [recipe if distinct and recipe else str(folder) for recipe, folder in zip(recipes, folders, strict=True)]
    if len({*names}) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{repeated} is named twice. Name each export once.")
    return dict(zip(names, ledgers, strict=True))


def _newest(folder: Path, sittings: Sequence[Path], device: str | None, across_devices: bool) -> Path:
    read = {path: read_sitting(path) for path in reversed(sittings)}
    finished = [path for path, sitting in read.items() if sitting.finished_at is not None]
    if not finished:
        raise UsageError(f"none of the {len(sittings)} sittings in {folder} is finished. Name one to see what it has.")
    devices = tuple(dict.fromkeys(read[path].device for path in finished))
    if device is None:
        if not across_devices:
            check_one_device(devices, what=str(folder))
        return finished[0]
    of_device = [path for path in finished if read[path].device == device]
    if not of_device:
        raise UsageError(f"{folder} holds no finished sitting of {device!r}. {nearest(device, devices)}")
    return of_device[0]


def _of_device(results: Results, device: str | None) -> Results:
    devices = results.ledger.devices
    if device is None:
        check_one_device(devices, what=str(results.folder))
        return results
    rows = tuple(row for row in results.ledger.rows if (row.device or "here") == device)
    if not rows:
        raise UsageError(f"{results.folder} holds no row of {device!r}. {nearest(device, devices)}")
    return Results(results.folder, Ledger(results.ledger.header, rows))
