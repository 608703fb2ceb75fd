"""Isolated signs: the strong small network beside the tutorial's linear baseline, over seeds, by their deployed files.

    python benchmarks/signs.py --seeds 0 1 --out runs/signs --check
    python benchmarks/signs.py --toy --out runs/signs-toy

Both networks are trained on the same clips of export/recipes/signs.toml, the baseline for as many epochs as it gains
from; no signer of the test clips is in training. Accuracy is that of the deployed file in ONNX Runtime. The difference
is paired by clip and seed: 95 % by bootstrap over seeds and signers, McNemar's p exact over all pairs. Words come in
fours that differ in the order of the same frames alone, which a mean over frames cannot tell apart: a second accuracy
takes the four for one. Killed, the same command goes on; processes with different --seeds may share --out, and a last
one with all seeds joins what they made.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import environment, markdown_table
from result_files import exit_code_of, machine_lines, save
from row_outcomes import Outcome, find_outcome, held, make_outcome

from edgelip.bench.statistics import PairedDifference, pooled_accuracy_difference, wilson_interval
from edgelip.cli.measure import clips_file
from edgelip.cli.workshop import Workshop
from edgelip.data.readers.samples import SPLITS
from edgelip.data.stores.store import Store
from edgelip.data.synthetic.signing import ORDERS
from edgelip.errors import GoalMissed, UsageError
from edgelip.progress import Progress
from edgelip.recipe import load_recipe

RECIPE = Path(__file__).parent.parent / "export/recipes/signs.toml"
BASELINE = "baseline"
# SimpleISLR at its best: it trains in seconds, so its rate and epochs were chosen on the validation clips.
BASELINE_SETTINGS = (
    'model={backbone="simple_islr"}',
    "train.epochs=40",
    "train.learning_rate=3e-3",
    f'variant=[{{name="{BASELINE}"}}]',
)
TOY = (
    "model.options={width=16, stages=1, blocks=1, kernel=5, num_heads=2}",
    "data.num_words=8",
    "data.train_clips=64",
    "data.val_clips=16",
    "data.test_clips=24",
    "train.epochs=1",
    "train.batch_size=16",
    "bench.check_clips=2",
)
MIN_GAIN_POINTS, MAX_PARAMETERS, MAX_INT8_MB, MIN_INT8_PCT = 15.0, 2_000_000, 2.5, 80.0
DATA_WAIT_S = 3600.0


@dataclass(frozen=True)
class Row:
    """One variant of a network: its outcomes by seed. orderless_pct: accuracy where words of any order count."""

    name: str
    outcomes: Mapping[int, Outcome]
    orderless_pct: float

    @property
    def example(self) -> Outcome:
        return next(iter(self.outcomes.values()))

    @property
    def right_TN(self) -> np.ndarray:
        return np.stack([self.outcomes[seed].right_N for seed in sorted(self.outcomes)])

    @property
    def file_mb(self) -> float:
        return max(outcome.file_bytes for outcome in self.outcomes.values()) / 1e6

    @property
    def int8_pct(self) -> float:
        return min(outcome.int8_coverage_pct for outcome in self.outcomes.values())


def run(argv: Sequence[str] | None) -> None:
    arguments = parse(argv)
    progress, out = Progress(), arguments.out
    toy = TOY if arguments.toy else ()
    strong = {seed: _shop([*toy, *arguments.overrides], seed, out, progress) for seed in arguments.seeds}
    plain = {
        seed: _shop([*toy, *arguments.overrides, *BASELINE_SETTINGS], seed, out, progress) for seed in arguments.seeds
    }
    first = strong[arguments.seeds[0]]
    with held(out, "data", wait_s=DATA_WAIT_S):
        stores = {split: first.clips.store(split) for split in SPLITS}
        clips_file(first)
    for shop in (first, plain[arguments.seeds[0]]):
        shop.rehearse()
    test = stores["test"]
    rows = {BASELINE: _row(BASELINE, plain, test, out)}
    rows |= {name: _row(name, strong, test, out) for name in first.variants}
    signers_N = np.asarray(test.speakers)
    base = rows[BASELINE].right_TN
    gains = {
        name: pooled_accuracy_difference(row.right_TN, base, speakers_N=signers_N)
        for name, row in rows.items()
        if name != BASELINE
    }
    limits = _limits(rows, gains)
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/signs.py", *(sys.argv[1:] if argv is None else argv)]),
        "seeds": arguments.seeds,
        "train_clips": first.clips.train_line(),
        "test_clips": first.clips.test_line(),
        "environment": environment({name: version(name) for name in ("torch", "onnxruntime", "onnx")}),
    }
    stem = f"signs-seeds-{'-'.join(map(str, arguments.seeds))}"
    numbers = {
        **about,
        "rows": [_row_json(row, gains.get(name)) for name, row in rows.items()],
        "limits": [{"what": what, "measured": text, "met": met} for what, text, met in limits],
    }
    sections = _sections(rows, gains, limits, about)
    save(out, stem, numbers=numbers, sections=sections)
    print("\n\n".join(sections))
    missed = [what for what, _, met in limits if not met]
    if arguments.check and missed:
        raise GoalMissed(f"{len(missed)} limits are missed: {'; '.join(missed)}.")


def _shop(overrides: Sequence[str], seed: int, out: Path, progress: Progress) -> Workshop:
    return Workshop(load_recipe(RECIPE, overrides=[*overrides, f"train.seed={seed}"]), out, progress)


def _row(name: str, shops: Mapping[int, Workshop], test: Store, out: Path) -> Row:
    """The outcomes of every seed, made where they are not there yet."""
    outcomes = {}
    for seed, shop in shops.items():
        found = find_outcome(shop, name)
        if found is None:
            with held(out, f"seed-{seed}", wait_s=0):
                shop.progress.say(f"{name}, seed {seed}")
                found = make_outcome(shop, name)
        outcomes[seed] = found
    signs_V, labels_N = np.array(without_order(test.words)), np.asarray(test.labels)
    shares = [np.mean(signs_V[list(each.words)] == signs_V[labels_N]) for each in outcomes.values()]
    return Row(name, outcomes, 100 * float(np.mean(shares)))


def without_order(words: Sequence[str]) -> list[str]:
    """Words such as "flat-chin-circle-out-back" without the order at their end."""
    longest_first = sorted(ORDERS, key=len, reverse=True)
    orders = [next(order for order in longest_first if word.endswith(f"-{order}")) for word in words]
    return [word.removesuffix(f"-{order}") for word, order in zip(words, orders, strict=True)]


def _limits(rows: Mapping[str, Row], gains: Mapping[str, PairedDifference]) -> list[tuple[str, str, bool]]:
    """What is asked, what was measured, whether it is met. Verdicts on accuracy are those of the mean."""
    found = []
    for name, gain in gains.items():
        row = rows[name]
        asked = f"{name}: points above the {BASELINE} >= {MIN_GAIN_POINTS:g}"
        found.append((asked, _points(gain), 100 * gain.value >= MIN_GAIN_POINTS))
        parameters = row.example.parameters
        found.append((f"{name}: parameters <= {MAX_PARAMETERS:,}", f"{parameters:,}", parameters <= MAX_PARAMETERS))
        if row.example.precision == "int8":
            size, share = row.file_mb, row.int8_pct
            found.append((f"{name}: int8 file <= {MAX_INT8_MB:g} MB", f"{size:.2f} MB", size <= MAX_INT8_MB))
            found.append((f"{name}: int8 share >= {MIN_INT8_PCT:g} %", f"{share:.1f} %", share >= MIN_INT8_PCT))
    return found


def _points(gain: PairedDifference) -> str:
    return f"{100 * gain.value:.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"


def _sections(
    rows: Mapping[str, Row],
    gains: Mapping[str, PairedDifference],
    limits: Sequence[tuple[str, str, bool]],
    about: Mapping[str, Any],
) -> list[str]:
    head = ["network", "method", "parameters", "GMAC", "file, MB", "int8, %", "top-1, % (Wilson 95 %)", "by seed"]
    head += ["order left out, %", f"points above the {BASELINE}", "p"]
    verdicts = [[what, text, "pass" if met else "MISS"] for what, text, met in limits]
    return [
        f"# Signs: {about['date']}",
        markdown_table(["limit", "measured", ""], verdicts),
        markdown_table(head, [_cells(row, gains.get(name)) for name, row in rows.items()]),
        "Accuracy: of the deployed file in ONNX Runtime, all seeds together; Wilson's interval takes their clips as "
        "independent. Points: paired, 95 % by bootstrap over seeds and signers, McNemar's p exact over all pairs. "
        "Order left out: words that differ in the order of the same frames count as one; a mean over frames can tell "
        "no more. Synthetic signs say nothing of accuracy on people.",
        f"Training clips: {about['train_clips']}. Test clips: {about['test_clips']}.",
        f"`{about['command']}`",
        machine_lines(about["environment"]),
    ]


def _cells(row: Row, gain: PairedDifference | None) -> list[str]:
    right_TN, example = row.right_TN, row.example
    pooled = wilson_interval(int(right_TN.sum()), right_TN.size)
    return [
        row.name,
        example.method,
        f"{example.parameters:,}",
        f"{example.macs / 1e9:.4f}",
        f"{row.file_mb:.2f}",
        f"{row.int8_pct:.1f}",
        f"{100 * pooled.value:.1f} [{100 * pooled.low:.1f}, {100 * pooled.high:.1f}]",
        ", ".join(f"{100 * share:.1f}" for share in right_TN.mean(axis=1)),
        f"{row.orderless_pct:.1f}",
        "-" if gain is None else _points(gain),
        "-" if gain is None else "< 0.001" if gain.p < 0.001 else f"{gain.p:.3f}",
    ]


def _row_json(row: Row, gain: PairedDifference | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "method": row.example.method,
        "precision": row.example.precision,
        "parameters": row.example.parameters,
        "macs": row.example.macs,
        "file_mb": row.file_mb,
        "int8_coverage_pct": row.int8_pct,
        "top1_pct": {seed: 100 * float(outcome.right_N.mean()) for seed, outcome in row.outcomes.items()},
        "orderless_pct": row.orderless_pct,
        "gain_points": None if gain is None else [100 * gain.value, 100 * gain.low, 100 * gain.high],
        "mcnemar_p": None if gain is None else gain.p,
        "bundle_sha256": {seed: outcome.bundle_sha256 for seed, outcome in row.outcomes.items()},
        "right": {seed: "".join("01"[hit] for hit in outcome.right) for seed, outcome in row.outcomes.items()},
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs/signs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--toy", action="store_true", help="a minute's proof that everything runs; accuracy means nothing"
    )
    parser.add_argument("--check", action="store_true", help="exit 3 if a limit is missed")
    arguments = parser.parse_args(argv)
    if len({*arguments.seeds}) < len(arguments.seeds):
        raise UsageError(f"--seeds {arguments.seeds} name a seed twice. Give each once.")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return exit_code_of(run, argv, name="signs")


if __name__ == "__main__":
    sys.exit(main())
