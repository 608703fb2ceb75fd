"""Does a bundle give here the numbers that its exporter saw?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

import numpy as np

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines.engine import engine_class
from edgelip.runtime.errors import BundleError
from edgelip.runtime.recogniser import Recogniser


@dataclass(frozen=True)
class Parity:
    """How far one model's logits lie from the expected ones: max |difference| / max(1, |expected|)."""

    bundle: str
    num_files: int
    num_clips: int
    engine: str
    precision: str
    max_difference: float
    limit: float

    def line(self) -> str:
        return (
            f"OK {self.bundle}: {self.num_files} files, {self.num_clips} clips, {self.precision} on {self.engine}, "
            f"max |difference| {self.max_difference:.1e} (limit {self.limit:g}), words equal"
        )

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def check(
    bundle_path: Union[Path, str], engine: str = "ort", *, precision: Optional[str] = None, threads: int = 1
) -> Tuple[Parity, ...]:
    """Open the bundle and run its expected clips through every model that `engine` takes, or that of `precision`.

    Raises BundleError if anything in the folder has changed, a logit lies beyond the limit or a word differs.
    """
    engine_class(engine)  # a missing package is said before anything large is read
    bundle = Bundle.open(bundle_path)
    expected = bundle.expected()
    precisions = (precision,) if precision else bundle.precisions_for(engine)
    results = []
    for name in precisions:
        with Recogniser(bundle, engine=engine, threads=threads, precision=name) as recogniser:
            logits_NV = recogniser.logits(expected.frames_NTHW)
        limit = bundle.manifest.tolerance[name]
        scaled_NV = np.abs(logits_NV - expected.logits_NV) / np.maximum(1.0, np.abs(expected.logits_NV))
        difference = float(scaled_NV.max())
        where = f"{bundle.name} ({name} on {engine})"
        if not difference <= limit:
            clip = int(scaled_NV.max(axis=1).argmax())
            raise BundleError(
                f"{where} does not give the expected numbers: max |difference| {difference:.1e} at clip {clip}, "
                f"limit {limit:g}. This engine computes differently; export for it, or try another version."
            )
        differing = np.flatnonzero(logits_NV.argmax(axis=1) != expected.logits_NV.argmax(axis=1))
        if len(differing):
            raise BundleError(
                f"{where} gives other words than expected at clips {differing[:8].tolist()} of {len(logits_NV)}, "
                f"though within the limit (max |difference| {difference:.1e}). Export the bundle again."
            )
        results.append(Parity(bundle.name, len(bundle.manifest.files), len(logits_NV), engine, name, difference, limit))
    return tuple(results)
