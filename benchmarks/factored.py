"""Layers of few Kronecker terms in ONNX Runtime: factored against folded, by the share of multiply-adds that is left.

    python benchmarks/factored.py                    # ten minutes on one thread of a machine at rest
    python benchmarks/factored.py --threads 2 --rounds 15

Each row is a chain of three equal layers with ReLU between (one where the channels change), batch 1, a normalisation
folded behind each, exported as a bundle would have it; the two forms take turns. At the end: the largest share of
multiply-adds up to which nine of ten rows run faster factored, for FACTORED_RATIO in edgelip/models/factored.py.
Medians over rounds; intervals are 95 % and assume no distribution.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from interleaved import elapsed_ms, environment, interleave, markdown_table, median_interval, ratio, significant
from result_files import machine_lines, save
from torch import nn

from edgelip.deploy.onnx_graph import INPUT, onnx_from_torch
from edgelip.deploy.running_form import running_form
from edgelip.models.factored import FACTORED_RATIO, factored_macs_ratio
from edgelip.models.hypercomplex import phm_from_dense
from edgelip.runtime.engines.ort import open_session

FRAMES = 29
TERMS = (1, 2, 4)
SIZES = (4, 8, 16)
GRID = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
MOST = 0.9


@dataclass(frozen=True)
class Layer:
    """A convolution of a lip-reading network and the map that it sees; positions () is a linear layer."""

    name: str
    into: int
    out: int
    kernel: int
    positions: tuple[int, ...]

    @property
    def items(self) -> int:
        """Items of the batch for one clip: frames where the layer is two-dimensional."""
        return FRAMES if len(self.positions) == 2 else 1

    def dense(self) -> Any:
        if not self.positions:
            return nn.Linear(self.into, self.out)
        kind = {1: nn.Conv1d, 2: nn.Conv2d}[len(self.positions)]
        return kind(self.into, self.out, self.kernel, padding=self.kernel // 2)


LAYERS = (
    Layer("ResNet-18 stage 1", 64, 64, 3, (22, 22)),
    Layer("ResNet-18 stage 2", 128, 128, 3, (11, 11)),
    Layer("ResNet-18 stage 3", 256, 256, 3, (6, 6)),
    Layer("ResNet-18 stage 4", 512, 512, 3, (3, 3)),
    Layer("small trunk", 64, 64, 3, (6, 6)),
    Layer("small temporal", 128, 128, 3, (FRAMES,)),
    Layer("DC-TCN branch, kernel 3", 1280, 128, 3, (FRAMES,)),
    Layer("DC-TCN branch, kernel 7", 1280, 128, 7, (FRAMES,)),
    Layer("DC-TCN second set", 384, 128, 5, (FRAMES,)),
    Layer("DC-TCN transition", 1664, 512, 1, (FRAMES,)),
    Layer("MS-TCN", 768, 768, 3, (FRAMES,)),
    Layer("DC-TCN head", 1664, 512, 1, ()),
)
TOY_LAYERS = (Layer("toy convolution", 16, 16, 3, (5, 5)), Layer("toy linear layer", 16, 32, 1, ()))


def chain(layer: Layer, *, n: int, terms: int, factored: bool) -> nn.Module:
    torch.manual_seed(0)
    stack: list[nn.Module] = []
    for _ in range(3 if layer.into == layer.out else 1):
        made = phm_from_dense(layer.dense(), n=n, terms=terms, factored=factored)
        made.row_scale = torch.rand(layer.out) + 0.5
        stack += [made, nn.ReLU()]
    return nn.Sequential(*stack).eval()


def session_of(network: nn.Module, layer: Layer, folder: Path, *, threads: int) -> Any:
    """What a bundle would run: the exporter's graph, weights folded as ONNX Runtime does when it loads."""
    path = folder / "layer.onnx"
    example = torch.zeros(2 * layer.items, layer.into, *layer.positions)
    path.write_bytes(onnx_from_torch(running_form(network).model, example).SerializeToString())
    return open_session(path, threads=threads)


