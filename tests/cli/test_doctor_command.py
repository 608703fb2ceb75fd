"""`edgelip doctor` on this machine: packages by extra, tools, exit codes. Boards: deploy/test_remote_doctor.py."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata

import pytest

from edgelip.cli.deploy_device import DeployOptions
from edgelip.cli.doctor import Package, diagnose, fits, installed_packages
from edgelip.errors import UsageError


@pytest.fixture(autouse=True)
def no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at engines takes seconds and is tests/runtime/test_doctor.py's."""
    monkeypatch.setattr("edgelip.runtime.doctor.engine_states", lambda numpy_problem: {})


def test_what_the_default_path_needs_is_here() -> None:
    diagnosis = diagnose()
    assert diagnosis.exit_code == 0, diagnosis.text
    assert "Missing:" not in diagnosis.text
    assert f"numpy {metadata.version('numpy')}" in diagnosis.text


def test_every_requirement_of_the_package_is_listed_with_its_extra() -> None:
    packages = installed_packages()
    found = {(package.extra, package.name) for package in packages}
    assert {("", "numpy"), ("train", "torch"), ("ort", "onnxruntime"), ("tensorrt", "tensorrt")} <= found
    required = [line for line in metadata.requires("edgelip") or [] if not line.startswith("edgelip")]
    assert len(packages) == len(required)


def missing(monkeypatch: pytest.MonkeyPatch, *packages: Package) -> None:
    monkeypatch.setattr("edgelip.cli.doctor.installed_packages", lambda: list(packages))


def test_a_missing_package_of_the_default_path_is_exit_4_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, Package("train", "torch", ">=2.11", None, False), Package("", "numpy", ">=1.26", "2.4", True))
    diagnosis = diagnose()
    assert diagnosis.exit_code == 4
    last = diagnosis.text.splitlines()[-1]
    assert last.startswith("  torch (not installed): ")
    assert last.endswith(f'{sys.executable} -m pip install "edgelip[train]"')


def test_an_old_package_is_exit_4(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, Package("ort", "onnxruntime", ">=1.24", "1.20.1", False))
    diagnosis = diagnose()
    assert diagnosis.exit_code == 4
    assert "  onnxruntime (1.20.1, expected >=1.24): " in diagnosis.text


def test_a_missing_extra_of_choice_is_told_and_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, Package("tensorrt", "tensorrt", ">=10.3", None, False))
    diagnosis = diagnose()
    assert diagnosis.exit_code == 0
    assert "extra tensorrt       nothing; missing tensorrt>=10.3  ->  " in diagnosis.text


def test_a_checkout_that_is_not_installed_is_exit_4(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    diagnosis = diagnose()
    assert diagnosis.exit_code == 4
    assert "edgelip (not installed): " in diagnosis.text


def test_json_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, Package("train", "torch", ">=2.11", None, False))
    found = json.loads(diagnose(as_json=True).text)["here"]
    assert found["packages"] == [
        {"extra": "train", "name": "torch", "wanted": ">=2.11", "version": None, "fits": False}
    ]
    assert len(found["missing"]) == 1
    assert found["tools"]["ssh"] == shutil.which("ssh")


def test_without_ssh_a_device_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert (
        "ssh                  missing, needed for --device  ->  sudo apt-get install openssh-client" in diagnose().text
    )
    diagnosis = diagnose(device="raspberry-pi-5")
    assert diagnosis.exit_code == 4
    assert "  ssh: sudo apt-get install openssh-client\n  rsync: sudo apt-get install rsync" in diagnosis.text


def test_how_to_reach_a_device_without_one_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^--host and --ssh-config say how to reach a device; name it with --device\."
    ):
        diagnose(options=DeployOptions(host="orin"))


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="There is no device 'pi55'"):
        diagnose(device="pi55")


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("2.13.0+cpu", ">=2.11", True),
        ("2.4.6", ">=2.4.6", True),
        ("5.0", ">=4.10,<5", False),
        ("4.9", ">=4.10,<5", False),
        ("10.3", ">=10.3.0", True),
        ("weird", ">=1", False),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, expected: bool) -> None:
    assert fits(version, wanted) is expected
