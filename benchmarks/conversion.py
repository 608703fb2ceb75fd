"""From a trained dense network to PHM: the nearest Kronecker sum against fresh factors, the same distillation for both.

    python benchmarks/conversion.py --dense trained.safetensors --stores export/dist --tune-clips 4000 --epochs 1
    python benchmarks/conversion.py --dense a.safetensors b.safetensors c.safetensors --stores export/dist

Each run is one seed (fresh factors, order of the clips) on one of the dense checkpoints in turn. For every n and start
the same convolutions become PHM, those that the rule of stage `phm` takes at the largest n, and are tuned after the
dense network. Starts: random, nearest, and nearest after the search for a better order of channels. Accuracy is that of
torch on the test split, weights folded, the same clips for all; p is McNemar's, exact. A row that is done is kept in
OUT/rows, and a second call goes on. --stores: a folder that an export of the recipe wrote, whose clips are taken.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import environment, markdown_table
from result_files import exit_code_of, machine_lines, save
from torch import nn

from edgelip.bench.statistics import pooled_accuracy_difference
from edgelip.cache import Cache
from edgelip.cli.clip_source import ClipSource
from edgelip.cli.schedule import schedule_from
from edgelip.compress.phm_choice import pays
from edgelip.compress.phm_layers import convolutions
from edgelip.compress.pipeline import model_from_checkpoint, stage_from_config
from edgelip.compress.sensitivity import logits_of
from edgelip.compress.stage import FineTuning, LabelledClips, Tools
from edgelip.data.stores.store import Store
from edgelip.errors import UsageError
from edgelip.files import write_atomic
from edgelip.models.checkpoint import load_checkpoint
from edgelip.models.hypercomplex import densified
from edgelip.progress import Progress
from edgelip.recipe import Recipe, load_recipe
from edgelip.runtime.clip import network_input
from edgelip.train.fit import fit
from edgelip.train.losses import Distillation

ROOT = Path(__file__).parent.parent
STARTS: dict[str, dict[str, Any]] = {
    "random": {"start": "random"},
    "nearest": {"start": "nearest"},
    "nearest, permuted": {"start": "nearest", "permute": True},
}
READ_AT_ONCE = 250


def right_clips(model: nn.Module, store: Store) -> np.ndarray:
    """Which clips of a store a network gets right (N,)."""
    dense, right = densified(model).eval(), []
    for first in range(0, len(store), READ_AT_ONCE):
        frames = np.ascontiguousarray(store.frames[first : first + READ_AT_ONCE])
        logits = logits_of(dense, torch.from_numpy(network_input(frames, store.spec)))
        right.append(logits.argmax(dim=1).numpy() == store.labels[first : first + READ_AT_ONCE])
    return np.concatenate(right)


def tools_for(recipe: Recipe, clips: ClipSource, *, seed: int) -> Tools:
    """Fine-tuning as `edgelip export` does it, with another seed."""
    section = recipe.train.model_copy(update={"seed": seed})

    def finetune(student: nn.Module, *, teacher: nn.Module, tuning: FineTuning, train_norms: bool) -> nn.Module:
        with tempfile.TemporaryDirectory(prefix="edgelip-conversion-") as folder:
            schedule = schedule_from(
                section,
                epochs=tuning.epochs,
                rate=tuning.learning_rate,
                train_norms=train_norms,
                clips_per_epoch=tuning.clips_per_epoch,
            )
            return fit(
                student,
                train=clips.store("train"),
                val=clips.store("val"),
                spec=clips.spec,
                schedule=schedule,
                workspace=Path(folder),
                progress=Progress(),
                name="distil",
                teacher=teacher,
                distillation=Distillation(tuning.distil_weight, tuning.temperature),
            ).model

    def nothing() -> LabelledClips:
        """The order of channels is chosen by weights alone; a sha256 says that this is no rehearsal."""
        return LabelledClips(torch.empty(0), torch.empty(0), sha256="none")

    return Tools(finetune=finetune, calibration=nothing, probe=nothing)


def convert(dense: nn.Module, fields: Mapping[str, Any], tools: Tools, *, seed: int, test: Store) -> dict[str, Any]:
    """One row: accuracy before and after the distillation, and what was tuned on what."""
    torch.manual_seed(seed)
    begun = time.monotonic()
    untuned: list[np.ndarray] = []

    def finetune(student: nn.Module, **how: Any) -> nn.Module:
        untuned.append(right_clips(student, test))
        return tools.finetune(student, **how)

    tuned, record = stage_from_config(fields).apply(dense, Tools(finetune, tools.calibration, tools.probe))
    energy = record.get("energy", {})
    return {
        "untuned_right": packed(untuned[0]),
        "right": packed(right_clips(tuned, test)),
        "energy_kept": float(np.mean(list(energy.values()))) if energy else None,
        "layers": len(record["layers"]),
        "seconds": round(time.monotonic() - begun, 1),
    }


def packed(right_N: np.ndarray) -> str:
    return "".join("1" if hit else "0" for hit in right_N)


def unpacked(text: str) -> np.ndarray:
    return np.array([character == "1" for character in text])


def kept_row(path: Path, identity: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row read from `path` if it is of the same settings, else made and written there."""
    if path.is_file():
        row: dict[str, Any] = json.loads(path.read_text())
        if row["identity"] == identity:
            return row
    row = {"identity": dict(identity), **make()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(row) + "\n")
    return row


