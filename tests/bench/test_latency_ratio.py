"""The ratio of two files run in turn: arithmetic on pairs, and that both files run equally often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import write_model

from edgelip.bench.latency_ratio import interleaved_ratio, ratio_of_medians
from edgelip.runtime.engines.engine import Engine
from edgelip.runtime.errors import MeasurementError


def test_the_ratio_is_that_of_medians_and_outliers_do_not_move_it() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(1000, 20, 400)
    other = 1.5 * base + rng.normal(0, 5, 400)
    other[::50] += 50_000  # what an interrupt costs
    found = ratio_of_medians(np.stack([other, base], axis=1))
    assert found.value == pytest.approx(1.5, rel=0.01)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.05


def test_few_pairs_are_refused() -> None:
    with pytest.raises(MeasurementError, match="15 pairs of runs; expected at least 16"):
        ratio_of_medians(np.ones((15, 2)))


def test_both_files_run_equally_often_and_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_model(tmp_path / name)
    ran: list[Engine] = []
    from edgelip.bench import latency_ratio

    opened = latency_ratio.open_engine

    def watched(*arguments: object, **settings: object) -> Engine:
        engine = opened(*arguments, **settings)  # type: ignore[arg-type]
        infer = engine.infer

        def noted(clip: np.ndarray) -> np.ndarray:
            ran.append(engine)
            return infer(clip)

        monkeypatch.setattr(engine, "infer", noted)
        return engine

    monkeypatch.setattr(latency_ratio, "open_engine", watched)
    clip = np.zeros((1, 1, 4, 6, 6), np.float32)
    found = interleaved_ratio(tmp_path / "a.onnx", tmp_path / "b.onnx", clip, seconds=0)
    assert 0 < found.low <= found.value <= found.high
    first, second = ran[0], ran[1]
    assert len(ran) == 2 * (5 + 40)
    pairs = [tuple(ran[start : start + 2]) for start in range(10, len(ran), 2)]
    assert pairs[:2] == [(first, second), (second, first)]
    assert ran.count(first) == ran.count(second)
