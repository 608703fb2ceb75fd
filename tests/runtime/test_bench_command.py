"""`python -m edgelip.runtime bench`, in this process."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from tiny_bundles import write_bundle

from edgelip.runtime.__main__ import main
from edgelip.runtime.measurement import BenchRun

QUICK = ["--seconds", "0", "--min-count", "4", "--warm-up-cap", "0"]


def test_a_run_lies_in_two_files_and_its_command_repeats_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "a tiny one")
    streaming = ["--scenario", "Streaming", "--fps", "400", "--hop-frames", "2"]
    assert main(["bench", str(bundle), *QUICK, *streaming, "-o", str(tmp_path / "run.json")]) == 0
    assert "Streaming, fp32 on ort, 1 threads, 1 clip a query: " in capsys.readouterr().out
    run = BenchRun.read(tmp_path / "run.json")
    assert run.summary["deadline_ms"] == 5
    words = shlex.split(run.command)
    assert words[:5] == ["python", "-m", "edgelip.runtime", "bench", str(bundle)]
    assert main([*words[3:], "-o", str(tmp_path / "again.json")]) == 0
    again = BenchRun.read(tmp_path / "again.json")
    assert again.command == run.command
    assert again.summary["num_windows"] >= 4


def test_without_a_file_samples_are_inline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    assert main(["bench", str(bundle), *QUICK, "--scenario", "MultiStream", "--clips-per-query", "3", "--json"]) == 0
    run = BenchRun.from_json(json.loads(capsys.readouterr().out))
    assert (run.batch, len(run.samples_ns["query"])) == (3, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scenario", "Server"], "edgelip: There is no scenario 'Server'. Known: SingleStream, MultiStream, Offline"),
        (["--fps", "25"], "edgelip: fps has no effect on SingleStream; it belongs to Streaming. Leave it out."),
        (
            ["-o", "run.txt"],
            "edgelip: --output is run.txt; expected FILE.json: the samples go into FILE.npz beside it.",
        ),
        (
            ["-o", "nowhere/run.json"],
            "edgelip: --output is nowhere/run.json; its folder nowhere is not there. Make it or choose another.",
        ),
        (["--scenario", "Streaming", "--fps", "nan"], "edgelip: fps is nan; expected above 0, at most 1000."),
    ],
)
def test_what_cannot_be_obeyed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["bench", str(tmp_path), *options]) == 2
    assert capsys.readouterr().err.startswith(message)