def chosen_layers(model: nn.Module, sizes: Sequence[int]) -> list[str]:
    """The convolutions that pay at the largest n, and that every n divides. Raises UsageError if there are none."""
    found = [
        name
        for name, conv in convolutions(model).items()
        if pays(conv, max(sizes)) and all(size % n == 0 for size in conv.weight.shape[:2] for n in sizes)  # type: ignore[operator, union-attr]
    ]
    if not found:
        raise UsageError(f"No convolution of this network is worth PHM at n={max(sizes)}. Take smaller --n.")
    return found


def table(rows: Mapping[tuple[int, int, str], dict[str, Any]], dense_pct: Sequence[float], runs: int) -> str:
    """One line for each n and start: accuracy, and what it gains over fresh factors."""
    head = ["n", "start", "energy kept", "untuned, %", "tuned, %", "gain over random, points (95 %)", "p", "each run"]
    cells = [["dense", "", "1", "", f"{np.mean(dense_pct):.2f}", "", "", ""]]
    for n in sorted({n for _, n, _ in rows}):
        base = np.stack([unpacked(rows[run, n, "random"]["right"]) for run in range(runs)])
        for start in [start for start in STARTS if (0, n, start) in rows]:
            mine = [rows[run, n, start] for run in range(runs)]
            right = np.stack([unpacked(row["right"]) for row in mine])
            untuned = np.mean([unpacked(row["untuned_right"]).mean() for row in mine])
            energy = mine[0]["energy_kept"]
            line = [str(n), start, "" if energy is None else f"{energy:.3f}"]
            line += [f"{100 * untuned:.2f}", f"{100 * right.mean():.2f}"]
            if start == "random":
                line += ["", "", ""]
            else:
                gain = pooled_accuracy_difference(right, base)
                each = ", ".join(f"{100 * (a.mean() - b.mean()):+.2f}" for a, b in zip(right, base, strict=True))
                interval = f"({100 * gain.low:+.2f}..{100 * gain.high:+.2f})"
                line += [f"{100 * gain.value:+.2f} {interval}", f"{gain.p:.2g}", each]
            cells.append(line)
    return markdown_table(head, cells)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", type=Path, nargs="+", required=True, metavar="FILE", help="trained checkpoints")
    parser.add_argument("--recipe", type=Path, default=ROOT / "export/recipes/quickstart.toml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--stores", type=Path, required=True, help="folder with the .cache of an export, or a new one")
    parser.add_argument("--n", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--runs", type=int, default=3, help="seeds; they take the checkpoints in turn")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=[*STARTS], help='"random" must be among them')
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--tune-clips", type=int, default=4000, help="of each epoch")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-conversion")
    arguments = parser.parse_args(argv)
    if "random" not in arguments.starts:
        parser.error('--starts leaves out "random", which the others are compared with.')
    return arguments


