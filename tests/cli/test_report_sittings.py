"""`edgelip report` over sittings of `edgelip bench SUITE.toml`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import Edgelip

from edgelip.cli.report import moment_from_text
from edgelip.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from result_rows import FIGURES, TARGET, result_row, write_results
from test_ledger import HEADER, make_row


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished sittings, a newer one that is not, and what is no sitting."""
    folder = tmp_path / "runs"
    for day, p50 in ((20, 2.0), (21, 3.0)):
        rows = [result_row(scenario=kind) for kind in FIGURES if kind != "SingleStream"]
        rows.append(result_row(figures={"latency_p50_ms": (p50, p50 - 0.1, p50 + 0.1)}))
        write_results(folder / f"202611{day}-quick", *rows, started_at=f"2026-11-{day}T10:00:00+00:00")
    write_results(folder / "20261122-quick", started_at="2026-11-22T10:00:00+00:00", finished_at=None)
    (folder / "notes").mkdir()
    return folder


def test_the_newest_finished_sitting_is_reported_into_its_folder(edgelip: Edgelip, runs: Path) -> None:
    done = edgelip("report", runs)
    assert done.code == 0, done.line
    newest = runs / "20261121-quick"
    assert f"Page: {newest / 'report.html'}" in done.out
    assert "3.00" in done.out
    assert done.line == f"results of {newest}"
    made = {"tradeoff.md", "tradeoff.csv", "tradeoff.json", "tradeoff.png", "report.html"}
    assert made <= {path.name for path in newest.iterdir()}
    assert edgelip("report", newest).out == done.out  # the table beside its rows is no row


def test_a_sitting_that_is_named_is_reported_even_if_cut_short(edgelip: Edgelip, runs: Path, tmp_path: Path) -> None:
    done = edgelip("report", runs / "20261122-quick", "--out", tmp_path / "there", "--json")
    assert done.code == 0, done.line
    table = json.loads(done.out)
    assert "The sitting was cut short" in table["header"]["notes"][0]
    assert table["rows"][0]["figures"]["clips_per_s"] == {"value": 500.0, "low": 490.0, "high": 510.0}
    assert done.line == f"page: {tmp_path / 'there/report.html'}"


