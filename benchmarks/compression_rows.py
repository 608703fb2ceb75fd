"""Accuracy rows of compressed variants over seeds: what each step costs in points, paired, by the deployed file.

    python benchmarks/compression_rows.py benchmarks/suites/compression_small.toml --seeds 0 1 2 --out runs/small
    python benchmarks/compression_rows.py SUITE --dense runs/*/model.safetensors --latency 1 2 --check

A suite (row_suites.py) names a recipe, variants and limits. Every seed trains the dense network and goes through the
stages of each variant as `edgelip export` does; the data are rendered once. Accuracy is that of the deployed file in
ONNX Runtime on the recipe's test split. Drops are paired by clip and seed: mean, 95 % by bootstrap over seeds and
speakers, McNemar's p exact over all pairs. --latency launches the bundles of the first seed in fresh processes,
taking turns, once for each number of threads. Killed, the same command goes on; processes with different --seeds may
share --out, and a last one with all seeds joins what they made. A variant that fails is reported, the others go on.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from interleaved import environment
from row_latency import measure_latency, read_latency
from row_outcomes import find_outcome, held, make_outcome, take_dense, trained_by
from row_suites import Suite, load_suite
from row_tables import Rows, write_tables

from edgelip.cli.measure import clips_file
from edgelip.cli.workshop import Workshop
from edgelip.data.readers.samples import SPLITS
from edgelip.errors import EdgelipError, GoalMissed, UsageError
from edgelip.progress import Progress

DATA_WAIT_S = 3600.0


def run(argv: Sequence[str] | None) -> None:
    arguments = parse(argv)
    progress = Progress()
    suite = load_suite(arguments.suite, overrides=arguments.overrides, only=arguments.only)
    shops = {seed: Workshop(suite.recipe_of(seed), arguments.out, progress) for seed in arguments.seeds}
    for path in arguments.dense:
        seed = trained_by(path)["seed"]
        if seed not in shops:
            raise UsageError(f"{path} was trained with seed {seed}; --seeds are {arguments.seeds}. Leave it out.")
        take_dense(shops[int(str(seed))], path)
    first = shops[arguments.seeds[0]]
    with held(arguments.out, "data", wait_s=DATA_WAIT_S):
        stores = {split: first.clips.store(split) for split in SPLITS}
        clips_file(first)
    speakers_N = np.asarray(stores["test"].speakers)
    first.rehearse()
    about = {
        "suite": suite.name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/compression_rows.py", *(sys.argv[1:] if argv is None else argv)]),
        "test_clips": first.clips.test_line(),
        "environment": environment({name: version(name) for name in ("torch", "onnxruntime", "onnx")}),
    }
    failed: dict[str, str] = {}

    def rows() -> Rows:
        found = [find_outcome(shop, name) for name in suite.variants for shop in shops.values()]
        outcomes = [outcome for outcome in found if outcome is not None]
        return Rows(suite, outcomes, speakers_N, read_latency(arguments.out, outcomes), failed, about)

    make_rows(suite, shops, failed, arguments.out, lambda: write_tables(rows(), arguments.out, arguments.seeds))
    if arguments.latency:
        bundles = [first.bundle(name) for name in suite.variants if find_outcome(first, name) is not None]
        for threads in arguments.latency:
            measure_latency(
                bundles,
                arguments.out,
                threads=threads,
                launches=arguments.launches,
                seconds=arguments.seconds,
                progress=progress,
            )
    text, missed = write_tables(rows(), arguments.out, arguments.seeds)
    print(text)
    if failed:
        raise EdgelipError(f"{len(failed)} rows failed: {'; '.join(f'{row}: {why}' for row, why in failed.items())}")
    if arguments.check and missed:
        raise GoalMissed(f"{len(missed)} limits are missed or not measured: {'; '.join(missed)}.")


def make_rows(
    suite: Suite, shops: Mapping[int, Workshop], failed: dict[str, str], out: Path, write: Callable[[], object]
) -> None:
    """Every variant of every seed that is not there yet; `write` is called after each."""
    todo = [(seed, name) for seed, shop in shops.items() for name in suite.variants if find_outcome(shop, name) is None]
    began = time.monotonic()
    for number, (seed, name) in enumerate(todo):
        shop = shops[seed]
        rate = _rate_text(number, len(todo), time.monotonic() - began)
        shop.progress.say(f"row {number + 1}/{len(todo)}: {name}, seed {seed}{rate}")
        try:
            with held(out, f"seed-{seed}", wait_s=0):
                make_outcome(shop, name)
        except EdgelipError as error:
            failed[f"{name}, seed {seed}"] = str(error)
            shop.progress.say(f"FAILED: {error}")
        write()


def _rate_text(done: int, total: int, seconds: float) -> str:
    if not done:
        return ""
    return f", {3600 * done / seconds:.1f} rows/h, {seconds / done * (total - done) / 60:.0f} min left"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="TOML, as in benchmarks/suites/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="default: runs/SUITE")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="these, beside the first")
    parser.add_argument("--dense", type=Path, nargs="+", default=[], help="trained checkpoints; each knows its seed")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--latency", type=int, nargs="+", default=[], metavar="THREADS", help="measure it, on so many")
    parser.add_argument("--launches", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of steady running in each launch")
    parser.add_argument("--check", action="store_true", help="exit 3 if a limit is missed or not measured")
    arguments = parser.parse_args(argv)
    if len({*arguments.seeds}) < len(arguments.seeds):
        raise UsageError(f"--seeds {arguments.seeds} name a seed twice. Give each once.")
    arguments.out = arguments.out or Path("runs") / arguments.suite.stem
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        run(argv)
    except EdgelipError as error:
        print(f"compression_rows: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
