"""The verbs that measure bundles and report on them; each imports only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelip.cli.arguments import AsJson
from edgelip.errors import UsageError


def bench(
    bundles: Annotated[
        list[Path], typer.Argument(help="Bundles (folders), ratios are to the first; with --report folders of exports.")
    ],
    engine: Annotated[Optional[str], typer.Option(help="Inference engine; default ort, of a device its own.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="Default the first that the engine takes.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    launches: Annotated[int, typer.Option(min=1, help="Fresh processes a bundle.")] = 5,
    seconds: Annotated[float, typer.Option(min=0, help="Of steady running in each launch.")] = 3.0,
    predict_: Annotated[
        Optional[str],
        typer.Option("--predict", metavar="DEVICE", help="Run nothing: what its datasheet allows at best."),
    ] = None,
    report: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER", help="Time all bundles of these exports in one sitting; their joint table there."
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Of one bundle: the time of each layer, and what limits it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure bundles side by side on this machine, or say what the datasheet of a device allows."""
    if layers:
        from edgelip.cli.bench_layers import layers_text

        if len(bundles) > 1 or predict_ is not None or report is not None:
            raise UsageError("--layers takes one BUNDLE, and neither --predict nor --report.")
        typer.echo(
            layers_text(bundles[0], engine=engine or "ort", precision=precision, threads=threads, as_json=as_json)
        )
        return
    if report is not None:
        from edgelip.cli.bench_exports import bench_exports

        if predict_ is not None or precision is not None:
            raise UsageError("--predict and --precision take bundles; --report takes exports as they were measured.")
        table = bench_exports(
            bundles, out=report, engine=engine, threads=threads, launches=launches, seconds=seconds, as_json=as_json
        )
        typer.echo(table)
        return
    if predict_ is not None:
        from edgelip.cli.predict_latency import roofline_text

        if len(bundles) > 1:
            raise UsageError(f"--predict takes one BUNDLE; got {len(bundles)}.")
        typer.echo(roofline_text(bundles[0], predict_, engine=engine, precision=precision, as_json=as_json))
        return
    from edgelip.cli.bench_bundles import bench_text

    text = bench_text(
        bundles,
        engine=engine or "ort",
        precision=precision,
        threads=threads,
        launches=launches,
        seconds=seconds,
        as_json=as_json,
    )
    typer.echo(text)


def blame(
    reference: Annotated[Path, typer.Argument(help="A: the bundle before compression, in float.")],
    suspect: Annotated[Path, typer.Argument(help="B: the bundle that lost.")],
    clips: Annotated[
        Optional[Path], typer.Option(help="An .npz of frames, labels; default the test clips of their export.")
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Folder of the result; default blame-A-B beside B.")
    ] = None,
    precision: Annotated[Optional[str], typer.Option(help="Of B's file; default the first that ort takes.")] = None,
    minutes: Annotated[
        Optional[float], typer.Option(min=0, help="Time for the layers; the same command goes on later.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    together: Annotated[int, typer.Option(min=1, help="Largest number of layers to put back at once.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Find the layers, words and clips by which one bundle loses against another."""
    from edgelip.cli.blame import BlameOptions, blame_bundles

    options = BlameOptions(clips, out, precision, minutes, threads, together)
    typer.echo(blame_bundles(reference, suspect, options, as_json=as_json))


def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of exports, holding tradeoff.json; several give one table.")
    ] = [Path("export/dist")],  # noqa: B006
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Of several: folder of the joint table; default, print only.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the trade-off table of an export again and write its files anew, or one table of several exports."""
    from edgelip.cli.measure import report_folders

    typer.echo(report_folders(folders, out=out, as_json=as_json))