def test_without_a_folder_benchmarks_runs_comes_before_export_dist(
    edgelip: Edgelip, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edgelip("report")
    assert (done.code, done.line) == (
        2,
        "edgelip: no results: benchmarks/runs holds no sitting and export/dist no tradeoff.json. `edgelip bench "
        "SUITE.toml` or `edgelip export RECIPE` measures; or name a FOLDER.",
    )
    dist = tmp_path / "export/dist"
    dist.mkdir(parents=True)
    table = {"schema_version": 1, "header": HEADER, "rows": [make_row("dense")]}
    (dist / "tradeoff.json").write_text(json.dumps(table))
    assert edgelip("report").line == "results of export/dist"
    (tmp_path / "benchmarks").mkdir()
    runs.rename(tmp_path / "benchmarks/runs")
    assert edgelip("report").line == "results of benchmarks/runs/20261121-quick"


def test_since_shows_drift_in_text_json_and_page(edgelip: Edgelip, runs: Path) -> None:
    done = edgelip("report", runs, "--since", "2026-11-01")
    assert done.code == 0, done.line
    assert "2 sittings since 2026-11-01T00:00+00:00. Left out, not finished: 20261122-quick." in done.out
    assert "SingleStream: latency p50, ms: +50.0 % worse" in done.out
    assert "Drift" in (runs / "20261121-quick/report.html").read_text()
    drift = json.loads(edgelip("report", runs, "--since", "2026-11-21", "--json").out)
    assert drift == json.loads((runs / "20261121-quick/drift.json").read_text())
    assert {each["verdict"] for each in drift["series"]} == {"one sitting"}
    done = edgelip("report", runs, "--since", "2026-11-23")
    assert done.code == 2
    assert "no finished sitting in" in done.line
    assert done.line.endswith("since 2026-11-23T00:00+00:00; it holds 3. Name an earlier day.")
    done = edgelip("report", runs, runs, "--since", "7")
    assert (done.code, done.line) == (2, "edgelip: --since takes one FOLDER of sittings; got 2.")


def test_a_day_is_a_date_or_a_number_of_days() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert moment_from_text("7", now=now) == datetime(2026, 11, 15, tzinfo=UTC)
    assert moment_from_text("2026-11-01", now=now) == datetime(2026, 11, 1, tzinfo=UTC)
    assert moment_from_text("2026-11-01T08:00+01:00", now=now) == datetime(2026, 11, 1, 7, tzinfo=UTC)
    for text in ("last week", "-7", "9" * 30, "2026-13-01", ""):
        with pytest.raises(
            UsageError, match=r"--since is '.*'; expected a day such as 2026-11-01, or a number of days"
        ):
            moment_from_text(text, now=now)


def test_a_device_is_chosen_by_name(edgelip: Edgelip, runs: Path) -> None:
    row = result_row(target=replace(TARGET, device="orin-nx-8"))
    other = write_results(runs / "20261123-quick", row, device="orin-nx-8", started_at="2026-11-23T10:00:00+00:00")
    assert edgelip("report", runs, "--device", "here").line == f"results of {runs / '20261121-quick'}"
    assert edgelip("report", runs, "--device", "orin-nx-8").line == f"results of {other}"
    done = edgelip("report", runs, "--device", "orin-nx-9")
    assert (done.code, done.line) == (
        2, f"edgelip: {runs} holds no finished sitting of 'orin-nx-9'. Did you mean 'orin-nx-8'?"
    )  # fmt: skip
    drift = json.loads(edgelip("report", runs, "--since", "2026-11-01", "--device", "orin-nx-8", "--json").out)
    assert {each["device"] for each in drift["series"]} == {"orin-nx-8"}
    done = edgelip("report", runs / "20261121-quick", other)
    assert done.code == 2
    assert "holds rows of 2 devices: here, orin-nx-8. Figures of different devices do not compare" in done.line


def test_results_that_do_not_fit_end_in_one_line(edgelip: Edgelip, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = edgelip("report", tmp_path / "empty")
    assert done.code == 2
    assert "empty holds no results: neither tradeoff.json nor sitting.json, nor folders with one." in done.line
    done = edgelip("report", tmp_path / "nowhere")
    assert (done.code, done.line) == (
        2, f"edgelip: cannot read the folder {tmp_path / 'nowhere'}: no such file or directory. Name another one."
    )  # fmt: skip
    done = edgelip("report", runs / "20261122-quick", "--out", runs / "20261122-quick/sitting.json")
    assert done.code == 4
    assert "a file stands where a folder is needed" in done.line
    only = write_results(tmp_path / "unfinished/a", finished_at=None)
    done = edgelip("report", only.parent)
    assert "none of the 1 sittings in" in done.line
    for path in only.glob("*--*.json"):
        path.unlink()
    done = edgelip("report", only)
    assert (done.code, "holds no results. `edgelip bench" in done.line) == (2, True)


def test_damaged_results_name_their_file(edgelip: Edgelip, runs: Path, tmp_path: Path) -> None:
    path = next((runs / "20261121-quick").glob("*--Static.json"))
    whole = path.read_text()
    for content, message in (
        (whole[: len(whole) // 2], "is cut or damaged"),
        (whole.replace('"schema_version": 1', '"schema_version": 2'), "has schema version 2; this edgelip reads 1."),
        (whole.replace('"file_bytes"', '"file_size"'), "there is no figure 'file_size'; report/metrics.py lists them."),
    ):
        path.write_text(content)
        for command in (["report", runs], ["report", runs, "--since", "2026-11-01"], ["pick", runs]):
            done = edgelip(*command)
            assert done.code == 2
            assert str(path) in done.line
            assert message in done.line
    export = tmp_path / "export"
    export.mkdir()
    (export / "tradeoff.json").write_text('{"schema_version": 1, "header"')
    done = edgelip("report", export)
    assert done.code == 2
    assert f"{export / 'tradeoff.json'} is cut or damaged" in done.line
    (export / "tradeoff.json").write_text('{"schema_version": 9, "header": {}, "rows": []}')
    assert f"{export / 'tradeoff.json'}: the ledger has schema version 9; expected 1." in edgelip("report", export).line


def test_a_page_that_cannot_be_written_is_exit_4_and_the_rest_is_there(edgelip: Edgelip, runs: Path) -> None:
    folder = runs / "20261121-quick"
    (folder / "report.html").mkdir()
    done = edgelip("report", folder)
    assert (done.code, done.line) == (
        4, f"edgelip: cannot write {folder / 'report.html'}: a folder stands in its place. Choose another --out."
    )  # fmt: skip
    assert (folder / "tradeoff.png").is_file()


def test_without_jinja2_the_tables_are_written_and_the_extra_is_named(
    edgelip: Edgelip, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = edgelip("report", runs)
    assert done.code == 4
    assert "jinja2 cannot be imported here" in done.line
    assert (runs / "20261121-quick/tradeoff.md").is_file()
