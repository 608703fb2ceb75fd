"""What PHM layers cost: file, latency, load, training step, memory; beside the dense net of the same weights.

    python benchmarks/phm_cost.py                               # five minutes on two cores
    python benchmarks/phm_cost.py --checkpoint imported.safetensors --check

Three forms of one network: ours (PHM layers; the weight folded in one product, kept in eval), dense (its PHM layers
made dense), as published (as_published.py: every Kronecker product materialised in every forward).
Latency is batch 1, clip in memory to logits, on one thread. Sessions of the two files are opened afresh, in alternating
order, each pair timed A B B A. The forms in torch, and ONNX Runtime beside them, have a fresh process each and take
turns. A training step is forward, loss, backward and AdamW on 4 clips, norms in train mode, on all cores. Peak memory
is the high-water mark of a fresh process from the built network to the end of two steps.
Ratios are medians over launches or rounds; intervals are 95 % and assume no distribution. --check exits 3 on a miss.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at torch's import: spinning threads stall on shared cores

import onnx
import onnxruntime
import torch
from as_published import as_published_forward
from interleaved import (
    Median,
    elapsed_ms,
    environment,
    interleave,
    markdown_table,
    median_interval,
    ratio,
    significant,
)
from networks import build_network, example_clips
from result_files import exit_code_of, machine_lines, save
from torch import Tensor, nn
from torch.nn import functional
from workers import Worker, serve

from edgelip.bench.graph import optimised_weights_bytes
from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.deploy.export import TOLERANCE, export_model
from edgelip.errors import GoalMissed, MeasurementError
from edgelip.models.checkpoint import load_checkpoint
from edgelip.models.hypercomplex import PHMLayer, densified
from edgelip.runtime.check import scaled_difference
from edgelip.runtime.engines.ort import open_session
from edgelip.runtime.sensors.process import process_memory_mib, reset_peak_memory

FORMS = ("ours", "dense", "as published")
ORT = "onnxruntime"
TRAIN_BATCH = 4
AGREEMENT_LIMIT = f"<= {TOLERANCE['fp32']:g}"
LATENCY_LIMIT, TRAINING_LIMIT = "<= 1.05", "<= 1.10"
FILE_LIMIT_MB, SPEEDUP_LIMIT = "<= 20.5", ">= 5"  # for n = 16; fewer terms make larger files and smaller gains


@dataclass(frozen=True)
class Finding:
    """One measured number; `limit` as it is met: "<= 1.05" or ">= 5"."""

    what: str
    measured: Median
    unit: str
    limit: str | None = None

    @property
    def verdict(self) -> str:
        """Of the median; the interval says how sure it is."""
        if self.limit is None:
            return ""
        sign, bound = self.limit.split()
        met = self.measured.value <= float(bound) if sign == "<=" else self.measured.value >= float(bound)
        return "pass" if met else "MISS"

    def cells(self) -> list[str]:
        return [self.what, f"{self._number()} {self.unit}".strip(), self.limit or "", self.verdict]

    def _number(self) -> str:
        return significant(self.measured.value) if self.measured.low is None else self.measured.text()


def exact(value: float) -> Median:
    return Median(value, None, None)


def form_of(network: nn.Module, name: str) -> nn.Module:
    """One of FORMS."""
    return {"ours": lambda: network, "dense": lambda: densified(network)}.get(
        name, lambda: as_published_forward(network)
    )()


def file_findings(forms: Mapping[str, nn.Module], clips: Tensor, folder: Path, *, limit: str | None) -> list[Finding]:
    """Exports ours and dense into `folder`; what ONNX Runtime keeps of each must be the same weights."""
    exported = {
        name: export_model(forms[name], clips, metadata={}, precisions=()).files[0] for name in ("ours", "dense")
    }
    sizes = {name: len(model.content) / 1e6 for name, model in exported.items()}
    for name, model in exported.items():
        (folder / f"{name}.onnx").write_bytes(model.content)
    resident = {name: optimised_weights_bytes(folder / f"{name}.onnx") for name in exported}
    return [
        Finding("ONNX file, factors stored in float32", exact(sizes["ours"]), "MB", limit),
        Finding("ONNX file, dense", exact(sizes["dense"]), "MB"),
        Finding("dense file / PHM file", exact(sizes["dense"] / sizes["ours"]), ""),
        Finding(
            "max scaled difference, ONNX Runtime to torch",
            exact(exported["ours"].max_difference),
            "",
            AGREEMENT_LIMIT,
        ),
        Finding("weights that ONNX Runtime keeps, PHM / dense", exact(resident["ours"] / resident["dense"]), ""),
    ]


def session_times(folder: Path, clip: np.ndarray, *, launches: int, threads: int) -> dict[str, list[float]]:
    """Load and steady milliseconds of each launch, both files in one process, in alternating order."""
    times: dict[str, list[float]] = {f"{what} {name}": [] for what in ("load", "run", "cpu") for name in FORMS[:2]}
    for launch in range(launches):
        order = FORMS[:2] if launch % 2 else FORMS[1::-1]
        sessions: dict[str, Any] = {}

        def load(name: str, sessions: dict[str, Any] = sessions) -> None:
            sessions[name] = open_session(folder / f"{name}.onnx", threads=threads)

        for name in order:
            times[f"load {name}"].append(elapsed_ms(lambda name=name, load=load: load(name))[0])  # type: ignore[misc]
        for name in order:  # warm-up
            for _ in range(2):
                sessions[name].run(None, {"clips": clip})
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in order}
        for name in (*order, *reversed(order)) * 2:
            samples[name].append(elapsed_ms(lambda name=name, s=sessions: s[name].run(None, {"clips": clip})))  # type: ignore[misc]
        for name, pairs in samples.items():
            wall, cpu = np.median(np.array(pairs), axis=0)
            times[f"run {name}"].append(float(wall))
            times[f"cpu {name}"].append(float(cpu))
    return times


def worker_times(
    subjects: Sequence[str], folder: Path, arguments: argparse.Namespace, *, threads: int
) -> dict[str, list[float]]:
    """Milliseconds of each subject in each round, every subject in a fresh process."""
    with ExitStack() as stack:
        workers = {}
        for subject in subjects:
            options = ["--serve", subject, "--file", str(folder / "ours.onnx"), "--threads", str(threads)]
            command = [sys.executable, __file__, *source_of(arguments), *options]
            workers[subject] = stack.enter_context(Worker(command, what=subject))
        return interleave(workers, rounds=arguments.rounds)


def serve_subject(network: nn.Module, subject: str, file: Path, *, toy: bool, threads: int) -> None:
    """What a worker does: "eager FORM", "train FORM", or "onnxruntime" on the file."""
    torch.set_num_threads(threads)
    clips = example_clips(1, toy=toy, seed=1)
    if subject == ORT:
        session, clip = open_session(file, threads=threads), clips.numpy()
        serve(lambda: session.run(None, {"clips": clip}))
        return
    task, _, name = subject.partition(" ")
    form = form_of(network, name)
    if task == "train":
        serve(training_step(form, example_clips(TRAIN_BATCH, toy=toy)))
        return
    with torch.inference_mode():
        serve(lambda: form(clips))


def training_step(network: nn.Module, clips: Tensor) -> Callable[[], None]:
    """Forward, loss, backward and optimiser step; the network is put in train mode."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
    labels = torch.arange(len(clips))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(clips), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def source_of(arguments: argparse.Namespace) -> list[str]:
    """Arguments that make a child build the same network."""
    source = ["--checkpoint", str(arguments.checkpoint)] if arguments.checkpoint else ["--backbone", arguments.backbone]
    return [*source, *(["--toy"] if arguments.toy else [])]


