from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from command_line import Edgelip

from edgelip.compress import STAGES
from edgelip.models.catalogue import BACKBONES

ROOT = Path(__file__).parent.parent.parent


def test_backbones_are_listed_with_what_they_cost(edgelip: Edgelip) -> None:
    done = edgelip("list", "backbones")
    assert done.code == 0
    header, *lines = done.out.splitlines()
    assert header.split("  ")[0].strip() == "backbone"
    assert [line.split()[0] for line in lines[: len(BACKBONES)]] == list(BACKBONES)
    row = next(line for line in lines if line.startswith("dctcn_phm4 ")).split()
    assert row[:6] == ["dctcn_phm4", "13,822,068", "10.230", "10.640", "55.4", "88.4"]
    source = header.index("source")
    assert all(line[source - 2 : source] == "  " for line in lines[: len(BACKBONES)])
    assert lines[-2].startswith("GMAC: one clip of 29 x 88 x 88")


def test_backbones_as_json_are_one_object_each(edgelip: Edgelip) -> None:
    rows = json.loads(edgelip("list", "backbones", "--json").out)
    assert [row["name"] for row in rows] == list(BACKBONES)
    fields = ["name", "family", "parameters", "gmac", "published_gmac", "fp32_mb", "published_top1_pct", "source"]
    assert list(rows[0]) == fields
    (dense,) = [row for row in rows if row["name"] == "dctcn_dense"]
    assert (dense["family"], dense["parameters"], dense["gmac"]) == ("lip_tcn", 52_548_532, 10.2302)
    assert dense["published_gmac"] == 10.64
    assert (dense["fp32_mb"], dense["published_top1_pct"]) == (210.3, 89.6)


def test_other_tables_say_what_each_entry_is(edgelip: Edgelip) -> None:
    stages = edgelip("list", "stages").out.splitlines()
    assert [line.split()[0] for line in stages] == list(STAGES)
    engines = json.loads(edgelip("list", "engines", "--json").out)
    assert {"ort", "ort-cuda", "openvino", "tensorrt", "tensorrt-rtx"} < set(engines)
    assert all(engines.values())


def test_devices_are_a_table_of_what_each_takes(edgelip: Edgelip) -> None:
    lines = edgelip("list", "devices").out.splitlines()
    assert lines[0].split() == ["device", "title", "compute", "precisions", "engines"]
    (orin,) = [line for line in lines if line.startswith("orin-nano-8 ")]
    assert "sm87" in orin
    assert "fp32, fp16, int8 " in orin
    row = next(row for row in json.loads(edgelip("list", "devices", "--json").out) if row["device"] == "agx-thor")
    assert row["precisions"] == "fp32, fp16, int8, fp8"


def test_an_unknown_table_names_the_nearest(edgelip: Edgelip) -> None:
    done = edgelip("list", "backbone")
    assert done.code == 2
    assert "Did you mean 'backbones'?" in done.line


def test_backbones_without_torch_name_the_extra(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "edgelip", "list", "backbones"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 4
    assert 'torch is not installed here; this verb needs it. Install it: pip install "edgelip[train]"' in done.stderr
