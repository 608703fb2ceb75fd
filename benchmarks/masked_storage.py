"""What zeros without a structure give: the same file, the same speed, and less only where something packs the file.

    python benchmarks/masked_storage.py                          # three minutes
    python benchmarks/masked_storage.py --network dctcn_dense

Each row is a float32 ONNX file of one network whose layers (but the head) went through stage `sparsify`: the 2:4
pattern of sparse tensor cores, which no CPU engine uses, and unstructured shares. Beside the bytes of the file stand
those of its zlib copy (level 9), as a zip or a download would hold it; a bundle and `edgelip pack` store files as they
are. Latency is against the dense file in the same launches (see pruned_speed.py): a ratio of 1 says that zeros are
multiplied like any other number.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import tempfile
import zlib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from interleaved import environment, markdown_table, ratio, significant
from pruned_speed import NETWORKS, launch_times, network_and_clips, write_file
from result_files import exit_code_of, machine_lines, save
from torch import Tensor, nn

from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.stage import LabelledClips, Tools

SPARSITIES = (0.5, 0.75, 0.9)
HEAD = ("form", "zeros", "file MB", "zlib MB", "zlib / dense zlib", "latency / dense (95 %)")


def sparsified(network: nn.Module, clips: Tensor, **fields: Any) -> nn.Module:
    def keep(student: nn.Module, **_: Any) -> nn.Module:
        return student

    labelled = LabelledClips(clips, torch.arange(len(clips)))
    tools = Tools(finetune=keep, calibration=lambda: labelled, probe=lambda: labelled)
    stage = stage_from_config({"stage": "sparsify", "min_channels": 8, **fields})
    return stage.prepare(deepcopy(network), tools)[0].eval()


def zeros_share(network: nn.Module) -> float:
    """Of all weights of the network."""
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters() if parameter.ndim > 1])
    return float((weights == 0).float().mean())


def measure(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    network, clips = network_and_clips(arguments.network, toy=arguments.toy)
    forms = {"dense": network, "2:4": sparsified(network, clips)}
    for share in SPARSITIES:
        forms[f"unstructured {share:.0%}"] = sparsified(network, clips, pattern="unstructured", sparsity=share)
    with tempfile.TemporaryDirectory(prefix="edgelip-masked-") as temporary:
        files = {form: Path(temporary) / f"{number}.onnx" for number, form in enumerate(forms)}
        sizes = {form: write_file(each, clips, files[form]) for form, each in forms.items()}
        packed = {form: len(zlib.compress(file.read_bytes(), 9)) / 1e6 for form, file in files.items()}
        times = launch_times(files, clips[:1].numpy(), launches=arguments.launches, threads=1)
    rows = [
        {
            "form": form,
            "zeros": zeros_share(each),
            "file_mb": sizes[form],
            "zlib_mb": packed[form],
            "zlib_ratio": packed[form] / packed["dense"],
            "latency_ratio": ratio(times[form], times["dense"]),
        }
        for form, each in forms.items()
    ]
    return rows, times


def cells(row: dict[str, Any]) -> list[str]:
    numbers = [significant(row[key]) for key in ("file_mb", "zlib_mb", "zlib_ratio")]
    return [row["form"], f"{row['zeros']:.1%}", *numbers, row["latency_ratio"].text()]


def run(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--launches", type=int, default=9)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-masked-storage")
    parser.add_argument("--toy", action="store_true", help="a tiny network")
    arguments = parser.parse_args(argv)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    command = shlex.join(["python", "benchmarks/masked_storage.py", *(sys.argv[1:] if argv is None else argv)])
    machine = environment(
        {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "zlib": zlib.ZLIB_VERSION}
    )
    rows, times = measure(arguments)
    about = {"date": today, "network": arguments.network, "command": command, "environment": machine}
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-masked-storage"
    plain = [{**row, "latency_ratio": row["latency_ratio"].to_json()} for row in rows]
    table = markdown_table(HEAD, [cells(row) for row in rows])
    title = f"# What zeros without a structure give: {arguments.network}, {today}"
    save(
        folder,
        "masked_storage",
        numbers={**about, "rows": plain, "samples_ms": times},
        sections=[title, table, f"`{command}`", machine_lines(machine)],
    )
    print(table)


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="masked_storage")


if __name__ == "__main__":
    sys.exit(main())
