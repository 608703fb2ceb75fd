"""What this machine's cores can do at most, measured: products of large matrices, and copies of large arrays.

The ceiling of a type is the best of several ways to multiply: ONNX Runtime's own product at a few sizes and, in
float32, numpy's. Measured in a fresh process, so that each library takes the number of threads that it is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgelip.bench.isolate import PACKAGE_ROOT, THREAD_VARIABLES
from edgelip.registry import require
from edgelip.runtime.engines.ort import open_session
from edgelip.runtime.errors import MeasurementError

SIZES = ((1024, 1024, 1024), (2048, 576, 256), (512, 4096, 512))  # rows, inner, columns
COPIED_BYTES = 256 * 2**20  # beyond every cache


@dataclass(frozen=True)
class Ceiling:
    """1e9 operations a second, a multiply-add being two, by type; 1e9 bytes a second, read and written."""

    threads: int
    fp32_gflops: float
    int8_gops: float
    memory_gb_s: float

    def of(self, *, integer: bool) -> float:
        return self.int8_gops if integer else self.fp32_gflops


def measured_ceiling(threads: int, *, seconds: float = 0.5) -> Ceiling:
    """Of this machine with so many threads; each way to multiply runs for `seconds`. Raises MeasurementError."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    command = [sys.executable, "-m", __name__, "--threads", str(threads), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=PACKAGE_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "?").splitlines()[-1]
        raise MeasurementError(f"The process that measures the ceiling of this machine ended: {last}")
    return Ceiling(**json.loads(done.stdout))


def ceiling_here(threads: int, *, seconds: float, sizes: Sequence[tuple[int, int, int]] = SIZES) -> Ceiling:
    """The same, in this process: numpy takes the threads that its environment said at the start."""
    best = {"float": 0.0, "integer": 0.0}
    generator = np.random.default_rng(0)
    with TemporaryDirectory(prefix="edgelip-ceiling-") as folder:
        for rows, inner, columns in sizes:
            operations = 2e-9 * rows * inner * columns
            left = generator.standard_normal((rows, inner), np.float32)
            right = generator.standard_normal((inner, columns), np.float32)
            ways = {"float": [lambda left=left, right=right: left @ right]}
            for kind in best:
                path = Path(folder) / f"{kind}.onnx"
                path.write_bytes(_product(right, integer=kind == "integer"))
                session = open_session(path, threads=threads)
                given = left if kind == "float" else generator.integers(0, 255, left.shape, np.uint8)
                ways.setdefault(kind, []).append(lambda s=session, x=given: s.run(None, {"left": x}))
            for kind, runs in ways.items():
                best[kind] = max(best[kind], *(operations / _fastest_s(run, seconds) for run in runs))
    copied = COPIED_BYTES if sizes is SIZES else 2**16
    return Ceiling(threads, best["float"], best["integer"], _copy_gb_s(threads, copied, seconds))


def _product(right: np.ndarray, *, integer: bool) -> bytes:
    """An ONNX file that multiplies by a constant: float32, or unsigned by signed int8 with rounded results."""
    onnx: Any = require("onnx", extra="onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    if integer:
        constants = {
            "right": np.clip(np.rint(right * 40), -127, 127).astype(np.int8),
            "scale": np.float32(0.01),
            "zero": np.uint8(128),
            "weight_zero": np.int8(0),
        }
        inputs = ["left", "scale", "zero", "right", "scale", "weight_zero", "scale", "zero"]
        node, kind = helper.make_node("QLinearMatMul", inputs, ["result"]), kinds.UINT8
    else:
        constants, kind = {"right": right}, kinds.FLOAT
        node = helper.make_node("MatMul", ["left", "right"], ["result"])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("left", kind, ["rows", right.shape[0]])],
        [helper.make_tensor_value_info("result", kind, ["rows", right.shape[1]])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _copy_gb_s(threads: int, num_bytes: int, seconds: float) -> float:
    sources = [np.ones(num_bytes // threads, np.uint8) for _ in range(threads)]
    targets = [np.empty_like(source) for source in sources]
    with ThreadPoolExecutor(threads) as pool:
        taken = _fastest_s(lambda: list(pool.map(np.copyto, targets, sources)), seconds)
    return 2e-9 * sum(source.nbytes for source in sources) / taken


def _fastest_s(run: Callable[[], object], seconds: float) -> float:
    """The shortest of the runs that fit into `seconds`, three at least."""
    best, end, number = float("inf"), time.perf_counter() + seconds, 0
    while number < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best, number = min(best, time.perf_counter() - start), number + 1
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    sys.stdout.write(json.dumps(asdict(ceiling_here(arguments.threads, seconds=arguments.seconds))))
