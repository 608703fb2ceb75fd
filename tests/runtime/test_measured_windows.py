"""The worker of a comparison: what it answers, what it refuses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import write_bundle

from edgelip.runtime import windows
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines.engine import ENGINES
from edgelip.runtime.errors import UsageError
from edgelip.runtime.recogniser import Recogniser
from edgelip.runtime.windows import MAX_WINDOW_CLIPS, MAX_WINDOW_MS, Windows, obey

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle for an engine that takes no time."""
    monkeypatch.setitem(ENGINES, "fake", "fake_engine:FakeEngine")
    return write_bundle(tmp_path / "tiny", edit=lambda manifest: manifest["models"][0]["engines"].append("fake"))


def answers(bundle: Path, lines: str, **options: Any) -> list[dict[str, Any]]:
    told = io.BytesIO()
    obey(str(bundle), io.BytesIO(lines.encode()), told, engine="fake", **options)
    return [json.loads(line) for line in told.getvalue().splitlines()]


def test_it_says_what_it_loaded_and_answers_every_line(fake: Path) -> None:
    loaded, warmed, by_time, by_clips, evidence, fallback = answers(
        fake, "warm-up 0.001\nwindow 0.001\nwindow 7 clips\nevidence\nfallback\n"
    )
    assert (loaded["protocol"], loaded["bundle"], loaded["precision"]) == (windows.PROTOCOL, "tiny", "fp32")
    assert loaded["bundle_sha256"] == Bundle.open(fake).sha256
    assert loaded["affinity"] == sorted(os.sched_getaffinity(0))
    assert set(warmed) == {"num_runs", "duration_ms", "stable"}
    assert len(by_time["latency_ns"]) >= windows.FEWEST_CLIPS
    assert len(by_clips["latency_ns"]) == 7
    assert all(isinstance(each, int) and each > 0 for each in by_clips["latency_ns"])
    assert by_clips["cpu_share"] >= 0
    assert evidence["watch"]["threads"] == 1
    assert not any("others used" in reason for reason in evidence["reasons"])  # the other of the pair is no neighbour
    assert fallback == {"fallback": None}


def test_a_window_settles_before_it_records(fake: Path) -> None:
    before = FakeEngine.num_inferences
    answers(fake, "window 5 clips\n")
    assert FakeEngine.num_inferences - before == 1 + windows.SETTLING_CLIPS + 5  # one proves that scores are finite


def test_it_runs_on_the_processor_that_it_is_given(fake: Path) -> None:
    own = os.sched_getaffinity(0)
    try:
        (loaded,) = answers(fake, "", cpu=min(own))
        assert loaded["affinity"] == [min(own)]
    finally:
        os.sched_setaffinity(0, own)
    with pytest.raises(
        UsageError, match=r"cpu 100000 cannot be had \(.*\)\. Leave --cpu out, or choose one of this ma"
    ):
        answers(fake, "", cpu=100_000)


@pytest.mark.parametrize(
    "line",
    [
        "windows", "window", "window 0", "window -1", "window nan", "window 1e3", f"window {MAX_WINDOW_MS + 1}",
        "window 2.5 clips", f"window {MAX_WINDOW_CLIPS + 1} clips", "warm-up 5 clips", "warm-up 601", "evidence 1",
        "", "window\xa01", "x" * 500,
    ],
)  # fmt: skip
def test_what_is_no_command_is_refused(fake: Path, line: str) -> None:
    with pytest.raises(
        UsageError, match=r"^windows was asked '.{0,60}'; expected 'warm-up S' \(S to 600\), 'window MS'"
    ):
        answers(fake, f"{line}\nwindow 1 clips\n")


@given(st.binary(max_size=windows._MAX_LINE_BYTES))
def test_any_line_is_understood_or_refused(line: bytes) -> None:
    try:
        verb, number, _ = windows._parsed(line)
    except UsageError:
        return
    assert verb in ("warm-up", "window", "evidence", "fallback")
    assert number >= 0


def test_a_window_is_bounded_whatever_it_is_asked(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOW_CLIPS", 20)
    with Recogniser(Bundle.open(fake), engine="fake") as recogniser:
        assert len(Windows(recogniser).window(duration_ns=10**18, num_clips=1)) == 20


def test_stdout_holds_answers_alone_and_the_end_of_stdin_ends_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    command = [sys.executable, "-m", "edgelip.runtime", "windows", str(bundle)]
    done = subprocess.run(command, input=b"window 3 clips\nnonsense\n", cwd=ROOT, capture_output=True, check=False)
    assert [sorted(json.loads(line))[0] for line in done.stdout.splitlines()] == ["affinity", "cpu_share"]
    assert done.returncode == 2
    assert done.stderr.startswith(b"edgelip: windows was asked 'nonsense'; expected")
