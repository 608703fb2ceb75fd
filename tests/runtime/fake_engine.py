"""An engine that gives whatever a test puts into `logits_1V`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelip.runtime.engines.engine import Axes, Engine, Options


class FakeEngine(Engine):
    package = "numpy"
    logits_1V = np.zeros((1, 3), np.float32)
    num_inferences = 0

    def __init__(self, model_path: Path, *, threads: int = 1, options: Options | None = None) -> None:
        pass

    @property
    def input_axes(self) -> Axes:
        return (None, 1, 4, 6, 6)

    @property
    def output_axes(self) -> Axes:
        return (None, None)

    @property
    def settings(self) -> dict[str, str]:
        return {}

    @classmethod
    def device_key(cls, options: Options) -> str:
        return "fake1.0"

    def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
        type(self).num_inferences += 1
        return np.repeat(self.logits_1V, len(clips_B1THW), axis=0)

    def close(self) -> None:
        pass
