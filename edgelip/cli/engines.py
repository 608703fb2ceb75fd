"""Engines built ahead of time for the variants of a recipe, each build kept in the cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edgelip.bench.isolate import run_runtime
from edgelip.cache import step_key
from edgelip.errors import RecipeError
from edgelip.recipe_sections import BuildSection
from edgelip.runtime.artefact import ENGINES_FOLDER
from edgelip.runtime.engines.engine import builds, check_options, engine_class

if TYPE_CHECKING:
    from edgelip.cli.workshop import Workshop

ENGINE_PACKAGES = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")


def check_build(section: BuildSection) -> None:
    """Raises UsageError, MissingError or RecipeError, before anything is trained, for what cannot be built here."""
    kind = engine_class(section.engine)
    check_options(section.engine, section.options)
    if not builds(kind):
        raise RecipeError(f"build.engine {section.engine!r} runs ONNX files as they are; there is nothing to build.")


def build_key(workshop: Workshop, variant: str, section: BuildSection) -> str:
    return step_key(
        "engine",
        section.model_dump(mode="json"),
        sources=["runtime"],
        inputs=[workshop.bundle_key(variant)],
        packages=ENGINE_PACKAGES,
    )


def built_engines(workshop: Workshop, variant: str, section: BuildSection) -> Path:
    """A folder as `engines` lies in a bundle, with what one engine made of one variant; made in a fresh process."""
    key = build_key(workshop, variant, section)
    done = workshop.cache.finished(key)
    if done is None:
        chosen = [f"--option={name}={word}" for name, word in sorted(section.options.items())]
        words = " ".join([section.engine, *(option.partition("=")[2] for option in chosen)])
        with workshop.cache.making(key) as work:
            shutil.rmtree(work)  # of a killed run
            bundle = work / variant
            shutil.copytree(workshop.bundle(variant), bundle)
            workshop.progress.say(f"build {variant} for {words}")
            run_runtime(["build", str(bundle), "--engine", section.engine, *chosen])
            (bundle / ENGINES_FOLDER).replace(work / ENGINES_FOLDER)
            shutil.rmtree(bundle)
        done = workshop.cache.folder / key
    return done / ENGINES_FOLDER


def add_engines(workshop: Workshop, variant: str, bundle: Path) -> None:
    """Put every build of a variant into its bundle at `bundle`."""
    for section in workshop.recipe.build:
        shutil.copytree(built_engines(workshop, variant, section), bundle / ENGINES_FOLDER, dirs_exist_ok=True)
