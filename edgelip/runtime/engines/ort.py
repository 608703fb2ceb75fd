"""ONNX Runtime on the CPU.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import numpy as np

from edgelip.runtime.engines.engine import Axes, Engine, first_line, require_package
from edgelip.runtime.errors import BundleError

PROVIDER = "CPUExecutionProvider"
# A spinning pool takes a core from its neighbours and hides contention from the measurement.
SESSION_CONFIG = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}


def open_session(
    model_path: Path,
    *,
    threads: int = 1,
    optimisation: str = "ALL",
    optimised_path: Optional[Path] = None,
    profile_prefix: Optional[Path] = None,
    config: Optional[Mapping[str, str]] = None,
) -> Any:
    """An onnxruntime.InferenceSession on the CPU provider alone.

    optimisation: ALL, EXTENDED, BASIC or DISABLE_ALL. ALL brings the NCHWc layout: BASIC runs 1.3 times as long.
    optimised_path: where to save the graph that really runs; profile_prefix: where the profile goes, end_profiling()
    names it; config: further session config entries.
    Raises BundleError in one line if ONNX Runtime refuses the model, MissingError without onnxruntime.
    """
    onnxruntime: Any = require_package("onnxruntime", engine="ort")
    options = onnxruntime.SessionOptions()
    level = optimisation if optimisation == "DISABLE_ALL" else f"ENABLE_{optimisation}"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions; stderr is for progress
    for key, value in {**SESSION_CONFIG, **(config or {})}.items():
        options.add_session_config_entry(key, value)
    if optimised_path is not None:
        options.optimized_model_filepath = str(optimised_path)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    try:
        session = onnxruntime.InferenceSession(str(model_path), options, providers=[PROVIDER])
    except Exception as error:  # its exceptions have no common root below Exception
        raise BundleError(f"ONNX Runtime cannot load {model_path}: {first_line(error)}") from error
    used = session.get_providers()
    if used != [PROVIDER]:
        raise BundleError(f"ONNX Runtime runs {model_path} on {used}; expected {PROVIDER} alone.")
    return session


class OrtEngine(Engine):
    """All graph optimisations, `threads` threads inside an operator, one operator at a time, no spinning."""

    package = "onnxruntime"

    def __init__(
        self,
        model_path: Path,
        *,
        threads: int = 1,
        optimised_path: Optional[Path] = None,
        profile_prefix: Optional[Path] = None,
    ) -> None:
        session = open_session(
            model_path, threads=threads, optimised_path=optimised_path, profile_prefix=profile_prefix
        )
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
            takes = [f"{value.name}: {value.type}" for value in inputs]
            raise BundleError(f"{model_path} takes {takes}, gives {len(outputs)} outputs; expected one float32 to one.")
        self._session: Any = session
        self._threads = threads
        self._input_name, self._output_name = inputs[0].name, outputs[0].name
        self._input_axes, self._output_axes = _axes(inputs[0].shape), _axes(outputs[0].shape)

    @property
    def input_axes(self) -> Axes:
        return self._input_axes

    @property
    def output_axes(self) -> Axes:
        return self._output_axes

    @property
    def settings(self) -> Dict[str, str]:
        onnxruntime: Any = require_package("onnxruntime", engine="ort")
        return {
            "onnxruntime": str(onnxruntime.__version__),
            "provider": PROVIDER,
            "graph_optimisation": "ALL",
            "intra_op_threads": str(self._threads),
            "inter_op_threads": "1",
            **SESSION_CONFIG,
        }

    def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
        try:
            (logits_BV,) = self._session.run([self._output_name], {self._input_name: clips_B1THW})
        except Exception as error:  # as above
            raise BundleError(f"ONNX Runtime fails on clips {clips_B1THW.shape}: {first_line(error)}") from error
        return np.asarray(logits_BV)

    def end_profiling(self) -> Path:
        """Close the profile and say where it lies; only with `profile_prefix`."""
        return Path(self._session.end_profiling())

    def close(self) -> None:
        self._session = None


def _axes(shape: Any) -> Axes:
    return tuple(length if isinstance(length, int) else None for length in shape)
