from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgelip import cache as cache_module
from edgelip.cache import Cache, installed_version, source_sha256, step_key
from edgelip.errors import MissingError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of three files in place of ours."""
    folder = tmp_path / "package"
    (folder / "train/__pycache__").mkdir(parents=True)
    (folder / "train/fit.py").write_text("a = 1")
    (folder / "train/words.txt").write_text("ABOUT")
    (folder / "cache.py").write_text("b = 1")
    (folder / "train/__pycache__/fit.pyc").write_bytes(b"1")
    monkeypatch.setattr(cache_module, "PACKAGE", folder)
    source_sha256.cache_clear()
    yield folder
    source_sha256.cache_clear()


def key(**changes: Any) -> str:
    source_sha256.cache_clear()
    asked: dict[str, Any] = {"config": {"epochs": 3, "rate": 1e-3}, "sources": ["train", "cache.py"]}
    asked |= {"inputs": ["data-1", "data-2"], "packages": ["numpy"], "kind": "train"} | changes
    return step_key(asked.pop("kind"), asked.pop("config"), **asked)


def test_a_key_names_its_kind_and_16_digits(package: Path) -> None:
    kind, _, digits = key().partition("-")
    assert kind == "train"
    assert len(digits) == 16
    assert set(digits) <= set("0123456789abcdef")


def test_a_key_changes_with_all_that_the_step_depends_on(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        key(),
        key(kind="phm"),
        key(config={"epochs": 4, "rate": 1e-3}),
        key(config={"epochs": 3}),
        key(inputs=["data-1"]),
        key(inputs=["data-2", "data-1"]),
        key(sources=["train"]),
        key(packages=["numpy", "pydantic"]),
    ]
    (package / "train/fit.py").write_text("a = 2")
    keys.append(key())
    (package / "train/words.txt").write_text("BELOW")
    keys.append(key())
    (package / "train/words.txt").rename(package / "train/names.txt")
    keys.append(key())
    (package / "train/new.py").write_text("")
    keys.append(key())
    monkeypatch.setattr(cache_module, "installed_version", lambda name: "0.0.1")
    keys.append(key())
    monkeypatch.setattr(cache_module, "installed_version", lambda name: None)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_key_does_not_change_with_order_and_compiled_files(package: Path) -> None:
    before = key()
    (package / "train/__pycache__/fit.pyc").write_bytes(b"2")
    (package / "bench").mkdir()
    (package / "bench/plan.py").write_text("other")
    assert key(config={"rate": 1e-3, "epochs": 3}, sources=["cache.py", "train"]) == before


def test_a_source_that_does_not_exist_is_our_mistake(package: Path) -> None:
    with pytest.raises(AssertionError, match=r"trian is no source of the package"):
        key(sources=["trian"])


def test_versions_are_read_without_importing() -> None:
    import numpy

    assert installed_version("numpy") == numpy.__version__
    assert installed_version("no-such-package-of-ours") is None


def test_a_finished_step_is_found_and_an_interrupted_one_is_not(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.finished("train-1") is None

    def interrupted() -> None:
        with cache.making("train-1") as work:
            (work / "half").write_text("x")
            assert cache.finished("train-1") is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cache.finished("train-1") is None
    with cache.making("train-1") as work:
        assert (work / "half").read_text() == "x"  # goes on where the interrupted one stopped
        (work / "whole").write_text("y")
    done = cache.finished("train-1")
    assert done is not None
    assert sorted(path.name for path in done.iterdir()) == ["half", "whole"]
    assert [path.name for path in cache.folder.iterdir()] == ["train-1"]
    assert cache.finished("train-2") is None


def test_unfinished_steps_can_be_dropped(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.making("done"):
        pass
    (tmp_path / "half.part").mkdir()
    (tmp_path / "half.part/x").write_text("x")
    cache.drop_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_a_file_in_the_way_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    text = r"cannot write .*train-1\.part: a file stands where a folder is needed"
    with pytest.raises(MissingError, match=text), Cache(tmp_path / "cache").making("train-1"):
        raise AssertionError("not reached")
