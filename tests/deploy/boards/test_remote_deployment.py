"""Bundles to a board over a real OpenSSH server: there, back, cut in the middle, and what a board may lack."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssh_server import SshBoard
from tiny_bundles import file_entry, write_bundle

from edgelip.deploy.boards.deployment import deploy_bundles
from edgelip.deploy.boards.remote import Board
from edgelip.deploy.boards.results import DeviceResult, results_table
from edgelip.errors import BundleError, DeviceError, EdgelipError, MissingError, UsageError
from edgelip.progress import Progress
from edgelip.runtime.effort import Effort

QUICK = Effort(seconds=0.02, warm_up_cap_s=0.3)


@dataclass(frozen=True)
class TinyDevice:
    python: str
    name: str = "tiny-board"
    host: str = "board"
    engine: str = "ort"


class Told(Progress):
    """Progress that is kept, with a reaction to each line."""

    def __init__(self, react: Callable[[str], None] = lambda line: None) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self._react = react

    def say(self, text: str) -> None:
        self.lines.append(text)
        self._react(text)

    def show(self, text: str, *, last: bool = False) -> None:
        self.say(text)


def deploy(
    bundle: Path, device: TinyDevice, out: Path, config: Path, *, told: Told | None = None, **options: Any
) -> DeviceResult:
    chosen = {"effort": QUICK, "progress": told or Told(), "ssh_config": config, **options}
    (result,) = deploy_bundles([bundle], device, out=out, **chosen)
    return result


def modified(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def device(board: SshBoard) -> TinyDevice:
    return TinyDevice(board.python)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def finished(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a deployment that ran through."""
    out = tmp_path_factory.mktemp("finished")
    deploy(bundle, device, out, board.config())
    return out


@pytest.fixture
def unbenched(finished: Path, tmp_path: Path) -> Path:
    """The same without the measurement: the next call has this step left."""
    shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "out" / "tiny-board" / "tiny" / "bench.json").unlink()
    return tmp_path / "out"


def test_the_board_has_numpy_and_an_engine_and_nothing_else(board: SshBoard) -> None:
    probe = "'import sys, importlib.util as u; print([n for n in sys.argv[1:] if u.find_spec(n)])'"
    names = ("numpy", "onnxruntime", "torch", "onnx", "edgelip", "pydantic", "openvino")
    assert board.run(board.python, "-c", probe, *names).stdout == "['numpy', 'onnxruntime']\n"
    assert board.run("id", "-un").stdout.strip() == board.user != os.environ.get("USER")


def test_a_bundle_goes_there_and_its_results_come_back(
    board: SshBoard, device: TinyDevice, bundle: Path, finished: Path
) -> None:
    told = Told()
    result = deploy(bundle, device, finished, board.config(), told=told)
    folder = finished / "tiny-board" / "tiny"
    assert (result.bundle, result.device, result.engine, result.precision) == ("tiny", "tiny-board", "ort", "fp32")
    assert (result.num_equal_words, result.num_clips) == (8, 8)
    assert 0 <= result.max_difference < 1e-4
    assert result.latency_p90_ms is not None
    assert result.latency_p90_ms > 0
    assert "-ort1." in result.device_key
    samples = json.loads((folder / "bench.json").read_text())["samples_ns"]["latency"]
    assert len(samples) == result.num_samples >= 64
    report = json.loads((folder / "doctor.json").read_text())
    assert report["python"]["executable"] == board.python
    assert report["engines"]["openvino"]["why_not"] == "openvino is not installed"
    built = folder / "engines" / result.device_key / "model.fp32"
    sidecar = json.loads((built / "artefact.json").read_text())
    assert sidecar["files"]["optimised.onnx"] == file_entry(built / "optimised.onnx")
    line = results_table([result]).splitlines()[1]
    assert re.match(rf"tiny +{re.escape(result.device_key)} +ort +fp32 +\S+ +8/8 +[\d.]+ +[\d.]+ ", line)


def test_a_second_call_does_nothing(board: SshBoard, device: TinyDevice, bundle: Path, finished: Path) -> None:
    there, here, told = board.files(), modified(finished), Told()
    deploy(bundle, device, finished, board.config(), told=told)
    assert told.lines == [
        "tiny-board: looking at board",
        f"tiny-board: tiny: nothing to do, {finished / 'tiny-board' / 'tiny'} holds its results",
    ]
    assert (there, here) == (board.files(), modified(finished))


