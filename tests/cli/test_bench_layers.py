"""`edgelip bench BUNDLE --layers`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Edgelip
from tiny_bundles import write_bundle
from tiny_checkpoints import save_tiny

from edgelip.bench.ceiling import Ceiling
from edgelip.bench.kernels import Timeline, ort_timeline
from edgelip.cli import bench_layers
from edgelip.cli.export_checkpoint import export_checkpoint


@pytest.fixture(autouse=True)
def _ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_layers, "measured_ceiling", lambda threads: Ceiling(threads, 100.0, 400.0, 10.0))


def test_layers_and_their_limits_are_printed(edgelip: Edgelip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, _ = save_tiny(tmp_path, "snv_tcn_prelu")
    bundle = tmp_path / "shuffle"
    export_checkpoint(checkpoint, out=bundle, name=None, as_json=True)
    done = edgelip("bench", str(bundle), "--layers")
    assert done.code == 0, done.line
    heading, columns, *lines = done.out.splitlines()
    assert heading.startswith("shuffle/model.fp32.onnx, ort, 1 threads, one clip: ")
    assert columns.split()[:3] == ["part", "ms", "share"]
    assert [line.split()[0] for line in lines[:5]] == ["frontend", "trunk", "temporal", "head", "between"]
    assert "ceiling of 1 threads, measured: 100 G/s in float32, 400 G/s in int8" in done.out
    told = json.loads(edgelip("bench", str(bundle), "--layers", "--json").out)
    assert [part["name"] for part in told["groups"]] == ["frontend", "trunk", "temporal", "head", "between kernels"]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [part["name"] for part in told["layers"]][:-1] == manifest["ledger"]["layers"]["names"]
    assert sum(part["macs"] for part in told["groups"]) == pytest.approx(manifest["ledger"]["macs"], rel=0.05)

    def renamed(*arguments: Any, **more: Any) -> Timeline:  # as an engine does that puts casts in
        timeline = ort_timeline(*arguments, **more)
        return replace(timeline, kernels=tuple(replace(each, nodes=("cast",)) for each in timeline.kernels))

    monkeypatch.setitem(bench_layers.TIMELINES, "ort", renamed)
    done = edgelip("bench", str(bundle), "--layers")
    assert done.code == 6
    assert "ort names the kernels of model.fp32.onnx otherwise: " in done.line


def test_an_older_bundle_is_refused(edgelip: Edgelip, tmp_path: Path) -> None:
    done = edgelip("bench", str(write_bundle(tmp_path / "tiny")), "--layers")
    assert done.code == 2
    assert "tiny does not say which node is which layer: it is older. Export it again." in done.line


def test_an_engine_without_times_is_refused(edgelip: Edgelip, tmp_path: Path) -> None:
    done = edgelip("bench", str(write_bundle(tmp_path / "tiny")), "--layers", "--engine", "tensorrt")
    assert done.code == 2
    assert "tensorrt does not tell the times of its kernels; expected ort or openvino." in done.line


def test_layers_are_of_one_bundle(edgelip: Edgelip, tmp_path: Path) -> None:
    bundle = str(write_bundle(tmp_path / "tiny"))
    done = edgelip("bench", bundle, bundle, "--layers")
    assert done.code == 2
    assert "--layers takes one BUNDLE, and neither --predict nor --report." in done.line
