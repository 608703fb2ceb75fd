"""The ladder on one GPU: latency and training step, as published and ours, side by side, in one command.

    PYTHONPATH=. python benchmarks/gpu.py --out DIR                     # under nine minutes, nothing to install
    PYTHONPATH=. python benchmarks/gpu.py --out DIR --device cpu --toy  # what tests run

On a GPU machine the checkout travels as it is and the command is `PYTHONPATH=. python benchmarks/gpu.py --out $OUT`.
It needs Python 3.11, torch, numpy, and for one variant onnx and onnxruntime; no other package and no network.

Networks are freshly drawn, at 29 x 88 x 88 and 500 words; clips are noise that lies on the device. All variants of a
group are built and warmed up, then timed in interleaved rounds. `wall` is host time from idle to synchronised result,
`device` the time between CUDA events around the same work; medians with 95 % intervals. Peak memory is what the
variant's own tensors hold in PyTorch's allocator during a step after the warm-up, the network included. Logits are
compared with float32 without TF32; losses, of the first steps on the same clips, with those as published.
DIR/DATE-gpu.json and .md are written anew after every group, so a kill loses one group at most. Near the end of
--minutes what does not fit is skipped and named. Exit codes: 2 wrong arguments, 4 no such device.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_variants import (
    COMPILED_LATENCY,
    COMPILED_TRAINING,
    LATENCY,
    PUBLISHED,
    TRAINING,
    Step,
    Variant,
    captured,
    strict_inference,
    use_tf32,
)
from interleaved import environment, interleave, markdown_table, median_interval, ratio
from networks import build_network, example_clips, video_backbones
from torch import Tensor, nn

from edgelip.files import write_atomic
from edgelip.models.census import count_parameters

LADDER = (
    "dctcn_phm16",
    "dctcn_dense",
    "snv1x_tcn1x",
    "dctcn_phm4",
    "eflip_T",
    "mstcn_resnet18",
    "snv05x_tcn1x",
    "snv1x_dsmstcn3x",
)
COMPILED = ("dctcn_phm16", "dctcn_dense", "snv1x_tcn1x")
WARM_UP_STEPS = 3
CHECK_CLIPS = 32
GRACE_S = 30.0  # after the budget, before whatever still runs is broken off
# Seconds that a group took on an idle machine at most, to decide whether it still fits; raised by what is measured.
EXPECTED_S = {"latency": 25.0, "training": 25.0, "compiled latency": 90.0, "compiled training": 120.0}


class BudgetSpent(BaseException):
    """Raised by the alarm; no `except Exception` on the way may hold it."""


@dataclass(frozen=True)
class Group:
    """Variants that are timed against each other on the same clips."""

    network: str
    task: str  # a key of EXPECTED_S
    batch: int
    variants: Mapping[str, Variant]
    rounds: int

    @property
    def trains(self) -> bool:
        return self.task.endswith("training")

    @property
    def title(self) -> str:
        return f"{self.network}, {self.task}, batch {self.batch}"


def groups_of(networks: Sequence[str], *, batch: int, rounds: int, compiled: bool) -> list[Group]:
    """In the order of their worth: latencies and training of each network, then what must be compiled."""
    without_file = {name: variant for name, variant in LATENCY.items() if name != "onnxruntime"}
    found = []
    for name in networks:
        found.append(Group(name, "latency", 1, LATENCY, 3 * rounds))
        found.append(Group(name, "latency", batch, without_file, rounds))
        found.append(Group(name, "training", batch, TRAINING, rounds))
    for name in networks:
        if compiled and name in COMPILED:
            found.append(Group(name, "compiled latency", 1, COMPILED_LATENCY, 3 * rounds))
            found.append(Group(name, "compiled training", batch, COMPILED_TRAINING, rounds))
    return found


def measure_group(group: Group, network: nn.Module, clips: Tensor, *, until: float) -> list[dict[str, Any]]:
    """One row a variant; a variant that fails is a row with its error, and the others go on."""
    device = clips.device
    inputs = clips[: group.batch].clone()  # at one address: graphs and bindings read from there
    network.eval()
    reference = {} if group.trains else {"logits": all_logits(strict_inference(network, inputs), inputs, clips, "off")}
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[str, Callable[[], tuple[float, float]]] = {}
    for name, variant in group.variants.items():
        about = {"network": group.network, "task": group.task, "batch": group.batch, "variant": name}
        rows[name] = {**about, "what": variant.what, "tf32": variant.tf32, "status": "ok"}
        if variant.only_cuda and device.type != "cuda":
            rows[name]["status"] = "not on this device"
            continue
        try:
            step, facts = prepare(variant, network, inputs, trains=group.trains)
            if not group.trains:
                facts |= agreement(all_logits(step, inputs, clips, variant.tf32), reference["logits"])
        except Exception as error:
            rows[name]["status"] = f"failed: {type(error).__name__}: {(str(error) or '?').splitlines()[0][:200]}"
            continue
        rows[name] |= facts
        runs[name] = lambda step=step, variant=variant: timed(step, device, variant.tf32)  # type: ignore[misc]
    if group.trains:
        compare_losses(list(rows.values()))
    samples = interleave(runs, rounds=group.rounds, until=until)
    for name, pairs in samples.items():
        if pairs:
            rows[name] |= statistics(pairs, samples.get(PUBLISHED, []), group.batch)
        else:
            rows[name]["status"] = "out of time"
    return list(rows.values())


def prepare(variant: Variant, network: nn.Module, inputs: Tensor, *, trains: bool) -> tuple[Step, dict[str, Any]]:
    """Build, warm up and capture a variant: its step, and losses and peak memory on the way."""
    cuda = inputs.is_cuda
    use_tf32(variant.tf32)
    held = 0
    if cuda:
        gc.collect()
        held = torch.cuda.memory_allocated()
    step = variant.build(network, inputs)
    stream = torch.cuda.Stream() if variant.graph else None
    if stream is not None:  # a capture wants its warm-up on a stream of its own
        stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream) if stream is not None else nullcontext():
        outputs = [step().clone() for _ in range(WARM_UP_STEPS)]
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()  # cuDNN tries algorithms, with their workspaces, in the first steps
    if stream is not None:
        torch.cuda.current_stream().wait_stream(stream)
        step = captured(step)
    outputs.append(step().clone())
    facts: dict[str, Any] = {}
    if trains:
        facts["losses"] = [round(float(output), 6) for output in outputs]
    if cuda:
        torch.cuda.synchronize()
        facts["peak_memory_mb"] = (torch.cuda.max_memory_allocated() - held) / 1e6
    return step, facts


def all_logits(step: Step, inputs: Tensor, clips: Tensor, tf32: str) -> Tensor:
    """Logits of all clips, `inputs` filled with one batch after the other, and left with the first."""
    use_tf32(tf32)
    found = []
    for part in (*clips.split(len(inputs)), clips[: len(inputs)]):
        inputs.copy_(part)
        found.append(step().clone())
    return torch.cat(found[:-1])


def agreement(logits: Tensor, expected: Tensor) -> dict[str, float]:
    """How far logits lie from the reference, beside how far words lie from each other in it."""
    return {
        "max_abs_difference": float((logits - expected).abs().max()),
        "reference_std": float(expected.std()),
        "argmax_agreement": float((logits.argmax(1) == expected.argmax(1)).float().mean()),
    }


def compare_losses(rows: Sequence[dict[str, Any]]) -> None:
    """Largest relative difference of each row's losses to those of the first row that has any."""
    with_losses = [row for row in rows if "losses" in row]
    for row in with_losses:
        pairs = zip(row["losses"], with_losses[0]["losses"], strict=True)
        row["max_relative_loss_difference"] = max(abs(loss - base) / abs(base) for loss, base in pairs)


