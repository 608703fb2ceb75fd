"""The script's own judgement and its refusals; the emulated run itself is `make test-arm64`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.errors import MissingError, UsageError

SCRIPT = Path(__file__).with_name("emulated.py")


@pytest.fixture(scope="module")
def emulated() -> Any:
    spec = importlib.util.spec_from_file_location("emulated", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["emulated"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_a_row_passes_where_words_and_logits_agree(emulated: Any) -> None:
    good = emulated.Row("tiny", "model.fp32.onnx", 8, True, 8, 1.5e-6, 1e-3)
    assert good.cells() == ["tiny", "model.fp32.onnx", "OK", "8 of 8", "1.5e-06", "0.001", "pass"]
    for bad in (
        emulated.Row("tiny", "m", 8, True, 7, 0.0, 1e-3),
        emulated.Row("tiny", "m", 8, True, 8, float("nan"), 1e-3),
    ):
        assert bad.cells()[-1] == "MISS"
    assert emulated.Row("tiny", "m", 8, False, 8, 0.0, 1e-3).cells()[2:] == [
        "refused",
        "8 of 8",
        "0.0e+00",
        "0.001",
        "MISS",
    ]
    assert emulated.table([good]).splitlines()[2] == "| tiny | model.fp32.onnx | OK | 8 of 8 | 1.5e-06 | 0.001 | pass |"


@given(difference=st.floats(0, 1), limit=st.floats(1e-6, 1))
def test_the_limit_decides(emulated: Any, difference: float, limit: float) -> None:
    assert emulated.Row("tiny", "m", 8, True, 8, difference, limit).passed == (difference <= limit)


def test_what_is_missing_is_named_with_its_remedy(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated.sys, "platform", "linux")
    monkeypatch.setattr(emulated.os, "geteuid", lambda: 1000)
    here = {"apt-get", "dpkg-deb", "qemu-aarch64-static"}
    monkeypatch.setattr(emulated.shutil, "which", lambda name: name if name in here else None)
    with pytest.raises(MissingError, match="chroot into the emulated root needs root; run this as root"):
        emulated.require_tools()
    here.remove("qemu-aarch64-static")
    with pytest.raises(MissingError, match=r"^qemu-aarch64-static is not installed. apt-get install qemu-user-static$"):
        emulated.require_tools()
    here.remove("apt-get")
    with pytest.raises(MissingError, match="this needs Debian or Ubuntu with apt-get"):
        emulated.require_tools()


def test_the_last_line_of_a_failed_command_is_shown(emulated: Any) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('first\\nno package')"]
    with pytest.raises(MissingError, match=r"^pip finds nothing\. \(no package\)$"):
        emulated.run(fails, lacking="pip finds nothing.")
    with pytest.raises(UsageError, match=r"failed with exit code 1: no package$"):
        emulated.run(fails)


def test_apt_is_kept_off_this_machine(emulated: Any, tmp_path: Path) -> None:
    options = emulated._own_apt(tmp_path)
    places = [option for option in options if option.startswith("Dir::")]
    assert len(places) == 3
    assert all(str(tmp_path) in place for place in places)


def test_without_bundles_it_is_exit_4(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr == "arm64: there is no bundle in export/dist. Make some: make export\n"
