"""A pack on a board, in processes of its own: both forms give the bundle's words; what does not fit is said."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bare_board import Board
from tiny_bundles import expected_logits, make_clips, write_bundle, write_model

from edgelip.deploy.pack import write_pack
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.packed.start import run_folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def archive(bundle: Path) -> Path:
    return write_pack(bundle, bundle.parent / "tiny.pyz")


@pytest.fixture(scope="module")
def folder(bundle: Path) -> Path:
    return write_pack(bundle, bundle.parent / "tiny-pack")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board", "numpy", "onnxruntime")


def test_an_archive_checks_itself_and_unpacks_once(board: Board, archive: Path, bundle: Path) -> None:
    before = archive.read_bytes()
    for _ in range(2):
        code, out, err = board.run(archive, "check")
        assert (code, err) == (0, "")
        assert out.startswith("OK tiny: 3 files, 8 clips, fp32 on ort, max |difference| ")
        (unpacked,) = board.unpacked()
        assert unpacked.name == Bundle.open(bundle).sha256
        assert unpacked.stat().st_mode & 0o777 == 0o700
    assert archive.read_bytes() == before


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_predictions_are_the_bundles(board: Board, archive: Path, folder: Path, form: str) -> None:
    program = archive if form == "archive" else folder / "run.py"
    np.savez(board.cwd / "clips.npz", frames=make_clips(20))
    code, out, _ = board.run(program, "predict", "clips.npz", "--logits", "out.npy")
    assert (code, out) == (0, "20 clips of logits in out.npy\n")
    np.testing.assert_allclose(np.load(board.cwd / "out.npy"), expected_logits(make_clips(20)), atol=1e-5)


def test_a_folder_runs_in_place_and_leaves_the_home_alone(board: Board, folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "with a space")
    code, out, err = board.run(moved / "run.py", "check")
    assert (code, err) == (0, "")
    assert out.startswith("OK tiny: ")
    assert board.unpacked() == []


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_an_installed_edgelip_is_not_used_instead(board: Board, archive: Path, folder: Path, form: str) -> None:
    (board.site / "edgelip").mkdir()
    (board.site / "edgelip" / "__init__.py").write_text("raise RuntimeError('another edgelip')")
    code, _, err = board.run(archive if form == "archive" else folder / "run.py", "check")
    assert (code, err) == (0, "")


def test_processes_that_start_at_once_share_one_folder(board: Board, archive: Path) -> None:
    started = [board.start(archive, "check") for _ in range(4)]
    outcomes = [(process.communicate(timeout=120), process.returncode) for process in started]
    assert [code for _, code in outcomes] == [0, 0, 0, 0], outcomes
    assert len(board.unpacked()) == 1


def test_unpack_to_chooses_the_folder(board: Board, archive: Path, tmp_path: Path, bundle: Path) -> None:
    for arguments in (["--unpack-to", tmp_path / "chosen", "check"], ["check", "--unpack-to", tmp_path / "chosen"]):
        assert board.run(archive, *arguments)[0] == 0
    assert [path.name for path in (tmp_path / "chosen").iterdir()] == [Bundle.open(bundle).sha256]
    assert board.unpacked() == []


def test_without_a_place_to_unpack_to_it_is_exit_4(board: Board, archive: Path) -> None:
    code, out, err = board.run(archive, "check", HOME="/dev/null")
    assert (code, out) == (4, "")
    assert err == (
        "edgelip: the bundle of tiny.pyz cannot be unpacked to /dev/null/.cache/edgelip (Not a directory). "
        "Choose another folder: --unpack-to FOLDER.\n"
    )


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_without_numpy_it_is_exit_4(tmp_path: Path, archive: Path, folder: Path, form: str) -> None:
    bare = Board(tmp_path / "bare")
    code, _, err = bare.run(archive if form == "archive" else folder / "run.py", "check")
    assert code == 4
    assert err == (
        "edgelip: numpy is not installed here and this pack carries none. Install it, or pack into a folder with "
        "wheels that fit this machine: edgelip pack BUNDLE -o FOLDER --wheel NUMPY.whl --wheel ONNXRUNTIME.whl\n"
    )


def test_help_needs_neither_numpy_nor_a_home(tmp_path: Path, archive: Path) -> None:
    bare = Board(tmp_path / "bare")
    code, out, err = bare.run(archive, "--help", HOME="/dev/null")
    assert (code, err) == (0, "")
    assert out.startswith("usage: python3 tiny.pyz [--unpack-to FOLDER] check|predict|build|bench|doctor [OPTIONS]\n")
    code, out, err = bare.run(archive)
    assert (code, out) == (2, "")
    assert err.startswith("usage: ")
    code, out, _ = bare.run(archive, "predict", "--help", HOME="/dev/null")
    assert code == 0
    assert "--logits" in out


def test_an_archive_whose_bytes_changed_is_refused(board: Board, archive: Path, tmp_path: Path) -> None:
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as pack:
        place = pack.getinfo("bundle/model.fp32.onnx").header_offset
    content[place + 200] ^= 1
    changed = tmp_path / "tiny.pyz"
    changed.write_bytes(content)
    code, out, err = board.run(changed, "check")
    assert (code, out) == (2, "")
    assert err == ("edgelip: tiny.pyz is damaged (Bad CRC-32 for file 'bundle/model.fp32.onnx'). Copy the pack anew.\n")
    assert board.unpacked() == []
    assert board.run(archive, "check")[0] == 0


def test_an_archive_whose_checksum_was_made_right_again_is_refused(board: Board, archive: Path, tmp_path: Path) -> None:
    changed = tmp_path / "tiny.pyz"
    with zipfile.ZipFile(archive) as pack, zipfile.ZipFile(changed, "w") as other:
        for member in pack.infolist():
            content = pack.read(member)
            other.writestr(member, content.replace(b"tiny", b"tinY") if member.filename.endswith("onnx") else content)
    code, out, err = board.run(changed, "check")
    assert (code, out) == (2, "")
    assert err.startswith("edgelip: tiny.pyz: bundle: model.fp32.onnx has changed: sha256 ")
    assert board.unpacked() == []  # nor does it stand in the way of the right one
    assert board.run(archive, "check")[0] == 0


def test_a_damaged_copy_in_the_cache_is_named(board: Board, tmp_path: Path) -> None:
    def with_notes(path: Path) -> None:
        write_model(path)
        path.with_name("notes.txt").write_bytes(bytes(70_000))  # too large to be compared at every start

    big = write_pack(write_bundle(tmp_path / "big", write_model=with_notes), tmp_path / "big.pyz")
    assert board.run(big, "check")[0] == 0
    (unpacked,) = board.unpacked()
    (unpacked / "notes.txt").write_bytes(bytes(69_999) + b"x")
    code, out, err = board.run(big, "check")
    assert (code, out) == (2, "")
    assert "notes.txt has changed: sha256 " in err
    assert err.endswith(f"edgelip: that is the unpacked copy: remove {unpacked} and run this again.\n")
    shutil.rmtree(unpacked)
    assert board.run(big, "check")[0] == 0


def test_a_folder_that_changed_is_refused(board: Board, folder: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(folder, tmp_path / "changed")
    model = changed / "bundle" / "model.fp32.onnx"
    model.write_bytes(model.read_bytes().replace(b"tiny", b"tinY"))
    code, _, err = board.run(changed / "run.py", "check")
    assert code == 2
    assert "bundle: model.fp32.onnx has changed: sha256 " in err


def test_wheels_in_a_folder_are_used_and_come_first(tmp_path: Path, folder: Path, board: Board) -> None:
    carrying = shutil.copytree(folder, tmp_path / "carrying")
    shutil.copytree(board.site, carrying / "site-packages", symlinks=True)
    (board.site / "numpy").unlink()
    (board.site / "numpy.py").write_text("raise RuntimeError('the numpy of this machine')")
    code, out, err = board.run(carrying / "run.py", "check")
    assert (code, err) == (0, "")
    assert out.startswith("OK tiny: ")


@pytest.mark.parametrize("before", [None, "mine"])
def test_processes_that_the_doctor_starts_see_the_wheels_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    wheels = tmp_path / "site-packages"
    wheels.mkdir()
    monkeypatch.setattr("edgelip.runtime.__main__.main", lambda arguments: len(arguments))
    monkeypatch.setattr(sys, "path", ["start", "rest"])
    monkeypatch.setenv("PYTHONPATH", "")
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    assert run_folder(tmp_path, ["doctor", "--json"]) == 2
    assert sys.path == ["start", str(wheels), "rest"]
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(wheels), *filter(None, [before])])


def test_wheels_for_another_machine_are_refused(tmp_path: Path, folder: Path, board: Board) -> None:
    carrying = shutil.copytree(folder, tmp_path / "carrying")
    info = carrying / "site-packages" / "numpy-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp38-cp38-manylinux_2_28_sparc64\n")
    code, out, err = board.run(carrying / "run.py", "check")
    assert (code, out) == (4, "")
    assert err.startswith(
        "edgelip: this pack carries numpy 9.9 for cp38-cp38-manylinux_2_28_sparc64; this is CPython 3."
    )
    assert err.endswith("Pack again with a wheel of numpy that fits.\n")


def test_an_old_python_is_told_so(folder: Path, archive: Path) -> None:
    """What runs first parses in Python 3.0, and ends before anything newer is read."""
    with zipfile.ZipFile(archive) as pack:
        starts = [pack.read("__main__.py").decode(), (folder / "run.py").read_text()]
    for start in starts:
        assert "annotations" not in start
        old = start.replace("sys.version_info", "(3, 5)")
        with pytest.raises(SystemExit, match=r"this pack needs Python 3.8 or newer; this is 3\.5\."):
            exec(compile(old, "start", "exec"), {"__file__": __file__, "__name__": "__main__"})
