"""What pruning gives on the clock: deployed files of networks at half of their multiply-adds, beside the dense ones.

    python benchmarks/pruned_speed.py --check                        # twenty minutes on two cores
    python benchmarks/pruned_speed.py --networks dctcn_dense --threads 1

Each network is drawn afresh and pruned to --macs-ratio by stage `prune`; widths decide the speed, values do not, and
accuracy is what recipes measure. Files are float32 ONNX, run by ONNX Runtime on the CPU, batch 1, clip in memory to
logits. One launch opens and times every file in a session of its own, there and back again (A B C C B A), with only
one session alive; ratios are taken within a launch, medians over launches, intervals are 95 % and assume no
distribution. `small` takes clips of 44 px, the others 88.
--round-to takes several widths' multiples; the first one's DC-TCN rows have the limit. --check exits 3 on a miss.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at torch's import: spinning threads stall on shared cores

import numpy as np
import onnxruntime
import torch
from interleaved import Median, elapsed_ms, environment, markdown_table, median_interval, ratio, significant
from networks import NUM_WORDS, build_network, example_clips, settle_norms
from result_files import exit_code_of, machine_lines, save
from torch import Tensor, nn

from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.stage import LabelledClips, Tools
from edgelip.deploy.export import export_model
from edgelip.errors import GoalMissed
from edgelip.models.census import count_macs, count_parameters
from edgelip.models.zoo import build_classifier
from edgelip.runtime.engines.ort import open_session

NETWORKS = ("dctcn_dense", "mstcn_resnet18", "snv05x_tcn1x", "eflip_T", "small")
LIMITED, LIMIT = "dctcn_dense", 0.62
SMALL_PX = 44
TOY_SMALL = {"stem_width": 16, "trunk_widths": [32, 64], "temporal_width": 32, "temporal_blocks": 1}
WARM_UP, RUNS = 2, 3


@dataclass(frozen=True)
class Row:
    """One pruned file against its dense one."""

    network: str
    round_to: int
    threads: int
    macs_left: float  # share of the dense network's
    parameters_left: float
    dense_mb: float
    pruned_mb: float
    dense_ms: Median
    pruned_ms: Median
    latency_ratio: Median
    limit: float | None

    @property
    def verdict(self) -> str:
        """Of the median; the interval says how sure it is."""
        if self.limit is None:
            return ""
        return "pass" if self.latency_ratio.value <= self.limit else "MISS"

    def cells(self) -> list[str]:
        return [
            self.network,
            str(self.round_to),
            str(self.threads),
            f"{self.macs_left:.3f}",
            f"{self.parameters_left:.3f}",
            f"{significant(self.dense_mb)} / {significant(self.pruned_mb)}",
            significant(self.dense_ms.value),
            significant(self.pruned_ms.value),
            self.latency_ratio.text(),
            "" if self.limit is None else f"<= {self.limit:g}",
            self.verdict,
        ]


HEAD = (
    "network", "multiples of", "threads", "MACs left", "parameters left", "MB dense / pruned", "dense ms", "pruned ms",
    "pruned / dense (95 %)", "limit", "",
)  # fmt: skip


def network_and_clips(name: str, *, toy: bool) -> tuple[nn.Module, Tensor]:
    """A network of the catalogue, freshly drawn, and two clips of its size."""
    if name != "small":
        return build_network(name, toy=toy), example_clips(2, toy=toy, seed=1)
    network: nn.Module = build_classifier("small", num_words=NUM_WORDS, options=TOY_SMALL if toy else {})
    clips = example_clips(4, toy=toy)[..., :SMALL_PX, :SMALL_PX].contiguous()
    settle_norms(network, clips)
    return network.eval(), clips[:2]


def pruned(network: nn.Module, clips: Tensor, *, macs_ratio: float, round_to: int) -> nn.Module:
    def keep(student: nn.Module, **_: Any) -> nn.Module:
        return student

    labelled = LabelledClips(clips, torch.arange(len(clips)))
    tools = Tools(finetune=keep, calibration=lambda: labelled, probe=lambda: labelled)
    stage = stage_from_config({"stage": "prune", "macs_ratio": macs_ratio, "round_to": round_to})
    return stage.prepare(deepcopy(network), tools)[0].eval()


def write_file(network: nn.Module, clips: Tensor, path: Path) -> float:
    """Export in float32, checked against torch; megabytes."""
    path.write_bytes(export_model(network, clips, metadata={}, precisions=()).files[0].content)
    return path.stat().st_size / 1e6


def launch_times(files: Mapping[str, Path], clip: np.ndarray, *, launches: int, threads: int) -> dict[str, list[float]]:
    """Median milliseconds of a run of each file in each launch."""
    times: dict[str, list[float]] = {name: [] for name in files}
    for launch in range(launches):
        turn = launch % len(files)
        order = [*list(files)[turn:], *list(files)[:turn]]
        samples: dict[str, list[float]] = {name: [] for name in files}
        for name in (*order, *reversed(order)):
            session = open_session(files[name], threads=threads)
            for _ in range(WARM_UP):
                session.run(None, {"clips": clip})
            samples[name] += [elapsed_ms(lambda s=session: s.run(None, {"clips": clip}))[0] for _ in range(RUNS)]  # type: ignore[misc]
            del session
        for name, values in samples.items():
            times[name].append(float(np.median(values)))
    return times


def measure(name: str, arguments: argparse.Namespace) -> tuple[list[Row], dict[str, list[float]]]:
    """The rows of one network, and the milliseconds that they come from."""
    say(f"{name}: pruning")
    network, clips = network_and_clips(name, toy=arguments.toy)
    networks = {"dense": network}
    for multiple in arguments.round_to:
        networks[f"pruned {multiple}"] = pruned(network, clips, macs_ratio=arguments.macs_ratio, round_to=multiple)
    rows, raw = [], {}
    with tempfile.TemporaryDirectory(prefix="edgelip-pruned-") as temporary:
        files = {form: Path(temporary) / f"{form}.onnx" for form in networks}
        sizes = {form: write_file(each, clips, files[form]) for form, each in networks.items()}
        for threads in arguments.threads:
            say(f"{name}: {threads} threads")
            times = launch_times(files, clips[:1].numpy(), launches=arguments.launches, threads=threads)
            raw |= {f"{name}, {form}, {threads} threads": samples for form, samples in times.items()}
            for multiple in arguments.round_to:
                form = f"pruned {multiple}"
                limited = name == LIMITED and multiple == arguments.round_to[0] and not arguments.toy
                rows.append(
                    Row(
                        network=name,
                        round_to=multiple,
                        threads=threads,
                        macs_left=count_macs(networks[form], clips) / count_macs(network, clips),
                        parameters_left=count_parameters(networks[form]) / count_parameters(network),
                        dense_mb=sizes["dense"],
                        pruned_mb=sizes[form],
                        dense_ms=median_interval(times["dense"]),
                        pruned_ms=median_interval(times[form]),
                        latency_ratio=ratio(times[form], times["dense"]),
                        limit=LIMIT if limited else None,
                    )
                )
    return rows, raw


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    return markdown_table(HEAD, [row.cells() for row in rows])


def write_results(folder: Path, rows: Sequence[Row], samples: Mapping[str, list[float]], about: dict[str, Any]) -> None:
    title = f"# What pruning gives on the clock, {about['date']}"
    save(
        folder,
        "pruned_speed",
        numbers={**about, "rows": [{**asdict(row), "verdict": row.verdict} for row in rows], "samples_ms": samples},
        sections=[title, table(rows), f"`{about['command']}`", machine_lines(about["environment"])],
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--macs-ratio", type=float, default=0.5, help="share of the multiply-adds that stays")
    parser.add_argument(
        "--round-to", type=int, nargs="+", default=[16, 8], help="multiples of widths; the first counts"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--launches", type=int, default=9)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-pruned-speed")
    parser.add_argument("--check", action="store_true", help="exit 3 if a limit is missed")
    parser.add_argument("--toy", action="store_true", help="tiny networks, without limits")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    about = {
        "date": today,
        "toy": arguments.toy,
        "command": shlex.join(["python", "benchmarks/pruned_speed.py", *(sys.argv[1:] if argv is None else argv)]),
        "launches": arguments.launches,
        "environment": environment({"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}),
    }
    rows: list[Row] = []
    samples: dict[str, list[float]] = {}
    for name in arguments.networks:
        more, raw = measure(name, arguments)
        rows, samples = [*rows, *more], {**samples, **raw}
    about["load_average_after"] = os.getloadavg()[0]
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-pruned-speed"
    write_results(folder, rows, samples, about)
    print(table(rows))
    missed = [f"{row.network} on {row.threads} threads" for row in rows if row.verdict == "MISS"]
    if arguments.check and missed:
        raise GoalMissed(f"{len(missed)} limits are missed: {'; '.join(missed)}. See {folder / 'pruned_speed.md'}.")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="pruned_speed")


if __name__ == "__main__":
    sys.exit(main())
