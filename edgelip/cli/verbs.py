"""The verbs of the command line; each imports only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelip.cli.arguments import AsJson, Overrides, RecipePath
from edgelip.cli.verbs_data import data
from edgelip.cli.verbs_measure import bench, blame, compare
from edgelip.cli.verbs_predict import predict
from edgelip.cli.verbs_report import pick, report
from edgelip.errors import UsageError

app = typer.Typer(
    name="edgelip",
    help="Train, compress, export and measure lip-reading word classifiers for edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")


@app.command()
def export(
    recipe: Annotated[Path, typer.Argument(help="A TOML recipe, as in export/recipes/, or a checkpoint.")],
    set_: Overrides = [],  # noqa: B006  (typer copies it)
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Folder of the bundles and the table; of a checkpoint's bundle."),
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="Name of a checkpoint's bundle; default its folder's.")] = None,
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, make nothing.")] = False,
    sign: Annotated[
        Optional[Path], typer.Option(metavar="KEY.pem", help="Sign every bundle with this ed25519 private key.")
    ] = None,
    device: Annotated[
        Optional[str], typer.Option(help="Deploy there: a name of export/devices/, or a TOML file like those.")
    ] = None,
    host: Annotated[Optional[str], typer.Option(help="With --device: ssh host; default the description's.")] = None,
    ssh_config: Annotated[Optional[Path], typer.Option(help="With --device: instead of ~/.ssh/config.")] = None,
    engine: Annotated[Optional[str], typer.Option(help="With --device: default the description's.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="With --device: default the first it takes.")] = None,
    offline: Annotated[
        Optional[Path], typer.Option(metavar="FOLDER", help="With --device: a folder to carry there, and its results.")
    ] = None,
) -> None:
    """Turn a recipe into checked bundles and a trade-off table, or a checkpoint into one checked bundle."""
    if device is not None:
        from edgelip.cli.deploy_device import DeployOptions, export_to_device

        if name is not None or dry_run or sign is not None:
            raise UsageError("--name, --dry-run and --sign belong to an export without --device.")
        options = DeployOptions(host=host, ssh_config=ssh_config, engine=engine, precision=precision, offline=offline)
        typer.echo(export_to_device(recipe, device=device, options=options, out=out, overrides=set_, as_json=as_json))
        return
    if (host, ssh_config, engine, precision, offline) != (None, None, None, None, None):
        raise UsageError("--host, --ssh-config, --engine, --precision and --offline belong to --device NAME.")
    from edgelip.models.checkpoint_files import is_checkpoint

    if is_checkpoint(recipe) or recipe.suffix == ".safetensors":
        from edgelip.cli.export_checkpoint import export_checkpoint

        if set_ or dry_run:
            raise UsageError("--set and --dry-run belong to a recipe; a checkpoint is exported as it is.")
        typer.echo(export_checkpoint(recipe, out=out, name=name, as_json=as_json, sign=sign))
        return
    if recipe.suffix in (".pth", ".pt", ".tar", ".ckpt"):
        raise UsageError(
            f"{recipe} is neither a recipe nor a checkpoint of edgelip. `edgelip import {recipe} -o OUT` makes one "
            "of a published file."
        )
    from edgelip.cli.export import export_recipe

    if name is not None:
        raise UsageError("--name belongs to a checkpoint; a recipe names its variants.")
    typer.echo(export_recipe(recipe, overrides=set_, out=out, as_json=as_json, dry_run=dry_run, sign=sign))


@app.command()
def train(
    recipe: RecipePath,
    set_: Overrides = [],  # noqa: B006
    from_: Annotated[
        Optional[Path],
        typer.Option("--from", metavar="CHECKPOINT", help="Go on from it; short for --set train.start=CHECKPOINT."),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder of the result, in runs/, and of the export that goes on from here.")
    ] = None,
    save: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Write the checkpoint there too, as one file of its own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the dense classifier of a recipe; `edgelip export` then goes on from it."""
    from edgelip.cli.train import train_recipe

    typer.echo(train_recipe(recipe, overrides=set_, out=out, as_json=as_json, start=from_, save=save))


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="Published checkpoint: .pth, .pth.tar or Lightning .ckpt.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write.")],
    family: Annotated[Optional[str], typer.Option(help="vsr_phm, mpc001 or eflip; default by its tensors.")] = None,
    config: Annotated[Optional[Path], typer.Option(help="JSON that came with it; says relu or swish.")] = None,
    words: Annotated[Optional[Path], typer.Option(help="UTF-8 text, one word a line in label order.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged parameters (eflip).")] = False,
    corrected: Annotated[
        bool, typer.Option("--corrected", help="Without the published defects that change results.")
    ] = False,
    without_optimiser: Annotated[bool, typer.Option("--without-optimiser", help="Take the weights alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a published lip-reading checkpoint, running nothing in it, and write it as one of edgelip's."""
    from edgelip.cli.import_checkpoint import import_checkpoint

    text = import_checkpoint(
        checkpoint,
        out=out,
        family=family,
        config=config,
        words=words,
        averaged=ema,
        corrected=corrected,
        keep_optimiser=not without_optimiser,
        as_json=as_json,
    )
    typer.echo(text)


@app.command()
def pack(
    bundle: Annotated[Path, typer.Argument(help="A bundle (folder).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="FILE.pyz, or a folder to make.")],
    wheel: Annotated[
        list[Path], typer.Option(help="Wheel for the device to put into the folder, such as numpy's; repeatable.")
    ] = [],  # noqa: B006
    with_engines: Annotated[
        bool, typer.Option("--with-engines", help="Take the built engines of the bundle along.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make one file or folder of a bundle and all that runs it, for a device without pip and network."""
    from edgelip.cli.pack import pack_bundle

    typer.echo(pack_bundle(bundle, out=out, wheels=wheel, with_engines=with_engines, as_json=as_json))


for verb in (predict, bench, compare, blame, report, pick):
    app.command()(verb)


@app.command("list")
def list_(
    table: Annotated[str, typer.Argument(help="backbones, stages, engines or devices")],
    as_json: AsJson = False,
) -> None:
    """Print the entries of a table."""
    from edgelip.cli.tables import table_text

    typer.echo(table_text(table, as_json=as_json))


@app.command()
def doctor(
    device: Annotated[Optional[str], typer.Option(help="Also look at that device, over ssh.")] = None,
    host: Annotated[Optional[str], typer.Option(help="With --device: ssh host; default the description's.")] = None,
    ssh_config: Annotated[Optional[Path], typer.Option(help="With --device: instead of ~/.ssh/config.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is here, what is missing and the command that mends it; install nothing."""
    from edgelip.cli.deploy_device import DeployOptions
    from edgelip.cli.doctor import diagnose

    diagnosis = diagnose(device=device, options=DeployOptions(host=host, ssh_config=ssh_config), as_json=as_json)
    typer.echo(diagnosis.text)
    raise typer.Exit(diagnosis.exit_code)
