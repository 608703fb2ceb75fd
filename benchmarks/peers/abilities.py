"""What each tool tells about a network, from its own output and source in the version named."""

from __future__ import annotations

from collections.abc import Mapping

# yes, no, or in which part.
ABILITIES = (
    "raw samples", "percentile only where valid", "interval", "cold start split", "accuracy of the file", "streaming",
    "energy and its boundary", "badge of the run", "fallback found",
)  # fmt: skip
NO = "no"

TOLD: Mapping[str, tuple[str, ...]] = {
    "edgelip": (
        "yes", "yes", "yes, between launches", "yes", "yes, with interval", "yes, open loop", "yes",
        "yes, with reasons", "yes, by node",
    ),
    "a loop of one's own around ONNX Runtime 1.31.1 or torch 2.13.0": ("yes", NO, NO, NO, NO, NO, NO, NO, NO),
    "onnxruntime_test (wheel of ONNX Runtime 1.31.1)": ("no: a mean", "no: none", NO, NO, NO, NO, NO, NO, NO),
    "onnxruntime_perf_test (source of ONNX Runtime)": (
        "in its result file", "no: p99.9 of any count", NO, "session and first run", NO, NO, NO, NO, NO,
    ),
    "OpenVINO benchmark_app 2026.4.1": (
        "no: median or one percentile, mean, min, max", NO, NO, "read, compile, first run", NO, "no: a rate limit", NO,
        NO, "no: precisions by layer on request",
    ),
    "Olive 0.13.0": (
        NO, "no: p99.9 of 20 runs by default", NO, NO, "yes, no interval", NO, NO, NO, NO,
    ),
    "optimum-benchmark 0.6.0": (
        "yes", "no: p99 of any count", "no: deviation", "load and first run", NO, NO, "by codecarbon's estimate", NO,
        "only the first provider's name",
    ),
    "MLCommons LoadGen 6.0.17 (benchmarks/loadgen.py)": (
        "yes", "yes, early stopping", "an upper bound", NO, "logs the answers", "no: Poisson arrivals", NO,
        "valid or invalid", NO,
    ),
}  # fmt: skip


def told_rows() -> list[list[str]]:
    """A row a tool."""
    return [[name, *cells] for name, cells in TOLD.items()]
