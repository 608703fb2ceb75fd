"""The README's commands exist: verbs, options, make targets and the files they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

from edgelip.cli.verbs import app

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "export/README.md", "benchmarks/README.md")


def blocks(page: str, language: str) -> list[str]:
    """Code of a page in one language, "" for commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [code for name, code in found if name == language]


def commands(page: str) -> list[str]:
    return [
        line.partition(" #")[0].strip() for block in blocks(page, "") for line in block.splitlines() if line.strip()
    ]


EVERY = [command for page in PAGES for command in commands(page)]


def test_there_are_commands_to_check() -> None:
    assert len(EVERY) > 10


@pytest.mark.parametrize("command", [command for command in EVERY if command.startswith("edgelip ")])
def test_a_command_of_the_readme_parses(command: str) -> None:
    group = typer.main.get_command(app)
    arguments = shlex.split(command)[1:]
    context = group.make_context("edgelip", arguments[:1], resilient_parsing=True)
    verb = group.get_command(context, arguments[0])
    assert verb is not None, f"no verb {arguments[0]}"
    if hasattr(verb, "commands"):
        verb, arguments = verb.commands[arguments[1]], arguments[1:]
    verb.make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("command", [command for command in EVERY if command.startswith("make ")])
def test_a_make_target_of_the_readme_exists(command: str) -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert command.split()[1] in targets


def test_the_files_that_commands_name_exist() -> None:
    named = [
        word for command in EVERY for word in command.split() if re.fullmatch(r"(export/recipes|benchmarks)/\S+", word)
    ]
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av", reason="PyAV writes the videos")
    for name in ("train/ABOUT/1", "train/ABOUT/2", "train/BELOW/1", "train/BELOW/2", "test/ABOUT/3", "new/clip"):
        path = tmp_path / "words" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 96
            stream.pix_fmt = "yuv420p"
            for index in range(29):
                grey_HW = np.full((96, 96), 40 + 3 * index + 60 * ("BELOW" in name), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey_HW, format="gray")))
            container.mux(stream.encode())
    monkeypatch.chdir(tmp_path)
    python = blocks("README.md", "python")
    assert python
    for code in python:
        exec(compile(code, "README.md", "exec"), {})
    accuracy, words = capsys.readouterr().out.splitlines()
    assert accuracy in ("0% of the test clips read right", "100% of the test clips read right")
    assert words in ("['ABOUT']", "['BELOW']")
    assert (tmp_path / "words.safetensors").is_file()
    assert (tmp_path / "words" / ".edgelip").is_dir()
