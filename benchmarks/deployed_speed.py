"""How fast deployed files run against the published code and against torch, and what limits them.

    python benchmarks/deployed_speed.py --check                  # an hour on two quiet cores
    python benchmarks/deployed_speed.py --networks small --rounds 5

Subjects of each network: the published forward and ours in torch eager, our float32 and int8 files in ONNX Runtime and
OpenVINO. Each has a fresh process, they take turns, and ratios are taken within a round; one thread, then two.
Weights are freshly drawn and int8 ranges set on noise: times do not depend on either; accuracy is measured elsewhere.
Latency is batch 1, clip in memory to logits. --check exits 3 on a miss; limits of int8 need VNNI or its like.
Then each file's layers, by part of the network: time, share of the measured ceiling of this machine, what limits it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at torch's import: spinning threads stall on shared cores

import onnxruntime
import torch
from as_published import as_published_forward
from interleaved import environment, interleave, markdown_table, median_interval, ratio
from networks import build_network, example_clips, settle_norms
from phm_cost import Finding, table
from result_files import exit_code_of, machine_lines, save
from torch import Tensor, nn
from workers import Worker, serve

from edgelip.bench.ceiling import Ceiling, measured_ceiling
from edgelip.bench.kernels import openvino_timeline, ort_timeline
from edgelip.bench.profile import BETWEEN, parts_of
from edgelip.cli.bench_layers import COLUMNS, layer_work, part_cells
from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.stage import LabelledClips, Tools
from edgelip.deploy.export import ExportedFile, export_model
from edgelip.errors import GoalMissed
from edgelip.models.zoo import build_classifier
from edgelip.runtime.engines.openvino import OpenvinoEngine
from edgelip.runtime.engines.ort import OrtEngine

NETWORKS = ("dctcn_phm16", "eflip_T", "snv05x_tcn1x", "small")
PUBLISHED, OURS = "published eager", "our eager"
ENGINES = {"ort": OrtEngine, "openvino": OpenvinoEngine}
TIMELINES = {"ort": ort_timeline, "openvino": openvino_timeline}
# Network -> (slower, faster) -> limit of the ratio of their times.
LIMITS: dict[str, dict[tuple[str, str], str]] = {
    "dctcn_phm16": {
        (PUBLISHED, "ort fp32"): ">= 5",
        (PUBLISHED, "ort int8"): ">= 9",
        ("ort fp32", "ort int8"): ">= 1.8",
    },
    "eflip_T": {(OURS, "ort fp32"): ">= 1.5"},
    "snv05x_tcn1x": {(OURS, "ort fp32"): ">= 1.5"},
}
RATIOS = (
    (PUBLISHED, "ort fp32"), (PUBLISHED, "ort int8"), (OURS, "ort fp32"), (OURS, "ort int8"), ("ort fp32", "ort int8"),
    ("ort fp32", "openvino fp32"), ("ort int8", "openvino int8"),
)  # fmt: skip
INT8_INSTRUCTIONS = "int8_dot_product"  # of the environment


@dataclass(frozen=True)
class Files:
    """The file of each "engine precision", and where its layers are in it."""

    paths: Mapping[str, Path]
    layers: Mapping[str, Mapping[str, tuple[str, ...]]]


def network_of(name: str, *, toy: bool) -> nn.Module:
    """A network of the catalogue with norms that have seen noise; also "small"."""
    if name != "small":
        return build_network(name, toy=toy)
    torch.manual_seed(0)
    network = build_classifier("small", num_words=50, options={})
    settle_norms(network, clips_of(name, 4, toy=toy))
    return network.eval()


def clips_of(name: str, num_clips: int, *, toy: bool, seed: int = 0) -> Tensor:
    if name != "small" or toy:
        return example_clips(num_clips, toy=toy, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_clips, 1, 29, 44, 44, generator=generator)


def int8_of(network: nn.Module, clips_B1THW: Tensor) -> nn.Module:
    """Every layer in int8, by ranges of these clips."""
    clips = LabelledClips(clips_B1THW, torch.arange(len(clips_B1THW)))
    tools = Tools(finetune=lambda student, **_: student, calibration=lambda: clips, probe=lambda: clips)
    return stage_from_config({"stage": "ptq", "keep": "int8"}).prepare(deepcopy(network), tools)[0]


def export_files(name: str, folder: Path, *, toy: bool) -> Files:
    """Writes the files of one network."""
    network, clips = network_of(name, toy=toy), clips_of(name, 2, toy=toy, seed=1)
    paths: dict[str, Path] = {}
    layers: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for model in (network, int8_of(network, clips_of(name, 4, toy=toy, seed=5))):
        precisions = () if model is network else None
        exported = export_model(model, clips, metadata={"variant": name}, precisions=precisions)
        for engine in ENGINES:
            file = next((each for each in exported.files if engine in each.engines), None)
            # An untrained net may differ too much for OpenVINO to be offered its int8 file; its time is the same.
            file = file or next(each for each in exported.files if (each.weights, each.activations) == ("dense", "u8"))
            subject = f"{engine} {file.precision}"
            paths[subject] = folder / f"{name}.{file.file_name}"
            paths[subject].write_bytes(file.content)
            layers[subject] = _outputs_by_layer(file)
    return Files(paths, layers)


def _outputs_by_layer(file: ExportedFile) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, output in file.layers:
        found[name] = (*found.get(name, ()), output)
    return found


def serve_subject(name: str, subject: str, path: Path | None, *, toy: bool, threads: int) -> None:
    """What a worker does."""
    torch.set_num_threads(threads)
    clip = clips_of(name, 1, toy=toy, seed=1)
    if path is not None:
        engine = ENGINES[subject.split()[0]](path, threads=threads)
        serve(lambda: engine.infer(clip.numpy()))
        return
    network = network_of(name, toy=toy)
    network = as_published_forward(network) if subject == PUBLISHED else network
    with torch.inference_mode():
        serve(lambda: network(clip))


def latencies(name: str, files: Files, arguments: argparse.Namespace, *, threads: int) -> dict[str, list[float]]:
    """Milliseconds of each subject in each round."""
    with ExitStack() as stack:
        workers: dict[str, Callable[[], float]] = {}
        for subject in (PUBLISHED, OURS, *files.paths):
            options = ["--networks", name, "--serve", subject, "--threads", str(threads)]
            options += ["--toy"] if arguments.toy else []
            options += ["--file", str(files.paths[subject])] if subject in files.paths else []
            workers[subject] = stack.enter_context(Worker([sys.executable, __file__, *options], what=subject))
        return interleave(workers, rounds=arguments.rounds)


def findings_of(
    name: str, samples: Mapping[str, Sequence[float]], *, threads: int, limits: Mapping[tuple[str, str], str]
) -> list[Finding]:
    """Latencies and ratios of one network with so many threads."""
    where = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
    found = [Finding(f"{where}: {subject}", median_interval(each), "ms") for subject, each in samples.items()]
    for slower, faster in RATIOS:
        if slower in samples and faster in samples:
            limit = limits.get((slower, faster))
            found.append(Finding(f"{where}: {slower} / {faster}", ratio(samples[slower], samples[faster]), "", limit))
    return found


def layer_rows(
    name: str, files: Files, ceiling: Ceiling, *, toy: bool
) -> tuple[list[Sequence[str]], dict[str, list[dict[str, Any]]]]:
    """A row a part of each file, for the table and as numbers."""
    clip = clips_of(name, 1, toy=toy, seed=1).numpy()
    rows: list[Sequence[str]] = []
    numbers = {}
    for subject, path in files.paths.items():
        work, layer_of = layer_work(path, files.layers[subject])
        runs = 3 if toy else 20
        timeline = TIMELINES[subject.split()[0]](path, {"clips": clip}, threads=ceiling.threads, runs=runs)
        parts = parts_of(timeline, layer_of, work, by_group=True)
        for part in parts:
            first, *others = part_cells(part, timeline.run_us, ceiling)
            rows.append((f"{name}, {subject}: {first}", *others))
        numbers[f"{name}, {subject}"] = [
            {**asdict(part), **({} if part.name == BETWEEN else {"limits": part.limits(ceiling)})} for part in parts
        ]
    return rows, numbers


def measure(arguments: argparse.Namespace, *, has_vnni: bool) -> dict[str, Any]:
    """All findings, rows of layers and raw samples."""
    findings: list[Finding] = []
    samples: dict[str, dict[str, list[float]]] = {}
    rows: list[Sequence[str]] = []
    numbers: dict[str, Any] = {}
    ceilings = {n: measured_ceiling(n, seconds=0.02 if arguments.toy else 1.0) for n in arguments.threads}
    with tempfile.TemporaryDirectory(prefix="edgelip-speed-") as temporary:
        for name in arguments.networks:
            say(f"exporting {name}")
            files = export_files(name, Path(temporary), toy=arguments.toy)
            limits = {} if arguments.toy else LIMITS.get(name, {})
            limits = {pair: limit for pair, limit in limits.items() if has_vnni or "int8" not in pair[1]}
            for threads in arguments.threads:
                say(f"timing {name}, {threads} threads")
                times = latencies(name, files, arguments, threads=threads)
                samples[f"{name}, {threads}"] = times
                findings += findings_of(name, times, threads=threads, limits=limits)
            say(f"profiling {name}")
            first = arguments.threads[0]
            more, found = layer_rows(name, files, ceilings[first], toy=arguments.toy)
            rows, numbers = [*rows, *more], {**numbers, **found}
    return {"findings": findings, "samples_ms": samples, "rows": rows, "layers": numbers, "ceilings": ceilings}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def texts(result: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    ceilings = [
        f"- {n} threads: {c.fp32_gflops:.0f} G/s in float32, {c.int8_gops:.0f} in int8, {c.memory_gb_s:.1f} GB/s copied"
        for n, c in result["ceilings"].items()
    ]
    return "\n\n".join(
        [
            f"# Deployed files against torch, {about['date']}",
            table(result["findings"]),
            f"Where the time goes, {about['threads'][0]} thread(s); G/s counts a multiply-add as two.",
            markdown_table(COLUMNS, result["rows"]),
            "Measured ceiling of this machine:",
            "\n".join(ceilings),
            f"`{about['command']}`",
            machine_lines(about["environment"]),
        ]
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-deployed-speed")
    parser.add_argument("--check", action="store_true", help="exit 3 if a limit is missed")
    parser.add_argument("--toy", action="store_true", help="tiny networks, without limits")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    if arguments.serve:
        (name,), (threads,) = arguments.networks, arguments.threads
        serve_subject(name, arguments.serve, arguments.file, toy=arguments.toy, threads=threads)
        return
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    surroundings = environment({"torch": torch.__version__, "onnxruntime": onnxruntime.__version__})
    about = {
        "date": today,
        "toy": arguments.toy,
        "command": shlex.join(["python", "benchmarks/deployed_speed.py", *(sys.argv[1:] if argv is None else argv)]),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "environment": surroundings,
    }
    result = measure(arguments, has_vnni=bool(surroundings.get(INT8_INSTRUCTIONS)))
    about["load_average_after"] = os.getloadavg()[0]
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-deployed-speed"
    findings = result["findings"]
    numbers = {
        **about,
        "findings": [{**asdict(finding), "verdict": finding.verdict} for finding in findings],
        "ceilings": [asdict(ceiling) for ceiling in result["ceilings"].values()],
        "layers": result["layers"],
        "samples_ms": result["samples_ms"],
    }
    save(folder, "deployed_speed", numbers=numbers, sections=[texts(result, about)])
    print(texts(result, about))
    missed = [finding.what for finding in findings if finding.verdict == "MISS"]
    if arguments.check and missed:
        raise GoalMissed(f"{len(missed)} limits are missed: {'; '.join(missed)}. See {folder / 'deployed_speed.md'}.")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="deployed_speed")


if __name__ == "__main__":
    sys.exit(main())
