"""Measuring the bundles of an export and writing its table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelip.cli.agreement import write_agreement
from edgelip.files import write_atomic, writing
from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.tradeoff import terminal_text, write_report
from edgelip.runtime.check import check

if TYPE_CHECKING:
    from edgelip.bench.suite import Result
    from edgelip.cli.workshop import Workshop

TABLE = "tradeoff.json"
ACCURACY = "accuracy.json"
RAW = "measurements.json"


def measure_variants(workshop: Workshop, bundles: Mapping[str, Path], *, command: str) -> Ledger:
    """Check every bundle, measure them side by side, write the table and, beside each manifest, its accuracy."""
    from edgelip.bench.suite import measure_bundles

    bench, progress, store = workshop.recipe.bench, workshop.progress, workshop.clips.store("test")
    for path in bundles.values():
        for parity in check(path, engine=bench.engine):
            progress.say(parity.line())
    clips = _clips_file(workshop)
    results = measure_bundles(
        list(bundles.values()),
        clips,
        engine=bench.engine,
        launches=bench.launches,
        seconds=bench.seconds,
        threads=bench.threads,
        say=progress.say,
    )
    known = {
        tuple(result.row[key] for key in ("variant", "engine", "precision")): result.logits_NV for result in results
    }
    write_agreement(workshop, bundles, clips, known=known, threads=os.cpu_count() or 1)
    header = {
        "recipe": workshop.recipe.name,
        "command": command,
        "environment": dict(results[0].runs[0].environment),
        "test_clips": len(store),
        "speakers": len(np.unique(store.speakers)),
        "notes": [f"Test clips: {workshop.clips.test_line()}."],
    }
    columns = [field.name for field in fields(LedgerRow)]
    ledger = Ledger.from_rows(header, [{key: result.row[key] for key in columns} for result in results])
    for result in results:
        write_atomic(bundles[result.row["variant"]] / ACCURACY, _accuracy_json(result))
    raw = {"header": header, "results": [result.to_json() for result in results]}
    write_atomic(workshop.folder / RAW, json.dumps(raw) + "\n")
    write_report(ledger, workshop.folder)
    return ledger


def table_text(folder: Path) -> str:
    """The table of an export, for a terminal. Raises MissingError or UsageError if there is none or it is damaged."""
    return terminal_text(read_ledger(folder))


def read_ledger(folder: Path) -> Ledger:
    from edgelip.errors import UsageError

    path = folder / TABLE
    if not path.is_file():
        raise UsageError(f"There is no {path}. `edgelip export RECIPE` measures and writes one.")
    return Ledger.from_json(path.read_bytes())


def report_folder(folder: Path, *, as_json: bool) -> str:
    """`edgelip report`: write the table's files anew from its JSON, and return it."""
    ledger = read_ledger(folder)
    write_report(ledger, folder)
    return ledger.to_json() if as_json else terminal_text(ledger)


def _clips_file(workshop: Workshop) -> Path:
    """The test split as one .npz, written once."""
    store = workshop.clips.store("test")
    path = store.folder / "clips.npz"
    if not path.is_file():
        beside = path.with_name(".clips.npz.partial")
        with writing(path, needs_bytes=store.frames.nbytes), beside.open("wb") as file:
            np.savez(file, frames=store.frames, labels=store.labels, speakers=store.speakers)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    return path


def _accuracy_json(result: Result) -> str:
    row = result.row
    keys = [key for key in row if key.startswith(("top1", "top5", "mcnemar"))]
    entry: dict[str, Any] = {key: row[key] for key in ("bundle_sha256", "clips_sha256", "num_clips", "engine", *keys)}
    return json.dumps(entry, indent=1) + "\n"
