from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import expected_logits, make_clips, write_bundle

from edgelip.bench import isolate
from edgelip.bench.isolate import Subject, bench_launches, bench_once, deployed_logits, run_runtime
from edgelip.runtime.effort import Effort
from edgelip.runtime.errors import EdgelipError, MeasurementError, MissingError, UsageError
from edgelip.runtime.measurement import BenchRun


def test_run_comes_from_a_fresh_process(tmp_path: Path) -> None:
    kept = tmp_path / "launches" / "launch-1.json"
    run = bench_once(Subject(write_bundle(tmp_path / "tiny")), effort=Effort(seconds=0.05), samples_into=kept)
    assert BenchRun.read(kept) == run
    assert len(run.latency_ns) >= 64
    assert run.cold_start_ms["imports"] > 10  # the interpreter's own start and numpy
    assert run.environment["peak_memory_from"] == "clear_refs"


def test_logits_come_through_the_deployed_runtime(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "clips.npz", frames=make_clips(40), labels=np.zeros(40, np.int64))
    logits_NV = deployed_logits(Subject(write_bundle(tmp_path / "tiny"), threads=2), tmp_path / "clips.npz")
    np.testing.assert_allclose(logits_NV, expected_logits(make_clips(40)), atol=1e-5)


def test_scenario_and_effort_reach_the_process(tmp_path: Path) -> None:
    effort = Effort(seconds=0, min_count=3, warm_up_cap_s=0, clips_per_query=5)
    run = bench_once(Subject(write_bundle(tmp_path / "tiny")), effort=effort, scenario="MultiStream")
    assert (run.scenario, run.batch, len(run.samples_ns["query"])) == ("MultiStream", 5, 3)
    assert "--clips-per-query 5" in run.command


def test_a_setting_of_another_scenario_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fps has no effect on SingleStream; it belongs to Streaming\. Leave it out"):
        bench_once(Subject(Path("a")), effort=Effort(fps=25))
    with pytest.raises(UsageError, match=r"There is no scenario 'Server'\. Known: SingleStream, "):
        bench_once(Subject(Path("a")), scenario="Server")


def test_launches_visit_every_bundle_in_rotated_order(monkeypatch: pytest.MonkeyPatch) -> None:
    visited: list[str] = []
    monkeypatch.setattr(isolate, "bench_once", lambda subject, **_: visited.append(subject.bundle.name) or len(visited))
    said: list[str] = []
    runs = bench_launches([Subject(Path(name)) for name in "abc"], launches=3, say=said.append)
    assert "".join(visited) == "abcbcacab"
    assert runs == [[1, 6, 8], [2, 4, 9], [3, 5, 7]]
    assert said[:2] == ["launch 1/3: a", "launch 1/3: b"]


def test_no_launches_are_refused() -> None:
    with pytest.raises(UsageError, match="launches is 0 for 1 bundles; expected at least one of each"):
        bench_launches([Subject(Path("a"))], launches=0)


def test_failure_arrives_with_its_class_and_message(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    (folder / "MODEL_CARD.md").write_text("changed")
    with pytest.raises(UsageError, match=r"^tiny: MODEL_CARD\.md has changed") as caught:
        bench_once(Subject(folder))
    assert caught.value.exit_code == 2


def test_missing_engine_arrives_as_missing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    folder = write_bundle(tmp_path / "tiny")
    with pytest.raises(MissingError, match="onnxruntime is not installed; the engine 'ort' needs it"):
        run_runtime(["check", str(folder)], environment={"PYTHONPATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("import sys; print('edgelip: disturbed', file=sys.stderr); sys.exit(6)", MeasurementError, "^disturbed$"),
        ("import os; os.kill(os.getpid(), 9)", MeasurementError, r"was ended by signal 9 \(out of memory\?\)"),
        ("raise SystemError('our bug')", EdgelipError, "^SystemError: our bug$"),
    ],
)
def test_every_way_to_die_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception], message: str
) -> None:
    package = tmp_path / "edgelip" / "runtime"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(code)
    monkeypatch.setattr(isolate, "PACKAGE_ROOT", tmp_path)
    with pytest.raises(kind, match=message) as caught:
        run_runtime(["bench"])
    assert type(caught.value) is kind


def test_bench_imports_no_torch() -> None:
    code = (
        "import sys\nfor name in ('torch', 'lightning', 'nncf', 'tensorrt'): sys.modules[name] = None\n"
        "import edgelip.bench.suite, edgelip.bench.graph, edgelip.bench.statistics"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
