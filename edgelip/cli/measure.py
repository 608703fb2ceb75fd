"""Measuring the bundles of an export and writing its table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelip.cli.agreement import write_agreement
from edgelip.cli.pairing import ACCURACY
from edgelip.cli.result_folders import read_ledger
from edgelip.files import write_atomic, writing
from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.tradeoff import terminal_text, write_report
from edgelip.runtime.check import check

if TYPE_CHECKING:
    from edgelip.bench.suite import Result
    from edgelip.cli.workshop import Workshop
    from edgelip.data.stores.store import Store

RAW = "measurements.json"


def measure_variants(workshop: Workshop, bundles: Mapping[str, Path], *, command: str) -> Ledger:
    """Check every bundle, measure them side by side, write the table and, beside each manifest, its accuracy."""
    from edgelip.bench.suite import measure_bundles

    bench, progress, store = workshop.recipe.bench, workshop.progress, workshop.clips.store("test")
    for path in bundles.values():
        for parity in check(path, engine=bench.engine):
            progress.say(parity.line())
    clips = clips_file(workshop)
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
        (result.bundle.name, result.row["engine"], result.row["precision"]): result.logits_NV for result in results
    }
    write_agreement(workshop, bundles, clips, known=known, threads=os.cpu_count() or 1)
    header = {
        "recipe": workshop.recipe.name,
        "command": command,
        "environment": dict(results[0].runs[0].environment),
        "test_clips": len(store),
        "speakers": len(np.unique(store.speakers)),
        "test_set": _test_set(store),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": [f"Test clips: {workshop.clips.test_line()}."],
    }
    columns = {field.name for field in fields(LedgerRow)}
    ledger = Ledger.from_rows(
        header, [{key: value for key, value in result.row.items() if key in columns} for result in results]
    )
    for result in results:
        if result.row["variant"] in bundles:  # not a second row of the first
            write_atomic(result.bundle / ACCURACY, _accuracy_json(result))
    raw = {"header": header, "results": [result.to_json() for result in results]}
    write_atomic(workshop.folder / RAW, json.dumps(raw) + "\n")
    write_report(ledger, workshop.folder)
    return ledger


def table_text(folder: Path) -> str:
    """The table of an export, for a terminal. Raises MissingError or UsageError if there is none or it is damaged."""
    return terminal_text(read_ledger(folder))


def clips_file(workshop: Workshop) -> Path:
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


def _test_set(store: Store) -> str:
    """Hash of which clips are read, whatever the pixels that they were brought to."""
    parts = [store.source_sha256, len(store), list(store.words)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _accuracy_json(result: Result) -> str:
    row = result.row
    keys = [key for key in row if key.startswith(("top1", "top5", "mcnemar"))]
    entry: dict[str, Any] = {key: row[key] for key in ("bundle_sha256", "clips_sha256", "num_clips", "engine", *keys)}
    return json.dumps(entry, indent=1) + "\n"
