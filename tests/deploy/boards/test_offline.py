"""A folder to carry: its script run with this Python, its results read back as hostile input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bundles import write_bundle

from edgelip.deploy.boards.offline import has_results, label, read_offline, write_offline
from edgelip.deploy.boards.wanted import Wanted, wanted_models
from edgelip.errors import UsageError
from edgelip.progress import Progress
from edgelip.runtime.effort import Effort

QUICK = Effort(seconds=0.02, warm_up_cap_s=0.3)


def run_script(folder: Path, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    script = ["sh", str(folder / "run.sh"), python]
    settings = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **environment}
    return subprocess.run(script, capture_output=True, text=True, check=False, env=settings, cwd="/")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[Wanted]:
    folder = tmp_path_factory.mktemp("bundles")
    return wanted_models([write_bundle(folder / "tiny", name="a tiny, n=4")], "ort", None)


@pytest.fixture(scope="module")
def ran(wanted: list[Wanted], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose script has run through."""
    folder = tmp_path_factory.mktemp("offline") / "to carry"
    write_offline(folder, wanted, effort=QUICK)
    done = run_script(folder)
    assert done.returncode == 0, done.stderr
    return folder


def read(folder: Path, wanted: list[Wanted]) -> list[Any]:
    return list(read_offline(folder, wanted, device="pi5", progress=Progress(quiet=True)))


def test_the_script_measures_and_its_results_are_read_back(ran: Path, wanted: list[Wanted]) -> None:
    assert has_results(ran)
    (result,) = read(ran, wanted)
    assert (result.bundle, result.device, result.num_equal_words) == ("a tiny, n=4", "pi5", 8)
    assert result.latency_p90_ms > 0
    files = {path.relative_to(ran / "results").as_posix() for path in (ran / "results").rglob("*") if path.is_file()}
    name = label(wanted[0])
    assert files == {"doctor.json", f"{name}/build.json", f"{name}/check.json", f"{name}/bench.json"}
    assert name.startswith("a_tiny__n_4-")


def test_nothing_else_is_left_on_the_device(ran: Path) -> None:
    assert {path.name for path in ran.iterdir()} == {"README.txt", "bundles", "edgelip", "results", "run.sh"}
    assert not list(ran.rglob("*.partial")) + list(ran.rglob("__pycache__"))


def test_a_second_run_keeps_what_is_there_and_a_lost_result_is_made_again(ran: Path, wanted: list[Wanted]) -> None:
    results = ran / "results" / label(wanted[0])
    before = {path: path.stat().st_mtime_ns for path in (ran / "results").rglob("*.json")}
    (results / "bench.json").write_text("")
    (results / "bench.json.partial").write_text("what a power cut left")
    done = run_script(ran)
    assert done.returncode == 0
    assert done.stderr.count(" is there\n") == 3
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {results / "bench.json"}
    assert read(ran, wanted)


def fake_python(folder: Path, answer: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return str(path)


LACKS = {
    "no python": (
        "/nowhere/python3",
        "there is no /nowhere/python3 here. Install it: sudo apt-get install python3; or ",
    ),
    "an old python": ("case $2 in *version*) exit 1;; esac", "is older than Python 3.8. Name a newer one: sh run.sh "),
    "no numpy": (
        "case $2 in *numpy*) exit 1;; esac",
        "numpy cannot be imported by {python}. Install it: {python} -m pip ",
    ),
    "no engine": ("case $2 in *onnxr*) exit 1;; esac", "onnxruntime cannot be imported by {python}. Install it: "),
}


@pytest.mark.parametrize("case", LACKS)
def test_what_the_device_lacks_is_exit_4(wanted: list[Wanted], tmp_path: Path, case: str) -> None:
    answer, message = LACKS[case]
    python = answer if case == "no python" else fake_python(tmp_path, answer)
    write_offline(tmp_path / "pack", wanted)
    done = run_script(tmp_path / "pack", python)
    assert done.returncode == 4
    assert done.stderr.startswith("edgelip: ")
    assert message.format(python=python) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "pack" / "results").exists()


def test_a_damaged_bundle_ends_the_script_with_its_message(wanted: list[Wanted], tmp_path: Path) -> None:
    write_offline(tmp_path / "pack", wanted)
    model = tmp_path / "pack" / "bundles" / label(wanted[0]) / "model.fp32.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    (tmp_path / "pack" / "results").mkdir()
    (tmp_path / "pack" / "results" / "doctor.json").write_text("{}")
    done = run_script(tmp_path / "pack")
    assert done.returncode == 2
    assert "model.fp32.onnx has changed" in done.stderr
    with pytest.raises(UsageError, match=r"holds no finished result of a tiny, n=4\. Run run\.sh in "):
        read(tmp_path / "pack", wanted)


def test_a_folder_of_something_else_is_not_replaced(wanted: list[Wanted], tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with pytest.raises(UsageError, match=r"letters exists and holds no run\.sh, so it is not replaced"):
        write_offline(tmp_path / "letters", wanted)


def edited(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content)))

    return apply


HOSTILE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no JSON": ("check.json", lambda path: (path.write_text("["), None)[1], "is no JSON that can be read"),
    "nested": ("check.json", lambda path: (path.write_text("[" * 100_000), None)[1], "is no JSON that can be read"),
    "another bundle": (
        "bench.json",
        edited(lambda run: {**run, "bundle_sha256": "0" * 64}),
        "has the bundle_sha256 '00",
    ),
    "beyond the limit": (
        "check.json",
        edited(lambda found: [{**found[0], "max_difference": 1.0}]),
        r"has max_difference 1\.0 within 0\.0001; the limit of this model is 0\.0001",
    ),
    "another limit": (
        "check.json",
        edited(lambda found: [{**found[0], "limit": 5.0}]),
        r"within 5\.0; the limit of this model is 0\.0001",
    ),
    "negative time": (
        "bench.json",
        edited(lambda run: {**run, "samples_ns": {**run["samples_ns"], "latency": [-1]}}),
        "has latency that are not all ",
    ),
    "a badge of its own": ("bench.json", edited(lambda run: {**run, "badge": "BEST"}), "has the badge 'BEST'"),
    "a link": (
        "bench.json",
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd"), None)[2],
        r"bench\.json is a link, folder or device; expected a plain file",
    ),
    "a key of its own": (
        "../doctor.json",
        edited(lambda report: {**report, "engines": {"ort": {"why_not": None, "device_key": "../../x"}}}),
        r"has the device key '\.\./\.\./x'",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_results_are_read_as_hostile_input(ran: Path, wanted: list[Wanted], tmp_path: Path, case: str) -> None:
    name, spoil, message = HOSTILE[case]
    shutil.copytree(ran, tmp_path / "pack")
    spoil(tmp_path / "pack" / "results" / label(wanted[0]) / name)
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path / "pack", wanted)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("Remove it and run run.sh again on the device.")
