"""A prepared store is kept until a file that makes it changes: the sources in its key must name all of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edgelip
from edgelip.data.clip_maker import CROP_SOURCES
from edgelip.data.mouth.finder import FINDERS
from edgelip.data.mouth.maker import MOUTH_SOURCES
from edgelip.data.synthetic import stored_mouths, stored_signs

PACKAGE = Path(edgelip.__file__).parent
# Imported for what carries a clip or says what is wrong with it. What a store's files look like has a version of its
# own, what a reader says of a sample and what a recipe asks for are in the key by value.
CARRIES = (
    "errors",
    "registry",
    "recipe",
    "recipe_sections",
    "progress",
    "files",
    "runtime.errors",
    "data.unusable",
    "data.readers",
)
STORES = ("data.stores.store", "data.stores.stored_frames", "data.stores.shards", "data.stores.npy_files",
          "data.stores.workers")  # fmt: skip
NOT_OF_VIDEO = ("runtime.landmarks", "data.camera")
FINDER_MODULES = [target.partition(":")[0].removeprefix("edgelip.") for target in FINDERS.values()]


def imported(module: str) -> set[str]:
    """Modules of edgelip that one of them imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "edgelip":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {name.removeprefix("edgelip.") for name in names}
    return {name for name in found if (PACKAGE / f"{name.replace('.', '/')}.py").is_file()}


def makers_of(start: list[str], carries: tuple[str, ...]) -> set[str]:
    """All modules that are imported from `start` on, without those that carry alone."""
    reached: set[str] = set()
    while start:
        module = start.pop()
        if module not in reached and not module.startswith(carries):
            reached.add(module)
            start += imported(module)
    return reached


def named(sources: tuple[str, ...]) -> set[str]:
    """The modules among the sources, those in its folders included."""
    places = [PACKAGE / source for source in sources]
    files = [file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place])]
    modules = [file.relative_to(PACKAGE) for file in files if file.suffix == ".py" and file.stem != "__init__"]
    return {str(module.with_suffix("")).replace("/", ".") for module in modules}


@pytest.mark.parametrize(
    ("start", "carries", "sources"),
    [
        (["data.synthetic.stored_mouths"], (*STORES, "runtime.landmarks"), stored_mouths.SOURCES),
        (["data.synthetic.stored_signs"], STORES, stored_signs.SOURCES),
        (["data.clip_maker", "data.stores.building"], (*STORES, *NOT_OF_VIDEO), CROP_SOURCES),
        (["data.mouth.maker", "data.stores.building", *FINDER_MODULES], (*STORES, *NOT_OF_VIDEO), MOUTH_SOURCES),
    ],
    ids=["mouths", "signs", "crops", "found mouths"],
)
def test_a_key_names_the_modules_that_make_a_clip(
    start: list[str], carries: tuple[str, ...], sources: tuple[str, ...]
) -> None:
    makers = makers_of(start, (*CARRIES, *carries))
    assert makers - named(sources) == set()
    assert {each for each in named(sources) - makers if not each.startswith("data.mouth.")} == set()
