"""`edgelip export`: a recipe to bundles and a trade-off table."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelip.cache import step_key
from edgelip.cli.engines import ENGINE_PACKAGES, add_engines, build_key
from edgelip.deploy.sign import read_private_key, sign_bundle
from edgelip.errors import UsageError
from edgelip.files import remove_leftovers, replace_folder, write_atomic, writing
from edgelip.progress import Progress
from edgelip.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from edgelip.cli.workshop import Workshop

DONE = ".cache/done.json"
TABLES = (
    "tradeoff.json", "tradeoff.md", "tradeoff.csv", "tradeoff.png", "measurements.json", "parity.json", "parity.md"
)  # fmt: skip


def export_recipe(
    recipe_path: Path,
    *,
    overrides: Sequence[str],
    out: Path | None,
    as_json: bool,
    dry_run: bool = False,
    sign: Path | None = None,
) -> str:
    """Make what the recipe asks for and is not there yet. Returns the table, as text or JSON.

    sign: file of a private key; each bundle is signed with it.
    """
    if sign is not None:
        read_private_key(sign)  # a wrong key is said before hours are spent
    recipe = load_recipe(recipe_path, overrides=overrides)
    progress = Progress()
    from edgelip.cli.workshop import Workshop  # imports torch: after the recipe is known to be good

    if dry_run:
        return _plan_text(Workshop(recipe, output_folder(recipe, out), progress))
    with workspace(output_folder(recipe, out)) as folder:
        workshop = Workshop(recipe, folder, progress)
        command = " ".join(["edgelip export", str(recipe_path), *(f"--set {item}" for item in overrides)])
        plan = plan_key(workshop)
        if _is_done(folder, plan):
            progress.say(f"Nothing to do: {folder} holds what {recipe_path} asks for.")
        else:
            workshop.refuse_unbundled()
            workshop.rehearse()
            _make(workshop, plan, command=command)
        if sign is not None:
            for name in workshop.variants:
                sign_bundle(folder / name, sign)
        return _result(folder, as_json=as_json)


def output_folder(recipe: Recipe, out: Path | None) -> Path:
    return out or recipe.output or Path("export/dist") / recipe.name


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """Hold the output folder for one process. Raises UsageError if another holds it, MissingError if unwritable."""
    lock_path = folder / ".cache" / "lock"
    with writing(folder):
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another edgelip is working in {folder}. Wait for it, or choose another --out."
            ) from error
        remove_leftovers(folder)
        yield folder


def plan_key(workshop: Workshop) -> str:
    """Hash of all that the results depend on."""
    return step_key(
        "plan",
        {
            "bench": workshop.recipe.bench.model_dump(),
            "variants": list(workshop.variants),
            "name": workshop.recipe.name,
        },
        sources=["bench", "report", "runtime"],
        inputs=[
            workshop.clips.key("test"),
            *(workshop.bundle_key(name) for name in workshop.variants),
            *(build_key(workshop, name, section) for name in workshop.variants for section in workshop.recipe.build),
        ],
        packages=ENGINE_PACKAGES,
    )


def _make(workshop: Workshop, plan: str, *, command: str) -> None:
    from edgelip.cli.measure import measure_variants
    from edgelip.data.readers.samples import SPLITS

    folder, cache = workshop.folder, workshop.cache
    for split in SPLITS:
        workshop.clips.store(split)
    bundles = {name: workshop.bundle(name) for name in workshop.variants}
    for name, stages in {"": (), **workshop.variants}.items():
        workshop.publish(stages, label=name if stages else None)
    old = _read_done(folder)
    for name, bundle in bundles.items():
        with replace_folder(folder / name, only_if_holds="manifest.json") as partial:
            shutil.copytree(bundle, partial, dirs_exist_ok=True)
            add_engines(workshop, name, partial)
    for name in old.get("variants", []):
        stale = folder / name
        if name not in bundles and (stale / "manifest.json").is_file():
            shutil.rmtree(stale)
    measure_variants(workshop, {name: folder / name for name in bundles}, command=command)
    done = {
        "plan": plan,
        "variants": list(bundles),
        "files": {name: _sha256(folder / name) for name in _results(folder, list(bundles))},
    }
    write_atomic(folder / DONE, json.dumps(done, indent=1) + "\n")
    cache.drop_unfinished()
    workshop.blobs.sweep()


def _results(folder: Path, variants: Sequence[str]) -> list[str]:
    """Paths, relative to the folder, of every file that an export leaves."""
    paths = [path for name in variants for path in sorted((folder / name).rglob("*")) if path.is_file()]
    inside = [str(path.relative_to(folder)) for path in paths]
    return [*TABLES, *inside]


def _is_done(folder: Path, plan: str) -> bool:
    done = _read_done(folder)
    if done.get("plan") != plan:
        return False
    return all((folder / name).is_file() and _sha256(folder / name) == sha for name, sha in done["files"].items())


def _read_done(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / DONE).read_text()))
    except (OSError, json.JSONDecodeError):
        return {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _result(folder: Path, *, as_json: bool) -> str:
    from edgelip.cli.measure import table_text
    from edgelip.cli.result_folders import TABLE

    return (folder / TABLE).read_text() if as_json else table_text(folder)


def _plan_text(workshop: Workshop) -> str:
    """What is in the cache and what would be made."""
    from edgelip.data.readers.samples import SPLITS

    lines = []
    steps = [(f"data {split}", workshop.clips.key(split)) for split in SPLITS]
    steps.append(("train dense", workshop.trained_key))
    for name, stages in workshop.variants.items():
        for i in range(1, len(stages) + 1):
            steps.append((f"{name}: " + " + ".join(s.name for s in stages[:i]), workshop.stage_key(stages[:i])))
        steps.append((f"{name}: bundle", workshop.bundle_key(name)))
        for section in workshop.recipe.build:
            options = "".join(f" {option}={word}" for option, word in section.options.items())
            steps.append((f"{name}: {section.engine}{options}", build_key(workshop, name, section)))
    for text, key in steps:
        state = "cached" if workshop.cache.finished(key) else "to make"
        lines.append(f"{state:8} {text:40} {key}")
    return "\n".join(lines)
