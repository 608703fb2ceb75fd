"""What a fake TensorRT runs: plans of fake_trt_build, on CUDA memory that is host memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
from fake_trt_build import ILogger, weights_of
from recorded_api import Member, Strict

NO_DEVICE = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient)"
)


class FakeCuda:
    """Memory as arrays by address; work waits on the stream until synchronise."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self.capability = capability
        self.memory: dict[int, np.ndarray] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.num_allocations = 0

    def compute_capability(self) -> tuple[int, int]:
        return self.capability

    def runtime_version(self) -> str:
        return "12.6"

    def allocate(self, num_bytes: int) -> int:
        self.num_allocations += 1
        address = 4096 * self.num_allocations
        self.memory[address] = np.full(num_bytes // 4, np.nan, np.float32)
        return address

    def free(self, address: int) -> None:
        del self.memory[address]

    def create_stream(self) -> int:
        stream = 7 + len(self.streams)
        self.streams[stream] = []
        return stream

    def destroy_stream(self, stream: int) -> None:
        del self.streams[stream]

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        assert array.flags.c_contiguous
        assert array.size <= self.memory[address].size
        self.streams[stream].append(lambda: np.copyto(self.memory[address][: array.size], array.ravel()))

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        flat = array.reshape(-1)
        self.streams[stream].append(lambda: np.copyto(flat, self.memory[address][: array.size]))

    def synchronise(self, stream: int) -> None:
        for work in self.streams[stream]:
            work()
        self.streams[stream].clear()


class Runtime(Strict):
    def __init__(self, logger: Any) -> None:
        self._logger = logger
        object.__setattr__(self, "engine_host_code_allowed", False)

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        reason = ""
        plan = json.loads(bytes(content)) if bytes(content[:1]) == b"{" else None
        if self._api.cuda is None:
            reason = NO_DEVICE
        elif plan is None or plan["version"] != self._api.version:
            reason = "Serialization assertion plan->header.magicTag failed"
        elif "VERSION_COMPATIBLE" in plan["flags"] and not self.__dict__["engine_host_code_allowed"]:
            reason = "host code is not allowed"
        if reason:
            self._call(self._logger, "log", ILogger.ERROR, reason)
            return None
        return self._new("ICudaEngine", plan)


class ICudaEngine(Strict):
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._tensors = dict([plan["input"], plan["output"]])

    num_io_tensors = property(lambda self: len(self._tensors))
    device_memory_size = property(lambda self: 1000)
    device_memory_size_v2 = property(lambda self: 2000)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Member:
        return self._api.member("TensorIOMode", "INPUT" if name == self._plan["input"][0] else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Member:
        return self._api.member("DataType", "HALF" if name == "halves" else "FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name])

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        assert index == 0
        return self._plan["bounds"]

    def create_execution_context(self) -> Any:
        return self._new("IExecutionContext", self)

    def create_engine_inspector(self) -> Any:
        return self._new("EngineInspector", self)


class EngineInspector(Strict):
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, kind: Member) -> str:
        assert kind.name == "JSON"
        return json.dumps({"Layers": self._engine._plan["operators"]})


class IExecutionContext(Strict):
    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._batch = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine._plan["bounds"]
        self._batch = shape[0]
        return least[0] <= shape[0] <= most[0] and list(shape[1:]) == list(least[1:])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._batch, *self._engine._tensors[name][1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        plan, cuda = self._engine._plan, self._api.cuda
        assert cuda is not None
        if "FailsToRun" in plan["operators"]:
            return False
        clips, logits = (cuda.memory[self._addresses[name]] for name in self._engine._tensors)
        cuda.streams[stream].append(partial(_compute, plan, clips, logits, self._batch))
        return True


class Refitter(Strict):
    def __init__(self, engine: Any, logger: Any) -> None:
        self._engine = engine
        self._new_weights: dict[str, Any] = {}

    def get_missing_weights(self) -> list[str]:
        return [name for name in ("weights", "bias") if name not in self._new_weights]

    def refit_cuda_engine(self) -> bool:
        self._engine._plan.update(self._new_weights)
        return "bias" in self._new_weights and "weights" in self._new_weights


class OnnxParserRefitter(Strict):
    def __init__(self, refitter: Any, logger: Any) -> None:
        self._refitter = refitter

    def refit_from_bytes(self, content: bytes) -> bool:
        self._refitter._new_weights = weights_of(onnx.load_from_string(content).graph)
        return True


def _compute(plan: dict[str, Any], clips: np.ndarray, logits: np.ndarray, batch: int) -> None:
    """The formula of tiny_bundles.write_model; without weights every logit is 0."""
    num_words, clip_size = plan["output"][1][1], int(np.prod(plan["input"][1][1:]))
    mean_B = clips[: batch * clip_size].reshape(batch, -1).mean(axis=1)
    weights_V = np.array(plan["weights"] or [0] * num_words, np.float32)
    bias_V = np.array(plan["bias"] or [0] * num_words, np.float32)
    logits[: batch * num_words] = (mean_B[:, None] * weights_V + bias_V).ravel()
