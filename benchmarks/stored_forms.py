"""What each way to store a PHM network costs: file, load, memory, latency, logits; on ONNX Runtime and OpenVINO.

    python benchmarks/stored_forms.py                                  # 25 minutes on two idle cores
    python benchmarks/stored_forms.py --checkpoint trained.safetensors --clips clips.npy --check

Forms of one network: dense weights in float32, the reference of time; factors in float32, the reference of logits;
factors and all else in fp16, int8, int4 (A stays in 8 bits); the same beside int8 that runs ("ptq" on noise clips).
For each the file is the one that the engine is listed for; a form without one is left out. Folded: the optimised graph
holds no operator that reads nothing of the clip (ONNX Runtime), or the same layers as the dense file's (OpenVINO).
Weights: bytes of its constants.
Sessions of all forms are opened afresh in every launch, in rotating order, then run in turns, batch 1, clip in memory
to logits. Ratios are medians over launches; intervals are 95 % and assume no distribution.
SQNR and agreement are of the files' logits on ONNX Runtime, against the file with float32 factors. --check exits 3 on a
miss.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at torch's import: spinning threads stall on shared cores

import onnx
import onnxruntime
import openvino
import torch
from interleaved import Median, elapsed_ms, environment, markdown_table, median_interval, ratio, significant
from networks import build_network, example_clips
from onnx import TensorProto
from result_files import exit_code_of, machine_lines, save
from torch import Tensor, nn

from edgelip.bench.graph import optimised_weights_bytes, unfolded_operators
from edgelip.compress.pipeline import model_from_checkpoint, stage_from_config
from edgelip.compress.sensitivity import Harm, harm
from edgelip.compress.stage import LabelledClips, Tools
from edgelip.deploy.export import export_model
from edgelip.errors import GoalMissed, UsageError
from edgelip.models.checkpoint import load_checkpoint
from edgelip.models.hypercomplex import PHMLayer, densified
from edgelip.runtime.engines.engine import Engine, engine_class

ENGINES = ("ort", "openvino")
DENSE, FACTORS = "dense fp32", "factors fp32"
INT8, INT4 = {"stage": "store", "blocks": 8, "dense": 8}, {"stage": "store", "blocks": 4, "dense": 8}
HALF = {"stage": "store", "blocks": 16, "dense": 16}
PTQ = {"stage": "ptq"}
FORMS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    DENSE: (),
    FACTORS: (),
    "factors fp16": (HALF,),
    "factors int8": (INT8,),
    "factors int4": (INT4,),
    "factors int4, head int4": ({**INT4, "head": 4},),
    "factors fp32, runs int8": (PTQ,),
    "factors int8, runs int8": (INT8, PTQ),
    "factors int4, runs int8": (INT4, PTQ),
}
FILE_LIMITS_MB = {"factors int8": 5.6, "factors int4": 3.6}  # of DC-TCN PHM n=16 with 500 words
SQNR_LIMITS_DB = {"factors int8": 30.0}
AGREEMENT_LIMITS_PCT = {"factors int8": 99.0}
RATIO_LIMIT = 1.05  # a folded file runs like the dense one


@dataclass(frozen=True)
class Row:
    """One form on one engine at one number of threads. folded: None where nothing has to be."""

    engine: str
    threads: int
    form: str
    file: str
    file_mb: float
    load_ms: Median
    run_ms: Median
    to_dense: Median
    weights_mb: float
    folded: bool

    def cells(self) -> list[str]:
        return [
            self.engine, str(self.threads), self.form, self.file, f"{self.file_mb:.2f}", self.load_ms.text(),
            significant(self.weights_mb), self.run_ms.text(), self.to_dense.text(), "yes" if self.folded else "NO",
        ]  # fmt: skip


@dataclass(frozen=True)
class Made:
    """The files of one form in a folder: which one each engine takes."""

    folder: Path
    files: Mapping[str, str]  # by engine
    logits_BV: Tensor

    def path(self, engine: str) -> Path:
        return self.folder / self.files[engine]


def make_form(network: nn.Module, stages: Sequence[Mapping[str, Any]], clips: Tensor, folder: Path) -> Made:
    """Put a copy of the network through the stages and write its files."""
    labelled = LabelledClips(clips, torch.arange(len(clips)) % 2)

    def untrained(student: nn.Module, **_: Any) -> nn.Module:
        return student

    tools = Tools(finetune=untrained, calibration=lambda: labelled, probe=lambda: labelled)
    model = network
    for fields in stages:
        model, _ = stage_from_config(fields).apply(model, tools)
    runs_int8 = any(fields["stage"] == "ptq" for fields in stages)
    exported = export_model(model, clips[:2], metadata={}, precisions=None if runs_int8 else ())
    folder.mkdir()
    for file in exported.files:
        (folder / file.file_name).write_bytes(file.content)
    taken = {
        engine: next((file.file_name for file in exported.files if engine in file.engines), "") for engine in ENGINES
    }
    made = Made(folder, {engine: name for engine, name in taken.items() if name}, torch.empty(0))
    return Made(folder, made.files, logits_of_file(made.path("ort"), clips))


def logits_of_file(path: Path, clips: Tensor) -> Tensor:
    with engine_class("ort")(path, threads=os.cpu_count() or 1) as engine:
        return torch.cat([torch.from_numpy(engine.infer(clip[None].numpy())) for clip in clips])


def what_bytes_are(path: Path) -> dict[str, int]:
    """Bytes of a file by type of number; "text": nodes, names and shapes."""
    model = onnx.load(path)
    parts: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.INT64:
            parts[TensorProto.DataType.Name(tensor.data_type).lower()] += len(tensor.raw_data)
    parts["text"] = path.stat().st_size - sum(parts.values())
    return dict(parts.most_common())


def engine_times(
    engine: str, made: Mapping[str, Made], clip: np.ndarray, *, launches: int, threads: int
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of load and run by form, one of each a launch."""
    kind: type[Engine] = engine_class(engine)
    times: dict[str, dict[str, list[float]]] = {form: {"load": [], "run": []} for form in made}
    names = list(made)
    for launch in range(launches):
        turn = launch % len(names)
        order = names[turn:] + names[:turn]
        sessions: dict[str, Engine] = {}
        for form in order:

            def load(form: str = form, sessions: dict[str, Engine] = sessions) -> None:
                sessions[form] = kind(made[form].path(engine), threads=threads)

            times[form]["load"].append(elapsed_ms(load)[0])
        samples: dict[str, list[float]] = {form: [] for form in order}
        for number in range(2 + 4):  # two to warm up
            for form in order if number % 2 else order[::-1]:
                wall, _ = elapsed_ms(lambda form=form, s=sessions: s[form].infer(clip))  # type: ignore[misc]
                if number >= 2:
                    samples[form].append(wall)
        for form, walls in samples.items():
            times[form]["run"].append(float(np.median(walls)))
            sessions[form].close()
    return times


