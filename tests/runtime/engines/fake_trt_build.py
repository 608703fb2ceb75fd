"""What a fake TensorRT builds: plans are JSON, made of the models of tiny_bundles."""

from __future__ import annotations

import json
from typing import Any

import onnx
from onnx import numpy_helper
from recorded_api import Member, Strict


class ILogger(Strict):
    INTERNAL_ERROR, ERROR, WARNING = (Member("Severity", name, i) for i, name in enumerate(("I", "E", "W")))


class IProgressMonitor(Strict):
    pass


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class ITensor(Strict):
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self._tensor_name, self._shape = name, shape

    name = property(lambda self: self._tensor_name)
    shape = property(lambda self: self._shape)


class INetworkDefinition(Strict):
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._inputs: list[Any] = []
        self._model: dict[str, Any] = {}

    num_inputs = property(lambda self: len(self._inputs))

    def get_input(self, index: int) -> Any:
        return self._inputs[index]


class IOptimizationProfile(Strict):
    def set_shape(self, name: str, *bounds: tuple[int, ...]) -> None:
        self._shapes = (name, bounds)


class ITimingCache(Strict):
    def __init__(self, content: bytes) -> None:
        self._content = bytes(content)

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content + b"kernel;")


class IBuilderConfig(Strict):
    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._profile: Any = None
        self._workspace = 1 << 36
        self._capability: Any = None
        self._cache: Any = None
        # Set before the class is strict about it: these are members in every version that has them.
        for name, value in {
            "builder_optimization_level": 3,
            "profiling_verbosity": None,
            "hardware_compatibility_level": None,
            "num_compute_capabilities": 0,
            "progress_monitor": None,
        }.items():
            object.__setattr__(self, name, value)

    def set_flag(self, flag: Member) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Member) -> None:
        self._flags.remove(flag.name)

    def add_optimization_profile(self, profile: Any) -> int:
        self._profile = profile._shapes
        return 0

    def set_memory_pool_limit(self, pool: Member, num_bytes: int) -> None:
        assert pool.name == "WORKSPACE"
        self._workspace = num_bytes

    def set_compute_capability(self, capability: Member, index: int) -> bool:
        assert index == 0
        assert self.__dict__["num_compute_capabilities"] == 1
        self._capability = capability
        return True

    def create_timing_cache(self, content: bytes) -> Any:
        return self._new("ITimingCache", content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return not ignore_mismatch and cache._content.replace(b"kernel;", b"") == b""


class ParserError(Strict):
    def __init__(self, desc: str, operator: str = "", name: str = "") -> None:
        self._texts = desc, operator, name

    def desc(self) -> str:
        return self._texts[0]

    def node_operator(self) -> str:
        return self._texts[1]

    def node_name(self) -> str:
        return self._texts[2]


class OnnxParser(Strict):
    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[Any] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse(self, content: bytes) -> bool:
        try:
            graph = onnx.load_from_string(content).graph
        except Exception:
            self._errors.append(self._new("ParserError", "Assertion failed:\nFailed to parse the ONNX model."))
            return False
        for node in graph.node:
            if node.op_type.startswith("Unknown"):
                self._errors.append(self._new("ParserError", "no importer", node.op_type, node.name))
        self._network._inputs = [self._new("ITensor", value.name, shape_of(value)) for value in graph.input]
        self._network._model = {
            "operators": [node.op_type for node in graph.node],
            "output": [graph.output[0].name, shape_of(graph.output[0])],
            **weights_of(graph),
        }
        return not self._errors


class Builder(Strict):
    def __init__(self, logger: Any) -> None:
        assert isinstance(logger, self._api.make("ILogger"))
        self._logger = logger

    def create_network(self, flags: int) -> Any:
        return self._new("INetworkDefinition", flags)

    def create_builder_config(self) -> Any:
        return self._new("IBuilderConfig")

    def create_optimization_profile(self) -> Any:
        return self._new("IOptimizationProfile")

    def build_serialized_network(self, network: Any, config: Any) -> IHostMemory | None:
        api, chosen = self._api, config.__dict__
        self._log("INTERNAL_ERROR", "Thread context has not been set! Using global log stream.")
        self._log("WARNING", "a warning\nof two lines")
        if not self._report(chosen["progress_monitor"]):
            self._log("ERROR", "Error Code 7: BuildCanceled")
            return None
        clips = network._inputs[0]
        if "Unbuildable" in network._model["operators"] or (clips._shape[0] < 0 and config._profile is None):
            self._log("ERROR", "Error Code 1: Myelin (first reason)\n  in two lines")
            self._log("ERROR", "second reason")
            return None
        typed = 1 << int(api.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"))
        stripped = "STRIP_PLAN" in config._flags
        plan = {
            "version": api.version,
            "typed": network._flags == typed,
            "input": [clips._tensor_name, clips._shape],
            "bounds": config._profile[1] if config._profile else [clips._shape] * 3,
            "flags": sorted(config._flags),
            "workspace": config._workspace,
            "level": chosen["builder_optimization_level"],
            "verbosity": repr(chosen["profiling_verbosity"]),
            "hardware": repr(chosen["hardware_compatibility_level"]),
            "capability": repr(config._capability),
            **network._model,
            **({"weights": None, "bias": None} if stripped else {}),
        }
        return IHostMemory(json.dumps(plan).encode())

    def _log(self, severity: str, text: str) -> None:
        self._call(self._logger, "log", getattr(ILogger, severity), text)

    def _report(self, monitor: Any) -> bool:
        if monitor is None:
            return True
        phase = "Building engine"
        self._call(monitor, "phase_start", phase, None, 6)
        going = all(self._call(monitor, "step_complete", phase, step) for step in range(6))
        self._call(monitor, "phase_finish", phase)
        return going


def shape_of(value: Any) -> list[int]:
    return [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]


def weights_of(graph: Any) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor).ravel().tolist() for tensor in graph.initializer}