def measure(layer: Layer, *, n: int, terms: int, rounds: int, threads: int) -> dict[str, Any]:
    """One row. Raises ValueError where the two forms differ."""
    clip = np.random.default_rng(0).standard_normal((layer.items, layer.into, *layer.positions)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="edgelip-factored-") as folder:
        sessions = {
            form: session_of(
                chain(layer, n=n, terms=terms, factored=form == "factored"), layer, Path(folder), threads=threads
            )
            for form in ("folded", "factored")
        }
        results = {form: session.run(None, {INPUT: clip})[0] for form, session in sessions.items()}
        difference = float(np.abs(results["folded"] - results["factored"]).max() / np.abs(results["folded"]).max())
        if difference > 1e-4:
            raise ValueError(f"{layer.name}, n={n}, {terms} terms: folded and factored differ by {difference:.2g}")

        def run(form: str) -> float:
            return min(elapsed_ms(lambda: sessions[form].run(None, {INPUT: clip}))[0] for _ in range(3))

        for form in sessions:
            run(form)
        samples = interleave({form: lambda form=form: run(form) for form in sessions}, rounds=rounds)
    shape = tuple(layer.dense().weight.shape)
    return {
        "layer": layer.name,
        "shape": shape,
        "n": n,
        "terms": terms,
        "macs_ratio": factored_macs_ratio(shape, n=n, terms=terms),
        "latency_ratio": asdict(ratio(samples["factored"], samples["folded"])),
        "folded_ms": asdict(median_interval(samples["folded"])),
        "samples_ms": samples,
    }


def threshold(rows: Sequence[dict[str, Any]]) -> float | None:
    """The largest share of multiply-adds of GRID up to which MOST of the rows run faster factored."""
    good = []
    for share in GRID:
        below = [row["latency_ratio"]["value"] < 1 for row in rows if row["macs_ratio"] <= share]
        if below and sum(below) >= MOST * len(below):
            good.append(share)
    return max(good, default=None)


def table(rows: Sequence[dict[str, Any]]) -> str:
    head = ["layer", "weight", "n", "terms", "multiply-adds", "latency, factored / folded (95 %)", "folded, ms"]
    cells = []
    for row in rows:
        value, low, high = (row["latency_ratio"][key] for key in ("value", "low", "high"))
        interval = f"{value:.2f}" + (f" ({low:.2f}..{high:.2f})" if low is not None else " (too few rounds)")
        shape = "x".join(map(str, row["shape"]))
        counts = [str(row["n"]), str(row["terms"]), f"{row['macs_ratio']:.3f}"]
        cells.append([row["layer"], shape, *counts, interval, significant(row["folded_ms"]["value"])])
    return markdown_table(head, cells)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--toy", action="store_true", help="two tiny layers")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-factored")
    arguments = parser.parse_args(argv)
    rows = []
    for layer in TOY_LAYERS if arguments.toy else LAYERS:
        for n in SIZES:
            for terms in TERMS:
                if terms < n and layer.into % n == 0 and layer.out % n == 0:
                    row = measure(layer, n=n, terms=terms, rounds=arguments.rounds, threads=arguments.threads)
                    rows.append(row)
                    shares = (
                        f"{row['macs_ratio']:.3f} of the multiply-adds, {row['latency_ratio']['value']:.2f} of the time"
                    )
                    print(f"{layer.name}, n={n}, {terms} terms: {shares}", file=sys.stderr, flush=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-factored"
    found = threshold(rows)
    command = shlex.join(["python", "benchmarks/factored.py", *(sys.argv[1:] if argv is None else argv)])
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    machine = environment(versions)
    about = {"date": today, "command": command, "threads": arguments.threads, "rounds": arguments.rounds}
    numbers = {**about, "environment": machine, "threshold": found, "rows": rows}
    said = "no share" if found is None else f"a share of {found:g}"
    text = [
        f"# Factored against folded in ONNX Runtime, {today}",
        table(rows),
        f"Up to {said} of the multiply-adds, at least {MOST:.0%} of the rows run faster factored; "
        f"FACTORED_RATIO is {FACTORED_RATIO:g}.",
        f"`{command}`",
        machine_lines(machine),
    ]
    save(folder, "factored", numbers=numbers, sections=text)
    print(text[1], text[2], sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
