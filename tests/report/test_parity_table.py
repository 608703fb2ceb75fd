from __future__ import annotations

from edgelip.report.parity import parity_markdown

ROW = {
    "variant": "dense",
    "engine": "openvino",
    "precision": "fp16",
    "model": "model.fp16.onnx, built for openvino2026.4",
    "max_difference": 0.00123,
    "limit": 0.01,
    "num_same_words": 2499,
    "num_clips": 2500,
    "agrees": True,
}


def test_each_row_says_what_ran_and_how_it_agreed() -> None:
    other = {**ROW, "engine": "ort", "model": "model.fp16.onnx, not built", "agrees": False}
    text = parity_markdown([ROW, other], {"tensorrt-rtx": "no CUDA device"})
    lines = text.splitlines()
    assert lines[2].startswith("| variant | engine | model |")
    assert (
        lines[4]
        == "| dense | openvino | model.fp16.onnx, built for openvino2026.4 | 1.2e-03 | 0.01 | 2,499 of 2,500 | yes |"
    )
    assert lines[5] == "| dense | ort | model.fp16.onnx, not built | 1.2e-03 | 0.01 | 2,499 of 2,500 | **no** |"
    assert lines[-1] == "- `tensorrt-rtx`: no CUDA device"


def test_nothing_is_said_of_engines_that_all_ran() -> None:
    assert "Not run" not in parity_markdown([ROW], {})
