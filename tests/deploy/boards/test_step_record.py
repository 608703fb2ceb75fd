"""What is done stays done while nothing that it depends on and none of its files has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelip.deploy.boards.step_record import NAME, StepRecord, content_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    StepRecord(tmp_path).write("check", "key", {"check.json": b"{}", "engines/x/plan": b"plan"})
    return tmp_path


def test_a_written_step_is_done_for_its_key_alone(folder: Path) -> None:
    record = StepRecord(folder)
    assert record.is_done("check", "key")
    assert not record.is_done("check", "another key")
    assert not record.is_done("bench", "key")


@pytest.mark.parametrize("file", ["check.json", "engines/x/plan"])
def test_a_file_that_changed_or_went_undoes_its_step(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"changed")
    assert not StepRecord(folder).is_done("check", "key")
    (folder / file).unlink()
    assert not StepRecord(folder).is_done("check", "key")


def test_steps_are_added_to_those_that_are_there(folder: Path) -> None:
    StepRecord(folder).write("bench", "other", {"bench.json": b"[]"})
    assert StepRecord(folder).is_done("check", "key")
    assert StepRecord(folder).is_done("bench", "other")


@pytest.mark.parametrize(
    "content",
    ["", "[", "[]", "{}", '{"schema_version": 2, "steps": {}}', '{"schema_version": 1, "steps": []}', "[" * 9999],
)
def test_a_damaged_record_counts_as_empty(folder: Path, content: str) -> None:
    (folder / NAME).write_text(content)
    assert not StepRecord(folder).is_done("check", "key")


@pytest.mark.parametrize("entry", ["null", "[]", '{"key": "key"}', '{"key": "key", "files": []}'])
def test_a_damaged_entry_is_not_done(folder: Path, entry: str) -> None:
    (folder / NAME).write_text('{"schema_version": 1, "steps": {"check": ' + entry + "}}")
    assert not StepRecord(folder).is_done("check", "key")


def test_a_key_depends_on_every_part_and_not_on_their_order() -> None:
    assert content_key(a=1, b=[2]) == content_key(b=[2], a=1)
    assert len({content_key(a=1, b=2), content_key(a=2, b=1), content_key(a=1), content_key(a="1", b=2)}) == 4
