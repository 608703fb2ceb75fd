"""The verbs that measure bundles; each imports only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelip.cli.arguments import AsJson
from edgelip.errors import UsageError


def bench(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="SUITE.toml|BUNDLES",
            help="A suite, as in benchmarks/suites/; or bundles (folders), ratios are to the first; with --report "
            "folders of exports.",
        ),
    ],
    engine: Annotated[Optional[str], typer.Option(help="Inference engine; default ort, of a device its own.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="Default the first that the engine takes.")] = None,
    threads: Annotated[Optional[int], typer.Option(min=1, help="Processor threads; default 1.")] = None,
    launches: Annotated[Optional[int], typer.Option(min=1, help="Fresh processes a bundle; default 5.")] = None,
    seconds: Annotated[
        Optional[float], typer.Option(min=0, help="Of steady running in each launch; default 3.")
    ] = None,
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
    tier: Annotated[
        Optional[str], typer.Option(help="Of a suite: quick, standard or full (MLPerf-style); default quick.")
    ] = None,
    device: Annotated[
        Optional[str], typer.Option(help="Of a suite: a name of export/devices/; over ssh unless this machine is one.")
    ] = None,
    host: Annotated[Optional[str], typer.Option(help="With --device: ssh host; default the description's.")] = None,
    ssh_config: Annotated[Optional[Path], typer.Option(help="With --device: instead of ~/.ssh/config.")] = None,
    only: Annotated[
        list[str], typer.Option(metavar="VARIANT", help="Of a suite: this one beside the first; repeatable.")
    ] = [],  # noqa: B006
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Of a suite: folder of sittings; default benchmarks/runs.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Of a suite: go on with the newest unfinished one.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Of a suite: exit 6 unless every row is VALID.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of a suite: print its rows and how long they take, measure nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a suite, or bundles side by side on this machine, or say what the datasheet of a device allows."""
    if bundles[0].suffix == ".toml":
        from edgelip.cli.bench_suite import SuiteOptions, bench_suite

        if (
            len(bundles) > 1
            or layers
            or (report, predict_, engine, precision, threads, launches, seconds) != (None,) * 7
        ):
            raise UsageError(
                "A SUITE.toml stands alone and says its engines, threads, launches and seconds itself; leave out other "
                "bundles, --layers, --report, --predict, --engine, --precision, --threads, --launches and --seconds."
            )
        given = {"tier": tier, "device": device, "host": host, "ssh_config": ssh_config, "out": out}
        chosen = {name: value for name, value in given.items() if value is not None}
        options = SuiteOptions(**chosen, only=tuple(only), resume=resume, strict=strict, dry_run=dry_run)  # type: ignore[arg-type]
        done = bench_suite(bundles[0], options, as_json=as_json)
        typer.echo(done.text)
        if done.error is not None:
            raise done.error
        return
    if (tier, device, host, ssh_config, out) != (None,) * 5 or only or resume or strict or dry_run:
        raise UsageError(
            "--tier, --device, --host, --ssh-config, --only, --out, --resume, --strict and --dry-run belong to a "
            f"SUITE.toml; got {bundles[0]}. `edgelip export BUNDLE --device NAME` measures a bundle on a board."
        )
    threads, launches, seconds = threads or 1, launches or 5, 3.0 if seconds is None else seconds
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


def compare(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles (folders): A, and what is compared with it.")],
    engine: Annotated[str, typer.Option(help="Inference engine.")] = "ort",
    precision: Annotated[Optional[str], typer.Option(help="Default the first that the engine takes.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    pairs: Annotated[int, typer.Option(help="Launches of A and B side by side, 5 or more.")] = 7,
    blocks: Annotated[int, typer.Option(help="Of each pair, ABBA or BAAB, 10 or more.")] = 10,
    window_ms: Annotated[float, typer.Option(help="Length of each of a block's four windows.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Draws the orders.")] = 0,
    least: Annotated[float, typer.Option(metavar="PERCENT", help="Smaller effects are no verdict.")] = 2.0,
    clips: Annotated[
        Optional[Path], typer.Option(help="An .npz of frames, labels; default the test clips of their export.")
    ] = None,
    budget: Annotated[
        Optional[float], typer.Option(metavar="POINTS", help="Exit 3 unless the drop in top-1 is surely smaller.")
    ] = None,
    no_accuracy: Annotated[bool, typer.Option("--no-accuracy", help="Time them only.")] = False,
    control: Annotated[
        Optional[int],
        typer.Option(min=1, metavar="N", help="Compare one bundle with itself N times: how often does that alarm?"),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Folder of the result; default a new one in benchmarks/runs.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 6 unless the evidence is valid.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether bundles are faster, slower or less accurate than the first, and how sure that is."""
    from edgelip.bench.compare import Effort
    from edgelip.cli.compare import CompareOptions, compare_bundles

    options = CompareOptions(
        engine=engine,
        precision=precision,
        threads=threads,
        effort=Effort(pairs=pairs, blocks=blocks, window_ms=window_ms, seed=seed),
        least_pct=least,
        clips=clips,
        accuracy=not no_accuracy and control is None,
        budget_points=budget,
        out=out,
        strict=strict,
    )
    if control is not None:
        from edgelip.cli.compare_control import control_run

        if len(bundles) > 1:
            raise UsageError(f"--control takes one BUNDLE; got {len(bundles)}.")
        outcome = control_run(bundles[0], options, num_comparisons=control, as_json=as_json)
    else:
        if len(bundles) < 2:
            raise UsageError("compare takes two BUNDLES or more, the first is A; or one and --control N.")
        outcome = compare_bundles(bundles, options, as_json=as_json)
    typer.echo(outcome.text)
    if outcome.error is not None:
        raise outcome.error


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
