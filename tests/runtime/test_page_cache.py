from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgelip.runtime import page_cache
from edgelip.runtime.errors import MissingError
from edgelip.runtime.page_cache import drop_page_cache


def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package of 3 MiB that nobody has imported."""
    (folder / "slow_engine").mkdir(parents=True)
    (folder / "slow_engine" / "__init__.py").write_text("raise SystemError('imported')")
    (folder / "slow_engine" / "library.so").write_bytes(os.urandom(3 << 20))
    monkeypatch.syspath_prepend(str(folder))
    return "slow_engine"


def test_files_of_the_bundle_and_the_package_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = package(tmp_path / "site", monkeypatch)
    bundle = tmp_path / "bundle"
    (bundle / "engines" / "x86").mkdir(parents=True)
    (bundle / "model.onnx").write_bytes(os.urandom(2 << 20))
    (bundle / "engines" / "x86" / "plan").write_bytes(os.urandom(1 << 20))
    (bundle / "link").symlink_to(tmp_path / "site" / "slow_engine" / "library.so")
    (bundle / "empty").touch()
    told = drop_page_cache(bundle, name)
    assert told.startswith("dropped before the start: 5 files, 6.0 MiB, of the bundle and slow_engine; ")
    assert told.endswith("; the interpreter and numpy kept")
    assert " stayed; " in told


def test_what_is_in_memory_is_counted_by_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "held"
    path.write_bytes(os.urandom(1 << 20))
    path.read_bytes()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert page_cache._resident_bytes(descriptor, 1 << 20) == 1 << 20
    finally:
        os.close(descriptor)


def test_a_package_that_is_not_there_drops_the_bundle_alone(tmp_path: Path) -> None:
    assert drop_page_cache(tmp_path, "no_such_engine").startswith("dropped before the start: 0 files, 0.0 MiB, of ")


def test_a_system_that_cannot_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    with pytest.raises(MissingError, match=r"cannot drop files from the page cache\. Leave --drop-page-cache out"):
        drop_page_cache(tmp_path, "numpy")
