"""`edgelip doctor --device` over a real OpenSSH server: what the board says, and that nothing stays there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ssh_server import SshBoard
from tiny_bundles import write_bundle

from edgelip.cli.deploy_device import DeployOptions, export_to_device
from edgelip.cli.doctor import diagnose
from edgelip.errors import DeviceError
from edgelip.runtime.effort import Effort

DESCRIPTION = """
title = "A board on loopback"
kind = "x86"
arch = "x86_64"
host = "board"
python = "{python}"
engine = "ort"
engines = ["ort", "openvino"]
precisions = ["fp32", "int8"]
[sensors]
kind = "none"
"""


def described(folder: Path, python: str) -> str:
    path = folder / "loopback.toml"
    path.write_text(DESCRIPTION.format(python=python))
    return str(path)


@pytest.fixture(autouse=True)
def no_engines_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at the engines of this machine takes seconds and is another test's."""
    monkeypatch.setattr("edgelip.runtime.doctor.engine_states", lambda numpy_problem: {})


def elsewhere(board: SshBoard) -> list[str]:
    """Files in the places for temporary files that belong to the board's user."""
    found = board.run("find", "/tmp", "/var/tmp", "/dev/shm", "-user", board.user)
    return [line for line in found.stdout.splitlines() if not line.startswith(str(board.home))]


def test_the_report_of_a_board_comes_back_and_nothing_stays_there(board: SshBoard, tmp_path: Path) -> None:
    before, apart = board.files(), elsewhere(board)
    options = DeployOptions(ssh_config=board.config())
    diagnosis = diagnose(device=described(tmp_path, board.python), options=options, as_json=True)
    assert diagnosis.exit_code == 0, diagnosis.text
    report = json.loads(diagnosis.text)["device"]["report"]
    assert report["python"]["executable"] == board.python
    assert report["disk"]["path"] == str(board.home)
    assert report["engines"]["ort"]["why_not"] is None
    assert report["engines"]["openvino"]["mend"] == f"{board.python} -m pip install openvino"
    assert board.files() == before
    assert elsewhere(board) == apart


def test_a_board_without_an_engine_is_exit_4_with_its_report(board: SshBoard, tmp_path: Path) -> None:
    options = DeployOptions(ssh_config=board.config())
    diagnosis = diagnose(device=described(tmp_path, board.numpy_only), options=options)
    assert diagnosis.exit_code == 4
    text = diagnosis.text.partition("\ndevice ")[2]
    assert f"engine ort           no: onnxruntime is not installed  ->  {board.numpy_only} -m pip install" in text
    assert "problem              board lacks the engine 'ort': onnxruntime is not installed. Mend it there: " in text


def test_a_board_that_is_not_there_is_exit_5_after_what_is_here(board: SshBoard, tmp_path: Path) -> None:
    options = DeployOptions(ssh_config=board.config("wrong", Port=1))
    diagnosis = diagnose(device=described(tmp_path, "python3"), options=options)
    assert diagnosis.exit_code == 5
    assert diagnosis.text.startswith("here\n  edgelip ")
    assert diagnosis.text.splitlines()[-1].startswith(
        "  problem              board is there but nobody listens for ssh"
    )


def test_a_bundle_is_exported_to_a_described_device(board: SshBoard, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundles" / "tiny")
    device = described(tmp_path, board.python)
    options = DeployOptions(ssh_config=board.config(), effort=Effort(seconds=0.02, warm_up_cap_s=0.3))
    text = export_to_device(bundle.parent, device=device, options=options, as_json=True)
    (row,) = json.loads(text)
    assert (row["device"], row["bundle"], row["num_equal_words"]) == ("loopback", "tiny", 8)
    assert (bundle.parent / "devices" / "loopback" / "tiny" / "bench.json").is_file()
    wrong = DeployOptions(ssh_config=board.config("wrong", Port=1))
    with pytest.raises(DeviceError):
        export_to_device(bundle, device=device, options=wrong)
