"""Does every engine that runs here say what torch says? Numbers on a bundle's own clips, words on the whole test set.

Axes: N clips, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.isolate import Subject, deployed_logits, deployed_run
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import scaled_difference
from edgelip.runtime.errors import MissingError
from edgelip.runtime.manifest import EXPECTED_NAME

# Largest difference of logits, where it is less than the file allows: what kernels that sum in float must keep.
LIMIT = {"fp16": 1e-2}
# Share of clips that must get torch's word. fp32 differs by rounding alone; the others may turn a near tie.
SAME_WORDS_PCT = {"fp32": 100.0, "fp16": 99.0, "int8": 99.0, "fp8": 99.0}


@dataclass(frozen=True)
class ParityRow:
    """One file of a bundle in one engine against the torch model that it comes from.

    model: the ONNX file, and what was built of it if that ran. max_difference, limit: see edgelip.runtime.check.Parity.
    """

    variant: str
    engine: str
    precision: str
    model: str
    max_difference: float
    limit: float
    num_same_words: int
    num_clips: int

    @property
    def same_words_pct(self) -> float:
        return 100 * self.num_same_words / self.num_clips

    @property
    def agrees(self) -> bool:
        return self.max_difference <= self.limit and self.same_words_pct >= SAME_WORDS_PCT[self.precision]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "agrees": self.agrees}


@dataclass(frozen=True)
class ParityTable:
    """The rows that ran here, and why the other engines did not."""

    rows: tuple[ParityRow, ...]
    not_run: Mapping[str, str]


def measure_parity(
    bundles: Sequence[Path],
    clips: Path,
    torch_words: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    known: Mapping[tuple[str, str, str], np.ndarray] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ParityTable:
    """Every file of every bundle in every engine that takes it and runs on this machine, each in a fresh process.

    clips: as deployed_logits takes them. torch_words: by bundle name, whole numbers (N,) that the torch model gives.
    known: logits (N, V) by (bundle, engine, precision) that need not be computed again.
    Cost: a pass over the clips for each row.
    """
    rows: list[ParityRow] = []
    not_run: dict[str, str] = {}
    for path in bundles:
        bundle = Bundle.open(path)
        pairs = [(model, engine) for model in bundle.manifest.models for engine in model.engines]
        for model, engine in pairs:
            if engine in not_run:
                continue
            subject = Subject(path, engine=engine, precision=model.precision, threads=threads)
            try:
                checked_NV, settings = deployed_run(subject, path / EXPECTED_NAME)
            except MissingError as error:
                not_run[engine] = str(error)
                continue
            difference = scaled_difference(checked_NV, bundle.expected().logits_NV)
            say(f"words of {bundle.name}: {model.precision} on {engine}")
            logits_NV = (known or {}).get((bundle.name, engine, model.precision))
            if logits_NV is None:
                logits_NV = deployed_logits(subject, clips)
            same = logits_NV.argmax(axis=1) == torch_words[bundle.name]
            rows.append(
                ParityRow(
                    variant=bundle.name,
                    engine=engine,
                    precision=model.precision,
                    model=settings["model"],
                    max_difference=float(difference.max()),
                    limit=min(model.tolerance, LIMIT.get(model.precision, float("inf"))),
                    num_same_words=int(same.sum()),
                    num_clips=len(same),
                )
            )
    return ParityTable(tuple(rows), not_run)
