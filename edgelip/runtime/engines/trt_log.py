"""What TensorRT says while it works, kept from stdout: errors for the exception, warnings and progress for `say`.

TensorRT calls these objects from C++, which swallows a Python exception: it is kept, and raised once TensorRT returned.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from edgelip.runtime.engines.engine import Say

_MAX_WARNINGS = 10
_LINE_LENGTH = 300


class Transcript:
    """Errors in the order in which they came; warnings are said once each, the first ten."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._errors: List[Tuple[bool, str]] = []
        self._warnings: Set[str] = set()
        self._thrown: Optional[BaseException] = None

    def add_error(self, text: str, *, internal: bool) -> None:
        self._errors.append((internal, one_line(text)))

    def add_warning(self, text: str) -> None:
        if text not in self._warnings and len(self._warnings) < _MAX_WARNINGS:
            self._warnings.add(text)
            self.say(f"warning: {one_line(text)}")

    def first_error(self) -> str:
        """The first error in one line. TensorRT-RTX opens every build with an internal one that harms nothing."""
        ordered = sorted(self._errors, key=lambda error: error[0])
        return ordered[0][1] if ordered else "it gives no reason"

    def clear(self) -> None:
        """Forget the errors so far."""
        self._errors.clear()

    def guard(self, work: Callable[[], None]) -> bool:
        """Do the work of a call from C++. False once something was thrown, Ctrl-C for one: TensorRT should stop."""
        try:
            work()
        except BaseException as error:
            self._thrown = self._thrown or error
        return self._thrown is None

    def raise_thrown(self) -> None:
        """Raise what `guard` kept."""
        if self._thrown is not None:
            raise self._thrown


def make_logger(trt: Any, transcript: Transcript) -> Any:
    """A logger that fills `transcript`; it must outlive everything made with it."""
    levels = trt.ILogger

    def take(severity: Any, text: str) -> None:
        if severity in (levels.INTERNAL_ERROR, levels.ERROR):
            transcript.add_error(text, internal=severity == levels.INTERNAL_ERROR)
        elif severity == levels.WARNING:
            transcript.add_warning(text)

    class Logger(levels):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            levels.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            transcript.guard(lambda: take(severity, msg))

    return Logger()


class Progress:
    """Phases of a build as lines: phase, steps and rate once a second at most, and the end of the outermost phase."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._phases: Dict[str, Tuple[float, int]] = {}
        self._outermost: Optional[str] = None
        self._said = clock()

    def start(self, phase: str, parent: Optional[str], num_steps: int) -> None:
        self._phases[phase] = (self._clock(), num_steps)
        if parent is None:
            self._outermost = phase

    def step(self, phase: str, num_done: int) -> None:
        now = self._clock()
        if now - self._said < 1 or phase not in self._phases:
            return
        self._said = now
        started, num_steps = self._phases[phase]
        rate = num_done / max(now - started, 1e-9)
        self._say(f"{phase}: {num_done} of {num_steps} steps, {rate:.1f} a second")

    def finish(self, phase: str) -> None:
        now = self._clock()
        started, num_steps = self._phases.pop(phase, (now, 0))
        if phase == self._outermost:
            self._say(f"{phase}: {num_steps} steps in {now - started:.1f} s")


def make_monitor(trt: Any, transcript: Transcript) -> Any:
    """A progress monitor that says how far a build is; the module must have IProgressMonitor."""
    base = trt.IProgressMonitor
    progress = Progress(transcript.say)

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            transcript.guard(lambda: progress.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            return transcript.guard(lambda: progress.step(phase_name, step + 1))

        def phase_finish(self, phase_name: str) -> None:
            transcript.guard(lambda: progress.finish(phase_name))

    return Monitor()


def one_line(text: str) -> str:
    """A message without line breaks, of at most 300 characters."""
    return " ".join(text.split())[:_LINE_LENGTH]