def test_nothing_is_left_in_the_home_but_the_copies(board: SshBoard, finished: Path) -> None:
    assert finished.is_dir()
    assert {name.split("/")[0] for name in board.files()} == {".cache", ".ssh"}
    inside = {name.split("/")[2].rpartition("-")[0] for name in board.files() if name.startswith(".cache")}
    assert inside == {"bundle", "runtime"}
    assert {name.split("/")[1] for name in board.files() if name.startswith(".cache")} == {"edgelip"}


def large_bundle(folder: Path, num_bytes: int, *, seed: int = 0) -> Path:
    def pad(manifest: dict[str, Any]) -> None:
        (folder / "padding.bin").write_bytes(np.random.default_rng(seed).bytes(num_bytes))
        manifest["files"]["padding.bin"] = file_entry(folder / "padding.bin")

    return write_bundle(folder, name=folder.name, edit=pad)


def test_a_copy_cut_in_the_middle_goes_on_where_it_was(
    board: SshBoard, device: TinyDevice, finished: Path, tmp_path: Path
) -> None:
    whole, cut_at = 12_000_000, 9_000_000  # some 2 MB are on their way when the line goes
    bundle = large_bundle(tmp_path / "large", whole)
    with pytest.raises(
        DeviceError, match=r"^the connection to board was lost while copying the bundle large \("
    ) as cut:
        deploy(bundle, device, tmp_path / "out", board.cut_config(cut_at))
    assert str(cut.value).endswith(" The same command goes on.")
    assert cut.value.exit_code == 5
    (part,) = board.home.glob(".cache/edgelip/bundle-*.part")
    board.wait_until_idle()
    held = (part / "padding.bin").stat().st_size
    assert whole * 0.3 < held < whole
    told = Told()
    result = deploy(bundle, device, tmp_path / "out", board.cut_config(10 * whole), told=told, engine="ort")
    assert result.num_equal_words == 8
    assert not part.exists()
    (line,) = [line for line in told.lines if "went over the line" in line]
    sent_kb = int(re.search(r"(\d+) kB went over the line", line).group(1))  # type: ignore[union-attr]
    assert sent_kb * 1000 < whole - 0.9 * held


def test_a_session_killed_while_measuring_is_noticed_and_leaves_no_process(
    board: SshBoard, device: TinyDevice, bundle: Path, unbenched: Path
) -> None:
    told = Told(lambda line: board.cut() if "measuring" in line else None)
    before = modified(unbenched)
    message = "^the connection to board was lost while running bench of tiny .* The same command goes on"
    with pytest.raises(DeviceError, match=message):
        deploy(bundle, device, unbenched, board.config(), told=told, effort=replace(QUICK, seconds=60))
    assert modified(unbenched) == before
    board.wait_until_idle()  # the board hears of it a moment after this side
    again = Told()
    deploy(bundle, device, unbenched, board.config(), told=again)
    assert [line for line in again.lines if " of 1)" in line] == ["tiny-board: tiny: bench (1 of 1)"]
    assert {name: time for name, time in modified(unbenched).items() if name in before} | {
        "tiny-board/tiny/deployment.json": 0
    } == {**before, "tiny-board/tiny/deployment.json": 0}


def test_a_file_damaged_on_the_board_is_mended(
    board: SshBoard, device: TinyDevice, bundle: Path, unbenched: Path
) -> None:
    (there,) = [
        path
        for path in board.home.glob(".cache/edgelip/bundle-*/model.fp32.onnx")
        if len(list(path.parent.glob("padding.bin"))) == 0
    ]
    there.write_bytes(b"x" * there.stat().st_size)
    told = Told()
    deploy(bundle, device, unbenched, board.config(), told=told)
    assert there.read_bytes() == (bundle / "model.fp32.onnx").read_bytes()
    assert [line for line in told.lines if " of 2)" in line] == [
        "tiny-board: tiny: build (1 of 2)",
        "tiny-board: tiny: bench (2 of 2)",
    ]


