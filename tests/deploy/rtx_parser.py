"""TensorRT-RTX as a reader of ONNX files: a strongly typed network from bytes, and plans for GPUs that are not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorrt_rtx


class _Log(tensorrt_rtx.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= tensorrt_rtx.ILogger.Severity.ERROR:
            self.errors.append(message)


def _parsed(content: bytes, log: _Log) -> tuple[Any, Any, list[str]]:
    builder = tensorrt_rtx.Builder(log)
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, log)
    done = parser.parse(content)
    errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
    return builder, network, errors if errors or done else ["refused without a reason"]


def parsing_errors(content: bytes) -> list[str]:
    """What TensorRT-RTX has against the file."""
    return _parsed(content, _Log())[2]


def building_errors(content: bytes, clip_shape: Sequence[int], capability: str) -> list[str]:
    """What it has against a plan of the file for GPUs such as "SM86", for batches of one to four clips."""
    log = _Log()
    builder, network, errors = _parsed(content, log)
    if errors:
        return errors
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("clips", (1, *clip_shape), (1, *clip_shape), (4, *clip_shape))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return [] if plan is not None else log.errors or ["no plan, without a reason"]
