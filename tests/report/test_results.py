from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.errors import UsageError
from edgelip.report.metrics import METRICS, end_name, has_enough, metric
from edgelip.report.results import (
    ResultRow,
    Target,
    read_rows,
    read_sitting,
    sittings_in,
    write_row,
    write_sitting,
)
from edgelip.runtime.measurement import Measurement

sys.path.insert(0, str(Path(__file__).parent))
from result_rows import SITTING, TARGET, measured, result_row, write_results

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_finite = st.floats(-1e12, 1e12)


@given(
    _text,
    st.dictionaries(st.sampled_from(sorted(METRICS)), st.tuples(_finite, _finite, _finite), max_size=4),
    st.dictionaries(_text, _text, max_size=2),
)
def test_a_row_survives_json(variant: str, figures: dict[str, Any], options: dict[str, str]) -> None:
    row = result_row(variant, figures=figures, target=replace(TARGET, options=options))
    text = json.dumps(row.to_json(), allow_nan=False)
    assert ResultRow.from_json(json.loads(text), source=Path("a.json")) == row


def test_a_sitting_reads_its_rows_and_no_other_file(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "20261120-quick", result_row(), result_row("phm4", "Static"))
    for name in ("tradeoff.json", "plan.json", "pytest-benchmark.json", ".dense--ort--Static.json.partial"):
        (folder / name).write_text("no row")
    (folder / "dense--ort-fp32-1t--SingleStream").mkdir()
    assert [row.variant for row in read_rows(folder)] == ["dense", "phm4"]
    assert read_sitting(folder) == SITTING
    assert sittings_in(folder) == [folder]
    assert sittings_in(tmp_path) == [folder]


def test_two_rows_never_share_a_file(tmp_path: Path) -> None:
    write_row(tmp_path, result_row("a b"))
    write_row(tmp_path, result_row("a b", num_launches=9))  # measured again
    with pytest.raises(UsageError, match=r"a_b--.*SingleStream\.json holds 'a b' on ort fp32 1t; rename 'a_b'\."):
        write_row(tmp_path, result_row("a_b"))
    assert next(read_rows(tmp_path)).num_launches == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, r"has schema version 0; this edgelip reads 1\. Measure again, or report the"),
        ({"variants": "x"}, r"has the unknown key 'variants'\. Did you mean 'variant'\?"),
        ({"scenario": "SingelStream"}, r"scenario is 'SingelStream'\. Did you mean 'SingleStream'\?"),
        ({"badge": "GOOD"}, r"badge is 'GOOD'; expected one of VALID, NOISY"),
        ({"variant": 3}, r"the row has variant 3; expected text\. Measure that row again, or move it away\."),
        ({"reasons": "noisy"}, r"the row has reasons 'noisy'; expected a list of sentences\."),
        ({"environment": []}, r"the row has environment of kind list; expected a table\."),
        ({"target": {"device": "x"}}, r"missing 3 required .*\. Measure that row again"),
        ({"target": {"device": "x", "engine": 1, "precision": "", "threads": 1}}, r"the target has engine 1; expected"),
        ({"measurements": 5}, r"'int' object is not iterable"),
        ({"measurements": [{"name": "latency_p49_ms", "value": 1, "unit": "ms", "num_samples": 9}]},
         r"dense: there is no figure 'latency_p49_ms'; report/metrics\.py lists them\."),
        ({"measurements": [{"name": "miss_pct", "value": float("nan"), "unit": "%", "num_samples": 9}]},
         r"dense: miss_pct is \[nan\]; expected a finite number and its interval\."),
        ({"measurements": [{"name": "miss_pct", "value": 1, "unit": "%", "num_samples": 9, "interval": [1]}]},
         r"dense: miss_pct is \[1, 1\]; expected a finite number and its interval\."),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_row(tmp_path, result_row())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=f"{path}.*{message}"):
        list(read_rows(tmp_path))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = write_row(tmp_path, result_row())
    values = json.loads(path.read_text())
    del values["badge"]
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"the row lacks 'badge'\. Measure that row again"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b'{"variant": "de', b"[" * 100_000, b"\xff\xfe{}", b'{"variant": "\\ud800"}'], ids=repr
)
def test_a_file_that_is_cut_or_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write_row(tmp_path, result_row())
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{path} is cut or damaged \(.*\)\. Measure that row again, or move it away"):
        list(read_rows(tmp_path))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = write_row(tmp_path, result_row())
    with path.open("ab") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(UsageError, match=r"has more than the 16,777,216 bytes that such a file has at most"):
        list(read_rows(tmp_path))


def test_folders_that_cannot_be_read_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"cannot read the folder .*nowhere: no such file or directory\. Name another"):
        sittings_in(tmp_path / "nowhere")

    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match=r"cannot read the folder .*: permission denied\. Name another one\."):
        list(read_rows(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"started_at": None}, "the sitting has started_at None; expected text"),
        ({"finished_at": 3}, "the sitting has finished_at 3; expected text or None"),
        ({"environment": 1}, "the sitting has the environment 1; expected a table"),
        ({"notes": "x"}, "the sitting has notes 'x'; expected a list of sentences"),
        ({"schema_version": 2}, "has schema version 2; this edgelip reads 1"),
    ],
)
def test_a_damaged_sitting_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_sitting(tmp_path, SITTING)
    path = tmp_path / "sitting.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=f"{path}.*{message}"):
        read_sitting(tmp_path)


def test_a_folder_without_a_sitting_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no .*sitting\.json\. `edgelip bench SUITE\.toml` measures and wri"):
        read_sitting(tmp_path)


def test_a_target_is_named_with_its_options_in_order() -> None:
    target = Target("here", "ort", "int8", 2, {"b": "2", "a": "1"})
    assert target.label == "ort int8 2t a=1 b=2"
    assert result_row("x", target=target).stem == "x--ort-int8-2t-a_1-b_2--SingleStream"


def test_every_figure_names_the_rows_it_is_taken_from() -> None:
    assert [name for name, each in METRICS.items() if not each.kinds] == []
    robust = metric("robust_dropped_10_drop_points")
    assert robust is not None
    assert (robust.label, robust.unit, robust.better) == ("drop at dropped 10", "points", "lower")
    assert metric("robust_dropped_10") is None


def test_the_ends_of_an_interval_keep_the_unit_last() -> None:
    assert end_name("latency_p99.9_ms", "low") == "latency_p99.9_low_ms"
    assert end_name("top1_drop_points", "high") == "top1_drop_high_points"
    assert end_name("clips_per_s", "low") == "clips_per_s_low"


@pytest.mark.parametrize(
    ("name", "least"),
    [("latency_p50_ms", 11), ("query_p90_ms", 64), ("latency_p90_early_ms", 64), ("end_to_end_p95_ms", 130),
     ("last_frame_to_word_p99_ms", 662), ("latency_p99.9_ms", 6636), ("latency_min_ms", 0), ("top1_pct", 0)],
)  # fmt: skip
def test_a_percentile_needs_its_samples(name: str, least: int) -> None:
    assert has_enough(measured(name, 1.0, num_samples=least))
    assert has_enough(Measurement(name, 1.0, "", least - 1)) is (least == 0)