def run(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    recipe = load_recipe(arguments.recipe, overrides=arguments.overrides)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-conversion"
    clips = ClipSource(recipe, Cache(arguments.stores / ".cache"), Progress())
    test = clips.store("test")
    networks = [model_from_checkpoint(load_checkpoint(path)) for path in arguments.dense]
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in arguments.dense]
    layers = chosen_layers(networks[0], arguments.n)
    tune = {"epochs": arguments.epochs, "clips_per_epoch": arguments.tune_clips, "learning_rate": arguments.rate}
    data = {"test": test.sha256, "train": clips.key("train")}
    total, rows, begun, made = arguments.runs * len(arguments.n) * len(arguments.starts), {}, time.monotonic(), 0
    for number in range(arguments.runs):
        which = number % len(networks)
        tools = tools_for(recipe, clips, seed=number)
        for n in arguments.n:
            for start, how in ((start, STARTS[start]) for start in arguments.starts):
                fields = {"stage": "phm", "n": n, "layers": layers, "tune": tune, **how}
                path = folder / "rows" / f"run{number}-n{n}-{start.replace(', ', '-')}.json"
                identity = {"dense": files[which], "seed": number, "stage": fields, **data}

                def make(fields: Any = fields, which: int = which, number: int = number, tools: Tools = tools) -> Any:
                    nonlocal made
                    made += 1
                    return convert(networks[which], fields, tools, seed=number, test=test)

                rows[number, n, start] = row = kept_row(path, identity, make)
                left = total - len(rows)
                rate = f", {(time.monotonic() - begun) / made:.0f} s a row, {left} left" if made else ""
                right_pct = 100 * unpacked(row["right"]).mean()
                print(f"run {number}, n={n}, {start}: {right_pct:.2f} %{rate}", file=sys.stderr, flush=True)
    dense_pct = [100 * float(right_clips(network, test).mean()) for network in networks]
    write_results(folder, today, arguments, argv, rows, dense_pct, len(test))


def write_results(
    folder: Path,
    today: str,
    arguments: argparse.Namespace,
    argv: Sequence[str] | None,
    rows: Mapping[tuple[int, int, str], dict[str, Any]],
    dense_pct: Sequence[float],
    num_clips: int,
) -> None:
    command = shlex.join(["python", "benchmarks/conversion.py", *(sys.argv[1:] if argv is None else argv)])
    machine = environment({"torch": torch.__version__})
    gains = {
        f"n={n}, {start}": asdict(
            pooled_accuracy_difference(
                np.stack([unpacked(rows[run, n, start]["right"]) for run in range(arguments.runs)]),
                np.stack([unpacked(rows[run, n, "random"]["right"]) for run in range(arguments.runs)]),
            )
        )
        for n in arguments.n
        for start in arguments.starts
        if start != "random"
    }
    layers = next(iter(rows.values()))["layers"]
    text = [
        f"# From dense to PHM, {today}",
        f"{arguments.runs} runs, {arguments.epochs} epochs of {arguments.tune_clips} clips of distillation, {layers} "
        f"convolutions, {num_clips} test clips.",
        table(rows, dense_pct, arguments.runs),
        f"`{command}`",
        machine_lines(machine),
    ]
    numbers = {
        "date": today,
        "command": command,
        "environment": machine,
        "dense_pct": list(dense_pct),
        "gains_over_random": gains,
        "rows": [{"run": run, "n": n, "start": start, **row} for (run, n, start), row in rows.items()],
    }
    save(folder, "conversion", numbers=numbers, sections=text)
    print(text[2])


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="conversion")


if __name__ == "__main__":
    sys.exit(main())
