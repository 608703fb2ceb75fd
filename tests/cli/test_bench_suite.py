"""`edgelip bench SUITE.toml`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import Edgelip
from tiny_bundles import expected_logits, make_clips, write_bundle

from edgelip.bench import isolate
from edgelip.bench.suite_file import SuiteFile
from edgelip.cli import bench_place, bench_suite
from edgelip.deploy.target import load_device
from edgelip.errors import UsageError
from edgelip.report.results import read_rows, read_sitting
from edgelip.runtime.measurement import BenchRun

SCENARIOS = '[[scenario]]\nname = "SingleStream"\nlaunches = 1\nseconds = 0.02\n'


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of two tiny bundles, beside them."""
    for name in ("first", "second"):
        write_bundle(tmp_path / "export" / name, name=name)
    frames = make_clips(30, seed=5)
    np.savez(tmp_path / "clips.npz", frames=frames, labels=expected_logits(frames).argmax(axis=1))
    path = tmp_path / "tiny.toml"
    path.write_text(f'exports = ["export"]\n{SCENARIOS}')
    return path


def test_a_suite_is_measured_into_a_sitting(edgelip: Edgelip, suite: Path, tmp_path: Path) -> None:
    suite.write_text(f'{suite.read_text()}[accuracy]\nclips = "clips.npz"\n')
    done = edgelip("bench", suite, "--out", tmp_path / "runs", "--only", "first", "--json")
    assert done.code == 0, done.line
    told = json.loads(done.out)
    folder = Path(told["folder"])
    assert folder.parent == tmp_path / "runs"
    rows = {row.scenario: row for row in read_rows(folder)}
    assert set(rows) == {"Static", "SingleStream", "Accuracy"}
    assert {row.variant for row in rows.values()} == {"first"}
    assert rows["Accuracy"].value("top1_pct") == 100.0
    assert rows["Static"].value("file_bytes") == (tmp_path / "export" / "first" / "model.fp32.onnx").stat().st_size
    assert rows["SingleStream"].target.device == "here"
    run = BenchRun.read(folder / rows["SingleStream"].stem / "launch-1.json")
    assert len(run.latency_ns) >= 64
    assert (folder / rows["SingleStream"].stem / "launch-1.npz").is_file()
    command = f"edgelip bench {suite} --tier quick --only first"
    assert read_sitting(folder).command == command
    (entry,) = json.loads((folder / "pytest-benchmark.json").read_text())["benchmarks"]
    assert entry["stats"]["rounds"] == len(run.latency_ns)


def test_a_failing_row_ends_the_command_with_its_code(
    edgelip: Edgelip, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.write_text(suite.read_text() + '[[target]]\nengine = "openvino"\noptions = { hint = "slow" }\n')
    done = edgelip("bench", suite, "--out", tmp_path / "runs", "--only", "first")
    assert done.code == 2
    assert "1 row was not measured; first, openvino fp32 1t hint=slow, SingleStream: " in done.line
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"See the notes of {folder}." in done.line
    assert read_sitting(folder).notes[-1].startswith("not measured: first, openvino fp32 1t hint=slow, SingleStream: ")
    assert read_sitting(folder).finished_at is not None


def test_a_dry_run_measures_nothing(edgelip: Edgelip, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "run_runtime", None)
    done = edgelip("bench", suite, "--dry-run", "--tier", "full")
    assert done.code == 0, done.line
    assert [line.split()[:1] for line in done.out.splitlines()[1:5]] == [["first"], ["second"], ["first"], ["second"]]
    assert done.out.splitlines()[-1] == "4 rows, about 6 s"
    assert len(json.loads(edgelip("bench", suite, "--dry-run", "--json").out)["rows"]) == 4


def test_a_missing_bundle_is_told_before_anything_runs(edgelip: Edgelip, suite: Path, tmp_path: Path) -> None:
    suite.write_text(f'bundles = ["gone"]\n{suite.read_text()}')
    done = edgelip("bench", suite, "--out", tmp_path / "runs")
    assert done.code == 2
    assert f"The suite tiny names the bundle {tmp_path / 'gone'}, which is not there. Run: make export" in done.line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundel = 1", "unknown key 'bundel'. Did you mean 'bundles'?"),
        ('device = "orin-nano-9"', "There is no device 'orin-nano-9'. Did you mean 'orin-nano-"),
        ('[end_to_end]\nvideo = "v.mp4"', "v.mp4, which is not there."),
        ('[accuracy]\nclips = "c.npz"', "c.npz, which are not there. Run: make export"),
        ('[accuracy]\nrobustness = ["foggy"]', "There is no robustness condition 'foggy'."),
        ('device = "x86"\n[[target]]\nengine = "tensorrt-rtx"', "first has no model for engine 'tensorrt-rtx'"),
    ],
)
def test_what_the_suite_gets_wrong_is_told(
    edgelip: Edgelip, suite: Path, tmp_path: Path, text: str, message: str
) -> None:
    suite.write_text(f'exports = ["export"]\n{text}\n')
    done = edgelip("bench", suite, "--out", tmp_path / "runs")
    assert done.code == 2
    assert message in done.line
    assert not (tmp_path / "runs").exists()


