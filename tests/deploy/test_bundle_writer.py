from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SPEC, WORDS, compressed

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.deploy.bundle_writer import write_bundle
from edgelip.deploy.export import TOLERANCE, export_model
from edgelip.errors import UsageError
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import check
from edgelip.runtime.clip import network_input
from edgelip.runtime.manifest import SCHEMA_VERSION

LEDGER = {"parameters": 1234, "macs": 5678, "method": "PHM n=4 + int8 QAT", "phm_n": 4, "data": "64 clips of noise"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = compressed("phm-int8")
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 24, 24), dtype=np.uint8)
    exported = export_model(
        model_from_checkpoint(checkpoint), torch.from_numpy(network_input(frames, SPEC)), metadata={}
    )
    folder = tmp_path_factory.mktemp("dist") / "phm-int8"
    return write_bundle(
        folder,
        name="phm-int8",
        exported=exported,
        checkpoint=checkpoint,
        frames_BTHW=frames,
        ledger=LEDGER,
    )


def test_the_runtime_accepts_the_bundle_and_finds_the_same_logits(bundle: Path) -> None:
    (parity,) = check(bundle)
    assert (parity.num_files, parity.num_clips, parity.precision) == (5, 4, "int8")
    assert parity.limit == TOLERANCE["int8"]


def test_the_manifest_says_which_engine_takes_which_file(bundle: Path) -> None:
    tensorrt = ["ort-tensorrt", "tensorrt", "tensorrt-rtx"]
    rows = [
        ("model.int8-u8.onnx", "u8", "factors", ["ort", "ort-xnnpack"]),
        ("model.int8-u8-dense.onnx", "u8", "dense", ["openvino", "ort-qnn"]),
        ("model.int8-s8-dense.onnx", "s8", "dense", tensorrt),
    ]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION
    limits = [model.pop("tolerance") for model in manifest["models"]]
    assert limits[0] == limits[2] == TOLERANCE["int8"] <= limits[1]  # OpenVINO leaves roundings out
    assert manifest["models"] == [
        {
            "file": file,
            "precision": "int8",
            "activations": activations,
            "weights": weights,
            "engines": engines,
        }
        for file, activations, weights, engines in rows
    ]
    opened = Bundle.open(bundle)
    for file, _, _, engines in rows:
        for engine in engines:
            assert opened.model_for(engine).path.name == file
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "A lip-reading word classifier in int8, made by edgelip " in card
    for file, _, _, engines in rows:
        size = (bundle / file).stat().st_size
        assert f"| {file} | {size:,} | {', '.join(engines)} | " in card


def test_the_manifest_names_every_file_and_what_it_came_from(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    files = {path.name for path in bundle.iterdir()} - {"manifest.json"}
    assert (
        set(manifest["files"])
        == files
        == {
            "model.int8-u8.onnx",
            "model.int8-u8-dense.onnx",
            "model.int8-s8-dense.onnx",
            "expected.npz",
            "MODEL_CARD.md",
        }
    )
    for name, entry in manifest["files"].items():
        content = (bundle / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert [step["stage"] for step in manifest["lineage"]] == ["train", "phm", "qat"]
    assert manifest["lineage"][1]["config"]["n"] == 4
    assert manifest["weights_sha256"] == compressed("phm-int8").sha256
    assert tuple(manifest["vocabulary"]) == WORDS
    assert Bundle.open(bundle).manifest.clip == SPEC
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "train -> phm -> qat" in card
    assert "1,234" in card


def test_a_folder_that_is_no_bundle_is_not_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    checkpoint = compressed("dense")
    frames = np.zeros((1, 6, 24, 24), np.uint8)
    exported = export_model(
        model_from_checkpoint(checkpoint), torch.from_numpy(network_input(frames, SPEC)), metadata={}
    )
    with pytest.raises(UsageError, match=r"exists and holds no manifest\.json, so it is not replaced"):
        write_bundle(
            tmp_path,
            name="x",
            exported=exported,
            checkpoint=checkpoint,
            frames_BTHW=frames,
            ledger=LEDGER,
        )
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
