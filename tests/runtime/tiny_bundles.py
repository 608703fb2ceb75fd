"""Bundles of a few hundred bytes whose logits a formula gives: mean grey of the clip times a weight per word."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgelip.runtime.clip import ClipSpec, network_input

WORDS = ("ABOUT", "BELOW", "CHEESE")
SPEC = ClipSpec(frames=4, roi_px=16, pool=2, crop_px=12)  # stored 8 x 8, seen by the network as 6 x 6
WEIGHTS_V = np.array([-1.0, 0.25, 1.0], np.float32)
BIAS_V = np.array([0.0, 0.1, 0.0], np.float32)


def write_model(path: Path, *, num_words: int = len(WORDS), clip: Sequence[int | str] = ("B", 1, 4, 6, 6)) -> None:
    """ReduceMean over the clip, then Gemm: logits_BV = mean * WEIGHTS_V + BIAS_V."""
    weights = numpy_helper.from_array(np.resize(WEIGHTS_V, (1, num_words)), "weights")
    bias = numpy_helper.from_array(np.resize(BIAS_V, num_words), "bias")
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["clips"], ["mean"], axes=[2, 3, 4], keepdims=0),
            helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, clip)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", num_words])],
        [weights, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_clips(num_clips: int, *, seed: int = 0) -> np.ndarray:
    """uint8 (N, 4, 8, 8) of different brightness, so that each word occurs."""
    rng = np.random.default_rng(seed)
    grey_N = np.linspace(10, 240, num_clips)
    noise = rng.integers(-8, 9, (num_clips, SPEC.frames, SPEC.stored_px, SPEC.stored_px))
    return np.clip(grey_N[:, None, None, None] + noise, 0, 255).astype(np.uint8)


def expected_logits(frames_NTHW: np.ndarray) -> np.ndarray:
    """The same by numpy: a second way to the numbers of `write_model`."""
    mean_N = network_input(frames_NTHW, SPEC).mean(axis=(1, 2, 3, 4))
    return (mean_N[:, None] * WEIGHTS_V + BIAS_V).astype(np.float32)


def write_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    write_model: Callable[[Path], None] = write_model,
    edit: Callable[[dict[str, Any]], None] = lambda manifest: None,
    expected: dict[str, np.ndarray] | None = None,
) -> Path:
    """A valid bundle at `folder`; `edit` changes the manifest, `expected` replaces what expected.npz holds."""
    folder.mkdir(parents=True)
    write_model(folder / "model.fp32.onnx")
    frames_NTHW = make_clips(8)
    np.savez(folder / "expected.npz", **(expected or {"frames": frames_NTHW, "logits": expected_logits(frames_NTHW)}))
    (folder / "MODEL_CARD.md").write_text("# tiny\n")
    manifest: dict[str, Any] = {
        "schema_version": 2,
        "name": name,
        "producer": "edgelip 0.1.0",
        "files": {file.name: file_entry(file) for file in sorted(folder.iterdir())},
        "vocabulary": list(WORDS),
        "clip": SPEC.to_json(),
        "models": [model_entry("model.fp32.onnx")],
        "weights_sha256": "0" * 64,
        "lineage": [{"stage": "train", "key": "k", "config": {}}],
        "ledger": {"parameters": 6, "macs": 3, "phm_n": 1},
    }
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def model_entry(file: str, **changes: Any) -> dict[str, Any]:
    entry = {"file": file, "precision": "fp32", "activations": None, "weights": "dense"}
    return {**entry, "engines": ["ort", "openvino"], "tolerance": 1e-4, **changes}


def file_entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
