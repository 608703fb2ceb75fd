from __future__ import annotations

from typing import Any

import pytest
from fake_tensorrt import make_module
from fake_trt_build import ILogger

from edgelip.runtime.engines.trt_log import Progress, Transcript, make_logger, make_monitor, one_line


def test_the_first_error_stands_before_internal_ones() -> None:
    transcript = Transcript(str)
    logger = make_logger(make_module("10.3.0"), transcript)
    assert transcript.first_error() == "it gives no reason"
    logger.log(ILogger.INTERNAL_ERROR, "noise")
    assert transcript.first_error() == "noise"
    logger.log(ILogger.ERROR, "first\n  of two lines")
    logger.log(ILogger.ERROR, "second")
    assert transcript.first_error() == "first of two lines"
    transcript.clear()
    assert transcript.first_error() == "it gives no reason"


def test_warnings_are_said_once_and_ten_at_most() -> None:
    said: list[str] = []
    logger = make_logger(make_module("10.3.0"), Transcript(said.append))
    for number in [0, 0, *range(20)]:
        logger.log(ILogger.WARNING, f"w{number}")
    assert said == [f"warning: w{number}" for number in range(10)]


def test_progress_says_phase_steps_and_rate_once_a_second() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Progress(said.append, clock=lambda: now[0])
    progress.start("Building", None, 2)
    progress.start("Timing", "Building", 100)
    for step in range(100):
        now[0] += 0.05
        progress.step("Timing", step + 1)
    progress.finish("Timing")
    progress.step("never started", 1)
    progress.finish("never started")
    progress.finish("Building")
    assert len(said) == 5
    assert said[0] == "Timing: 20 of 100 steps, 20.0 a second"
    assert said[-1] == "Building: 2 steps in 5.0 s"


@pytest.mark.parametrize("thrown", [KeyboardInterrupt, BrokenPipeError])
def test_what_say_throws_is_kept_and_stops_the_build(thrown: type[BaseException]) -> None:
    def refuse(text: str) -> None:
        raise thrown

    module: Any = make_module("10.3.0")
    transcript = Transcript(refuse)
    monitor, logger = make_monitor(module, transcript), make_logger(module, transcript)
    assert monitor.step_complete("phase", 0) is True
    transcript.raise_thrown()
    logger.log(ILogger.WARNING, "w")
    assert monitor.step_complete("phase", 1) is False
    with pytest.raises(thrown):
        transcript.raise_thrown()


def test_one_line_is_bounded() -> None:
    assert one_line("a\r\n\tb ") == "a b"
    assert len(one_line("x" * 1000)) == 300
