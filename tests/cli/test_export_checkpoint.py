"""`edgelip export CHECKPOINT`: one bundle that gives the checkpoint's numbers, and what bundles cannot hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Edgelip
from tiny_checkpoints import save_tiny
from tiny_models import SPEC, WORDS, clips, compressed, dense_checkpoint

from edgelip.cli.bundling import engines_for, method_of
from edgelip.cli.export_checkpoint import check_clips
from edgelip.compress.pipeline import stages_from_configs
from edgelip.models.checkpoint import load_checkpoint, save_checkpoint
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import check
from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.engines.engine import ENGINES


@pytest.mark.parametrize(
    "kind", ["dctcn_phm2_f", "eflip_token"]
)  # the other families: tests/deploy/test_export_families.py
def test_the_bundle_gives_the_checkpoints_logits(edgelip: Edgelip, tmp_path: Path, kind: str) -> None:
    checkpoint, model = save_tiny(tmp_path, kind)
    folder, out = tmp_path / "bundles" / kind, tmp_path / "logits.npy"
    done = edgelip("export", checkpoint, "-o", folder)
    assert done.code == 0, done.line
    assert [(parity.num_clips, parity.precision) for parity in check(folder)] == [(4, "fp32"), (4, "fp16")]
    values = clips(3)
    np.save(tmp_path / "clips.npy", values.numpy())
    assert edgelip("predict", folder, tmp_path / "clips.npy", "--normalised", "--logits", out).code == 0
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(np.load(out)), model(values), rtol=1e-4, atol=1e-4)


def test_the_bundle_says_what_it_is(edgelip: Edgelip, tmp_path: Path) -> None:
    path, model = save_tiny(tmp_path, "dctcn_phm2")
    folder = tmp_path / "x"
    done = edgelip("export", path, "-o", folder, "--name", "published", "--json")
    result, manifest = json.loads(done.out), Bundle.open(folder).manifest
    assert manifest.name == result["name"] == "published"
    assert manifest.vocabulary == WORDS
    assert manifest.clip == SPEC
    assert manifest.ledger["method"] == "PHM n=2"
    assert manifest.ledger["phm_n"] == 2
    assert manifest.ledger["parameters"] == result["parameters"] == sum(p.numel() for p in model.parameters())
    assert manifest.ledger["macs"] == result["macs"] > 0
    assert manifest.weights_sha256 == result["weights_sha256"] == load_checkpoint(path).sha256
    assert [file["file"] for file in result["files"]] == [model.file for model in manifest.models]
    for file, model in zip(result["files"], manifest.models, strict=True):
        assert file["file_bytes"] == (folder / file["file"]).stat().st_size
        assert file["engines"] == list(model.engines)
        assert file["max_difference"] <= file["tolerance"] == model.tolerance
    assert result["num_check_clips"] == 4


def test_the_text_names_the_folder_and_the_difference(edgelip: Edgelip, tmp_path: Path) -> None:
    path, _ = save_tiny(tmp_path, "dctcn")
    done = edgelip("export", path, "-o", tmp_path / "my-bundle")
    lines = done.out.splitlines()
    assert lines[0] == str(tmp_path / "my-bundle")
    for line, file, limit in zip(lines[1:], ("model.fp32.onnx", "model.fp16.onnx"), ("0.0001", "0.02"), strict=True):
        assert line.startswith(f"{file}, ")
        assert "ONNX Runtime against torch: max |difference| " in line
        assert line.endswith(f" on 4 clips (limit {limit})")
    assert Bundle.open(tmp_path / "my-bundle").name == "my-bundle"


def test_a_compressed_checkpoint_keeps_its_stages(edgelip: Edgelip, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(compressed("phm-int8"), path)
    assert edgelip("export", path, "-o", tmp_path / "int8").code == 0
    manifest = Bundle.open(tmp_path / "int8").manifest
    assert manifest.ledger["method"] == "PHM n=4 + int8 QAT"
    assert [(model.precision, model.activations, model.weights) for model in manifest.models] == [
        ("int8", "u8", "factors"), ("int8", "u8", "dense"), ("int8", "s8", "dense")
    ]  # fmt: skip


def test_methods_and_engines_in_words() -> None:
    stages = stages_from_configs([{"stage": "prune"}, {"stage": "phm", "n": 2}, {"stage": "qat", "backend": "nncf"}])
    assert method_of(stages, phm_n=2) == "pruned 50% + PHM n=2 + int8 QAT (NNCF)"
    assert method_of([], phm_n=None) == "dense fp32"
    assert method_of(stages[2:], phm_n=8) == "PHM n=8 + int8 QAT (NNCF)"
    int8 = ["ort", "ort-xnnpack", "openvino", "ort-qnn", "ort-tensorrt", "tensorrt", "tensorrt-rtx"]
    assert engines_for(stages) == int8
    assert sorted({*ENGINES} - {*engines_for(stages[:2])}) == ["ort-qnn"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dctcn_boundary", "x takes word boundaries; a bundle takes clips only, so it cannot be exported yet."),
        ("dctcn_boundary", "Use the variant without boundary, or run the checkpoint itself: edgelip predict --boundar"),
        ("eflip_batch", "x attends over the clips of a batch, so a clip's words depend on its batch mates;"),
        ("eflip_batch", "Import it anew: edgelip import FILE --corrected."),
        ("audio", "x takes audio; a bundle takes clips of frames or landmarks. Run the checkpoint itself: edgelip"),
    ],
)
def test_networks_that_take_more_than_a_clip_are_refused(
    edgelip: Edgelip, tmp_path: Path, kind: str, message: str
) -> None:
    path, _ = save_tiny(tmp_path, kind)
    done = edgelip("export", path, "-o", tmp_path / "x")
    assert done.code == 2
    assert message in done.line
    assert not (tmp_path / "x").exists()


def test_a_published_file_is_to_be_imported_first(edgelip: Edgelip, tmp_path: Path) -> None:
    done = edgelip("export", tmp_path / "ckpt.best.pth", "-o", tmp_path / "x")
    assert done.code == 2
    assert "ckpt.best.pth is neither a recipe nor a checkpoint of edgelip. `edgelip import " in done.line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "A checkpoint needs a folder for its bundle: edgelip export CHECKPOINT -o FOLDER."),
        (["-o", "x", "--set", "a=1"], "--set and --dry-run belong to a recipe; a checkpoint is exported as it is."),
        (["-o", "x", "--dry-run"], "--set and --dry-run belong to a recipe; a checkpoint is exported as it is."),
        (["-o", "x", "--name", "a/b"], "A bundle cannot be called 'a/b'; expected letters, digits and ' ._+=,-'."),
    ],
)
def test_options_of_recipes_are_refused(
    edgelip: Edgelip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    save_checkpoint(dense_checkpoint(), path)
    done = edgelip("export", path, *options)
    assert done.code == 2
    assert message.replace("CHECKPOINT", str(path)) in done.line
    assert not (tmp_path / "x").exists()


def test_a_name_does_not_go_with_a_recipe(edgelip: Edgelip) -> None:
    done = edgelip("export", "export/recipes/quickstart.toml", "--name", "x")
    assert done.code == 2
    assert "--name belongs to a checkpoint; a recipe names its variants." in done.line


def test_a_folder_that_is_no_bundle_stays(edgelip: Edgelip, tmp_path: Path) -> None:
    path, folder = tmp_path / "model.safetensors", tmp_path / "x"
    save_checkpoint(dense_checkpoint(), path)
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    done = edgelip("export", path, "-o", folder)
    assert done.code == 2
    assert f"{folder} exists and holds no manifest.json, so it is not replaced." in done.line
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_an_older_bundle_is_replaced(edgelip: Edgelip, tmp_path: Path) -> None:
    path, folder = tmp_path / "model.safetensors", tmp_path / "x"
    save_checkpoint(dense_checkpoint(), path)
    for name in ("old", "new"):
        assert edgelip("export", path, "-o", folder, "--name", name).code == 0
    assert Bundle.open(folder).name == "new"


def test_a_file_that_is_no_checkpoint_is_one_line(edgelip: Edgelip, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no checkpoint")
    done = edgelip("export", path, "-o", tmp_path / "x")
    assert done.code == 2
    assert f"{path} is not an edgelip checkpoint, or is damaged" in done.line


@pytest.mark.parametrize(
    "spec", [ClipSpec(), ClipSpec(pool=2), ClipSpec(frames=5, roi_px=24, crop_px=20), ClipSpec(roi_px=128, pool=4)]
)
def test_check_clips_are_mouths_of_the_asked_size(spec: ClipSpec) -> None:
    frames = check_clips(spec)
    assert frames.dtype == np.uint8
    assert frames.shape == (4, spec.frames, spec.stored_px, spec.stored_px)
    assert frames.std() > 15  # a face, not a blank
    assert (frames[0] != frames[1]).mean() > 0.5
