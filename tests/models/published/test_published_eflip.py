"""What is recognised of EfLipReading, and its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import LRW, layout, write_lightning

from edgelip.errors import CheckpointError, UsageError
from edgelip.models.published.importer import import_published
from edgelip.models.published.recognise_eflip import recognise_eflip
from edgelip.runtime.clip import ClipSpec


def shapes(golden: Path, size: str = "T") -> dict[str, tuple[int, ...]]:
    keys = json.loads((golden / f"eflip_{size}" / "keys.json").read_text())
    return {name: tuple(shape) for name, (shape, _) in keys.items()}


def test_clips_options_and_defects_are_those_of_eflip(golden: Path, tmp_path: Path) -> None:
    path = write_lightning(tmp_path / "a.ckpt", layout(golden, "eflip_T"), hyper_parameters={"dropout": 0.25})
    made = import_published(path, lrw_words=LRW)
    architecture = made.checkpoint.architecture
    assert architecture.options == {"attention": "batch", "as_published": True, "dropout": 0.25}
    spec = ClipSpec.from_json(architecture.clip)
    assert (spec.mean, spec.std, spec.frames, spec.pool, spec.crop_px) == (0.4161, 0.1688, 29, 1, 88)
    assert made.epochs == 10
    assert made.behaviour[0].startswith("as published: attention runs over the clips of a batch")
    made = import_published(path, lrw_words=LRW, corrected=True)
    assert made.checkpoint.architecture.options == {"attention": "token", "dropout": 0.25}
    assert made.behaviour[0].startswith("corrected: attention sees one clip at a time")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"efficientnet_size": "S"}, "x.json says efficientnet_size 'S'; the tensors show 'T'"),
        ({"words": 100}, "x.json says words 100; the tensors show 500"),
        ({"in_channels": 3}, "x.json says in_channels 3; the tensors show 1"),
        ({"efficientnet_sise": "T"}, "unknown key 'efficientnet_sise'. Did you mean 'efficientnet_size'"),
        ({"rows": [[1, 3, 1, 8, 8, 2, False, True]]}, "says rows other than those of size T; the tensors show size T"),
        ({"row_columns": ["in"], "rows": [[1, 3, 1, 8, 8, 2, False, True]]}, r"says row_columns \('in',\)"),
    ],
)
def test_a_json_that_contradicts_the_tensors_is_refused(fields: dict[str, Any], message: str, golden: Path) -> None:
    with pytest.raises(UsageError, match=message):
        recognise_eflip(shapes(golden), fields, {}, source="x.json")


@pytest.mark.parametrize("size", ["T", "S", "B"])
def test_published_options_and_training_settings_are_accepted(size: str, golden: Path) -> None:
    fields = json.loads((golden / f"eflip_{size}" / "config.json").read_text())
    training = {"lr": 1e-4, "batch_size": 16, "epochs": 40, "weight_decay": 5e-4, "warmup_epochs": 3, "seed": 42}
    fields |= training | {"use_ema": True, "ema_decay": 0.999, "words_list": None}
    found, _ = recognise_eflip(shapes(golden, size), fields, {}, source="x.json")
    assert found.options == {"size": size, "dropout": 0.4}


def test_an_unknown_size_is_named(golden: Path) -> None:
    fewer = {name: shape for name, shape in shapes(golden).items() if ".blocks.20." not in name}
    message = "the stem has 8 channels and the trunk 20 blocks; expected T: 8 and 21, S: 24 and 40, B: 24 and 21"
    with pytest.raises(CheckpointError, match=message):
        recognise_eflip(fewer, {}, {}, source="")
    del fewer["frontend_3d.conv3d.conv3d.weight"]
    with pytest.raises(CheckpointError, match=r"no tensor frontend_3d\.conv3d\.conv3d\.weight"):
        recognise_eflip(fewer, {}, {}, source="")


def test_no_head_is_a_head_of_no_classes(golden: Path, tmp_path: Path) -> None:
    tensors = layout(golden, "eflip_T") | {"fc_layer.weight": torch.tensor(1.0)}
    with pytest.raises(CheckpointError, match="the head has 0 classes"):
        import_published(write_lightning(tmp_path / "a.ckpt", tensors), lrw_words=LRW)