def openvino_layers(path: Path) -> tuple[Counter[str], int]:
    """Kinds of layers that OpenVINO runs, and bytes of its constants."""
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds: Counter[str] = Counter()
    constants = 0
    for operator in compiled.get_runtime_model().get_ops():
        kind = str(operator.get_rt_info()["layerType"].astype(str))
        kinds[kind] += 1
        if kind == "Const":
            value = operator.output(0)
            constants += int(np.prod(list(value.get_shape()))) * value.get_element_type().bitwidth // 8
    return kinds, constants


def graph_facts(engine: str, path: Path) -> tuple[bool, float]:
    """Whether the weights are folded, and megabytes of the weights in memory."""
    if engine == "ort":
        left = unfolded_operators(path)
        if left:
            say(f"{path.name}: made again in every run: {dict(left)}")
        return not left, optimised_weights_bytes(path) / 1e6
    kinds, constants = openvino_layers(path)
    dense = path.with_name(path.name.replace(".onnx", "-dense.onnx"))
    same = not dense.exists() or openvino_layers(dense)[0] == kinds
    return same, constants / 1e6


def measure(made: Mapping[str, Made], clip: np.ndarray, arguments: argparse.Namespace) -> list[Row]:
    rows = []
    for engine in ENGINES:
        taken = {form: files for form, files in made.items() if engine in files.files}
        facts = {form: graph_facts(engine, files.path(engine)) for form, files in taken.items()}
        for threads in arguments.threads:
            say(f"{engine}, {threads} threads")
            times = engine_times(engine, taken, clip, launches=arguments.rounds, threads=threads)
            for form, files in taken.items():
                path = files.path(engine)
                rows.append(
                    Row(
                        engine=engine,
                        threads=threads,
                        form=form,
                        file=path.name,
                        file_mb=path.stat().st_size / 1e6,
                        load_ms=median_interval(times[form]["load"]),
                        run_ms=median_interval(times[form]["run"]),
                        to_dense=ratio(times[form]["run"], times[DENSE]["run"]),
                        weights_mb=facts[form][1],
                        folded=facts[form][0],
                    )
                )
    return rows


def misses(rows: Sequence[Row], harms: Mapping[str, Harm], *, toy: bool, is_goal_network: bool) -> list[str]:
    """What is not as it has to be, each in a few words."""
    found = [f"{row.form} is not folded by {row.engine}" for row in rows if not row.folded]
    if toy:
        return sorted(set(found))
    for row in rows:
        limit = FILE_LIMITS_MB.get(row.form)
        if is_goal_network and row.engine == "ort" and limit is not None and row.file_mb > limit:
            found.append(f"{row.form}: {row.file_mb:.2f} MB, limit {limit}")
        if "runs int8" not in row.form and row.to_dense.value > RATIO_LIMIT:
            found.append(
                f"{row.form}, {row.engine}: {row.to_dense.value:.2f} times the dense file, limit {RATIO_LIMIT}"
            )
    for form, limit in SQNR_LIMITS_DB.items():
        if harms[form].sqnr_db < limit:
            found.append(f"{form}: SQNR {harms[form].sqnr_db:.1f} dB, limit {limit:g}")
    for form, limit in AGREEMENT_LIMITS_PCT.items():
        if agreement_pct(harms[form]) < limit:
            found.append(f"{form}: {agreement_pct(harms[form]):.1f} % of the words agree, limit {limit:g}")
    return sorted(set(found))