def timed(step: Step, device: torch.device, tf32: str) -> tuple[float, float]:
    """Milliseconds of one step from an idle device: on the wall clock until synchronised, and between events."""
    use_tf32(tf32)
    if device.type != "cuda":
        started = time.perf_counter_ns()
        step()
        wall = (time.perf_counter_ns() - started) / 1e6
        return wall, wall
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    started = time.perf_counter_ns()
    first.record()
    step()
    last.record()
    torch.cuda.synchronize()
    wall = (time.perf_counter_ns() - started) / 1e6
    return wall, first.elapsed_time(last)


def statistics(
    pairs: Sequence[tuple[float, float]], published: Sequence[tuple[float, float]], batch: int
) -> dict[str, Any]:
    wall, device = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found: dict[str, Any] = {
        "rounds": len(pairs),
        "wall_ms": median_interval(wall).to_json(),
        "device_ms": median_interval(device).to_json(),
        "clips_per_s": 1000 * batch / median_interval(wall).value,
        "samples_wall_ms": [round(value, 5) for value in wall],
    }
    if published:
        found["speedup"] = ratio([pair[0] for pair in published], wall).to_json()
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """The rows as a table, what was skipped, and where it was measured."""

    def cell(row: Mapping[str, Any], key: str, digits: int = 3) -> str:
        value = row.get(key)
        if isinstance(value, dict):
            bounds = "" if value["low"] is None else f" ({value['low']:.{digits}f}..{value['high']:.{digits}f})"
            return f"{value['value']:.{digits}f}{bounds}"
        return "" if value is None else f"{value:.{digits}g}"

    head = ["network", "task", "batch", "variant", "wall ms", "device ms", "x published", "clips/s", "peak MB"]
    head += ["max difference", "logit std", "argmax equal", "loss difference", "status"]
    numbers = ("wall_ms", "device_ms", "speedup", "clips_per_s", "peak_memory_mb")
    checks = ("max_abs_difference", "reference_std", "argmax_agreement", "max_relative_loss_difference")
    table = [
        [row["network"], row["task"], str(row["batch"]), row["variant"]]
        + [cell(row, key, 2 if key == "speedup" else 4 if key in numbers[3:] else 3) for key in numbers]
        + [*(cell(row, key) for key in checks), row["status"]]
        for row in result["rows"]
    ]
    meanings = {row["variant"] + " (" + row["task"] + ")": row["what"] for row in result["rows"]}
    parts = [
        f"# Networks on {result['environment']['accelerator']}, {result['date']}",
        "" if result["complete"] else "The run is not complete.",
        markdown_table(head, table),
        "\n".join(f"- {name}: {what}" for name, what in meanings.items()),
        "\n".join(f"- skipped: {entry['what']}: {entry['why']}" for entry in result["skipped"]),
        "\n".join(f"- {key}: {value}" for key, value in {**result["settings"], **result["environment"]}.items()),
        f"`{result['command']}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_results(folder: Path, result: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{result['date']}-gpu.json", json.dumps(result, indent=1) + "\n")
    write_atomic(folder / f"{result['date']}-gpu.md", markdown(result))


