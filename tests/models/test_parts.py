"""Checkpoints in parts: put together again to the same bits, parts stored once, damage found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import dense_checkpoint

from edgelip.errors import CheckpointError
from edgelip.linked import Blobs
from edgelip.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgelip.models.parts import save_parts

PARTS = ["frontend", "head", "temporal", "trunk"]


def with_other_head(checkpoint: Checkpoint) -> Checkpoint:
    moved = {name: tensor + 1 if name.startswith("head.") else tensor for name, tensor in checkpoint.tensors.items()}
    return replace(checkpoint, tensors=moved)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_parts(dense_checkpoint(), tmp_path / "run", Blobs(tmp_path / "blobs"))


def test_parts_give_the_checkpoint_back_bit_by_bit(saved: Path) -> None:
    checkpoint, found = dense_checkpoint(), load_checkpoint(saved)
    assert found.sha256 == checkpoint.sha256
    assert found.architecture == checkpoint.architecture
    assert sorted(path.stem for path in saved.parent.glob("*.safetensors")) == PARTS
    assert load_checkpoint(saved.parent).sha256 == checkpoint.sha256  # the run's folder will do


def test_runs_with_the_same_trunk_store_it_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    first = save_parts(dense_checkpoint(), tmp_path / "a", blobs)
    second = save_parts(with_other_head(dense_checkpoint()), tmp_path / "b", blobs)
    links = {part: (second.parent / f"{part}.safetensors").stat().st_nlink for part in PARTS}
    assert links == {"frontend": 3, "trunk": 3, "temporal": 3, "head": 2}
    assert len({load_checkpoint(path).sha256 for path in (first, second)}) == 2
    single = tmp_path / "single.safetensors"
    save_checkpoint(dense_checkpoint(), single)
    usage = blobs.usage()
    head = (first.parent / "head.safetensors").stat().st_size
    assert usage.stored_bytes < single.stat().st_size + head + 4096  # four headers


def test_a_part_that_has_changed_is_refused(saved: Path) -> None:
    trunk = saved.with_name("trunk.safetensors")
    content = bytearray(trunk.read_bytes())
    content[-1] ^= 1
    trunk.unlink()
    trunk.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"trunk\.safetensors has changed: sha256 .*; described with sha256 "):
        load_checkpoint(saved)
    trunk.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match=r"has changed: 100 bytes, expected \d+; described .* Train again, or "):
        load_checkpoint(saved)
    trunk.unlink()
    with pytest.raises(CheckpointError, match=r"trunk\.safetensors is missing; the checkpoint beside it is made of"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no checkpoint in parts, or is damaged: "),
        ("[]", "describes no checkpoint: "),
        ('{"schema_version": 1, "checkpoint": {}, "parts": {}}', "describes no checkpoint: parts: "),
        (
            '{"schema_version": 1, "checkpoint": {}, "parts": {"../x": {"sha256": "%s", "num_bytes": 9}}}' % ("0" * 64),
            "the part '../x' is no name of a module",
        ),
    ],
)
def test_a_description_that_is_none_is_refused(saved: Path, text: str, message: str) -> None:
    saved.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_newer_architecture_in_parts_is_refused(saved: Path) -> None:
    described = json.loads(saved.read_text())
    described["checkpoint"]["schema_version"] = 9
    saved.write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match=r"has checkpoint schema 9; this edgelip reads up to 2\. Upgrade edgelip"):
        load_checkpoint(saved)
