"""gpu.py as a GPU machine runs it: few packages, and every written file whole. Sizes are toys on the CPU."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
NOT_THERE = "pydantic typer rich safetensors scipy nncf torch_pruning torchao openvino onnxscript matplotlib cv2 av"
BARE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}.split():
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {scripts!r})
import gpu
sys.exit(gpu.main())
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("gpu")


def results(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*-gpu.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_it_runs_without_the_packages_that_a_gpu_machine_lacks(tmp_path: Path) -> None:
    code = BARE.format(blocked=NOT_THERE, scripts=str(SCRIPTS))
    arguments = ["--toy", "--device", "cpu", "--networks", "dctcn_phm16", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=SCRIPTS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = results(tmp_path)
    assert result["schema_version"] == 1
    assert result["complete"] is True
    assert result["skipped"] == []
    assert result["environment"]["torch"] == torch.__version__
    assert {(row["task"], row["batch"]) for row in result["rows"]} == {("latency", 1), ("latency", 4), ("training", 4)}
    measured = [row for row in result["rows"] if row["status"] == "ok"]
    assert {row["status"] for row in result["rows"]} == {"ok", "not on this device"}
    assert {row["variant"] for row in measured} == {"as published", "fp32 eager", "bf16 eager", "onnxruntime"}
    for row in measured:
        assert row["wall_ms"]["low"] <= row["wall_ms"]["value"] <= row["wall_ms"]["high"]
        assert row["clips_per_s"] == pytest.approx(1000 * row["batch"] / row["wall_ms"]["value"])
        assert len(row["samples_wall_ms"]) == row["rounds"]
        limit = 0.1 if row["variant"] == "bf16 eager" else 1e-4  # of the spread of logits, or of the loss
        if row["task"] == "training":
            assert len(row["losses"]) == 4
            assert row["losses"][-1] < row["losses"][0]
            assert row["max_relative_loss_difference"] < limit
        elif row["variant"] != "bf16 eager":  # 500 drawn words lie closer than bfloat16 tells apart
            assert row["max_abs_difference"] < limit * max(1.0, 5 * row["reference_std"])
            assert row["argmax_agreement"] == 1.0
    table = next(tmp_path.glob("*-gpu.md")).read_text()
    assert "| dctcn_phm16 | training | 4 | bf16 eager |" in table
    assert "not complete" not in table


def test_what_a_kill_leaves_is_whole(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the third group the rows of the first two are on disk; then time is up."""
    seen: list[dict[str, Any]] = []

    def measure(group: Any, *_: object, **__: object) -> list[dict[str, Any]]:
        if len(seen) == 2:
            raise gpu.BudgetSpent
        seen.append(results(tmp_path) if seen else {})
        about = {"network": group.network, "task": group.task, "batch": group.batch}
        return [{**about, "variant": "v", "what": "w", "status": "ok"}]

    monkeypatch.setattr(gpu, "measure_group", measure)
    arguments = ["--toy", "--device", "cpu", "--out", str(tmp_path), "--networks", "snv05x_tcn1x", "eflip_T"]
    assert gpu.main(arguments) == 0
    assert len(seen[1]["rows"]) == 1
    assert seen[1]["complete"] is False
    result = results(tmp_path)
    assert [row["batch"] for row in result["rows"]] == [1, 4]
    assert result["complete"] is False
    assert result["skipped"][0] == {"what": "snv05x_tcn1x, training, batch 4", "why": "broken off 30 s after 8 min"}
    assert len(result["skipped"]) == 4
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md"]
    assert "The run is not complete." in next(tmp_path.glob("*.md")).read_text()


def test_without_time_everything_is_named_as_skipped(gpu: Any, tmp_path: Path) -> None:
    arguments = ["--toy", "--device", "cpu", "--out", str(tmp_path), "--minutes", "0", "--networks", "eflip_T"]
    assert gpu.main(arguments) == 0
    result = results(tmp_path)
    assert result["rows"] == []
    assert {entry["why"] for entry in result["skipped"]} == {"would not end within 0 min"}
    assert [entry["what"] for entry in result["skipped"]] == [
        "eflip_T, latency, batch 1",
        "eflip_T, latency, batch 4",
        "eflip_T, training, batch 4",
    ]


def test_a_variant_that_fails_is_a_row_and_the_others_go_on(gpu: Any) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("no such kernel\nand more")

    group = gpu.Group("toy", "latency", 2, {"bad": gpu.Variant("w", fail), "good": gpu.LATENCY["fp32 eager"]}, 6)
    network, clips = gpu.build_network("snv05x_tcn1x", toy=True), gpu.example_clips(4, toy=True)
    bad, good = gpu.measure_group(group, network, clips, until=float("inf"))
    assert bad["status"] == "failed: RuntimeError: no such kernel"
    assert (good["status"], good["rounds"]) == ("ok", 6)


def test_wrong_arguments_and_a_missing_device_have_exit_codes(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, text in (
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["--networks", "dctcn"], "argument --networks: invalid choice: 'dctcn'"),
    ):
        with pytest.raises(SystemExit) as caught:
            gpu.main(["--out", str(tmp_path), *arguments])
        assert caught.value.code == 2
        assert text in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path)]) == 4
    expected = f"gpu: torch {torch.__version__} sees no CUDA device here; expected one. Use --device cpu, or install a"
    assert capsys.readouterr().err.startswith(expected)
    assert list(tmp_path.iterdir()) == []
