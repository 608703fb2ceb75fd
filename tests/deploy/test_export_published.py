"""The imported PHM n=16 net of the reference outputs, as a file: small, and right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from published_files import LRW

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.deploy.export import TOLERANCE, export_model
from edgelip.models.published.importer import import_published
from edgelip.runtime.check import scaled_difference
from edgelip.runtime.engines.ort import open_session


def test_the_file_holds_factors_and_gives_the_published_logits(golden: Path, tmp_path: Path) -> None:
    folder = golden / "dctcn_phm16"
    imported = import_published(folder / "ckpt.best.pth", lrw_words=LRW, config=folder / "config.json")
    clips = np.load(folder / "input.npy")
    model = model_from_checkpoint(imported.checkpoint)
    whole, dense = export_model(model, torch.from_numpy(clips), metadata={}, precisions=()).files
    assert len(whole.content) <= 20.5e6  # 4.85 M numbers are 19.4 MB; dense weights are 209 MB
    assert len(dense.content) > 200e6
    operators = [node.op_type for node in onnx.load_from_string(whole.content).graph.node]
    assert operators.count("Transpose") >= 179  # one a PHM layer: weights are built from their factors
    file = tmp_path / whole.file_name
    file.write_bytes(whole.content)
    logits = open_session(file, threads=1).run(None, {"clips": clips})[0]
    assert scaled_difference(logits, np.load(folder / "logits.npy")).max() <= TOLERANCE["fp32"]
