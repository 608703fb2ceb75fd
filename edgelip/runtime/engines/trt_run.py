"""Run an open TensorRT plan: one CUDA stream, buffers for its largest batch, larger batches in pieces.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import Any, List, Optional, Tuple

import numpy as np

from edgelip.runtime.engines.cuda import Cuda
from edgelip.runtime.engines.trt_open import OpenPlan
from edgelip.runtime.errors import BundleError, EdgelipError

_FLOAT_BYTES = 4


class PlanRunner:
    """clip: (1, T, H, W); num_words: V; batch: the fewest and most clips of one run."""

    def __init__(self, trt: Any, plan: OpenPlan, cuda: Cuda, label: str) -> None:
        """Raises BundleError if the plan does not take float32 clips to float32 logits; MissingError without memory."""
        self._input_name, self._output_name = _tensor_names(trt, plan.engine, label)
        takes, gives = (tuple(plan.engine.get_tensor_shape(name)) for name in (self._input_name, self._output_name))
        if len(takes) != 5 or len(gives) != 2 or min(takes[1:] + gives[1:]) < 1:
            raise BundleError(f"{label} takes {takes} to {gives}; expected clips (B, 1, T, H, W) to logits (B, V).")
        self.clip: Tuple[int, ...] = tuple(int(length) for length in takes[1:])
        self.num_words = int(gives[1])
        least, _, most = plan.engine.get_tensor_profile_shape(self._input_name, 0)
        self.batch = (int(least[0]), int(most[0]))
        self._plan: Optional[OpenPlan] = plan
        self._cuda = cuda
        self._context: Any = None
        self._shaped_for: Optional[int] = None
        with ExitStack() as stack:  # frees everything if something below fails
            stack.callback(self._forget)
            self._context = plan.engine.create_execution_context()
            if self._context is None:
                raise BundleError(f"TensorRT cannot run {label}: {plan.transcript.first_error()}")
            self._stream = cuda.create_stream()
            stack.callback(cuda.destroy_stream, self._stream)
            self._clips_address = self._buffer(stack, self._input_name, math.prod(self.clip))
            self._logits_address = self._buffer(stack, self._output_name, self.num_words)
            plan.transcript.clear()
            self._copied_ns: Optional[List[int]] = None
            self._stack = stack.pop_all()

    def _buffer(self, stack: ExitStack, name: str, num_floats: int) -> int:
        address = self._cuda.allocate(self.batch[1] * num_floats * _FLOAT_BYTES)
        stack.callback(self._cuda.free, address)
        self._context.set_tensor_address(name, address)
        return address

    def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
        """float32 logits (B, V). Raises BundleError if the shapes or TensorRT do not allow it."""
        if clips_B1THW.shape[1:] != self.clip:
            takes = f"the plan takes (B, {', '.join(map(str, self.clip))})"
            raise BundleError(f"TensorRT fails on clips {clips_B1THW.shape}: {takes}")
        clips_B1THW = np.ascontiguousarray(clips_B1THW, np.float32)
        logits_BV = np.empty((len(clips_B1THW), self.num_words), np.float32)
        for start in range(0, len(clips_B1THW), self.batch[1]):
            piece = clips_B1THW[start : start + self.batch[1]]
            try:
                logits_BV[start : start + len(piece)] = self._run(piece)[: len(piece)]
            except EdgelipError as error:
                raise BundleError(f"TensorRT fails on clips {piece.shape}: {error}") from error
        return logits_BV

    def infer_split(self, clips_B1THW: np.ndarray) -> Tuple[np.ndarray, int]:
        """The same, and the nanoseconds of copying the clips to the device, each copy waited for."""
        copied_ns: List[int] = []
        self._copied_ns = copied_ns
        try:
            return self.infer(clips_B1THW), sum(copied_ns)
        finally:
            self._copied_ns = None

    @property
    def activation_bytes(self) -> Optional[int]:
        """Device memory of the execution context; None once closed."""
        if self._plan is None:
            return None
        engine = self._plan.engine  # TensorRT 11 has the newer name only, 10.0 the older
        name = "device_memory_size_v2" if hasattr(engine, "device_memory_size_v2") else "device_memory_size"
        return int(getattr(engine, name))

    def _run(self, clips_B1THW: np.ndarray) -> np.ndarray:
        assert self._plan is not None, "closed"
        lacking = self.batch[0] - len(clips_B1THW)
        if lacking > 0:  # the plan takes no fewer; a clip's logits do not depend on its batch mates
            clips_B1THW = np.concatenate([clips_B1THW, np.repeat(clips_B1THW[-1:], lacking, axis=0)])
        logits_BV = np.empty((len(clips_B1THW), self.num_words), np.float32)
        self._set_batch(clips_B1THW.shape, logits_BV.shape)
        begin_ns = time.perf_counter_ns() if self._copied_ns is not None else 0
        self._cuda.copy_to_device(self._clips_address, clips_B1THW, self._stream)
        if self._copied_ns is not None:
            self._cuda.synchronise(self._stream)
            self._copied_ns.append(time.perf_counter_ns() - begin_ns)
        if not self._context.execute_async_v3(self._stream):
            raise BundleError(self._plan.transcript.first_error())
        self._cuda.copy_to_host(logits_BV, self._logits_address, self._stream)
        self._cuda.synchronise(self._stream)
        return logits_BV

    def _set_batch(self, clips: Tuple[int, ...], logits: Tuple[int, ...]) -> None:
        if self._shaped_for == clips[0]:
            return
        self._shaped_for = None
        assert self._plan is not None
        if not self._context.set_input_shape(self._input_name, clips):
            raise BundleError(self._plan.transcript.first_error())
        gives = tuple(self._context.get_tensor_shape(self._output_name))
        if gives != logits:  # more would be written past the buffer
            raise BundleError(f"the plan gives {gives}; expected {logits}")
        self._shaped_for = clips[0]

    def close(self) -> None:
        """Free all that lies on the device; closing twice does nothing."""
        self._stack.close()

    def _forget(self) -> None:
        # In this order: a context may not outlive its plan.
        self._context = None
        self._plan = None


def _tensor_names(trt: Any, engine: Any, label: str) -> Tuple[str, str]:
    """Names of the one input and the one output, both float32."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
    kinds = {name: engine.get_tensor_dtype(name) for name in names}
    if len(inputs) != 1 or len(outputs) != 1 or any(kind != trt.DataType.FLOAT for kind in kinds.values()):
        has = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise BundleError(f"{label} has {has[:200]}; expected one float32 input and one float32 output.")
    return inputs[0], outputs[0]
