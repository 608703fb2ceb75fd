"""The kernels that an engine runs for one file, with their times, in the order in which they run."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgelip.bench.graph import INTEGER
from edgelip.registry import require
from edgelip.runtime.engines.openvino import cpu_settings
from edgelip.runtime.engines.ort import open_session
from edgelip.runtime.errors import MeasurementError

WARM_UP = 3
_FIRST_WORD = re.compile(r"[^_/ ]+")


@dataclass(frozen=True)
class Kernel:
    """One kernel. nodes: names of the file's nodes that it computes, none for what the engine put in by itself."""

    kernel: str
    nodes: tuple[str, ...]
    integer: bool  # it multiplies in int8
    time_us: float  # median over the runs


@dataclass(frozen=True)
class Timeline:
    """All kernels of a run, and what a whole run takes: the rest of it lies between the kernels."""

    kernels: tuple[Kernel, ...]
    run_us: float


def ort_timeline(model_path: Path, feed: Mapping[str, np.ndarray], *, threads: int, runs: int = 20) -> Timeline:
    """From the profiler of ONNX Runtime, all optimisations on. It adds about 2 us to each kernel.

    Raises MeasurementError for fewer than one run.
    """
    _require_runs(runs)
    with tempfile.TemporaryDirectory(prefix="edgelip-profile-") as folder:
        session = open_session(model_path, threads=threads, profile_prefix=Path(folder) / "profile")
        for _ in range(WARM_UP + runs):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    names = _node_names(model_path)
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"])
            times.setdefault(key, []).append(event["dur"])
    whole = [event["dur"] for event in events if event["name"] == "model_run"][WARM_UP:]
    kernels = [
        Kernel(kernel, _original(name, names), kernel in INTEGER, median(samples[WARM_UP:]))
        for (name, kernel), samples in times.items()
    ]
    return Timeline(tuple(kernels), median(whole))


def openvino_timeline(model_path: Path, feed: Mapping[str, np.ndarray], *, threads: int, runs: int = 20) -> Timeline:
    """From the performance counters of OpenVINO, float layers in float32. Raises MeasurementError as above."""
    _require_runs(runs)
    openvino: Any = require("openvino", extra="openvino")
    settings = {**cpu_settings(threads=threads), "PERF_COUNT": "YES"}
    compiled = openvino.Core().compile_model(str(model_path), "CPU", settings)
    merged = {
        operation.get_friendly_name(): str(operation.get_rt_info()["originalLayersNames"].value)
        for operation in compiled.get_runtime_model().get_ordered_ops()
        if "originalLayersNames" in operation.get_rt_info()
    }
    names = _node_names(model_path)
    request = compiled.create_infer_request()
    times: dict[tuple[str, str], list[float]] = {}
    whole: list[float] = []
    for number in range(WARM_UP + runs):
        request.infer(dict(feed))
        if number < WARM_UP:
            continue
        whole.append(request.latency * 1e3)
        for entry in request.get_profiling_info():
            if entry.status == entry.Status.EXECUTED:
                key = (entry.node_name, f"{entry.node_type} {entry.exec_type}")
                times.setdefault(key, []).append(entry.real_time.total_seconds() * 1e6)
    kernels = []
    for (name, kernel), samples in times.items():
        words = [word.split("/")[0] for word in merged.get(name, name).split(",")]
        nodes = tuple(dict.fromkeys(word for word in words if word in names))
        kernels.append(Kernel(kernel, nodes, kernel.upper().endswith("I8"), median(samples)))
    return Timeline(tuple(kernels), median(whole))


def _require_runs(runs: int) -> None:
    if runs < 1:
        raise MeasurementError(f"runs is {runs}; expected at least one to time kernels in.")


def _node_names(model_path: Path) -> frozenset[str]:
    onnx: Any = require("onnx", extra="onnx")

    return frozenset(node.name for node in onnx.load(str(model_path), load_external_data=False).graph.node)


def _original(name: str, names: frozenset[str]) -> tuple[str, ...]:
    """ONNX Runtime names what it merges or moves after a node of the file: "fused 4k", "4k_nchwc", "4k_token_7"."""
    words: Sequence[str] = _FIRST_WORD.findall(name.removeprefix("fused "))
    return (words[0],) if words and words[0] in names else ()
