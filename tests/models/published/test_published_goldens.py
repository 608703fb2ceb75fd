"""Files with weights: what the published code computes from them is what we compute after import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import LRW
from torch import Tensor

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.models.checkpoint import load_checkpoint, save_checkpoint
from edgelip.models.published.importer import import_published

FILES = {"dctcn_phm16": "ckpt.best.pth", "snv05x_tcn1x": "model.pth.tar", "eflip_T": "epoch=0.ckpt"}


def imported_model(golden: Path, name: str, folder: Path, **options: Any) -> Any:
    """The model read back from the file that an import writes."""
    imported = import_published(
        golden / name / FILES[name], lrw_words=LRW, config=golden / name / "config.json", **options
    )
    save_checkpoint(imported.checkpoint, folder / "model.safetensors")
    return model_from_checkpoint(load_checkpoint(folder / "model.safetensors"))


def array(golden: Path, name: str, file: str) -> Tensor:
    return torch.from_numpy(np.load(golden / name / f"{file}.npy"))


def assert_close(logits: Tensor, expected: Tensor) -> None:
    assert logits.shape == expected.shape
    assert float(((logits - expected).abs() / expected.abs().clamp(min=1)).max()) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", ["dctcn_phm16", "snv05x_tcn1x"])
def test_logits_of_batch_singles_and_mixed_lengths_are_the_published(name: str, golden: Path, tmp_path: Path) -> None:
    model = imported_model(golden, name, tmp_path)
    clips = array(golden, name, "input")
    assert_close(model(clips), array(golden, name, "logits"))
    assert_close(torch.cat([model(clip[None]) for clip in clips]), array(golden, name, "logits_single"))
    padded = array(golden, name, "input_varlen")
    assert_close(model(padded, torch.tensor([29, 18])), array(golden, name, "logits_varlen"))
    features = array(golden, name, "features")
    assert float((model.features(clips) - features).abs().max()) <= 1e-4


@torch.no_grad()
def test_corrected_hides_padding(golden: Path, tmp_path: Path) -> None:
    model = imported_model(golden, "dctcn_phm16", tmp_path, corrected=True)
    padded = array(golden, "dctcn_phm16", "input_varlen")
    logits = model(padded, torch.tensor([29, 18]))
    assert_close(logits[1:], model(padded[1:, :, :18]))
    assert float((logits - array(golden, "dctcn_phm16", "logits_varlen")).abs().max()) > 1e-2
    assert_close(model(array(golden, "dctcn_phm16", "input")), array(golden, "dctcn_phm16", "logits"))


@torch.no_grad()
def test_eflip_attends_over_the_batch_as_published_and_not_if_corrected(golden: Path, tmp_path: Path) -> None:
    clips = array(golden, "eflip_T", "input")
    model = imported_model(golden, "eflip_T", tmp_path)
    assert_close(model(clips), array(golden, "eflip_T", "logits"))
    assert_close(torch.cat([model(clip[None]) for clip in clips]), array(golden, "eflip_T", "logits_single"))
    features = array(golden, "eflip_T", "features")
    assert float((model.features(clips) - features).abs().max()) <= 1e-4
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)} == {0.99}
    model = imported_model(golden, "eflip_T", tmp_path, corrected=True)
    assert_close(model(clips), array(golden, "eflip_T", "logits_single"))
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)} == {0.01}


def test_the_averaged_copy_imports_too(golden: Path) -> None:
    file = golden / "eflip_T" / "epoch=0.ckpt"
    raw = import_published(file, lrw_words=LRW)
    averaged = import_published(file, lrw_words=LRW, averaged=True)
    assert averaged.checkpoint.sha256 == raw.checkpoint.sha256  # this file's average holds the raw values
    assert "the file also holds averaged parameters, which were left out; --ema takes them" in raw.notes
    assert averaged.checkpoint.architecture.stages[0]["config"]["ema"] is True
