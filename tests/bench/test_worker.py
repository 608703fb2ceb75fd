"""A worker that misbehaves ends in one clear error and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_bundles import write_bundle

from edgelip.bench import worker as module
from edgelip.bench.isolate import Subject
from edgelip.bench.worker import Worker, worker_command
from edgelip.runtime.errors import BundleError, EdgelipError, MeasurementError, UsageError

READY = """import sys; print('{"protocol": 1}', flush=True); line = sys.stdin.readline()\n"""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def real(tmp_path: Path) -> list[str]:
    return worker_command(Subject(write_bundle(tmp_path / "tiny")).arguments(), cpu=None)


def test_a_real_one_gives_windows_and_ends_when_killed(real: list[str]) -> None:
    with Worker(real, name="tiny") as worker:
        facts = worker.loaded()
        assert facts["bundle"] == "tiny"
        assert worker.warm_up(0.01)["num_runs"] >= 1
        latency_ns, cpu_share = worker.window(1)
        assert latency_ns.dtype.kind == "i"
        assert len(latency_ns) >= 4
        assert cpu_share > 0
        assert worker.evidence()["badge"] in ("VALID", "NOISY", "UNCONTROLLED", "THROTTLED")
        assert worker.fallback() is None
        os.kill(facts["pid"], signal.SIGKILL)
        with pytest.raises(
            MeasurementError, match=r"^the process of tiny was ended by signal 9 \(out of memory\?\)\.$"
        ):
            worker.window(1)
    assert gone(facts["pid"])


def test_closing_ends_the_process() -> None:
    with Worker(python(READY + "import time; time.sleep(600)"), name="a") as worker:
        worker.loaded()
        pid = worker._process.pid
        assert not gone(pid)
    assert gone(pid)


def test_a_worker_does_not_outlive_its_parent(real: list[str]) -> None:
    parent = (
        "import sys; from edgelip.bench.worker import Worker; worker = Worker(sys.argv[1:], name='a')\n"
        "print(worker.loaded()['pid'], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, *real], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    until = time.monotonic() + 30
    while not gone(pid) and time.monotonic() < until:
        os.sched_yield()
    assert gone(pid)


def test_a_bundle_that_cannot_be_opened_arrives_with_its_message(tmp_path: Path) -> None:
    (folder := write_bundle(tmp_path / "tiny")).joinpath("MODEL_CARD.md").write_text("changed")
    with (
        Worker(worker_command(Subject(folder).arguments(), cpu=None), name="tiny") as worker,
        pytest.raises(UsageError, match=r"^tiny: MODEL_CARD\.md has changed") as caught,
    ):
        worker.loaded()
    assert not isinstance(caught.value, BundleError)  # exit codes travel, classes do not


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("print('hello', flush=True)", MeasurementError, r"the process of a answered b'hello'; expected JSON\."),
        ("print('[]', flush=True)", MeasurementError, r"the process of a answered b'\[\]'; expected JSON\."),
        ("print('{}', flush=True)", MeasurementError, "the process of a speaks protocol None"),
        ("pass", EdgelipError, "a failed silently"),
        ("import sys; sys.exit('edgelip: no engine')", EdgelipError, "^no engine$"),
        ("print('x' * 400, flush=True)", MeasurementError, "the process of a wrote more than 300 bytes"),
    ],
)
def test_a_process_that_speaks_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception], message: str
) -> None:
    monkeypatch.setattr(module, "_MAX_ANSWER_BYTES", 300)
    with Worker(python(code), name="a") as worker, pytest.raises(kind, match=message):
        worker.loaded()


@pytest.mark.parametrize("answer", ["{}", '{"latency_ns": []}', '{"latency_ns": [0]}', '{"latency_ns": [[1]]}'])
def test_a_window_without_latencies_is_refused(answer: str) -> None:
    with Worker(python(f"{READY}print('{answer}', flush=True); sys.stdin.read()"), name="a") as worker:
        worker.loaded()
        with pytest.raises(MeasurementError, match=r"^the process of a gave no latencies\.$"):
            worker.window(1)


def test_a_silent_process_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_LIMIT_S", 0.05)
    with Worker(python(READY + "sys.stdin.read()"), name="a") as worker:
        worker.loaded()
        with pytest.raises(MeasurementError, match=r"^the process of a said nothing for 0 s; it was ended\.$"):
            worker.window(1)
