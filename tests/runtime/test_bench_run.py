from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny_bundles import write_bundle, write_model

from edgelip.runtime.bench import bench
from edgelip.runtime.effort import Effort
from edgelip.runtime.errors import BundleError, UsageError
from edgelip.runtime.sensors import process as sensors
from edgelip.runtime.sensors.power import PowerSource

QUICK = Effort(seconds=0.02, min_count=70, warm_up_cap_s=0.3)


def test_bench_records_samples_memory_and_cold_start(tmp_path: Path) -> None:
    said: list[str] = []
    run = bench(str(write_bundle(tmp_path / "tiny")), effort=QUICK, say=said.append)
    assert len(run.latency_ns) == len(run.end_to_end_ns) >= 70
    assert all(whole > inference > 0 for inference, whole in zip(run.latency_ns, run.end_to_end_ns, strict=True))
    parts = [run.cold_start_ms[name] for name in ("imports", "bundle", "engine", "first_inference")]
    assert run.cold_start_ms["total"] == pytest.approx(sum(parts))
    assert min(parts) > 0
    peak, loaded = run.memory_mib["peak"], run.memory_mib["rss_after_load"]
    assert peak is not None
    assert loaded is not None
    assert peak >= loaded - 0.1  # the kernel counts both per thread and sums now and then: a few pages apart
    assert loaded > 0
    assert run.memory_mib["arena"] is not None
    assert run.memory_mib["device_model"] is None  # no GPU of its own
    assert run.cold_start_ms["new_shape"] is not None
    assert set(run.samples_ns) == {"crop", "normalise", "latency", "model", "label", "end_to_end"}
    assert run.environment["engine_settings"]["intra_op_threads"] == "1"
    assert run.environment["engine_settings"]["session.intra_op.allow_spinning"] == "0"
    assert run.environment["garbage_collector"] == "frozen"
    assert run.environment["page_cache"] == "not dropped"
    assert run.warm_up["num_runs"] >= 10
    assert said[0] == "verifying the bundle"


def test_bench_stops_warming_up_at_its_cap(tmp_path: Path) -> None:
    run = bench(str(write_bundle(tmp_path / "tiny")), effort=Effort(seconds=0, min_count=70, warm_up_cap_s=0))
    assert not run.warm_up["stable"]
    assert run.badge == "NOISY"
    assert "latency was not steady" in run.reasons[0]


@pytest.mark.parametrize(
    ("scenario", "settings", "batch", "names"),
    [
        ("MultiStream", {}, 8, {"query", "query_end_to_end"}),
        ("Offline", {"batch": 5}, 5, {"query", "query_end_to_end"}),
        ("Streaming", {"fps": 500.0}, 1, {"last_frame_to_word", "late", "latency", "end_to_end", "model"}),
    ],
)
def test_bench_runs_every_scenario(
    tmp_path: Path, scenario: str, settings: dict[str, Any], batch: int, names: set[str]
) -> None:
    effort = Effort(seconds=0, min_count=11, warm_up_cap_s=0, **settings)
    run = bench(str(write_bundle(tmp_path / "tiny")), effort=effort, scenario=scenario)
    assert (run.scenario, run.batch) == (scenario, batch)
    assert names <= set(run.samples_ns)
    assert run.summary["num_clips"] >= 11
    assert run.memory_mib["peak"] is not None


def test_cold_start_ends_with_the_first_inferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "tiny")
    asked: list[tuple[Path, str]] = []
    monkeypatch.setattr("edgelip.runtime.bench.drop_page_cache", lambda *what: asked.append(what) or "dropped: all")
    run = bench(str(folder), scenario="ColdStart", drop_cache=True)
    assert run.samples_ns == {}
    assert run.warm_up == {}
    assert run.cold_start_ms["new_shape"] is not None
    assert run.environment["page_cache"] == "dropped: all"
    assert asked == [(folder, "onnxruntime")]
    assert "cold_first_ms" in [measurement.name for measurement in run.measurements()]


def write_single_clip_model(path: Path) -> None:
    write_model(path, clip=(1, 1, 4, 6, 6))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)


class SteadySource(PowerSource):
    """Five watts, whatever is done."""

    name, boundary, rank, min_period_s = "steady", "test board", 0, 0.001

    def read(self) -> float:
        return 5.0


def test_a_model_of_one_batch_size_has_no_new_shape_and_takes_a_query_clip_by_clip(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny", write_model=write_single_clip_model)
    run = bench(str(folder), effort=Effort(0, 3, 0), scenario="MultiStream")
    assert run.cold_start_ms["new_shape"] is None
    assert run.summary["clips_per_inference"] == 1


def test_bench_measures_energy_after_the_run_and_counts_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelip.runtime.bench.best_power_source", SteadySource)
    said: list[str] = []
    effort = Effort(seconds=0, min_count=2, warm_up_cap_s=0, energy_s=0.02, clips_per_query=4)
    run = bench(str(write_bundle(tmp_path / "tiny")), effort=effort, scenario="MultiStream", say=said.append)
    assert run.energy is not None
    assert (run.energy["boundary"], run.energy["traffic"]) == ("test board", "MultiStream")
    assert run.energy["num_clips"] % 4 == 0
    assert run.energy["gross_j_per_clip"] == pytest.approx(run.energy["gross_j"] / run.energy["num_clips"])
    assert run.energy["above_idle_j_per_clip"] == pytest.approx(0, abs=1e-9)
    assert said[-1].startswith("energy at test board: ")  # after the run was over


def test_bench_refuses_a_clock_of_another_machine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected this machine's monotonic clock"):
        bench(str(write_bundle(tmp_path / "tiny")), effort=QUICK, started_ns=1 << 62)


def test_bench_opens_the_bundle_with_all_checks(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    (folder / "MODEL_CARD.md").write_text("changed")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md has changed"):
        bench(str(folder), effort=QUICK)


@pytest.mark.parametrize(
    ("effort", "message"),
    [
        ({"seconds": float("nan")}, "seconds is nan; expected 0 to 86400."),
        ({"seconds": -1}, "seconds is -1; expected 0 to 86400."),
        ({"min_count": 0}, "min_count is 0; expected 1 or more."),
        ({"energy_s": -1}, "energy_s is -1; expected 0 to 86400."),
        ({"warm_up_cap_s": 3601}, "warm_up_cap_s is 3601; expected 0 to 3600."),
    ],
)
def test_effort_must_be_sensible(effort: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        Effort(**effort)


_PEAKS = """
import numpy
from edgelip.runtime.sensors.process import process_memory_mib, reset_peak_memory
block = numpy.ones(64 << 20, numpy.uint8)
before = process_memory_mib()["peak"]
del block
assert reset_peak_memory()
print(before - process_memory_mib()["peak"])
"""


def test_peak_memory_falls_when_it_is_reset() -> None:
    # In a process of its own: the peak of this one hangs on what all tests before have left behind.
    done = subprocess.run([sys.executable, "-c", _PEAKS], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 32


def test_environment_names_the_machine() -> None:
    found = sensors.environment()
    assert found["num_cpus"]
    assert found["python"]
    age_ms = sensors.process_age_ms()
    assert age_ms is not None
    assert 0 < age_ms < 1e9
