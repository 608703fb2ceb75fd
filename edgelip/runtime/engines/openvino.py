"""OpenVINO on the CPU, in float32: left alone it computes in bf16 where the CPU can.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np

from edgelip.runtime.engines.engine import Axes, Engine, first_line, require_package
from edgelip.runtime.errors import BundleError

# bf16 moved logits by 0.06 of 23 (measured on Zen 4); int8 layers stay int8 under this hint.
_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}


class OpenvinoEngine(Engine):
    """The CPU device with one stream of `threads` threads."""

    package = "openvino"

    def __init__(self, model_path: Path, *, threads: int = 1) -> None:
        openvino: Any = require_package("openvino", engine="openvino")
        self._settings = {**_CONFIG, "INFERENCE_NUM_THREADS": str(threads)}
        try:
            compiled = openvino.Core().compile_model(str(model_path), "CPU", self._settings)
        except Exception as error:  # RuntimeError and its own kinds, by version
            raise BundleError(f"OpenVINO cannot load {model_path}: {first_line(error)}") from error
        if len(compiled.inputs) != 1 or len(compiled.outputs) != 1:
            counts = f"{len(compiled.inputs)} inputs and {len(compiled.outputs)} outputs"
            raise BundleError(f"{model_path} has {counts}; expected one of each.")
        self._version = str(openvino.__version__)
        self._request: Any = compiled.create_infer_request()
        self._input_axes = _axes(compiled.inputs[0].partial_shape)
        self._output_axes = _axes(compiled.outputs[0].partial_shape)

    @property
    def input_axes(self) -> Axes:
        return self._input_axes

    @property
    def output_axes(self) -> Axes:
        return self._output_axes

    @property
    def settings(self) -> Dict[str, str]:
        return {"openvino": self._version, "device": "CPU", **self._settings}

    def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
        # OpenVINO 2026.4 with one stream computes on other shapes than the model's without an error.
        if any(axis not in (None, got) for axis, got in zip(self._input_axes, clips_B1THW.shape)):
            wanted = f"the model takes {self._input_axes}"
            raise BundleError(f"OpenVINO fails on clips {clips_B1THW.shape}: {wanted}")
        try:
            logits_BV = self._request.infer([clips_B1THW])[0]
        except Exception as error:  # as above
            raise BundleError(f"OpenVINO fails on clips {clips_B1THW.shape}: {first_line(error)}") from error
        return np.asarray(logits_BV)

    def close(self) -> None:
        self._request = None


def _axes(shape: Any) -> Axes:
    return tuple(None if length.is_dynamic else int(length.get_length()) for length in shape)
