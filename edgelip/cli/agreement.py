"""What torch says to the test clips, and the table of engines that should say the same.

Axes: N clips, V words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgelip.bench.parity import ParityTable, measure_parity
from edgelip.cache import step_key
from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.files import write_atomic
from edgelip.report.parity import parity_markdown
from edgelip.runtime.clip import network_input

if TYPE_CHECKING:
    from edgelip.cli.workshop import Workshop

PARITY = "parity.json"
PARITY_TEXT = "parity.md"
_WORDS = "words.npy"
_BATCH = 32


def write_agreement(
    workshop: Workshop,
    bundles: Mapping[str, Path],
    clips: Path,
    *,
    known: Mapping[tuple[str, str, str], np.ndarray],
    threads: int,
) -> ParityTable:
    """Run every engine that this machine has on every bundle, and write the table beside the bundles."""
    words = {name: torch_words(workshop, name) for name in bundles}
    progress = workshop.progress
    table = measure_parity(list(bundles.values()), clips, words, threads=threads, known=known, say=progress.say)
    rows = [row.to_json() for row in table.rows]
    content = {"schema_version": 1, "rows": rows, "not_run": dict(table.not_run)}
    write_atomic(workshop.folder / PARITY, json.dumps(content, indent=1) + "\n")
    write_atomic(workshop.folder / PARITY_TEXT, parity_markdown(rows, table.not_run))
    for row in table.rows:
        if not row.agrees:
            progress.say(
                f"{row.variant} {row.precision} on {row.engine} gives torch's word to {row.num_same_words} of "
                f"{row.num_clips} clips only; see {PARITY_TEXT}"
            )
    return table


def torch_words(workshop: Workshop, variant: str) -> np.ndarray:
    """The word that the torch model of a variant gives to each test clip, whole numbers (N,); kept in the cache."""
    stages = workshop.variants[variant]
    key = step_key(
        "words",
        {},
        sources=["compress", "models"],
        inputs=[workshop.stage_key(stages), workshop.clips.key("test")],
        packages=("torch", "nncf"),
    )
    done = workshop.cache.finished(key)
    if done is None:
        store = workshop.clips.store("test")
        model = model_from_checkpoint(workshop.checkpoint(stages)).eval()
        parts = []
        with workshop.cache.making(key) as work, torch.inference_mode():
            for start in range(0, len(store), _BATCH):
                frames_BTHW = np.asarray(store.frames[start : start + _BATCH])
                logits_BV = model(torch.from_numpy(network_input(frames_BTHW, workshop.spec)))
                parts.append(logits_BV.argmax(dim=1).numpy())
            np.save(work / _WORDS, np.concatenate(parts))
        done = workshop.cache.folder / key
    words_N: np.ndarray = np.load(done / _WORDS, allow_pickle=False)
    return words_N
