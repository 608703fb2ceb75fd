from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_bundles import write_bundle

from edgelip.runtime.bench import Effort, _badge, _Steady, bench
from edgelip.runtime.errors import BundleError, UsageError
from edgelip.runtime.sensors import process as sensors

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
    assert peak >= loaded > 0
    assert run.environment["engine_settings"]["intra_op_threads"] == "1"
    assert run.warm_up["num_runs"] >= 10
    assert said[0] == "verifying the bundle"


def test_bench_stops_warming_up_at_its_cap(tmp_path: Path) -> None:
    run = bench(str(write_bundle(tmp_path / "tiny")), effort=Effort(seconds=0, min_count=70, warm_up_cap_s=0))
    assert not run.warm_up["stable"]
    assert run.badge == "NOISY"
    assert "latency was not steady" in run.reasons[0]


def test_bench_refuses_a_clock_of_another_machine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected this machine's monotonic clock"):
        bench(str(write_bundle(tmp_path / "tiny")), effort=QUICK, started_ns=1 << 62)


def test_bench_opens_the_bundle_with_all_checks(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    (folder / "MODEL_CARD.md").write_text("changed")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md has changed"):
        bench(str(folder), effort=QUICK)


@pytest.mark.parametrize("effort", [{"seconds": float("nan")}, {"seconds": -1}, {"min_count": 0}, {"energy_s": -1}])
def test_effort_must_be_sensible(effort: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected 0 to 86400 twice, 1 or more, 0 to 3600"):
        Effort(**effort)


def _badge_of(**changes: Any) -> tuple[str, tuple[str, ...]]:
    steady = _Steady(changes.pop("samples", [1] * 64), [], changes.pop("cpu_share", 1.0))
    fields: dict[str, Any] = {"threads": 1, "fallback": None, "swap_mib": 0.0, "clocks_mhz": (2000.0, 2050.0)}
    return _badge({"stable": changes.pop("stable", True), "duration_ms": 300}, steady, **{**fields, **changes})


def test_badge_is_valid_only_if_nothing_disturbed() -> None:
    assert _badge_of() == ("VALID", ())
    assert _badge_of(clocks_mhz=(None, None)) == ("VALID", ())
    assert _badge_of(cpu_share=0.5, threads=2)[0] == "VALID"  # threads that wait use no processor


@pytest.mark.parametrize(
    ("changes", "badge", "reason"),
    [
        ({"samples": [1] * 63}, "TOO-FEW", "63 samples; p90 needs 64"),
        ({"fallback": "1 Conv run on the CPU"}, "FALLBACK", "1 Conv run on the CPU"),
        ({"swap_mib": None}, "UNCONTROLLED", "this system does not report memory"),
        ({"swap_mib": 2.0}, "UNCONTROLLED", "2.0 MiB of this process were swapped out"),
        ({"stable": False}, "NOISY", "latency was not steady after 0.3 s of warm-up"),
        ({"cpu_share": 0.8}, "NOISY", "for 20 % of the time the processor was taken by others"),
        ({"clocks_mhz": (2000.0, 1500.0)}, "NOISY", "the clock moved between 1500 and 2000 MHz"),
    ],
)
def test_badge_says_what_disturbed(changes: dict[str, Any], badge: str, reason: str) -> None:
    assert _badge_of(**changes) == (badge, (reason,))


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
