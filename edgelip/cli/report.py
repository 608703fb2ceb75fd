"""`edgelip report`: tables, plot and page of what was measured, and how it moved over time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgelip.cli.result_folders import Results, default_folder, read_ledgers, read_results
from edgelip.errors import MissingError, UsageError
from edgelip.files import write_atomic
from edgelip.progress import Progress
from edgelip.report.history import Drift, History
from edgelip.report.history_text import drift_text
from edgelip.report.joint import joint_ledger
from edgelip.report.results import read_rows, read_sitting, sittings_in
from edgelip.report.tradeoff import terminal_text, write_report

PAGE, DRIFT = "report.html", "drift.json"


def report_folders(
    folders: Sequence[Path], *, out: Path | None = None, device: str | None = None, as_json: bool = False
) -> str:
    """Write tables, plot and page anew into the folder, or into `out`; of several, one table of all to `out`.

    folders: exports, sittings or folders of sittings, of which the newest finished one is taken; none: benchmarks/runs
    or export/dist. Returns the table and the path of the page, or the table as JSON.
    Raises UsageError where there are no results, or tables cannot be joined; MissingError where a file cannot be made.
    """
    say = Progress().say
    if len(folders) > 1:
        ledgers = read_ledgers(folders, device=device)
        ledger = joint_ledger(ledgers, command=f"edgelip report {' '.join(map(str, folders))}")
        results = Results(out or Path(), ledger)
    else:
        folder = folders[0] if folders else default_folder()
        results = read_results(folder, device=device)
        out = out or results.folder
        if results.folder != folder or not folders:
            say(f"results of {results.folder}")
    text = results.ledger.to_json() if as_json else terminal_text(results.ledger)
    if out is None:
        return text
    place = out
    _make([lambda: write_report(results.ledger, place), lambda: _write_page(results, place)])
    if as_json:
        say(f"page: {out / PAGE}")
        return text
    return f"{text}\nPage: {out / PAGE}\n"


def report_drift(
    folders: Sequence[Path], *, since: str, out: Path | None = None, device: str | None = None, as_json: bool = False
) -> str:
    """How the figures of the sittings in a folder moved since a day, also as a section of the newest one's page.

    since: an ISO date, or a number of days back. Raises UsageError if nothing was measured since.
    """
    if len(folders) > 1:
        raise UsageError(f"--since takes one FOLDER of sittings; got {len(folders)}.")
    folder = folders[0] if folders else default_folder()
    begin = moment_from_text(since, now=datetime.now(UTC))
    history, left_out, newest, count = History(), [], None, 0
    sittings = {path: read_sitting(path) for path in sittings_in(folder)}
    for path, sitting in sorted(sittings.items(), key=lambda item: _moment(item[1].started_at, item[0])):
        if _moment(sitting.started_at, path) < begin or device not in (None, sitting.device):
            continue
        if sitting.finished_at is None:
            left_out.append(path.name)
            continue
        history.add(path.name, read_rows(path), environment=sitting.environment)
        newest, count = path, count + 1
    day = begin.isoformat(timespec="minutes")
    if newest is None:
        where = folder if device is None else f"{folder} on {device}"
        raise UsageError(f"no finished sitting in {where} since {day}; it holds {len(sittings)}. Name an earlier day.")
    drift = history.drift(since=day, num_sittings=count, left_out=left_out)
    results, place = read_results(newest, device=device), out or newest
    content = json.dumps(drift.to_json(), indent=1, allow_nan=False) + "\n"
    _make([lambda: write_atomic(place / DRIFT, content), lambda: _write_page(results, place, drift=drift)])
    if as_json:
        Progress().say(f"page: {place / PAGE}")
        return content
    return f"{drift_text(drift)}\nPage: {place / PAGE}\n"


def moment_from_text(text: str, *, now: datetime) -> datetime:
    """2026-11-01, 2026-11-01T08:00, or a number of days before `now`. Raises UsageError for anything else."""
    try:
        if text.isascii() and text.isdigit():
            return now - timedelta(days=int(text))
        return _in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--since is {text!r}; expected a day such as 2026-11-01, or a number of days such as 30."
        ) from error


def _moment(text: str, folder: Path) -> datetime:
    try:
        return _in_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise UsageError(f"{folder}: it started at {text!r}; expected an ISO 8601 time. Move it away.") from error


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _write_page(results: Results, folder: Path, *, drift: Drift | None = None) -> None:
    from edgelip.report.page import page_html

    write_atomic(folder / PAGE, page_html(results.ledger, results.rows, drift=drift))


def _make(steps: Sequence[Callable[[], object]]) -> None:
    """Run all steps, whichever lack something; then raise the first MissingError."""
    missing: list[MissingError] = []
    for step in steps:
        try:
            step()
        except MissingError as error:
            missing.append(error)
    if missing:
        raise missing[0]
