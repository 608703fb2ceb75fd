"""A process that holds one model and times it in short windows when asked (edgelip.runtime.windows), asleep else."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from edgelip.bench.isolate import PACKAGE_ROOT, THREAD_VARIABLES, error_of_exit
from edgelip.runtime.errors import MeasurementError
from edgelip.runtime.windows import PROTOCOL

LOAD_LIMIT_S = 600.0  # a large engine on a slow board
_ANSWER_LIMIT_S = 60.0  # over what was asked for
_MAX_ANSWER_BYTES = 8 << 20


def worker_command(arguments: Sequence[str], *, cpu: int | None) -> list[str]:
    """The command of a worker; arguments as Subject.arguments() gives them."""
    chosen = [] if cpu is None else ["--cpu", str(cpu)]
    return [sys.executable, "-m", "edgelip.runtime", "windows", *arguments, *chosen]


class Worker:
    """`with Worker(command, name=...) as worker`: started at once, loading; `loaded()` waits for it.

    Every method raises what the process raised, with its message, MeasurementError if it was killed or says nothing.
    """

    def __init__(self, command: Sequence[str], *, name: str, threads: int = 1) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe that nobody reads would block the process)
        self._process = subprocess.Popen(
            command,
            cwd=PACKAGE_ROOT,  # where `edgelip` is found, and no stray module of the user's folder
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
        )
        self._unread = b""

    def loaded(self) -> Mapping[str, Any]:
        """What it loaded: bundle, bundle_sha256, precision, settings, affinity, pid."""
        facts = self._answer(LOAD_LIMIT_S)
        if facts.get("protocol") != PROTOCOL:
            raise MeasurementError(f"the process of {self.name} speaks protocol {facts.get('protocol')!r}.")
        return facts

    def warm_up(self, cap_s: float) -> Mapping[str, Any]:
        """Run until steady: num_runs, duration_ms, stable."""
        return self._asked(f"warm-up {cap_s:g}", limit_s=cap_s)

    def window(self, ms: float) -> tuple[np.ndarray, float]:
        """Latencies int64 (N,) in ns of a window of so many milliseconds, and its share of the processor."""
        answer = self._asked(f"window {ms:g}", limit_s=ms / 1e3)
        latency_ns = np.asarray(answer.get("latency_ns", ()), np.int64)
        if latency_ns.ndim != 1 or not latency_ns.size or latency_ns.min() <= 0:
            raise MeasurementError(f"the process of {self.name} gave no latencies.")
        return latency_ns, float(answer["cpu_share"])

    def evidence(self) -> Mapping[str, Any]:
        """What happened to the machine since warm-up: badge, reasons, watch (the evidence)."""
        return self._asked("evidence", limit_s=0)

    def fallback(self) -> str | None:
        """What did not run where and as the bundle says, None if all did."""
        found = self._asked("fallback", limit_s=LOAD_LIMIT_S)["fallback"]
        return None if found is None else str(found)

    def close(self) -> None:
        """End the process, however it is; its pipes too."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _asked(self, line: str, *, limit_s: float) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            self._raise_end()
        return self._answer(limit_s + _ANSWER_LIMIT_S)

    def _answer(self, limit_s: float) -> Mapping[str, Any]:
        """The next line, asleep until it is there."""
        assert self._process.stdout is not None
        descriptor, until = self._process.stdout.fileno(), time.monotonic() + limit_s
        while b"\n" not in self._unread:
            left_s = until - time.monotonic()
            if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
                raise MeasurementError(f"the process of {self.name} said nothing for {limit_s:.0f} s; it was ended.")
            content = os.read(descriptor, 1 << 20)
            if not content:
                self._raise_end()
            self._unread += content
            if len(self._unread) > _MAX_ANSWER_BYTES:
                raise MeasurementError(f"the process of {self.name} wrote more than {_MAX_ANSWER_BYTES} bytes.")
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            answer: Any = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise MeasurementError(f"the process of {self.name} answered {line[:60]!r}; expected JSON.") from error
        return answer

    def _raise_end(self) -> None:
        returncode = self._process.wait()
        self._stderr.seek(0)
        text = self._stderr.read(1 << 20).decode(errors="replace")
        raise error_of_exit(returncode, text, what=self.name)
