"""`edgelip pick`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Edgelip

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from result_rows import TARGET, result_row, write_results
from test_ledger import HEADER, make_row


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A dense row and a smaller one that is as accurate."""
    folder = tmp_path / "export"
    folder.mkdir()
    rows = [make_row("dense", file_bytes=400_000), make_row("phm4", top1_pct=92.5), make_row("noisy", badge="NOISY")]
    table = {"schema_version": 1, "header": HEADER, "rows": rows}
    (folder / "tradeoff.json").write_text(json.dumps(table))
    return folder


def test_one_answer_with_its_reason_limits_and_runner_up(edgelip: Edgelip, export: Path) -> None:
    done = edgelip("pick", export, "--max-latency-p90", "40ms", "--max-bytes", "4MB", "--min-top1", "86")
    assert done.code == 0, done.line
    assert done.out.splitlines() == [
        "phm4",
        "  top-1 92.5 % is no evidence of a difference to the 93.0 % of dense on the same clips, and it is 4.00 times "
        "smaller (file).",
        "  latency p90 3.00 ms, upper bound 3.10 ms <= 40.00 ms",
        "  file 100.0 kB <= 4,000.0 kB",
        "  top-1 92.5 %, lower bound 92.0 % >= 86.0 %",
        "Runner-up: dense: top-1 93.0 %, no evidence of a difference; the picked one is 4.00 times smaller (file).",
        "Excluded:",
        "  noisy: its badge is NOISY",
        "Judged by the pessimistic end of each 95 % interval; --judge-by value takes the measured values.",
    ]


def test_none_that_fits_is_exit_3_with_the_nearest_miss(edgelip: Edgelip, export: Path) -> None:
    done = edgelip("pick", export, "--max-latency-p90", "3.05ms")
    assert done.code == 3
    assert "  dense: latency p90 3.00 ms, upper bound 3.10 ms > 3.05 ms\n" in done.out
    assert "  noisy: its badge is NOISY; latency p90" in done.out
    assert done.line == (
        f"edgelip: no variant in {export} fits. Nearest: dense, latency p90 3.00 ms, upper bound 3.10 ms > 3.05 ms, "
        "1.6 % beyond its limit."
    )
    assert edgelip("pick", export, "--max-latency-p90", "3.05ms", "--judge-by", "value").code == 0
    done = edgelip("pick", export, "--max-energy", "1mJ", "--json")
    assert done.code == 3
    assert json.loads(done.out)["variant"] is None
    assert done.line.endswith(
        "fits, and none comes near: each bears a bad badge or lacks a figure. "
        "Measure again on a quiet machine with what is missing; --allow-invalid takes bad badges too."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-latency-p90", "40"], "--max-latency-p90 is '40' without a unit; write 40ns, 40us, 40µs, 40ms, 40s."),
        (["--max-memory", "4 MBs"], "--max-memory is '4 MBs': the unit 'MBs' is none of B, kB, MB, GB, KiB, MiB, GiB."),
        (["--min-robust", "0.8"], "--min-robust is '0.8' without a unit; write 0.8%, or 80% of a share."),
        (["--judge-by", "values"], "--judge-by is 'values'. Did you mean 'value'?"),
        (["--engine", "openvno"], "export holds no row of engine 'openvno'. Known: ort."),
        (["--device", "orin"], "export holds no row of 'orin'. Known: here."),
    ],
)
def test_options_that_do_not_fit_are_refused(
    edgelip: Edgelip, export: Path, arguments: list[str], message: str
) -> None:
    done = edgelip("pick", export, *arguments)
    assert done.code == 2
    assert done.line.endswith(message)


def test_every_limit_reaches_its_figure(edgelip: Edgelip, tmp_path: Path) -> None:
    write_results(tmp_path / "runs/a")
    limits = {
        "--max-latency-p50": "2ms", "--max-latency-p90": "3ms", "--max-bytes": "99kB", "--max-memory": "60MiB",
        "--max-energy": "19mJ", "--max-miss": "0.8%", "--min-top1": "89%", "--min-robust": "79%",
    }  # fmt: skip
    texts = [
        "latency p50 2.00 ms, upper bound 2.10 ms > 2.00 ms", "latency p90 3.00 ms, upper bound 3.20 ms > 3.00 ms",
        "file 100.0 kB > 99.0 kB", "peak memory 60.0 MiB, upper bound 61.0 MiB > 60.0 MiB",
        "energy, gross, 20.00 mJ (no interval) > 19.00 mJ", "deadlines missed 0.50 %, upper bound 0.90 % > 0.80 %",
        "top-1 90.0 %, lower bound 88.0 % < 89.0 %",
        "lowest top-1 under disturbance 80.0 %, lower bound 78.0 % < 79.0 %",
    ]  # fmt: skip
    done = edgelip("pick", tmp_path / "runs", *(word for pair in limits.items() for word in pair), "--json")
    assert done.code == 3
    assert json.loads(done.out)["excluded"][0]["reasons"] == texts


def test_two_devices_need_one_to_be_named(edgelip: Edgelip, tmp_path: Path) -> None:
    write_results(tmp_path / "1")
    write_results(tmp_path / "2", result_row(target=replace(TARGET, device="orin-nx-8")), device="orin-nx-8")
    done = edgelip("pick", tmp_path)
    assert (done.code, done.line) == (
        2,
        f"edgelip: {tmp_path} holds rows of 2 devices: orin-nx-8, here. Figures of different devices do not compare; "
        "choose one with --device NAME.",
    )
    done = edgelip("pick", tmp_path, "--device", "orin-nx-8", "--allow-invalid")
    assert done.out.startswith("dense\n  the smallest file: accuracy was not measured.\n")
