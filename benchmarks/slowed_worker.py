"""A worker of a comparison whose engine is slower by a known share: what a comparison must find.

After each inference it spins for that share of the time which the inference took, within what is timed.

    python benchmarks/slowed_worker.py export/dist/dense --slowdown 5
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines.engine import Axes, Engine
from edgelip.runtime.recogniser import Recogniser
from edgelip.runtime.windows import serve


class SlowedEngine(Engine):
    """Another engine, slower by slowdown_pct."""

    package = "numpy"

    def __init__(self, engine: Engine, *, slowdown_pct: float) -> None:
        self._engine, self._share = engine, slowdown_pct / 100

    @property
    def input_axes(self) -> Axes:
        return self._engine.input_axes

    @property
    def output_axes(self) -> Axes:
        return self._engine.output_axes

    @property
    def settings(self) -> dict[str, str]:
        return {**self._engine.settings, "slowed_pct": f"{100 * self._share:g}"}

    @classmethod
    def device_key(cls, options: object) -> str:
        return "slowed"

    def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
        clock = time.perf_counter_ns
        begin_ns = clock()
        logits_BV = self._engine.infer(clips_B1THW)
        until_ns = clock() + int((clock() - begin_ns) * self._share)
        while clock() < until_ns:
            pass
        return logits_BV

    def close(self) -> None:
        self._engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--slowdown", type=float, required=True, metavar="PERCENT")
    parser.add_argument("--engine", default="ort")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", type=int)
    options = parser.parse_args()
    with os.fdopen(os.dup(1), "wb") as told:
        os.dup2(2, 1)
        with Recogniser(Bundle.open(options.bundle), engine=options.engine, threads=options.threads) as recogniser:
            recogniser.engine = SlowedEngine(recogniser.engine, slowdown_pct=options.slowdown)
            serve(recogniser, sys.stdin.buffer, told, cpu=options.cpu)


if __name__ == "__main__":
    main()