def agreement_pct(of: Harm) -> float:
    return 100 * (1 - of.flipped)


def tables(rows: Sequence[Row], harms: Mapping[str, Harm], parts: Mapping[str, Mapping[str, int]]) -> list[str]:
    head = ["engine", "threads", "form", "file", "MB", "load ms", "weights MB", "run ms", "to dense fp32", "folded"]
    kinds = list(dict.fromkeys(kind for own in parts.values() for kind in own))
    return [
        markdown_table(head, [row.cells() for row in rows]),
        markdown_table(
            ["form", "SQNR dB", "words agreeing %", "divergence"],
            [[f, f"{h.sqnr_db:.1f}", f"{agreement_pct(h):.1f}", f"{h.divergence:.2g}"] for f, h in harms.items()],
        ),
        markdown_table(
            ["bytes of the file for ONNX Runtime", *kinds],
            [[form, *(f"{own.get(kind, 0):,}" for kind in kinds)] for form, own in parts.items()],
        ),
    ]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--backbone", default="dctcn_phm16", help="network of the catalogue, freshly drawn")
    source.add_argument("--checkpoint", type=Path, help="an edgelip checkpoint in its place")
    parser.add_argument("--clips", type=Path, help="network inputs (B, 1, T, H, W) as .npy; default: noise")
    parser.add_argument("--num-clips", type=int, default=16, help="of noise")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), help="beside the two references; default: all")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-stored-forms")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--check", action="store_true", help="exit 3 if a limit is missed")
    parser.add_argument("--toy", action="store_true", help="a tiny network, without limits of time and size")
    return parser.parse_args(argv)


def inputs_of(arguments: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """The network and the clips."""
    if arguments.checkpoint is None:
        network = build_network(arguments.backbone, toy=arguments.toy)
    else:
        network = model_from_checkpoint(load_checkpoint(arguments.checkpoint)).eval()
    if not any(isinstance(module, PHMLayer) for module in network.modules()):
        raise UsageError("The network has no PHM layer, so there are no factors to store. Give one that has.")
    if arguments.clips is None:
        return network, example_clips(arguments.num_clips, toy=arguments.toy, seed=1)
    return network, torch.from_numpy(np.load(arguments.clips))


def run(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    network, clips = inputs_of(arguments)
    wanted = [form for form in FORMS if arguments.forms is None or form in (DENSE, FACTORS, *arguments.forms)]
    versions = {
        "torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__,
        "openvino": openvino.__version__,
    }  # fmt: skip
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    about = {
        "date": today,
        "network": str(arguments.checkpoint.name if arguments.checkpoint else arguments.backbone),
        "clips": f"{len(clips)} {'of noise' if arguments.clips is None else f'from {arguments.clips.name}'}",
        "toy": arguments.toy,
        "command": shlex.join(["python", "benchmarks/stored_forms.py", *(sys.argv[1:] if argv is None else argv)]),
        "rounds": arguments.rounds,
        "environment": environment(versions),
    }
    with tempfile.TemporaryDirectory(prefix="edgelip-stored-") as temporary:
        made = {}
        for number, form in enumerate(wanted):
            say(f"exporting: {form}")
            subject = densified(network) if form == DENSE else network
            made[form] = make_form(subject, FORMS[form], clips, Path(temporary) / str(number))
        harms = {form: harm(files.logits_BV, made[FACTORS].logits_BV) for form, files in made.items()}
        parts = {form: what_bytes_are(files.path("ort")) for form, files in made.items()}
        rows = measure(made, clips[:1].numpy(), arguments)
    has_goal = any(isinstance(module, PHMLayer) and module.n == 16 for module in network.modules())
    missed = misses(rows, harms, toy=arguments.toy, is_goal_network=has_goal)
    about |= {"load_average_after": os.getloadavg()[0], "missed": missed}
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-stored-forms"
    numbers = {
        **about,
        "rows": [asdict(row) for row in rows],
        "harms": {
            form: {**asdict(of), "sqnr_db": of.sqnr_db if np.isfinite(of.sqnr_db) else None}
            for form, of in harms.items()
        },
        "bytes": parts,
    }
    title = f"# Stored forms of {about['network']}, {about['clips']}, {today}"
    shown = tables(rows, harms, parts)
    missing = f"Missed: {'; '.join(missed)}." if missed else "No limit is missed."
    sections = [title, *shown, missing, f"`{about['command']}`", machine_lines(environment(versions))]
    save(folder, "stored_forms", numbers=numbers, sections=sections)
    print("\n\n".join(shown))
    if arguments.check and missed:
        raise GoalMissed(f"{len(missed)} limits are missed: {'; '.join(missed)}. See {folder / 'stored_forms.md'}.")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="stored_forms")


if __name__ == "__main__":
    sys.exit(main())
