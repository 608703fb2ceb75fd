"""The README's commands exist: verbs, options, make targets and the files they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from edgelip.cli.verbs import app

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "export/README.md", "benchmarks/README.md")


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


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
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert command.split()[1] in targets


def test_the_files_that_commands_name_exist() -> None:
    named = [
        word for command in EVERY for word in command.split() if re.fullmatch(r"(export/recipes|benchmarks)/\S+", word)
    ]
    assert named
    for name in named:
        assert (ROOT / name).exists(), name
