"""What a machine says of itself, with everything, without numpy, and with engines that break when touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgelip.runtime.doctor import doctor, lines
from edgelip.runtime.engine_states import engine_states
from edgelip.runtime.engines.engine import ENGINES

ROOT = Path(__file__).parents[2]
_PROBE_ORT = """
import json
from edgelip.runtime import engine_states as states
print(json.dumps(states.asdict(states._probe_apart(["ort"])["ort"])))
"""
_PRINT = "import json; from edgelip.runtime.doctor import doctor; print(json.dumps(doctor()))"


def report_of(*options: str, **environment: str) -> dict[str, Any]:
    """The report that another process gives."""
    settings = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *options, "-c", _PRINT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def here(home: Path) -> dict[str, Any]:
    return report_of(HOME=str(home))


def test_every_engine_of_the_table_is_told_of(here: dict[str, Any]) -> None:
    assert list(here["engines"]) == list(ENGINES)
    for state in here["engines"].values():
        assert (state["why_not"] is None) == (state["device_key"] is not None)
    ort = here["engines"]["ort"]
    assert ort["package"] == "onnxruntime"
    assert ort["device_key"].endswith("-ort" + ".".join(ort["version"].split(".")[:2]))


def test_a_provider_that_this_onnxruntime_lacks_is_said(here: dict[str, Any]) -> None:
    state = here["engines"]["ort-coreml"]
    assert state["why_not"] == "this onnxruntime has no CoreMLExecutionProvider"
    assert state["mend"].startswith("Runs on Apple's devices: ")


def test_looking_leaves_nothing_in_the_home_folder(home: Path, here: dict[str, Any]) -> None:
    assert here["disk"]["path"] == str(home)
    assert list(home.iterdir()) == []


def test_the_report_has_the_machine_and_no_remedy_for_what_is_there(here: dict[str, Any]) -> None:
    assert here["python"]["mend"] is None
    assert here["numpy"]["why_not"] is None
    assert 0 < here["disk"]["free_mib"] <= here["disk"]["total_mib"]
    assert 0 < here["memory"]["available_mib"] <= here["memory"]["total_mib"]
    assert here["machine"]["num_cpus"] == os.cpu_count()


def test_without_numpy_the_report_names_the_command() -> None:
    report = report_of("-S")
    assert report["numpy"] == {
        "version": None,
        "why_not": "numpy is not installed",
        "mend": f"{sys.executable} -m pip install numpy",
    }
    assert report["engines"]["ort"]["why_not"] == "numpy is needed first"
    text = "\n".join(lines(report))
    assert f"numpy                missing: numpy is not installed  ->  {sys.executable} -m pip install numpy" in text


BROKEN = {
    "import os; os.abort()": "importing onnxruntime ends with code -6 (",
    "raise ImportError('libfoo.so: wrong ELF class')": "onnxruntime cannot be imported (libfoo.so: wrong ELF class)",
    "raise RuntimeError('GPU fell off')": "GPU fell off",
    "import sys; sys.exit(3)": "importing onnxruntime ends with code 3 (no message)",
    "print('hello'); print('{}'); import sys, os; sys.stdout.flush(); os._exit(0)": "importing onnxruntime cannot be ",
}


@pytest.mark.parametrize("source", BROKEN)
def test_an_engine_that_breaks_when_imported_ends_its_own_process_only(tmp_path: Path, source: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(source)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    settings = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", _PROBE_ORT], capture_output=True, text=True, check=True, env=settings)
    state = json.loads(done.stdout)
    assert state["why_not"].startswith(BROKEN[source])
    assert state["device_key"] is None


def test_an_engine_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelip.runtime.engine_states._PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr("edgelip.runtime.engine_states._PROBE_TIMEOUT_S", 0.2)
    state = engine_states()["ort"]
    assert state.why_not == "importing onnxruntime takes longer than 0 s"
    assert str(state.mend).startswith("Reinstall it: ")


def test_one_odd_sensor_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("sensor bus error")

    monkeypatch.setattr("edgelip.runtime.doctor.engine_states", lambda numpy_problem: {})
    monkeypatch.setattr("edgelip.runtime.doctor._power_sources", fail)
    report = doctor()
    assert report["power_sources"] is None
    assert lines(report)[-1] == f"{'note':20} power_sources: sensor bus error"


def test_a_jetson_is_told_in_lines() -> None:
    report = {
        "python": {"version": "3.10.12", "executable": "/usr/bin/python3", "mend": None},
        "numpy": {"version": "1.26.4", "why_not": None, "mend": None},
        "engines": {
            "tensorrt": {
                "package": "tensorrt",
                "version": "10.3.0",
                "device_key": "sm87-trt10.3.0-jp6.2",
                "why_not": None,
                "mend": None,
            }
        },
        "rsync": None,
        "disk": {"path": "/home/me", "free_mib": 1234.5, "total_mib": 60000.0},
        "memory": {"total_mib": 7620.0, "available_mib": 3452.0},
        "machine": {
            "cpu": None, "machine": "aarch64", "num_cpus": 6, "governor": "schedutil", "int8_dot_product": "asimddp",
        },
        "board": {
            "model": "NVIDIA Jetson Orin Nano", "l4t": "36.4.3", "jetpack": "6.2", "power_mode": {"name": "MAXN_SUPER"},
            "gpus": [{"name": "Orin", "compute_capability": "8.7", "driver": "540.4"}],
        },
        "power_sources": [{"name": "rails", "boundary": "module input VDD_IN"}],
    }  # fmt: skip
    assert [" ".join(line.split()) for line in lines(report)] == [
        "python 3.10.12 /usr/bin/python3",
        "numpy 1.26.4",
        "engine tensorrt tensorrt 10.3.0, builds for sm87-trt10.3.0-jp6.2",
        "disk 1,234 of 60,000 MiB free at /home/me",
        "memory 3,452 of 7,620 MiB available",
        "processor aarch64, 6 cores, governor schedutil, int8 instructions asimddp",
        "rsync missing -> sudo apt-get install rsync",
        "board model NVIDIA Jetson Orin Nano, l4t 36.4.3, jetpack 6.2, power mode MAXN_SUPER",
        "gpu Orin, sm 8.7, driver 540.4",
        "power module input VDD_IN",
    ]
