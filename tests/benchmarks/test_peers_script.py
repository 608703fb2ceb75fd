"""peers/run.py reads each tool's output, keeps a row for one that fails, and judges agreement."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelip.errors import MeasurementError, MissingError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
# As OpenVINO 2026.4.1 printed it.
BENCHMARK_APP = """[ INFO ] OpenVINO:
[ INFO ] Build ................................. 2026.4.1-22982-e213a147257-releases/2026/4
[ INFO ] First inference took 14.39 ms
[ INFO ] Count:            1029 iterations
[ INFO ] Duration:         2001.64 ms
[ INFO ] Latency:
[ INFO ]    Median:        1.58 ms
[ INFO ]    Average:       1.90 ms
"""
ONNXRUNTIME_TEST = "model: main_graph\nversion: 0\niterations: 746\navg latency: 7.793 ms\n"
OLIVE = {
    "version": "0.13.0",
    "num_samples": 500,
    "result": {"latency-p50": {"value": 2.27897, "priority": 1, "higher_is_better": False}},
}
OPTIMUM = {"version": "0.6.0", "report": {"forward": {"latency": {"p50": 0.0025, "values": [0.002, 0.0025, 0.003]}}}}


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("peers.tools")


@pytest.fixture
def script(tools: Any) -> Any:
    return importlib.import_module("peers.run")


class Subject:
    """A model by name alone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def model(self, engine: str) -> tuple[Path, str]:
        return Path("model.onnx"), "fp32"


def peer(tools: Any, name: str, engine: str, values: list[float], *, version: str = "1.31.1") -> Any:
    """A peer whose readings are these, the first for the trial."""
    remaining = iter([values[0], *values])

    def measure(subject: Any, seconds: float, run_ms: float) -> Any:
        return tools.Reading(next(remaining), 100, version)

    return tools.Peer(name, engine, None, "-", "-", measure)


def rows_of(script: Any, peers: list[Any], rounds: int = 7) -> list[Any]:
    return script.measure([Subject("net")], peers, seconds=1, rounds=rounds, minutes=1, say=lambda line: None)


def test_each_output_is_read(tools: Any) -> None:
    found = tools.reading_of_benchmark_app(BENCHMARK_APP)
    assert (found.latency_ms, found.num_samples, found.version) == (1.58, 1029, "2026.4.1")
    assert found.wall_ms == pytest.approx(2001.64 / 1029)
    in_us = BENCHMARK_APP.replace("1.58 ms", "912.34 us")
    assert tools.reading_of_benchmark_app(in_us).latency_ms == pytest.approx(0.91234)
    assert tools.reading_of_onnxruntime_test(ONNXRUNTIME_TEST, "1.31.1") == tools.Reading(7.793, 746, "1.31.1")
    assert tools.reading_of_olive(f"warning\n{json.dumps(OLIVE)}\n") == tools.Reading(2.27897, 500, "0.13.0")
    assert tools.reading_of_optimum(json.dumps(OPTIMUM)) == tools.Reading(2.5, 3, "0.6.0")
    samples = {"version": "1.31.1", "samples_ns": [3_000_000, 1_000_000, 2_000_000], "first_ms": 9.0}
    assert tools.reading_of_samples(json.dumps(samples)) == tools.Reading(2.0, 3, "1.31.1", first_ms=9.0)


@pytest.mark.parametrize(
    ("reader", "output", "message"),
    [
        ("reading_of_benchmark_app", "[ ERROR ] no such file", "no median, count or build: .*no such file"),
        ("reading_of_olive", '{"result": {}}', "Olive gave no latency-p50"),
        ("reading_of_optimum", '{"report": {}}', "optimum-benchmark gave no forward latency"),
        ("reading_of_samples", '{"samples_ns": []}', "gave no samples"),
        ("reading_of_samples", "Segmentation fault", "The peer gave no result: Segmentation fault"),
        ("reading_of_samples", '{"samples_ns": [1', "The peer gave no result"),
    ],
)
def test_output_without_a_result_is_refused(tools: Any, reader: str, output: str, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        getattr(tools, reader)(output)


def test_ratios_are_taken_within_a_round(script: Any, tools: Any) -> None:
    ours = peer(tools, tools.OURS["ort"], "ort", [1.0, 2.0, 1.0, 4.0, 1.0, 2.0, 1.0])
    other = peer(tools, "another", "ort", [1.5, 3.0, 1.5, 6.0, 1.5, 3.0, 1.5])
    found = rows_of(script, [ours, other])
    assert found[0].ratio is None
    assert (found[1].ratio.value, found[1].ratio.low, found[1].ratio.high) == pytest.approx((1.5, 1.5, 1.5))
    assert "1.50 (1.50..1.50)" in found[1].cells()


def test_a_peer_that_fails_has_a_row_with_the_reason(script: Any, tools: Any) -> None:
    def fails(subject: Any, seconds: float, run_ms: float) -> Any:
        raise MissingError("torch runs no int8 file.")

    broken = tools.Peer("torch eager", "ort", None, "-", "-", fails)
    ours = peer(tools, tools.OURS["ort"], "ort", [1.0] * 7)
    found = rows_of(script, [ours, broken])
    assert found[0].latency_ms.value == 1.0
    assert found[1].latency_ms is None
    assert found[1].cells()[-1] == "torch runs no int8 file."


def test_a_round_that_fails_leaves_the_others(script: Any, tools: Any) -> None:
    ours = peer(tools, tools.OURS["ort"], "ort", [1.0] * 7)
    other = peer(tools, "another", "ort", [2.0, math.nan, 2.0, 2.0, 2.0, 2.0, 2.0])
    found = rows_of(script, [ours, other])
    assert (found[1].num_samples, found[1].ratio.value) == (600, 2.0)


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "pass"), (1.029, "pass"), (1.031, "MISS"), (0.96, "MISS")])
def test_agreement_is_three_per_cent_either_way(script: Any, tools: Any, value: float, verdict: str) -> None:
    ours, theirs = tools.OURS["ort"], "ONNX Runtime, plain loop"
    peers = [peer(tools, ours, "ort", [value] * 7), peer(tools, theirs, "ort", [1.0] * 7)]
    ((model, mine, tool, shown, found),) = script.agreement(rows_of(script, peers))
    assert (model, mine, tool, found) == ("net", ours, theirs, verdict)
    assert shown.startswith(f"{value:.3f}")


