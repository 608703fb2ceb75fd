from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edgelip.runtime.sensors.sysfs import read_number, read_text, run_tool, tool_line


def _tool(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "boardtool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_text_is_stripped_of_blanks_and_zero_bytes_and_cut(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Jetson\0\n")
    (tmp_path / "endless").write_bytes(b"x" * 1000)
    assert read_text(tmp_path / "model") == "Jetson"
    assert read_text(tmp_path / "endless", max_bytes=10) == "x" * 10


@pytest.mark.parametrize(
    ("text", "number"), [("42\n", 42.0), ("-3.5", -3.5), ("", None), ("<n/a>", None), ("nan", None)]
)
def test_number_is_read_or_none(tmp_path: Path, text: str, number: float | None) -> None:
    (tmp_path / "value").write_text(text)
    assert read_number(tmp_path / "value") == number


def test_missing_file_and_folder_give_none(tmp_path: Path) -> None:
    assert read_text(tmp_path / "missing") is None
    assert read_number(tmp_path) is None


def test_tool_gives_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, monkeypatch, 'echo "mode $1"; echo noise >&2')
    assert run_tool("boardtool", "-q") == "mode -q\n"


def test_tool_that_is_absent_or_fails_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, monkeypatch, "echo half; exit 1")
    assert run_tool("boardtool") is None
    assert run_tool("no-such-board-tool") is None


def test_endless_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, monkeypatch, "while true; do echo 0123456789; done")
    assert run_tool("boardtool", max_bytes=100) == ("0123456789\n" * 10)[:100]


@pytest.mark.parametrize("script", ["exec sleep 60", "exec 1>&-; exec sleep 60"])
def test_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    _tool(tmp_path, monkeypatch, script)
    assert run_tool("boardtool", timeout_s=0.2) is None


def test_first_line_of_a_command_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "monitor").write_text("#!/bin/sh\nwhile true; do echo RAM 1; echo RAM 2; sleep 0.01; done\n")
    (tmp_path / "silent").write_text("#!/bin/sh\nsleep 30\n")
    (tmp_path / "short").write_text("#!/bin/sh\nprintf 'no line end'\n")
    for name in ("monitor", "silent", "short"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert tool_line("monitor") == "RAM 1"
    assert tool_line("silent", timeout_s=0.05) is None
    assert tool_line("short") is None
    assert tool_line("absent") is None
