from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_run
from pytest_benchmark.stats import Stats

from edgelip.bench.pytest_json import pytest_benchmark_json, stats_of
from edgelip.report.results import ResultRow, Sitting, Target
from edgelip.runtime.measurement import BenchRun

SITTING = Sitting("tiny", "quick", "here", "a", "edgelip bench", "2026-01-01T00:00:00", None, {"cpu": "none"})


def row_of(variant: str, scenario: str) -> ResultRow:
    target = Target("here", "ort", "fp32", 1)
    return ResultRow(variant, "0" * 64, target, scenario, "now", "", "VALID", (), 2, {})


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40))
def test_statistics_are_those_of_pytest_benchmark(samples: list[int]) -> None:
    theirs, ours = Stats(), stats_of([float(sample) for sample in samples])
    for sample in samples:
        theirs.update(float(sample))
    for name, value in theirs.as_dict().items():
        assert ours[name] == (value if isinstance(value, str) else pytest.approx(value)), name


def test_rows_without_samples_are_left_out() -> None:
    cold = [made_run(scenario="ColdStart", samples_ns={})] * 2
    content = pytest_benchmark_json(SITTING, [(row_of("a", "ColdStart"), cold), (row_of("a", "Offline"), [])])
    (entry,) = content["benchmarks"]
    assert (entry["group"], entry["name"], entry["stats"]["mean"]) == ("ColdStart", "a[ort fp32 1t]", 0.128)


def test_two_sittings_are_compared_by_pytest_benchmark(tmp_path: Path) -> None:
    for name, scale in (("before", 2e6), ("after", 3e6)):
        runs: list[BenchRun] = [made_run(np.random.default_rng(seed).normal(scale, 1e4, 70)) for seed in range(2)]
        content = pytest_benchmark_json(SITTING, [(row_of("a", "SingleStream"), runs)])
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    tool = [str(Path(sys.executable).parent / "pytest-benchmark"), "compare", "before.json", "after.json"]
    done = subprocess.run([*tool, "--csv=table.csv"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'SingleStream': 2 tests" in done.stdout
    lines = (tmp_path / "table.csv").read_text().splitlines()
    column = lines[0].split(",").index("median")
    medians_ms = sorted(1e3 * float(line.split(",")[column]) for line in lines[1:])
    assert medians_ms == pytest.approx([2, 3], rel=0.01)
