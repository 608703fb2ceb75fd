"""What a pack holds, that it is the same every time, and where it is not written; tests/runtime runs it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bare_board import Board
from tiny_bundles import write_bundle
from tiny_wheels import FILES, write_wheel

from edgelip import files as files_module
from edgelip.cli.pack import pack_bundle
from edgelip.deploy.pack import write_pack
from edgelip.errors import BundleError, MissingError, UsageError
from edgelip.runtime.bundle import Bundle

BUNDLE_FILES = ["MODEL_CARD.md", "expected.npz", "manifest.json", "model.fp32.onnx"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as pack:
        return {member.filename: pack.read(member) for member in pack.infolist()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def below(found: dict[str, bytes], folder: str) -> list[str]:
    return sorted(name[len(folder) + 1 :] for name in found if name.startswith(f"{folder}/"))


def test_both_forms_hold_the_runtime_and_the_bundle(bundle: Path, tmp_path: Path) -> None:
    archive = members(write_pack(bundle, tmp_path / "out" / "tiny.pyz"))
    folder = contents(write_pack(bundle, tmp_path / "out" / "tiny"))
    assert set(archive) - set(folder) == {"__main__.py"}
    assert set(folder) - set(archive) == {"run.py", "README.txt"}
    assert below(archive, "bundle") == below(folder, "bundle") == BUNDLE_FILES
    assert {name: content for name, content in archive.items() if name.startswith("bundle/")} == {
        f"bundle/{name}": content for name, content in contents(bundle).items()
    }
    modules = below(archive, "edgelip")
    assert {"__init__.py", "runtime/__main__.py", "runtime/engines/ort.py"} < set(modules)
    assert all(name.endswith(".py") and name.startswith(("__init__", "runtime/")) for name in modules)


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("a.pyz", "b.pyz"):
        for path in bundle.iterdir():
            os.utime(path, (len(digests) * 1e9, len(digests) * 1e9))
        digests.append(hashlib.sha256(write_pack(bundle, tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    folders = [contents(write_pack(bundle, tmp_path / name)) for name in ("a", "b")]
    assert folders[0] == folders[1]


def test_what_runs_first_can_be_started_and_read_by_any_python_3(bundle: Path, tmp_path: Path) -> None:
    archive, folder = write_pack(bundle, tmp_path / "x.pyz"), write_pack(bundle, tmp_path / "x")
    assert archive.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    for program in (archive, folder / "run.py"):
        assert program.stat().st_mode & 0o111 == 0o111
    for source in (members(archive)["__main__.py"], (folder / "run.py").read_bytes()):
        ast.parse(source, feature_version=(3, 4))


def test_the_readme_names_the_bundle(bundle: Path, tmp_path: Path) -> None:
    readme = (write_pack(bundle, tmp_path / "x") / "README.txt").read_text()
    assert readme.startswith("tiny: a lip-reading word classifier, packed by edgelip ")
    assert Bundle.open(bundle).sha256 in readme
    assert "It needs numpy and an inference engine" in readme


def test_signature_and_accuracy_come_along_builds_when_asked(bundle: Path, tmp_path: Path) -> None:
    build = bundle / "engines" / "sm86-rtx1.7.1" / "model.fp32"
    build.mkdir(parents=True)
    for path in (bundle / "manifest.sig", bundle / "accuracy.json", bundle / "notes.txt", build / "artefact.json"):
        path.write_text(path.name)
    along = ["accuracy.json", "manifest.sig"]
    assert below(members(write_pack(bundle, tmp_path / "x.pyz")), "bundle") == sorted([*BUNDLE_FILES, *along])
    folder = write_pack(bundle, tmp_path / "x", with_engines=True)
    built = "engines/sm86-rtx1.7.1/model.fp32/artefact.json"
    assert below(contents(folder), "bundle") == sorted([*BUNDLE_FILES, *along, built])


def test_builds_that_are_not_there_cannot_be_packed(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_pack(bundle, tmp_path / "x.pyz", with_engines=True)
    assert str(caught.value) == f"{bundle} has no engines/ to pack. Build first, or leave --with-engines out."


def test_what_is_half_built_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    for name in ("sm86/model.fp32/artefact.json", "sm86/.model.fp16.partial/engine.plan", ".sm89.partial/x/y"):
        (bundle / "engines" / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / "engines" / name).touch()
    found = members(write_pack(bundle, tmp_path / "x.pyz", with_engines=True))
    assert below(found, "bundle/engines") == ["sm86/model.fp32/artefact.json"]


@pytest.mark.parametrize(
    "name", ["manifest.sig", "engines/sm86/model.fp32/engine.plan", "engines/sm86/a b/engine.plan"]
)
def test_a_link_or_a_name_that_no_pack_holds_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).touch() if " " in name else (bundle / name).symlink_to("/etc/passwd")
    with pytest.raises(BundleError) as caught:
        write_pack(bundle, tmp_path / "x.pyz", with_engines=name != "manifest.sig")
    assert str(caught.value) == (
        f"{bundle / name} is no plain file of a plain name, so it cannot be packed. Remove it."
    )


@pytest.mark.parametrize("out", ["x.pyz", "x"])
def test_a_damaged_bundle_is_not_packed(bundle: Path, tmp_path: Path, out: str) -> None:
    (bundle / "model.fp32.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"tiny: model.fp32.onnx has changed: 0 bytes, manifest says"):
        write_pack(bundle, tmp_path / out)
    assert not (tmp_path / out).exists()


def test_an_older_pack_is_replaced(bundle: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "x.pyz", tmp_path / "x"):
        write_pack(bundle, out)
        write_pack(bundle, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "x", "x.pyz"]


def test_what_is_no_pack_is_not_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pyz").write_text("mine")
    with zipfile.ZipFile(tmp_path / "other.pyz", "w") as archive:
        archive.writestr("__main__.py", "")
    for name in ("x.pyz", "other.pyz"):
        with pytest.raises(UsageError) as caught:
            write_pack(bundle, tmp_path / name)
        message = f"{tmp_path / name} exists and is no pack, so it is not replaced. Choose another --out."
        assert str(caught.value) == message
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"exists and holds no bundle/manifest.json, so it is not replaced. Empty it"):
        write_pack(bundle, tmp_path / "x")
    (tmp_path / "y.pyz").mkdir()
    with pytest.raises(MissingError, match=r"a folder stands in its place"):
        write_pack(bundle, tmp_path / "y.pyz")
    with pytest.raises(MissingError, match=r"a file stands where a folder is needed"):
        write_pack(bundle, tmp_path / "x.pyz" / "pack")


@pytest.mark.parametrize("out", ["tiny/x.pyz", "tiny/x", "tiny", "tiny/../tiny", "."])
def test_a_pack_and_its_bundle_do_not_lie_in_each_other(bundle: Path, tmp_path: Path, out: str) -> None:
    with pytest.raises(UsageError) as caught:
        write_pack(bundle, tmp_path / out)
    assert str(caught.value) == (f"{tmp_path / out} and the bundle {bundle} lie in each other. Choose another --out.")
    assert sorted(contents(tmp_path)) == [f"tiny/{name}" for name in BUNDLE_FILES]


def test_a_full_disk_leaves_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files_module.os, "write", full)
    with pytest.raises(MissingError, match=r"no space left on device"):
        write_pack(bundle, tmp_path / "x.pyz")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MissingError, match=r"no space left on device"):
        write_pack(bundle, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_wheels_are_unpacked_into_a_folder(bundle: Path, tmp_path: Path) -> None:
    folder = write_pack(bundle, tmp_path / "x", wheels=[write_wheel(tmp_path)])
    assert (folder / "site-packages" / "mouth" / "__init__.py").read_bytes() == FILES["mouth/__init__.py"]
    assert "It brings mouth 1.2 (py3-none-any)." in (folder / "README.txt").read_text()


def test_a_folder_with_wheels_runs_on_a_board_that_has_them_not(bundle: Path, tmp_path: Path) -> None:
    """The wheel stands in for numpy here: its import shows that it is found."""
    content = b"raise SystemExit('numpy of the pack')\n"
    wheel = write_wheel(
        tmp_path, {"numpy.py": content, "mouth-1.2.dist-info/WHEEL": FILES["mouth-1.2.dist-info/WHEEL"]}
    )
    folder = write_pack(bundle, tmp_path / "x", wheels=[wheel])
    code, _, err = Board(tmp_path / "board").run(folder / "run.py", "check")
    assert (code, err) == (1, "numpy of the pack\n")


def test_a_wheel_that_cannot_be_unpacked_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, record="")
    with pytest.raises(UsageError, match=r"is not listed in RECORD"):
        write_pack(bundle, tmp_path / "x", wheels=[wheel])
    assert sorted(path.name for path in tmp_path.iterdir()) == [wheel.name, "tiny"]


def test_an_archive_carries_no_wheels(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_pack(bundle, tmp_path / "x.pyz", wheels=[write_wheel(tmp_path)])
    assert str(caught.value) == (
        f"{tmp_path / 'x.pyz'} cannot carry wheels: a system loads native libraries from files, not from a zip. "
        f"Pack into a folder: --out {tmp_path / 'x'}."
    )


def test_the_verb_says_what_it_wrote_and_how_to_run_it(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.pyz"
    text = pack_bundle(bundle, out=out, wheels=[], with_engines=False, as_json=False)
    assert text == (
        f"{out}\ntiny, {out.stat().st_size:,} bytes; on the device, with Python 3.8, numpy and an engine such as "
        "onnxruntime: python3 x.pyz check"
    )
    wheel = write_wheel(tmp_path)
    result = json.loads(pack_bundle(bundle, out=tmp_path / "x", wheels=[wheel], with_engines=False, as_json=True))
    found = contents(tmp_path / "x")
    assert result == {
        "pack": str(tmp_path / "x"),
        "bundle": "tiny",
        "bundle_sha256": Bundle.open(bundle).sha256,
        "num_files": len(found),
        "bytes": sum(map(len, found.values())),
        "wheels": [wheel.name],
        "run": "python3 x/run.py check",
    }


def test_packing_needs_no_torch() -> None:
    """Whoever packs needs what reads a bundle."""

    code = (
        "import sys, edgelip.deploy.pack, edgelip.cli.pack; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