def test_two_bundles_of_one_name_are_refused(device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    message = f"^{bundle} and {tmp_path / 'copy'} are both named 'tiny', so their results would share a folder. "
    with pytest.raises(UsageError, match=message):
        deploy_bundles([bundle, tmp_path / "copy"], device, out=tmp_path, progress=Told())


def test_an_engine_that_the_bundle_has_no_model_for_is_refused_before_the_board_is_called(
    bundle: Path, tmp_path: Path
) -> None:
    absent = TinyDevice("python3", host="absent.invalid")
    with pytest.raises(BundleError, match=r"^tiny has no model for engine 'tensorrt'\. It has: fp32 for ort, openvino"):
        deploy_bundles([bundle], absent, out=tmp_path, engine="tensorrt", progress=Told())
    with pytest.raises(UsageError, match=r"^There is no engine 'tflite'\. Known: ort, "):
        deploy_bundles([bundle], absent, out=tmp_path, engine="tflite", progress=Told())


UNREACHABLE = {
    "another key": (
        {"UserKnownHostsFile": "{folder}/changed"},
        r"^the host key of board has changed: another machine answers there, or the board was set up anew\. Check "
        r"first which it is; then forget the old key: ssh-keygen -R '\[127\.0\.0\.1\]:\d+' \(with -f FILE if ",
    ),
    "an unknown key": (
        {"UserKnownHostsFile": "/dev/null"},
        r"^the host key of board is not known here yet \(Host key verification failed\)\. Connect once by hand and "
        r"compare the key that it shows: ssh board$",
    ),
    "a wrong key": (
        {"IdentityFile": "{folder}/wrong_key"},
        r"^board does not let this user in \(Permission denied \(publickey\)\)\. Correct User and IdentityFile in "
        r"~/\.ssh/config, or give it your key: ssh-copy-id board$",
    ),
    "a wrong user": ({"User": "nobody-here"}, r"^board does not let this user in \(Permission denied \(publickey\)\)"),
    "nobody listening": (
        {"Port": "1"},
        r"^board is there but nobody listens for ssh \(Connection refused\)\. Start its ssh server, or correct Port",
    ),
    "an unknown name": (
        {"HostName": "absent.invalid"},
        r"^there is no host of the name 'board' \(Could not resolve hostname absent\.invalid: .*\)\. Write a `Host "
        r"board` entry with its HostName into ~/\.ssh/config, or name another with --host\.$",
    ),
    "a silent address": (
        {"ProxyCommand": "sh -c 'echo ssh: connect to host 192.0.2.1 port 22: Connection timed out >&2; exit 1'"},
        r"^board does not answer \(Connection timed out\)\. Is it switched on and on this network\? Check HostName",
    ),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_board_that_cannot_be_reached_is_exit_5_and_says_why(board: SshBoard, tmp_path: Path, case: str) -> None:
    settings, message = UNREACHABLE[case]
    other = " ".join((board.folder / "other_key.pub").read_text().split()[:2])
    (board.folder / "changed").write_text(f"[127.0.0.1]:{board.port} {other}\n")
    config = board.config("wrong", **{key: value.format(folder=board.folder) for key, value in settings.items()})
    with pytest.raises(DeviceError, match=message) as caught:
        Board("board", ssh_config=config).run("pass", doing="looking")
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


def script(board: SshBoard, name: str, text: str) -> str:
    """A program on the board that stands in for its Python."""
    path = board.folder / "opt" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def lacking(board: SshBoard, device: TinyDevice, bundle: Path, out: Path, message: str, **changes: str) -> None:
    engine = changes.pop("engine", None)
    with pytest.raises(MissingError, match=message) as caught:
        deploy(bundle, replace(device, **changes), out, board.config(), engine=engine)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert not list(out.rglob("*.json"))


def test_no_python_there(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    message = (
        r"^there is no ~/venv/bin/python on board \(.*not found\)\. Install it: ssh board 'sudo apt-get install "
        r"python3'; or name another as `python` in the device's description\.$"
    )
    lacking(board, device, bundle, tmp_path, message, python="~/venv/bin/python")


def test_an_old_python_there(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    old = script(board, "old", """echo '{"too_old": "3.6.9"}'""")
    message = r"^\S+/old on board is Python 3\.6\.9; edgelip\.runtime needs 3\.8 or newer\. Name a newer one as `py"
    lacking(board, device, bundle, tmp_path, message, python=old)


def test_no_numpy_there(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    message = r"^board lacks numpy: numpy is not installed\. Mend it there: \S+/bare/bin/python -m pip install numpy$"
    lacking(board, device, bundle, tmp_path, message, python=board.bare)


def test_no_engine_there(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    message = (
        r"^board lacks the engine 'ort': onnxruntime is not installed\. Mend it there: \S+/numpy/bin/python -m pip "
        r"install onnxruntime$"
    )
    lacking(board, device, bundle, tmp_path, message, python=board.numpy_only)
    message = r"^board lacks the engine 'openvino': openvino is not installed\. Mend it there: \S+ -m pip install open"
    lacking(board, device, bundle, tmp_path, message, engine="openvino")


def test_no_rsync_there(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    python = script(board, "pathless", f'PATH=/nowhere exec {board.python} "$@"')
    message = r"^there is no rsync on board\. Install it: ssh board 'sudo apt-get install rsync'$"
    lacking(board, device, bundle, tmp_path, message, python=python)


def test_a_shell_that_greets_is_told_of(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    greeting = script(board, "greeting", f'echo Welcome to my board; exec {board.python} "$@"')
    message = (
        r"^board puts text before its answers \(Welcome to my board .*\), which rsync cannot read either\. Let the "
    )
    with pytest.raises(DeviceError, match=message):
        deploy(bundle, replace(device, python=greeting), tmp_path, board.config())


def test_a_second_call_at_the_same_time_is_refused(
    board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny-board").mkdir()
    held = os.open(tmp_path / "tiny-board", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(MissingError, match="tiny-board: another process is writing it"):
        deploy(bundle, device, tmp_path, board.config())
    os.close(held)


def test_no_space_there(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    message = (
        r"^no space left on board \(needs 8\.\d MiB, 2\.0 MiB free\)\. Free some; what edgelip left there goes with: "
        r"ssh board 'rm -r ~/\.cache/edgelip'$"
    )
    with board.small_cache("size=2m"):
        lacking(board, device, bundle, tmp_path, message)


def test_space_that_ends_while_copying(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    with board.small_cache("size=64m,nr_inodes=12"):
        lacking(board, device, bundle, tmp_path, r"^no space left on board\. Free some; what edgelip left there goes ")


def test_a_read_only_home(board: SshBoard, device: TinyDevice, bundle: Path, tmp_path: Path) -> None:
    with board.small_cache("size=64m,ro"):
        lacking(board, device, bundle, tmp_path, r"^board cannot be written: its home folder lies on a read-only file ")


def test_a_process_that_is_killed_there_is_told_of(
    board: SshBoard, device: TinyDevice, bundle: Path, unbenched: Path
) -> None:
    full = script(board, "full", f'case "$*" in *" bench "*) exit 137;; esac\nexec {board.python} "$@"')
    message = r"^on board the process was killed while running bench of tiny; most likely its memory was full\. Close "
    with pytest.raises(MissingError, match=message):
        deploy(bundle, replace(device, python=full), unbenched, board.config())


HOSTILE = {
    "too large": ("bench", "yes | head -c 90000000", "^board sent more than 67,108,864 bytes while running bench of "),
    "no JSON": ("bench", "echo '{\"latency_ns\": [1,'", "^the bench that board sent is no JSON that can be read "),
    "infinite": ("bench", "echo '{\"bundle\": 1e999}'", "^the bench that board sent is no JSON .*1e999 is no finite"),
    "another bundle": ("bench", 'echo \'{"bundle": "evil"}\'', "sent has the bundle 'evil'; expected 'tiny'"),
    "an escape": (
        "bench",
        "printf 'edgelip: \\033[2Jgone\\033]0;title\\007\\n' >&2; exit 2",
        r"^on board: gone\]0;title$",
    ),
    "a path trick": (
        "*artefact.json",
        "echo '{SIDECAR}'",
        r"^the artefact\.json that board sent manifest lists the file '\.\./\.\./\.\./evil'; expected a plain name",
    ),
    "another plan": (
        "*optimised.onnx",
        'head -c "$5" /dev/zero',  # as many bytes as were asked for
        r"^board sent another optimised\.onnx than its list says \(\w{8}\.\., expected \w{8}\.\.\)\. The same command",
    ),
    "a longer plan": (
        "*optimised.onnx",
        "head -c 1000000 /dev/zero",
        r"^board sent more than [\d,]+ bytes while fetching what was built of tiny\. See what answers there\.$",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_answer_is_refused_and_nothing_of_it_is_kept(
    board: SshBoard, device: TinyDevice, bundle: Path, unbenched: Path, case: str
) -> None:
    word, answer, message = HOSTILE[case]
    folder = unbenched / "tiny-board" / "tiny"
    (sidecar,) = folder.rglob("artefact.json")
    trick = json.loads(sidecar.read_text())
    trick["files"] = {"../../../evil": {"sha256": "0" * 64, "bytes": 3}}
    answer = answer.replace("{SIDECAR}", json.dumps(trick))
    evil = script(board, "evil", f'for word in "$@"; do case "$word" in {word}) {answer}; exit $?;; esac; done\n'
                  f'exec {board.python} "$@"')  # fmt: skip
    if word != "bench":
        sidecar.unlink()
        next(folder.rglob("optimised.onnx")).unlink()
    before = modified(unbenched)
    with pytest.raises(EdgelipError, match=message) as caught:
        deploy(bundle, replace(device, python=evil), unbenched, board.config())
    assert caught.value.exit_code in (2, 5)
    assert not re.search(r"[\x00-\x1f\x7f]", str(caught.value))
    after = modified(unbenched)
    if case == "a longer plan":
        after = {name: time for name, time in after.items() if not name.endswith(".partial")}
    assert after == before
    assert not list(unbenched.parent.rglob("evil*"))
