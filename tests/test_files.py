from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgelip import files
from edgelip.files import remove_leftovers, replace_folder, write_atomic
from edgelip.runtime.errors import MissingError, UsageError


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def _run_and_die(code: str, *arguments: Path) -> None:
    """Run `code` in a new process that ends itself with SIGKILL."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False)
    assert done.returncode == -signal.SIGKILL


def _fail_with(number: int):  # type: ignore[no-untyped-def]
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def _replace_and_raise(path: Path, error: Exception) -> None:
    with replace_folder(path) as folder:
        (folder / "x").write_bytes(bytes(20_000))
        raise error


def test_write_atomic_makes_folders_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", "long old text")
    (tmp_path / "reader").hardlink_to(tmp_path / "a" / "b.txt")  # as one who opened it before sees it
    write_atomic(tmp_path / "a" / "b.txt", "né")
    write_atomic(tmp_path / "a" / "c.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "né".encode()
    assert (tmp_path / "reader").read_text() == "long old text"
    assert (tmp_path / "a" / "c.bin").read_bytes() == b"\x00\xff"
    assert _names(tmp_path / "a") == ["b.txt", "c.bin"]


def test_write_atomic_takes_over_what_a_killed_writer_left(tmp_path: Path) -> None:
    (tmp_path / ".x.txt.partial").write_text("half of something much longer than the new text")
    write_atomic(tmp_path / "x.txt", "new")
    assert (tmp_path / "x.txt").read_text() == "new"
    assert _names(tmp_path) == ["x.txt"]


def test_write_atomic_on_a_full_disk_keeps_the_old_file_and_says_the_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "write", _fail_with(errno.ENOSPC))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: files.shutil._ntuple_diskusage(50e6, 47e6, 3e6))
    with pytest.raises(MissingError) as caught:
        write_atomic(path, bytes(12_000_000))
    assert str(caught.value) == (
        f"cannot write {path}: no space left on device (needs 12 MB, 3.0 MB free). Free space or choose another --out."
    )
    assert caught.value.exit_code == 4
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["x.bin"]


def test_write_atomic_meets_a_real_limit_of_the_system(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from edgelip.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomic(Path(sys.argv[1]), bytes(5000))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"MissingError cannot write {tmp_path / 'x'}: the file would be larger")
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk failed (input/output error)"),
    ],
)
def test_write_atomic_names_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    monkeypatch.setattr(files.os, "open", _fail_with(number))
    with pytest.raises(MissingError) as caught:
        write_atomic(tmp_path / "x", "text")
    assert str(caught.value) == f"cannot write {tmp_path / 'x'}: {reason}. Choose another --out."


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for act in (
        lambda: write_atomic(tmp_path / "file" / "x", "text"),
        lambda: replace_folder(tmp_path / "file").__enter__(),
        lambda: replace_folder(tmp_path / "file" / "x").__enter__(),
    ):
        with pytest.raises(MissingError, match=r"cannot write .*: a file stands where a folder is needed\. Choose"):
            act()
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingError, match=r"a folder stands in its place"):
        write_atomic(tmp_path / "folder", "text")
    assert _names(tmp_path) == ["file", "folder"]


def test_replace_folder_puts_the_new_one_in_place_of_the_old(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with replace_folder(tmp_path / "out") as folder:
            (folder / f"{text}.txt").write_text(text)
            assert folder.parent == tmp_path
    assert _names(tmp_path) == ["out"]
    assert _names(tmp_path / "out") == ["two.txt"]


def test_replace_folder_keeps_the_old_one_when_the_block_fails(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "out") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(ZeroDivisionError):
        _replace_and_raise(tmp_path / "out", ZeroDivisionError())
    assert _names(tmp_path) == ["out"]
    assert _names(tmp_path / "out") == ["old"]


def test_replace_folder_guards_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(UsageError) as caught, replace_folder(tmp_path / "home", only_if_holds="manifest.json"):
        pass
    expected = (
        f"{tmp_path / 'home'} exists and holds no manifest.json, so it is not replaced. Empty it or choose another"
    )
    assert str(caught.value).startswith(expected)
    assert _names(tmp_path / "home") == ["thesis.tex"]
    with pytest.raises(UsageError, match=r"cannot replace the folder '\.'; expected a path that ends in a name"):
        replace_folder(Path()).__enter__()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("1000 requested and 24 written"),  # numpy's tofile gives no errno
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save, 2.13
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors, 0.7
    ],
)
def test_replace_folder_recognises_a_full_disk_in_what_libraries_raise(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(MissingError, match=r"no space left on device \(needs more than the \d+ [kM]B free\)"):
        _replace_and_raise(tmp_path / "out", error)
    assert _names(tmp_path) == []


def test_replace_folder_refuses_at_once_what_cannot_fit(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no space left on device \(needs 1000000000000 MB, \d+ MB free\)"):
        replace_folder(tmp_path / "out", needs_bytes=10**18).__enter__()
    assert _names(tmp_path) == []


def test_replace_folder_passes_errors_about_other_files(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), replace_folder(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/input.mp4")
    with pytest.raises(FileNotFoundError), replace_folder(tmp_path / "out") as folder:
        (folder / "missing").read_text()


_KILL_IN_BLOCK = """
import os, sys; from pathlib import Path; from edgelip.files import replace_folder
with replace_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half"); os.kill(os.getpid(), 9)
"""
_KILL_AFTER_RENAMES = """
import os, sys; from pathlib import Path; from edgelip import files
files.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), 9)
with files.replace_folder(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("new")
"""
_KILL_BETWEEN_RENAMES = """
import os, sys; from pathlib import Path; from edgelip.files import replace_folder
rename = Path.rename
def rename_then_die(self, target):
    rename(self, target); os.kill(os.getpid(), 9)
Path.rename = rename_then_die
with replace_folder(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("new")
"""


@pytest.mark.parametrize("code", [_KILL_IN_BLOCK, _KILL_BETWEEN_RENAMES])
def test_a_killed_replacement_is_cleaned_and_the_old_folder_is_back(tmp_path: Path, code: str) -> None:
    out = tmp_path / "out"
    with replace_folder(out) as folder:
        (folder / "old").write_text("old")
    _run_and_die(code, out)
    assert len(_names(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert _names(tmp_path) == ["out"]
    assert _names(out) == ["old"]
    _run_and_die(code, out)
    with replace_folder(out) as folder:
        assert _names(folder) == []
        (folder / "newer").write_text("newer")
    assert _names(tmp_path) == ["out"]
    assert _names(out) == ["newer"]


def test_a_replacement_killed_after_its_renames_is_done_and_can_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with replace_folder(out) as folder:
        (folder / "old").write_text("old")
    _run_and_die(_KILL_AFTER_RENAMES, out)
    assert _names(tmp_path) == [".out.replaced", "out"]
    assert _names(out) == ["new"]
    with replace_folder(out) as folder:
        (folder / "newer").write_text("newer")
    assert _names(out) == ["newer"]
    _run_and_die(_KILL_AFTER_RENAMES, out)
    remove_leftovers(tmp_path)
    assert _names(tmp_path) == ["out"]
    assert _names(out) == ["new"]


def test_a_second_writer_is_told_and_leftovers_of_a_live_one_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    with replace_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("x")
        with pytest.raises(MissingError, match=r"another process is writing it\. Wait for it to end or choose another"):
            replace_folder(tmp_path / "out").__enter__()
        assert remove_leftovers(tmp_path) == ()
    assert _names(tmp_path / "out") == ["x"]


_WRITE_OFTEN = """
import sys; from pathlib import Path; from edgelip.files import replace_folder, write_atomic
folder, mark = Path(sys.argv[1]), sys.argv[2]
for index in range(40):
    write_atomic(folder / "file", mark * (1000 + 100 * (index % 7)))
    text = (folder / "file").read_text()
    assert len(set(text)) == 1 and len(text) % 100 == 0
    with replace_folder(folder / "out") as out:
        (out / "a").write_text(mark)
        (out / "b").write_text(mark)
"""


def test_writers_of_the_same_place_take_turns(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", _WRITE_OFTEN, str(tmp_path), mark]) for mark in "xyz"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert _names(tmp_path) == ["file", "out"]
    assert (tmp_path / "out" / "a").read_text() == (tmp_path / "out" / "b").read_text()