def training_peak_mib(name: str, arguments: argparse.Namespace) -> float:
    """Peak memory of two training steps of one form in a fresh process."""
    command = [sys.executable, __file__, *source_of(arguments), "--only-memory-of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasurementError(f"The memory run of {name!r} failed: {(done.stderr.strip() or '?').splitlines()[-1]}")
    return float(done.stdout)


def print_training_peak(network: nn.Module, name: str, *, toy: bool) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    step = training_step(form_of(network, name), example_clips(TRAIN_BATCH, toy=toy))
    if not reset_peak_memory():
        raise MeasurementError("This system resets no high-water mark of memory; expected /proc/self/clear_refs.")
    step()
    step()
    print(process_memory_mib()["peak"])


def measure(network: nn.Module, arguments: argparse.Namespace) -> tuple[list[Finding], dict[str, list[float]]]:
    """All findings, and the raw samples of the timed ones in milliseconds."""
    toy, rounds, threads = arguments.toy, arguments.rounds, arguments.threads
    has_16_terms = not toy and any(isinstance(module, PHMLayer) and module.n == 16 for module in network.modules())
    forms, clips = {name: form_of(network, name) for name in FORMS}, example_clips(2, toy=toy, seed=1)
    with torch.no_grad():
        logits = {form: model(clips).numpy() for form, model in forms.items()}
    spread = max(scaled_difference(other, logits["ours"]).max() for other in logits.values())
    same = Finding("max scaled difference between the three forms in torch", exact(float(spread)), "", AGREEMENT_LIMIT)
    with tempfile.TemporaryDirectory(prefix="edgelip-phm-") as temporary:
        folder = Path(temporary)
        say("exporting")
        files = file_findings(forms, clips, folder, limit=FILE_LIMIT_MB if has_16_terms else None)
        say("ONNX Runtime sessions")
        sessions = session_times(folder, clips[:1].numpy(), launches=rounds, threads=threads)
        del forms
        say("torch eager")
        latencies = [f"eager {form}" for form in FORMS] + [ORT]
        eager = worker_times(latencies, folder, arguments, threads=threads)
        say("training steps")
        steps = [f"train {form}" for form in FORMS]
        training = worker_times(steps, folder, arguments, threads=os.cpu_count() or 1)
    say("training memory")
    peaks = {form: training_peak_mib(form, arguments) for form in FORMS}
    within = None if toy else LATENCY_LIMIT
    published = eager["eager as published"]
    findings = [
        *files,
        same,
        *(Finding(f"ONNX Runtime latency, {f}", median_interval(sessions[f"run {f}"]), "ms") for f in FORMS[:2]),
        Finding("ONNX Runtime latency, PHM / dense", ratio(sessions["run ours"], sessions["run dense"]), "", within),
        Finding("the same in CPU time", ratio(sessions["cpu ours"], sessions["cpu dense"]), ""),
        *(Finding(f"session load, {f}", median_interval(sessions[f"load {f}"]), "ms") for f in FORMS[:2]),
        *(Finding(f"torch eager latency, {f}", median_interval(eager[f"eager {f}"]), "ms") for f in FORMS),
        Finding("torch eager, ours / dense", ratio(eager["eager ours"], eager["eager dense"]), ""),
        Finding("torch eager, as published / ours", ratio(published, eager["eager ours"]), ""),
        Finding(
            "as published in torch eager / our file in ONNX Runtime",
            ratio(published, eager[ORT]),
            "",
            SPEEDUP_LIMIT if has_16_terms else None,
        ),
        *(Finding(f"training step, {f}", median_interval(training[f"train {f}"]), "ms") for f in FORMS),
        Finding(
            "training step, ours / dense",
            ratio(training["train ours"], training["train dense"]),
            "",
            None if toy else TRAINING_LIMIT,
        ),
        Finding(
            "training step, as published / dense", ratio(training["train as published"], training["train dense"]), ""
        ),
        *(Finding(f"training peak memory, {f}", exact(peaks[f]), "MiB") for f in FORMS),
    ]
    return findings, {**sessions, **eager, **training}


def network_of(arguments: argparse.Namespace) -> nn.Module:
    if arguments.checkpoint is None:
        return build_network(arguments.backbone, toy=arguments.toy)
    return model_from_checkpoint(load_checkpoint(arguments.checkpoint)).eval()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(findings: Sequence[Finding]) -> str:
    return markdown_table(["measured", "median (95 %)", "limit", ""], [finding.cells() for finding in findings])


def write_results(
    folder: Path, findings: list[Finding], samples: Mapping[str, list[float]], about: dict[str, Any]
) -> None:
    verdicts = [{**asdict(finding), "verdict": finding.verdict} for finding in findings]
    title = f"# What PHM costs: {about['network']}, {about['date']}"
    save(
        folder,
        "phm_cost",
        numbers={**about, "findings": verdicts, "samples_ms": samples},
        sections=[title, table(findings), f"`{about['command']}`", machine_lines(about["environment"])],
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--backbone", default="dctcn_phm16", help="network of the catalogue, freshly drawn")
    source.add_argument("--checkpoint", type=Path, help="an edgelip checkpoint in its place")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-phm-cost")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of the latencies; training takes all cores")
    parser.add_argument("--check", action="store_true", help="exit 3 if a limit is missed")
    parser.add_argument("--toy", action="store_true", help="a tiny network, without limits of time and size")
    parser.add_argument("--only-memory-of", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    network = network_of(arguments)
    if arguments.only_memory_of:
        print_training_peak(network, arguments.only_memory_of, toy=arguments.toy)
        return
    if arguments.serve:
        serve_subject(network, arguments.serve, arguments.file, toy=arguments.toy, threads=arguments.threads)
        return
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
    about = {
        "date": today,
        "network": str(arguments.checkpoint or arguments.backbone),
        "toy": arguments.toy,
        "command": shlex.join(["python", "benchmarks/phm_cost.py", *(sys.argv[1:] if argv is None else argv)]),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "training_threads": os.cpu_count(),
        "environment": environment(versions),
    }
    findings, samples = measure(network, arguments)
    about["load_average_after"] = os.getloadavg()[0]
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-phm-cost"
    write_results(folder, findings, samples, about)
    print(table(findings))
    missed = [finding.what for finding in findings if finding.verdict == "MISS"]
    if arguments.check and missed:
        raise GoalMissed(f"{len(missed)} limits are missed: {'; '.join(missed)}. See {folder / 'phm_cost.md'}.")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="phm_cost")


if __name__ == "__main__":
    sys.exit(main())
