"""Does a bundle give here the numbers that its exporter saw?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

import numpy as np

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines.engine import Options, engine_class
from edgelip.runtime.errors import BundleError
from edgelip.runtime.recogniser import Recogniser


@dataclass(frozen=True)
class Parity:
    """How far one model's logits lie from the expected ones: max |difference| / max(1, |expected|).

    device_key: of the build that ran; None where the engine took the ONNX file.
    num_equal_words: clips whose best word is the expected one. Where both lie within the limit, only a clip whose two
    best words are closer than the limit can change its word: that happens between processors and is no fault.
    """

    bundle: str
    num_files: int
    num_clips: int
    engine: str
    precision: str
    device_key: Optional[str]
    max_difference: float
    limit: float
    num_equal_words: int

    def line(self) -> str:
        words = "words equal"
        if self.num_equal_words < self.num_clips:
            words += f" at {self.num_equal_words} of {self.num_clips} clips, the others are ties within the limit"
        built = f" as built for {self.device_key}" if self.device_key else ""
        return (
            f"OK {self.bundle}: {self.num_files} files, {self.num_clips} clips, "
            f"{self.precision} on {self.engine}{built}, "
            f"max |difference| {self.max_difference:.1e} (limit {self.limit:g}), {words}"
        )

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def check(
    bundle_path: Union[Path, str],
    engine: str = "ort",
    *,
    precision: Optional[str] = None,
    threads: int = 1,
    options: Optional[Options] = None,
    required_key: Optional[str] = None,
) -> Tuple[Parity, ...]:
    """Open the bundle and run its expected clips through every model that `engine` takes, or that of `precision`.

    required_key: see Bundle.open. Raises BundleError if anything in the folder has changed or a logit lies beyond the
    limit.
    """
    engine_class(engine)  # a missing package is said before anything large is read
    bundle = Bundle.open(bundle_path, required_key=required_key)
    expected = bundle.expected()
    precisions = (precision,) if precision else bundle.precisions_for(engine)
    results = []
    for name in precisions:
        with Recogniser(bundle, engine=engine, threads=threads, precision=name, options=options) as recogniser:
            logits_NV = recogniser.logits(expected.frames_NTHW)
            key = recogniser.artefact.device_key if recogniser.artefact else None
        limit = bundle.model_for(engine, name).entry.tolerance
        scaled_NV = scaled_difference(logits_NV, expected.logits_NV)
        difference = float(scaled_NV.max())
        where = f"{bundle.name} ({name} on {engine})"
        if not difference <= limit:
            clip = int(scaled_NV.max(axis=1).argmax())
            raise BundleError(
                f"{where} does not give the expected numbers: max |difference| {difference:.1e} at clip {clip}, "
                f"limit {limit:g}. This engine computes differently; export for it, or try another version."
            )
        equal = int((logits_NV.argmax(axis=1) == expected.logits_NV.argmax(axis=1)).sum())
        files = len(bundle.manifest.files)
        results.append(Parity(bundle.name, files, len(logits_NV), engine, name, key, difference, limit, equal))
    return tuple(results)


def scaled_difference(logits_NV: np.ndarray, expected_NV: np.ndarray) -> np.ndarray:
    """|difference| / max(1, |expected|) of every logit: absolute for small ones, relative for large ones."""
    scaled: np.ndarray = np.abs(logits_NV - expected_NV) / np.maximum(1.0, np.abs(expected_NV))
    return scaled