def device_environment(device: torch.device) -> dict[str, Any]:
    versions = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    cuda = device.type == "cuda"
    accelerator = torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu"
    return {**environment(versions), "accelerator": accelerator, "gpu_state": gpu_state() if cuda else None}


def gpu_state() -> str | None:
    """Driver, clocks, temperature and throttling as nvidia-smi gives them, if it is there."""
    fields = "driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="budget of the whole run")
    parser.add_argument("--networks", nargs="+", choices=video_backbones(), default=LADDER, metavar="NAME")
    parser.add_argument("--toy", action="store_true", help="tiny networks, batch 4, few rounds")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace, result: dict[str, Any], *, started: float) -> None:
    device, toy = torch.device(arguments.device), arguments.toy
    end = started + 60 * arguments.minutes
    expected = dict.fromkeys(EXPECTED_S, 0.0) if toy else dict(EXPECTED_S)
    clips = example_clips(CHECK_CLIPS, toy=toy, seed=1).to(device)
    compiled = device.type == "cuda" and not arguments.no_compile
    groups = groups_of(arguments.networks, batch=4 if toy else 32, rounds=6 if toy else 16, compiled=compiled)
    built: dict[str, nn.Module] = {}
    for position, group in enumerate(groups):
        try:
            if time.monotonic() + expected[group.task] > end:
                result["skipped"].append(
                    {"what": group.title, "why": f"would not end within {arguments.minutes:g} min"}
                )
                continue
            print(f"{time.monotonic() - started:5.0f} s  {group.title}", file=sys.stderr, flush=True)
            begun = time.monotonic()
            if group.network not in built:
                built = {group.network: build_network(group.network, toy=toy)}
            rows = measure_group(group, built[group.network], clips, until=end)
            result["rows"] += [{**row, "parameters": count_parameters(built[group.network])} for row in rows]
            expected[group.task] = max(expected[group.task], time.monotonic() - begun)
        except BudgetSpent:
            why = f"broken off {GRACE_S:g} s after {arguments.minutes:g} min"
            result["skipped"] += [{"what": left.title, "why": why} for left in groups[position:]]
            break
        finally:
            write_results(arguments.out, result)
        release()
    result["environment"]["gpu_state_after"] = gpu_state() if device.type == "cuda" else None
    result["complete"] = not result["skipped"]
    result["seconds"] = round(time.monotonic() - started, 1)
    write_results(arguments.out, result)


def release() -> None:
    """Give back what the last group held: its steps are gone, graphs and compiled code may linger."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(
            f"gpu: torch {torch.__version__} sees no CUDA device here; expected one. Use --device cpu, or install a "
            "CUDA build of torch.",
            file=sys.stderr,
        )
        return 4
    started = time.monotonic()

    def stop(*_: object) -> None:
        raise BudgetSpent

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * arguments.minutes + GRACE_S)
    torch.backends.cudnn.benchmark = True
    result: dict[str, Any] = {
        "schema_version": 1,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/gpu.py", *(sys.argv[1:] if argv is None else argv)]),
        "complete": False,
        "environment": device_environment(torch.device(arguments.device)),
        "settings": {
            "toy": arguments.toy,
            "cudnn.benchmark": True,
            "tf32": "off: none; default: in convolutions, as PyTorch starts; on: in matrix products too",
            "reference": "float32 without TF32, eager, PHM weights folded in one product; training: the first row",
            "warm_up_steps": WARM_UP_STEPS,
            "copies": "clips and logits stay on the device",
        },
        "rows": [],
        "skipped": [],
    }
    run(arguments, result, started=started)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print((arguments.out / f"{result['date']}-gpu.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
