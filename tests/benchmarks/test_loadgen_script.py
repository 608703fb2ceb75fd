"""loadgen.py reads LoadGen's logs, and our early-stopping estimate is LoadGen's."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgelip.bench.statistics import early_stopping_estimate
from edgelip.errors import MeasurementError, MissingError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("loadgen")


def detail(**values: object) -> str:
    return "\n".join(f":::MLLOG {json.dumps({'key': key, 'value': value})}" for key, value in values.items())


def trace(queries: dict[int, list[int]]) -> str:
    """As LoadGen 6.0.17 writes it: a line a sample, the clock of each query beginning anew."""
    lines = [
        f'{{"name":"Sample","args":{{"sample_seq":0,"query_seq":{query},"sample_idx":4,"issue_start_ns":5,"complete_ns":{end}}}}}'
        for query, ends in queries.items()
        for end in ends
    ]
    return '{"traceEvents":[\n' + ",\n".join(lines)


# What mlcommons-loadgen 6.0.17 said of so many queries: how many of the slowest it discards.
@pytest.mark.parametrize(("count", "percent", "discarded"), [(1605, 90, 131), (1605, 99, 6), (662, 99, 0), (64, 90, 0)])
def test_early_stopping_discards_as_many_as_loadgen(count: int, percent: float, discarded: int) -> None:
    assert early_stopping_estimate(range(1, count + 1), percent) == count - discarded


def test_a_query_of_several_clips_lasts_as_long_as_its_slowest(script: Any) -> None:
    log = detail(
        **{"result_validity": "VALID", "result_90.00_percentile_latency_ns": 30, "early_stopping_latency_ms": 40}
    )
    run = script.loadgen_run(log, trace({0: [15, 45], 1: [25, 20]}), "MultiStream")
    assert run.query_ns == (40, 20)
    assert (run.valid, run.p90_ns, run.estimate_ns, run.clips_per_s) == (True, 30, 40, None)


def test_estimates_of_the_same_samples_stand_side_by_side(script: Any) -> None:
    log = detail(
        **{"result_validity": "INVALID", "result_90.00_percentile_latency_ns": 1, "early_stopping_latency_ss": 95}
    )
    run = script.loadgen_run(log, trace({number: [number + 5] for number in range(100)}), "SingleStream")
    assert not run.valid
    assert script.same_samples(run) == (95.0, early_stopping_estimate(range(100), 90))


def test_a_run_without_an_estimate_is_too_short(script: Any) -> None:
    log = detail(**{"result_validity": "VALID", "result_90.00_percentile_latency_ns": 1})
    run = script.loadgen_run(log, trace({0: [15]}), "SingleStream")
    with pytest.raises(MeasurementError, match=r"no early-stopping estimate of 1 queries\. Measure longer"):
        script.same_samples(run)


def test_an_unfinished_log_is_refused(script: Any) -> None:
    with pytest.raises(MeasurementError, match="its run did not end"):
        script.loadgen_run("", "", "SingleStream")


def test_without_loadgen_the_remedy_is_named(script: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def absent(module: str, *, extra: str) -> Any:
        raise MissingError(f'{module} cannot be imported here. Install it: pip install "edgelip[{extra}]"')

    monkeypatch.setattr(script, "require", absent)
    assert script.exit_code_of(script.main, ["nowhere"], name="loadgen") == 4
    assert 'pip install "edgelip[loadgen]"' in capsys.readouterr().err


@pytest.mark.slow
def test_loadgen_itself_reports_our_estimate(script: Any) -> None:
    pytest.importorskip("mlperf_loadgen")
    import numpy as np

    clips_N1THW = np.zeros((4, 1, 1, 2, 2), np.float32)
    run = script.run_loadgen(lambda clips: clips.sum(), clips_N1THW, "SingleStream", seconds=0.2, run_ms=0.05)
    theirs, ours = script.same_samples(run)
    assert theirs == ours
