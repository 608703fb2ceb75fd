"""OpenVINO on the CPU, in float32 unless asked: left alone it computes in bf16 where the CPU can.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

import numpy as np

from edgelip.runtime.engines.engine import (
    Axes,
    BuildResult,
    Engine,
    Options,
    Say,
    first_line,
    require_package,
    short_version,
)
from edgelip.runtime.engines.executed import Product, fallback_of, multiplies, precision_of_type
from edgelip.runtime.errors import BundleError

IR_NAME = "model.xml"


class OpenvinoEngine(Engine):
    """OpenVINO on the CPU. A build is its own format, .xml and .bin, which other tools of OpenVINO take.

    Option hint: "latency" gives one stream all threads; "throughput" gives each thread a stream of its own, and a batch
    is spread over them clip by clip. Option precision: of float layers; bf16 moved logits by 0.06 of 23 (Zen 4).
    int8 layers stay int8 whatever it says. Asked for f16, an x86 processor with bf16 computes in that (2026.4), which
    `fallback` tells.
    """

    package = "openvino"
    OPTIONS: ClassVar[Mapping[str, Tuple[str, ...]]] = {
        "hint": ("latency", "throughput"),
        "precision": ("f32", "f16", "bf16"),
    }

    def __init__(self, model_path: Path, *, threads: int = 1, options: Optional[Options] = None) -> None:
        options = options or {}
        openvino: Any = require_package("openvino", engine="openvino")
        hint = options.get("hint", "latency")
        self._settings = cpu_settings(threads=threads, hint=hint, precision=options.get("precision", "f32"))
        try:
            compiled = openvino.Core().compile_model(str(model_path), "CPU", self._settings)
        except Exception as error:  # RuntimeError and its own kinds, by version
            raise BundleError(f"OpenVINO cannot load {model_path}: {first_line(error)}") from error
        if len(compiled.inputs) != 1 or len(compiled.outputs) != 1:
            counts = f"{len(compiled.inputs)} inputs and {len(compiled.outputs)} outputs"
            raise BundleError(f"{model_path} has {counts}; expected one of each.")
        self._version = str(openvino.__version__)
        self._compiled: Any = compiled
        self._claimed = options.get("precision")
        self._input_axes = _axes(compiled.inputs[0].partial_shape)
        self._output_axes = _axes(compiled.outputs[0].partial_shape)
        self._request: Any = None
        self._queue: Any = None
        if hint == "throughput":
            self._queue = openvino.AsyncInferQueue(compiled, threads)
            self._queue.set_callback(_keep)
        else:
            self._request = compiled.create_infer_request()
        self._openvino: Any = openvino
        self._clips_B1THW: np.ndarray = np.empty(0, np.float32)
        self._logits_BV: np.ndarray = np.empty(0, np.float32)

    @classmethod
    def device_key(cls, options: Options) -> str:
        # One version's file runs on every processor that this version runs on.
        openvino: Any = require_package("openvino", engine="openvino")
        return f"openvino{short_version(openvino.__version__)}"

    @classmethod
    def build(cls, model_path: Path, folder: Path, *, options: Options, say: Say) -> BuildResult:
        openvino: Any = require_package("openvino", engine="openvino")
        say(f"converting {model_path.name}")
        try:
            model = openvino.Core().read_model(str(model_path))
            openvino.save_model(model, str(folder / IR_NAME), compress_to_fp16=False)
        except Exception as error:  # as above
            raise BundleError(f"OpenVINO cannot convert {model_path}: {first_line(error)}") from error
        return BuildResult(IR_NAME, {"openvino": str(openvino.__version__), "compress_to_fp16": "no"})

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
            if self._queue is None:
                return self._infer_alone(clips_B1THW)
            rows: Dict[int, np.ndarray] = {}
            for index in range(len(clips_B1THW)):
                self._queue.start_async([clips_B1THW[index : index + 1]], (rows, index))
            self._queue.wait_all()
            return np.concatenate([rows[index] for index in range(len(clips_B1THW))])
        except Exception as error:  # as above
            raise BundleError(f"OpenVINO fails on clips {clips_B1THW.shape}: {first_line(error)}") from error

    def _infer_alone(self, clips_B1THW: np.ndarray) -> np.ndarray:
        # Through arrays that stay bound. `infer([clips])` makes tensors and a dictionary of results at each call:
        # 0.2 ms more on one of 1 ms (benchmarks/peers).
        if self._clips_B1THW.shape != clips_B1THW.shape:
            clips, logits = np.empty(clips_B1THW.shape, np.float32), self._empty_logits(len(clips_B1THW))
            self._request.set_input_tensor(self._openvino.Tensor(clips, shared_memory=True))
            self._request.set_output_tensor(self._openvino.Tensor(logits, shared_memory=True))
            self._clips_B1THW, self._logits_BV = clips, logits
        np.copyto(self._clips_B1THW, clips_B1THW)
        self._request.start_async()
        self._request.wait()
        return self._logits_BV.copy()

    def _empty_logits(self, num_clips: int) -> np.ndarray:
        return np.empty([num_clips if axis is None else axis for axis in self._output_axes], np.float32)

    def fallback(self, precision: str) -> Optional[str]:
        """As the compiled graph says. Option precision, where given, is what float layers are claimed to run in."""
        claimed = precision_of_type(self._claimed) if self._claimed and precision != "int8" else precision
        products = []
        for operation in self._compiled.get_runtime_model().get_ordered_ops():
            facts = operation.get_rt_info()
            kernel = str(facts["layerType"].value) if "layerType" in facts else ""
            if multiplies(kernel) and "runtimePrecision" in facts:
                ran_in = precision_of_type(str(facts["runtimePrecision"].value))
                products.append(Product(kernel, None, ran_in))
        return fallback_of(products, provider=None, precision=claimed)

    def close(self) -> None:
        self._request = self._queue = self._compiled = None


def cpu_settings(*, threads: int, hint: str = "latency", precision: str = "f32") -> Dict[str, str]:
    """What the engine asks of OpenVINO's CPU plugin; see its options."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": hint.upper(),
        "NUM_STREAMS": str(threads) if hint == "throughput" else "1",
        "INFERENCE_NUM_THREADS": str(threads),
    }


def _keep(request: Any, place: Tuple[Dict[int, np.ndarray], int]) -> None:
    rows, index = place
    rows[index] = np.array(request.get_output_tensor().data)


def _axes(shape: Any) -> Axes:
    return tuple(None if length.is_dynamic else int(length.get_length()) for length in shape)
