"""One thread and repeatable draws for every test; where the reference outputs lie."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests share two cores

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("edgelip", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("edgelip")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference inputs, outputs and checkpoints, beside the checkout. They are no part of the repository."""
    folder = Path(__file__).parents[2] / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs at {folder}")
    return folder


@pytest.fixture(scope="session")
def suspects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """tiny_suspects.Suspects: bundles with planted faults, exported once for all tests of `blame`."""
    from tiny_suspects import write_suspects  # torch, which many tests do without

    return write_suspects(tmp_path_factory.mktemp("suspects"))
