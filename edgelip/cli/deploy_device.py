"""`edgelip export ... --device NAME`: bundles to a board and its figures back, over ssh or carried by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgelip.errors import UsageError
from edgelip.progress import Progress

if TYPE_CHECKING:
    from edgelip.deploy.boards.results import DeviceResult
    from edgelip.deploy.target import Device
    from edgelip.runtime.effort import Effort

DEVICES = "devices"


@dataclass(frozen=True)
class Placement:
    """A device as a deployment needs it: its description, and what the command line says otherwise."""

    name: str
    host: str
    engine: str
    python: str


@dataclass(frozen=True)
class DeployOptions:
    """The options of `--device`. offline: a folder to carry instead of ssh."""

    host: str | None = None
    ssh_config: Path | None = None
    engine: str | None = None
    precision: str | None = None
    threads: int = 1
    effort: Effort | None = None
    offline: Path | None = None


def export_to_device(
    source: Path,
    *,
    device: str,
    options: DeployOptions,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    as_json: bool = False,
) -> str:
    """Deploy what `source` is: a bundle, a folder of bundles, or a recipe, which is exported first.

    out: of a recipe the folder of its export; else where results go. Results lie in <folder>/devices/<device>/<bundle>.
    Returns the table as text or JSON, or what to do with a folder to carry.
    """
    from edgelip.deploy.boards.wanted import wanted_models
    from edgelip.deploy.target import load_device, refuse_precision

    progress = Progress()
    described = load_device(device)
    placed = placement(described, options)
    if options.precision is not None:
        refuse_precision(described, placed.engine, options.precision)
    bundles, results = _bundles_of(source, out, overrides)
    wanted = wanted_models(bundles, placed.engine, options.precision)
    for one in wanted:
        refuse_precision(described, placed.engine, one.precision)
    if options.offline is not None:
        from edgelip.deploy.boards.offline import has_results, read_offline, write_offline

        if not has_results(options.offline):
            script = write_offline(options.offline, wanted, threads=options.threads, effort=options.effort)
            told = {"device": placed.name, "folder": str(options.offline), "script": str(script)}
            todo = f"copy {options.offline} to {placed.name}, run `sh {script.name}` in it, bring it back"
            return json.dumps(told, indent=1) if as_json else f"Next: {todo}, and give this command again."
        return _text(read_offline(options.offline, wanted, device=placed.name, progress=progress), as_json=as_json)
    from edgelip.deploy.boards.deployment import deploy_bundles

    found = deploy_bundles(
        bundles,
        placed,
        out=results,
        precision=options.precision,
        threads=options.threads,
        effort=options.effort,
        progress=progress,
        ssh_config=options.ssh_config,
    )
    return _text(found, as_json=as_json)


def placement(device: Device, options: DeployOptions) -> Placement:
    """The device with what the command line says in place of its description."""
    return Placement(
        name=device.name,
        host=options.host or device.host,
        engine=options.engine or device.engine,
        python=device.python,
    )


def _bundles_of(source: Path, out: Path | None, overrides: Sequence[str]) -> tuple[list[Path], Path]:
    """The bundles that a path stands for, and the folder of their results."""
    if source.is_dir():
        if overrides:
            raise UsageError("--set belongs to a recipe; a bundle is deployed as it is.")
        if (source / "manifest.json").is_file():
            return [source], out or source.resolve().parent / DEVICES
        return _bundles_in(source), out or source / DEVICES
    if source.suffix != ".toml":
        raise UsageError(f"{source} is no recipe, no bundle and no folder of bundles. `edgelip export` makes bundles.")
    from edgelip.cli.export import export_recipe, output_folder
    from edgelip.recipe import load_recipe

    export_recipe(source, overrides=overrides, out=out, as_json=False, dry_run=False)
    folder = output_folder(load_recipe(source, overrides=overrides), out)
    return _bundles_in(folder), folder / DEVICES


def _bundles_in(folder: Path) -> list[Path]:
    found = sorted(path.parent for path in folder.glob("*/manifest.json"))
    if not found:
        raise UsageError(f"{folder} holds no bundle; expected folders with manifest.json in it.")
    return found


def _text(results: Sequence[DeviceResult], *, as_json: bool) -> str:
    from edgelip.deploy.boards.results import results_table

    return json.dumps([result.to_json() for result in results], indent=1) if as_json else results_table(results)
