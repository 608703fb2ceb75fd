from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import expected_logits, make_clips, model_entry, write_bundle

from edgelip.bench import parity
from edgelip.bench.parity import ParityRow, measure_parity

CLIPS = make_clips(20, seed=3)
WORDS_N = expected_logits(CLIPS).argmax(axis=1)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    np.savez(tmp_path / "clips.npz", frames=CLIPS)
    return tmp_path / "clips.npz"


def _bundle(folder: Path, *engines: str) -> Path:
    return write_bundle(
        folder, edit=lambda manifest: manifest.update(models=[model_entry("model.fp32.onnx", engines=list(engines))])
    )


def test_every_engine_that_runs_here_has_a_row_and_the_others_a_reason(tmp_path: Path, clips: Path) -> None:
    folder = _bundle(tmp_path / "tiny", "ort", "openvino", "ort-cuda")
    lines: list[str] = []
    table = measure_parity([folder], clips, {"tiny": WORDS_N}, say=lines.append)
    assert [(row.engine, row.model, row.num_same_words, row.num_clips) for row in table.rows] == [
        ("ort", "model.fp32.onnx, not built", 20, 20),
        ("openvino", "model.fp32.onnx, not built", 20, 20),
    ]
    assert all(row.agrees and row.max_difference < 1e-5 and row.limit == 1e-4 for row in table.rows)
    assert list(table.not_run) == ["ort-cuda"]
    assert "expected CUDAExecutionProvider" in table.not_run["ort-cuda"]
    assert lines == ["words of tiny: fp32 on ort", "words of tiny: fp32 on openvino"]


def test_words_that_torch_does_not_say_are_counted(tmp_path: Path, clips: Path) -> None:
    other_N = WORDS_N.copy()
    other_N[:3] = (other_N[:3] + 1) % 3
    (row,) = measure_parity([_bundle(tmp_path / "tiny", "ort")], clips, {"tiny": other_N}).rows
    assert (row.num_same_words, row.same_words_pct, row.agrees) == (17, 85.0, False)


def test_logits_that_are_known_are_not_computed_again(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> np.ndarray:
        raise AssertionError("computed again")

    monkeypatch.setattr(parity, "deployed_logits", never)
    known = {("tiny", "ort", "fp32"): expected_logits(CLIPS)}
    (row,) = measure_parity([_bundle(tmp_path / "tiny", "ort")], clips, {"tiny": WORDS_N}, known=known).rows
    assert row.num_same_words == 20


def test_an_engine_that_computes_differently_does_not_agree(tmp_path: Path, clips: Path) -> None:
    frames = make_clips(8)
    folder = write_bundle(tmp_path / "tiny", expected={"frames": frames, "logits": expected_logits(frames) + 1})
    row = measure_parity([folder], clips, {"tiny": WORDS_N}).rows[0]
    assert row.max_difference == pytest.approx(1.0, abs=0.2)
    assert not row.agrees


def test_half_precision_must_keep_the_limit_of_sums_in_float(tmp_path: Path, clips: Path) -> None:
    entry = model_entry("model.fp32.onnx", precision="fp16", tolerance=0.02, engines=["ort"])
    folder = write_bundle(tmp_path / "tiny", edit=lambda manifest: manifest.update(models=[entry]))
    (row,) = measure_parity([folder], clips, {"tiny": WORDS_N}).rows
    assert row.limit == 0.01


@pytest.mark.parametrize(
    ("precision", "difference", "num_same", "agrees"),
    [
        ("fp32", 9e-5, 1000, True),
        ("fp32", 2e-4, 1000, False),
        ("fp32", 0.0, 999, False),
        ("fp16", 0.0, 990, True),
        ("int8", 0.0, 989, False),
    ],
)
def test_float_must_give_every_word_and_the_others_99_percent(
    precision: str, difference: float, num_same: int, agrees: bool
) -> None:
    row = ParityRow("v", "ort", precision, "f.onnx", difference, 1e-4, num_same, 1000)
    assert row.agrees is agrees
    assert row.to_json()["agrees"] is agrees
