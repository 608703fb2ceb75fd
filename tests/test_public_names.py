"""What `from edgelip import ...` gives."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import edgelip
from edgelip.errors import MissingError


@pytest.mark.parametrize("name", [name for name in edgelip.__all__ if not name.startswith("_")])
def test_a_public_name_is_the_object_of_its_module(name: str) -> None:
    value = getattr(edgelip, name)
    assert getattr(import_module(value.__module__), name) is value
    assert value.__doc__
    assert name in dir(edgelip)


def test_the_public_names_are_those_listed() -> None:
    assert sorted(edgelip._MODULES) == sorted(name for name in edgelip.__all__ if name != "__version__")


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'edgelip' has no attribute 'Trainers'$"):
        edgelip.Trainers  # noqa: B018


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport edgelip\nedgelip.WordClassifier"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith(MissingError.__module__ + ".MissingError: ")
    assert done.stderr.strip().endswith('Install it: pip install "edgelip[train]"')
