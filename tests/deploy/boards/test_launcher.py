"""Single launches on a board over a real OpenSSH server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ssh_server import SshBoard
from tiny_bundles import write_bundle

from edgelip.cli.bench_suite import SuiteOptions, bench_suite
from edgelip.deploy.boards.launcher import open_board
from edgelip.errors import MissingError
from edgelip.progress import Progress
from edgelip.report.results import read_rows, read_sitting
from edgelip.runtime.measurement import BenchRun

SUITE = """
device = "{device}"
bundles = ["tiny"]
[[target]]
engine = "ort"
[[scenario]]
name = "SingleStream"
launches = 2
seconds = 0.02
[[scenario]]
name = "ColdStart"
launches = 1
"""


@pytest.mark.slow
def test_a_suite_is_measured_on_a_board(board: SshBoard, tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny")
    device = tmp_path / "lab-board.toml"
    text = (Path(__file__).parents[3] / "export" / "devices" / "x86.toml").read_text()
    device.write_text(f'python = "{board.python}"\nhost = "board"\n{text}')
    suite = tmp_path / "s.toml"
    suite.write_text(SUITE.format(device=device))
    options = SuiteOptions(host="board", ssh_config=board.config(), out=tmp_path / "runs")
    done = bench_suite(suite, options, as_json=True)
    assert done.error is None
    folder = Path(json.loads(done.text)["folder"])
    rows = {row.scenario: row for row in read_rows(folder)}
    assert set(rows) == {"Static", "SingleStream", "ColdStart"}
    assert {row.target.device for row in rows.values()} == {"lab-board"}
    assert rows["SingleStream"].num_launches == 2
    assert "latency_p90_ms" in rows["SingleStream"].measurements
    assert rows["Static"].value("parameters") == 6
    assert rows["Static"].value("int8_coverage_pct") is None  # its ONNX Runtime was not asked
    run = BenchRun.read(folder / rows["SingleStream"].stem / "launch-2.json")
    assert len(run.latency_ns) >= 64
    assert read_sitting(folder).environment["board"] is not None
    built = list((tmp_path / "runs" / "devices" / "lab-board").glob("tiny-ort-fp32-1t/check.json"))
    assert len(built) == 1
    board.wait_until_idle()
    shutil.rmtree(
        board.home / ".cache" / "edgelip"
    )  # a board that was emptied: the next sitting brings all of it again
    assert bench_suite(suite, options, as_json=True).error is None


class Lacking:
    name, host, engine = "lab", "board", "ort"

    def __init__(self, python: str) -> None:
        self.python = python


@pytest.mark.slow
def test_a_board_without_the_engine_is_told_before_anything_runs(board: SshBoard, tmp_path: Path) -> None:
    with (
        pytest.raises(MissingError, match="board lacks the engine 'ort': onnxruntime is not installed"),
        open_board(
            Lacking(board.numpy_only), ["ort"], out=tmp_path, progress=Progress(quiet=True), ssh_config=board.config()
        ),
    ):
        pass
