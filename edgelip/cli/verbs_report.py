"""The verbs that read results; each imports only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelip.cli.arguments import AsJson

Device = Annotated[Optional[str], typer.Option(help="Only what was measured on it, as results name it.")]


def report(
    folders: Annotated[
        Optional[list[Path]],
        typer.Argument(
            help="Exports, sittings, or folders of sittings (the newest finished one); several give one table. Default "
            "benchmarks/runs, or export/dist if that holds no sitting."
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Folder of the files; default the results' own, of several: print only."),
    ] = None,
    device: Device = None,
    since: Annotated[
        Optional[str],
        typer.Option(metavar="DAY", help="How figures moved over sittings: from 2026-11-01 on, or of 30 days."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the trade-off table of what was measured, and write it, its plot and its page; or how figures drifted."""
    from edgelip.cli.report import report_drift, report_folders

    if since is not None:
        typer.echo(report_drift(folders or [], since=since, out=out, device=device, as_json=as_json), nl=False)
        return
    typer.echo(report_folders(folders or [], out=out, device=device, as_json=as_json), nl=False)


def pick(
    folder: Annotated[
        Optional[Path], typer.Argument(help="An export, a sitting, or a folder of sittings; default as of report.")
    ] = None,
    device: Device = None,
    engine: Annotated[Optional[str], typer.Option(help="Only what ran on this engine.")] = None,
    max_latency_p50: Annotated[Optional[str], typer.Option(metavar="TIME", help="Such as 40ms, of one clip.")] = None,
    max_latency_p90: Annotated[Optional[str], typer.Option(metavar="TIME", help="Such as 40ms, of one clip.")] = None,
    max_bytes: Annotated[Optional[str], typer.Option(metavar="SIZE", help="Of the model file, such as 4MB.")] = None,
    max_memory: Annotated[Optional[str], typer.Option(metavar="SIZE", help="Peak of the process: 100MiB.")] = None,
    max_energy: Annotated[Optional[str], typer.Option(metavar="ENERGY", help="Gross, of one clip: 20mJ.")] = None,
    max_miss: Annotated[Optional[str], typer.Option(metavar="SHARE", help="Deadlines missed in streaming: 1%.")] = None,
    min_top1: Annotated[Optional[str], typer.Option(metavar="SHARE", help="Word accuracy: 86%.")] = None,
    min_robust: Annotated[
        Optional[str], typer.Option(metavar="SHARE", help="Lowest word accuracy over the disturbances.")
    ] = None,
    judge_by: Annotated[
        str,
        typer.Option(metavar="bound|value", help="Pessimistic end of each 95 % interval, or the measured value."),
    ] = "bound",
    allow_invalid: Annotated[bool, typer.Option("--allow-invalid", help="Also rows whose badge is not VALID.")] = False,
    as_json: AsJson = False,
) -> None:
    """Name the best variant under limits, why, and the runner-up; exit 3 if none fits, with what excluded each."""
    from edgelip.cli.pick import pick_variant

    limits = {
        "--max-latency-p50": max_latency_p50,
        "--max-latency-p90": max_latency_p90,
        "--max-bytes": max_bytes,
        "--max-memory": max_memory,
        "--max-energy": max_energy,
        "--max-miss": max_miss,
        "--min-top1": min_top1,
        "--min-robust": min_robust,
    }
    text, missed = pick_variant(
        folder,
        limits,
        device=device,
        engine=engine,
        judge_by=judge_by,
        allow_invalid=allow_invalid,
        as_json=as_json,
    )
    typer.echo(text, nl=False)
    if missed is not None:
        raise missed