def test_two_versions_of_an_engine_are_not_compared(script: Any, tools: Any) -> None:
    mine = peer(tools, tools.OURS["openvino"], "openvino", [1.0] * 7, version="2026.4.1-22982-abc")
    other = peer(tools, "OpenVINO benchmark_app", "openvino", [1.0] * 7, version="2026.3.0-1-def")
    with pytest.raises(MeasurementError, match=r"ran version 2026.4.1.*2026.3.0.*expected one version"):
        script.agreement(rows_of(script, [mine, other]))


def test_a_bundle_that_is_missing_and_an_unknown_peer_end_in_one_line(script: Any, tmp_path: Path, capsys: Any) -> None:
    assert script.exit_code_of(script.main, ["--models", str(tmp_path)], name="peers") == 2
    assert "is no bundle: it has no manifest.json. `make export` makes" in capsys.readouterr().err
    assert script.exit_code_of(script.main, ["--only", "trtexec"], name="peers") == 2
    assert "There is no peer 'trtexec'; expected one of edgelip on ONNX Runtime" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text("{}")
    capsys.readouterr()
    assert script.exit_code_of(script.main, ["--rounds", "0", "--models", str(tmp_path)], name="peers") == 2
    assert "peers: rounds 0, minutes 15.0, seconds 2.0; expected more than 0 of each." in capsys.readouterr().err


def test_an_environment_that_cannot_be_made_says_why(
    tools: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environments = importlib.import_module("peers.environments")

    def refuse(command: Any, name: str) -> None:
        raise MissingError(f"The environment of {name} cannot be made: ERROR: No matching distribution found")

    monkeypatch.setattr(environments, "_run", refuse)
    with pytest.raises(MissingError, match="of olive cannot be made: ERROR: No matching distribution"):
        environments.python_of("olive", kept=tmp_path)
    with pytest.raises(MissingError, match="expected the pinned requirements of trtexec"):
        environments.python_of("trtexec", kept=tmp_path)


def test_an_environment_is_kept_until_its_requirements_change(
    tools: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environments = importlib.import_module("peers.environments")
    made: list[str] = []

    def run(command: Any, name: str) -> None:
        made.append(" ".join(command[1:3]))
        (tmp_path / name / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "bin" / "python").touch()

    monkeypatch.setattr(environments, "_run", run)
    environments.python_of("onnxruntime", kept=tmp_path)
    environments.python_of("onnxruntime", kept=tmp_path)
    assert made == ["-m venv", "-m pip"]
    (tmp_path / "onnxruntime" / "made-from.txt").write_text("onnxruntime==1.0")
    environments.python_of("onnxruntime", kept=tmp_path)
    assert len(made) == 4


def test_every_peer_runs_offline_and_without_edgelip(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = importlib.import_module("peers.environments").settings(2)
    assert "PYTHONPATH" not in found
    assert (found["HF_HUB_OFFLINE"], found["OLIVE_DISABLE_TELEMETRY"], found["OMP_NUM_THREADS"]) == ("1", "1", "2")


def test_every_tool_has_a_cell_for_every_ability(tools: Any) -> None:
    abilities = importlib.import_module("peers.abilities")
    assert {len(row) for row in abilities.told_rows()} == {1 + len(abilities.ABILITIES)}


def test_the_subject_is_the_bundle_without_its_builds(
    tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "runtime")
    tiny = importlib.import_module("tiny_bundles")
    bundle = tiny.write_bundle(tmp_path / "bundle")
    (bundle / "engines" / "key").mkdir(parents=True)
    subject = importlib.import_module("peers.subjects").prepare(bundle, tmp_path / "work")
    assert not (subject.bundle / "engines").exists()
    assert subject.model("ort")[0].is_relative_to(subject.bundle)
    clips_N1THW = np.load(subject.clips)
    assert len(subject.clip_files) == len(clips_N1THW) == len(np.load(subject.logits))
    assert np.load(subject.clip_files[1]).shape == subject.shape
    assert subject.checkpoint is None
