"""The verbs of the command line; each imports only what it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

app = typer.Typer(
    name="edgelip",
    help="Train, compress, export and measure lip-reading word classifiers for edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Clips: what goes into a classifier.", no_args_is_help=True)
app.add_typer(data, name="data")

RecipePath = Annotated[Path, typer.Argument(help="A TOML recipe, as in export/recipes/.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def export(
    recipe: RecipePath,
    set_: Overrides = [],  # noqa: B006  (typer copies it)
    out: Annotated[Optional[Path], typer.Option(help="Folder of the bundles and the table.")] = None,
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, make nothing.")] = False,
) -> None:
    """Turn a recipe into checked bundles and a trade-off table."""
    from edgelip.cli.export import export_recipe

    typer.echo(export_recipe(recipe, overrides=set_, out=out, as_json=as_json, dry_run=dry_run))


@app.command()
def train(
    recipe: RecipePath,
    set_: Overrides = [],  # noqa: B006
    out: Annotated[Optional[Path], typer.Option(help="Folder of the export that goes on from here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train the dense classifier of a recipe; `edgelip export` then goes on from it."""
    from edgelip.cli.train import train_recipe

    typer.echo(train_recipe(recipe, overrides=set_, out=out, as_json=as_json))


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    clip: Annotated[Optional[Path], typer.Argument(help="Video of a mouth ROI, or .npz/.npy of uint8 frames.")] = None,
    frames: Annotated[Optional[str], typer.Option(metavar="FIRST:LAST", help="Frames of the word, inclusive.")] = None,
    spans: Annotated[Optional[Path], typer.Option(help="CSV of spans, one row a word, instead of CLIP.")] = None,
    root: Annotated[Optional[Path], typer.Option(help="Folder of the videos of --spans; default its own.")] = None,
    split: Annotated[Optional[str], typer.Option(help="Only the spans of this split.")] = None,
    category: Annotated[Optional[str], typer.Option(help="Only the spans of this category.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many words to print.")] = 3,
    engine: Annotated[str, typer.Option(help="Inference engine.")] = "ort",
    as_json: AsJson = False,
) -> None:
    """Read the word from a clip, with probabilities."""
    from edgelip.cli.predict import predict_clip, predict_spans
    from edgelip.errors import UsageError

    if (clip is None) == (spans is None):
        raise UsageError("predict needs either a CLIP or --spans CSV, and not both.")
    if spans is not None:
        if frames is not None:
            raise UsageError("--frames belongs to a single CLIP; --spans names the frames of each row.")
        text = predict_spans(
            bundle, spans, root=root, split=split, category=category, top=top, engine=engine, as_json=as_json
        )
    else:
        assert clip is not None
        text = predict_clip(bundle, clip, frames=frames, top=top, engine=engine, as_json=as_json)
    typer.echo(text)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of an export, holding tradeoff.json.")] = Path("export/dist"),
    as_json: AsJson = False,
) -> None:
    """Print the trade-off table of an export again, and write its files anew."""
    from edgelip.cli.measure import report_folder

    typer.echo(report_folder(folder, as_json=as_json))


@app.command("list")
def list_(
    table: Annotated[str, typer.Argument(help="backbones, stages or engines")],
    as_json: AsJson = False,
) -> None:
    """Print the entries of a table."""
    from edgelip.cli.tables import entries

    names: dict[str, Any] = entries(table)
    typer.echo(json.dumps(names, indent=1) if as_json else "\n".join(f"{k:12} {v}" for k, v in names.items()))


@data.command()
def preview(
    recipe: RecipePath,
    set_: Overrides = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("preview.png"),
    split: Annotated[str, typer.Option(help="train, val or test")] = "train",
    clips: Annotated[int, typer.Option(min=1, max=64, help="Number of clips.")] = 10,
) -> None:
    """Write a contact sheet of the recipe's clips: look at what is learnt from."""
    from edgelip.cli.preview import write_preview

    typer.echo(write_preview(recipe, overrides=set_, out=out, split=split, num_clips=clips))
