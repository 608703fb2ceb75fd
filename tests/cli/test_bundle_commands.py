"""`edgelip pack` and `edgelip bench` on a tiny bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Edgelip
from tiny_bundles import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


def test_pack_makes_a_file_that_answers(edgelip: Edgelip, bundle: Path, tmp_path: Path) -> None:
    done = edgelip("pack", str(bundle), "-o", str(tmp_path / "tiny.pyz"), "--json")
    assert done.code == 0, done.line
    told = json.loads(done.out)
    assert (told["bundle"], told["wheels"], told["run"]) == ("tiny", [], "python3 tiny.pyz check")
    command = [sys.executable, str(tmp_path / "tiny.pyz"), "--unpack-to", str(tmp_path / "place"), "check"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("OK tiny: 3 files, 8 clips, fp32 on ort"), ran.stderr


def test_bench_prints_a_row_a_bundle_with_its_ratio_to_the_first(
    edgelip: Edgelip, bundle: Path, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", name="other")
    done = edgelip("bench", str(bundle), str(other), "--launches", "2", "--seconds", "0.02")
    assert done.code == 0, done.line
    heading, columns, first, second, *_ = done.out.splitlines()  # then what disturbed, if anything did
    assert heading.startswith("ort, 1 threads, batch 1, 2 launches, ")
    assert columns.split()[:2] == ["bundle", "model"]
    assert first.startswith("tiny ")
    assert "1.00 [1.00, 1.00]" in first
    assert second.startswith("other ")
    assert "model.fp32.onnx, not built" in second


def test_bench_keeps_every_sample_in_json(edgelip: Edgelip, bundle: Path) -> None:
    done = edgelip("bench", str(bundle), "--launches", "2", "--seconds", "0.02", "--engine", "openvino", "--json")
    told = json.loads(done.out)
    (row,), (runs,) = told["rows"], told["runs"]
    assert len(runs) == 2
    assert all(len(run["samples_ns"]["latency"]) >= 64 for run in runs)
    low, high = row["latency_p50_ms"][1:]
    assert low <= row["latency_p50_ms"][0] <= high


def test_bench_refuses_a_spoilt_bundle_before_it_measures(edgelip: Edgelip, bundle: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", name="other")
    (other / "model.fp32.onnx").write_bytes(b"")
    done = edgelip("bench", str(bundle), str(other))
    assert done.code == 2
    assert "other: model.fp32.onnx has changed" in done.line


def test_predict_takes_one_bundle(edgelip: Edgelip, bundle: Path) -> None:
    done = edgelip("bench", str(bundle), str(bundle), "--predict", "t4")
    assert (done.code, done.line) == (2, "edgelip: --predict takes one BUNDLE; got 2.")


@pytest.mark.parametrize("option", [["--host", "x"], ["--offline", "x"], ["--precision", "fp16"], ["--engine", "ort"]])
def test_options_of_a_device_need_one(edgelip: Edgelip, bundle: Path, option: list[str]) -> None:
    done = edgelip("export", str(bundle), *option)
    assert done.code == 2
    assert "--host, --ssh-config, --engine, --precision and --offline belong to --device NAME." in done.line


def test_sign_belongs_to_an_export(edgelip: Edgelip, bundle: Path) -> None:
    done = edgelip("export", str(bundle), "--device", "t4", "--sign", "key.pem")
    assert done.code == 2
    assert "--name, --dry-run and --sign belong to an export without --device." in done.line
