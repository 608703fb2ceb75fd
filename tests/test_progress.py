from __future__ import annotations

import io
import sys

import pytest

from edgelip import progress as progress_module
from edgelip.progress import Progress, Task


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_gives_count_rate_and_time_left(clock: Clock) -> None:
    task = Task("render", 1000, "clips")
    assert task.line() == "render: 0/1000 clips, 0 clips/s, time left unknown"
    clock.now += 10
    task.advance(200, note="loss 1.25")
    assert task.line() == "render: 200/1000 clips, 20 clips/s, 40 s left  loss 1.25"
    task.advance(0)
    assert task.note == "loss 1.25"


def test_what_was_done_before_does_not_count_as_speed(clock: Clock) -> None:
    task = Task("render", 1000, "clips", done=500)
    clock.now += 10
    task.advance(100)
    assert task.line() == "render: 600/1000 clips, 10 clips/s, 40 s left"


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().task("render", total=40, unit="clips") as task:
        for _ in range(40):
            clock.now += 1
            task.advance(1)
    out, err = capsys.readouterr()
    assert out == ""  # stdout is the result's
    assert err.splitlines() == [
        "render: 15/40 clips, 1 clips/s, 25 s left",
        "render: 30/40 clips, 1 clips/s, 10 s left",
        "render: 40 clips in 40.0 s",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_line_is_overwritten_and_the_last_one_stays(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress().task("render", total=2, unit="clips") as task:
        clock.now += 1
        task.advance(1)
    assert sys.stderr.getvalue() == (  # type: ignore[attr-defined]
        "\r\x1b[2Krender: 1/2 clips, 1 clips/s, 1 s left\r\x1b[2Krender: 1 clips in 1.0 s\n"
    )


def test_a_failed_job_leaves_the_cursor_on_a_fresh_line_and_claims_no_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())

    def fail() -> None:
        with Progress().task("render", total=2, unit="clips") as task:
            clock.now += 1
            task.advance(1)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert text.endswith("1 s left\n")
    assert "clips in" not in text


def test_quiet_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    progress.say("hello")
    with progress.task("render", total=1, unit="clips") as task:
        clock.now += 99
        task.advance(1)
    assert capsys.readouterr() == ("", "")
    Progress().say("hello")
    assert capsys.readouterr().err == "hello\n"