def test_options_of_bundles_and_of_suites_are_kept_apart(edgelip: Edgelip, suite: Path, tmp_path: Path) -> None:
    done = edgelip("bench", suite, "--launches", "3")
    assert (done.code, "A SUITE.toml stands alone" in done.line) == (2, True)
    done = edgelip("bench", tmp_path / "export" / "first", "--tier", "full")
    assert (done.code, "belong to a SUITE.toml; got " in done.line) == (2, True)
    done = edgelip("bench", suite, "--tier", "slow")
    assert (done.code, "There is no tier 'slow'. Known: quick, standard, full." in done.line) == (2, True)
    done = edgelip("bench", suite, "--host", "board")
    assert (done.code, "name it with --device" in done.line) == (2, True)


def test_resume_goes_on_and_without_it_the_unfinished_is_told(
    edgelip: Edgelip, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    told: list[str] = []
    monkeypatch.setattr(bench_suite, "Progress", lambda: SimpleNamespace(**_told(told)))
    with monkeypatch.context() as patched:
        patched.setattr("edgelip.bench.run.bench_once", interrupt)
        done = edgelip("bench", suite, "--out", tmp_path / "runs", "--only", "first")
    assert done.code == 130
    assert done.line == "edgelip: interrupted; the same command with --resume goes on from here."
    (folder,) = (tmp_path / "runs").iterdir()
    assert told[-1] == f"{folder} is unfinished; the same command with --resume goes on with it"
    options = bench_suite.SuiteOptions(out=tmp_path / "runs", only=("first",))
    suite_file = bench_suite.load_suite_file(suite)
    plan = bench_suite.plan_of(
        suite_file, bench_suite.find_bundles(suite_file, only=["first"]), tier="quick", device="here"
    )
    progress: Any = SimpleNamespace(say=told.append)
    assert bench_suite._unfinished(options, plan, progress) is None
    assert told[-1] == f"{folder} is unfinished; --resume would go on with it. A new sitting begins"
    assert edgelip("bench", suite, "--out", tmp_path / "runs", "--only", "first", "--resume").code == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]
    assert read_sitting(folder).finished_at is not None


def _told(lines: list[str]) -> dict[str, Any]:
    from edgelip.progress import Progress

    quiet = Progress(quiet=True)
    return {"say": lines.append, "task": quiet.task}


def test_strict_wants_every_row_valid() -> None:
    row: Any = SimpleNamespace(
        badge="NOISY", variant="a", target=SimpleNamespace(label="ort"), scenario="Offline", reasons=("load",)
    )
    outcome: Any = SimpleNamespace(rows=(row,), failures={})
    error = bench_suite._error(outcome, Path("runs"), strict=True)
    assert error is not None
    assert (error.exit_code, str(error)) == (6, "1 of 1 rows are not VALID; a, ort, Offline is NOISY: load.")
    assert bench_suite._error(outcome, Path("runs"), strict=False) is None


@pytest.mark.parametrize(
    ("device", "facts", "here"),
    [
        ("x86", {"machine": "x86_64"}, True),
        ("x86", {"machine": "aarch64"}, False),
        ("h200", {"machine": "x86_64", "gpus": ["one"]}, True),
        ("h200", {"machine": "x86_64"}, False),
        ("orin-nano-8", {"machine": "aarch64", "jetson": "Jetson"}, True),
        ("orin-nano-8", {"machine": "aarch64", "pi": "Pi 5"}, False),
        ("raspberry-pi-5", {"machine": "aarch64", "pi": "Pi 5"}, True),
    ],
)
def test_a_device_is_here_if_this_machine_is_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, device: str, facts: dict[str, Any], here: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: facts["machine"])
    monkeypatch.setattr("edgelip.runtime.sensors.nvml.gpus", lambda: facts.get("gpus", []))
    monkeypatch.setattr("edgelip.runtime.sensors.board.jetson_model", lambda: facts.get("jetson"))
    monkeypatch.setattr("edgelip.runtime.sensors.board.raspberry_pi_model", lambda: facts.get("pi"))
    assert bench_place.is_here(load_device(device)) is here
    place = bench_place.place_of(SuiteFile(name="s", bundles=[Path("b")]), device, host=None, ssh_config=None)
    assert (place.device, place.is_local) == (device, here)


def test_a_host_is_reached_whatever_this_machine_is() -> None:
    suite = SuiteFile(name="s", bundles=[Path("b")], device="x86")
    assert bench_place.place_of(suite, None, host="lab", ssh_config=None).host == "lab"
    with pytest.raises(UsageError, match="name it with --device"):
        bench_place.place_of(SuiteFile(name="s", bundles=[Path("b")]), None, host="lab", ssh_config=None)
