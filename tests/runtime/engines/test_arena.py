from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import write_model

from edgelip.runtime.engines.arena import activation_bytes_in_profile
from edgelip.runtime.engines.engine import open_engine


def test_the_highest_peak_of_all_nodes_counts() -> None:
    nodes = [
        {"cat": "Node", "name": name, "args": {"mem_in_use_peak": peak}} for name, peak in (("a", "7"), ("b", "40"))
    ]
    events = [{"cat": "Session", "name": "session_initialization"}, *nodes, {"cat": "Node", "name": "c", "args": {}}]
    assert activation_bytes_in_profile(json.dumps(events)) == 40


def test_a_version_that_does_not_tell_gives_none() -> None:
    assert activation_bytes_in_profile(json.dumps([{"cat": "Node", "name": "a", "args": {"op_name": "Conv"}}])) is None


def test_onnx_runtime_tells_more_for_more_clips(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx")
    clips_B1THW = np.zeros((64, 1, 4, 6, 6), np.float32)
    with open_engine("ort", tmp_path / "model.onnx") as engine:
        one, many = engine.activation_bytes(clips_B1THW[:1]), engine.activation_bytes(clips_B1THW)
        if one is None or many is None:
            pytest.skip("this ONNX Runtime is older than 1.31")
        assert 0 < one < many
        logits_BV, copy_ns = engine.infer_split(clips_B1THW[:1])
        np.testing.assert_array_equal(logits_BV, engine.infer(clips_B1THW[:1]))
        assert copy_ns is None  # there is no copy
