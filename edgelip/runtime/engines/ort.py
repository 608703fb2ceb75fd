"""ONNX Runtime: on the CPU, and on its other execution providers where they are installed.

ONNX Runtime gives nodes that a provider lacks to the CPU and says nothing. Here every convolution and product must run
on the provider that the engine is named after, else the engine refuses; the share of all nodes stands in `settings`.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Tuple, TypeVar

import numpy as np

from edgelip.runtime.device_key import processor_key
from edgelip.runtime.engines.arena import activation_bytes_in_profile
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
from edgelip.runtime.engines.executed import (
    Product,
    fallback_of,
    nodes_by_provider,
    products_in_profile,
    refuse_fallback,
)
from edgelip.runtime.errors import BundleError, MissingError

Found = TypeVar("Found")
CPU = "CPUExecutionProvider"
# A spinning pool takes a core from its neighbours and hides contention from the measurement.
SESSION_CONFIG = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
OPTIMISED_NAME = "optimised.onnx"
_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


def open_session(
    model_path: Path,
    *,
    threads: int = 1,
    provider: str = CPU,
    provider_options: Optional[Mapping[str, str]] = None,
    optimisation: str = "ALL",
    optimised_path: Optional[Path] = None,
    profile_prefix: Optional[Path] = None,
    config: Optional[Mapping[str, str]] = None,
) -> Any:
    """An onnxruntime.InferenceSession on `provider`; what that lacks is left to the CPU provider.

    optimisation: ALL, EXTENDED, BASIC or DISABLE_ALL. ALL brings the NCHWc layout: BASIC runs 1.3 times as long.
    optimised_path: where to save the graph that really runs; profile_prefix: where the profile goes, end_profiling()
    names it; config: further session config entries.
    Raises BundleError in one line if ONNX Runtime refuses the model, MissingError without onnxruntime or the provider.
    """
    onnxruntime: Any = require_package("onnxruntime", engine="ort")
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise MissingError(
            f"onnxruntime {onnxruntime.__version__} has {', '.join(available)}; expected {provider}. Install the build "
            "of ONNX Runtime that has it (on a Jetson NVIDIA's own), or use --engine ort."
        )
    if provider in _CUDA and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN as pip or PyTorch brought them
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
    providers = [(provider, dict(provider_options or {}))] + ([] if provider == CPU else [(CPU, {})])
    try:
        session = onnxruntime.InferenceSession(str(model_path), options, providers=providers)
    except Exception as error:  # its exceptions have no common root below Exception
        raise BundleError(f"ONNX Runtime cannot load {model_path}: {first_line(error)}") from error
    session.disable_fallback()  # else a run that fails on the provider goes on, for good, on another
    used = session.get_providers()
    if used[:1] != [provider]:
        raise BundleError(f"ONNX Runtime runs {model_path} on {used}; expected {provider} first.")
    return session


class _OrtEngine(Engine):
    """All graph optimisations, `threads` threads inside an operator, one operator at a time, no spinning."""

    package = "onnxruntime"
    provider: ClassVar[str]
    key_word: ClassVar[str]  # of the device key
    whole: ClassVar[bool] = False  # True: the provider compiles its nodes to one, at a cost, and shows nothing inside
    OPTIONS: ClassVar[Mapping[str, Tuple[str, ...]]] = {"fallback": ("refuse", "allow")}

    def __init__(self, model_path: Path, *, threads: int = 1, options: Optional[Options] = None) -> None:
        options = options or {}
        allowed = self.provider == CPU or options.get("fallback") == "allow"
        built = model_path.name == OPTIMISED_NAME
        self._model_path = model_path
        self._opening: Dict[str, Any] = {
            "threads": threads,
            "provider": self.provider,
            "provider_options": self._provider_options(threads, options),
            "optimisation": "DISABLE_ALL" if built else "ALL",
            "config": _placement_config(allowed=allowed),
        }
        session = open_session(model_path, **self._opening)
        self._placement: Dict[str, str] = {}
        if self.provider != CPU:
            self._placement = _placement(session, self.provider, allowed=allowed)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
            takes = [f"{value.name}: {value.type}" for value in inputs]
            raise BundleError(f"{model_path} takes {takes}, gives {len(outputs)} outputs; expected one float32 to one.")
        self._session: Any = session
        self._threads, self._optimisation = threads, "done at build" if built else "ALL"
        self._input_name, self._output_name = inputs[0].name, outputs[0].name
        self._input_axes, self._output_axes = _axes(inputs[0].shape), _axes(outputs[0].shape)

    @staticmethod
    def _provider_options(threads: int, options: Options) -> Dict[str, str]:
        return {}

    @classmethod
    def device_key(cls, options: Options) -> str:
        onnxruntime: Any = require_package("onnxruntime", engine="ort")
        return f"{processor_key()}-{cls.key_word}{short_version(onnxruntime.__version__)}"

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
            "provider": self.provider,
            **self._placement,
            "graph_optimisation": self._optimisation,
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

    def fallback(self, precision: str) -> Optional[str]:
        """As a profile of one run tells it, node by node, in a second session of its own.

        Without a profile (`whole`), as the placement at load says, which knows providers but no precision.
        """
        used = self._session.get_providers()
        if used[:1] != [self.provider]:
            return f"{self.provider} gave up: the session went on on {', '.join(used)}"
        products = [] if self.whole else self._products()
        found = fallback_of(products, provider=self.provider, precision=precision)
        return found if found or products else self._placement.get("fallback")

    def _products(self) -> List[Product]:
        shape = [length or 1 for length in self._input_axes]
        return self._profiled(np.zeros(shape, np.float32), products_in_profile) or []

    def activation_bytes(self, clips_B1THW: np.ndarray) -> Optional[int]:
        """As a profile of one run on the CPU tells it, in a second session of its own."""
        return self._profiled(clips_B1THW, activation_bytes_in_profile) if self.provider == CPU else None

    def _profiled(self, clips_B1THW: np.ndarray, read: Callable[[str], Found]) -> Optional[Found]:
        """What `read` finds in the profile of one run in a second session; None where that cannot be made."""
        try:
            with tempfile.TemporaryDirectory(prefix="edgelip-profile-") as folder:
                session = open_session(self._model_path, profile_prefix=Path(folder) / "run", **self._opening)
                session.run(None, {self._input_name: clips_B1THW})
                return read(Path(session.end_profiling()).read_text())
        except Exception:  # no memory for it, no place for its profile: what was measured before stands without
            return None

    def close(self) -> None:
        self._session = None


class OrtEngine(_OrtEngine):
    """ONNX Runtime on the CPU. A build is the graph as optimised for this processor: it loads faster, no more."""

    provider = CPU
    key_word = "ort"
    OPTIONS: ClassVar[Mapping[str, Tuple[str, ...]]] = {}

    @classmethod
    def build(cls, model_path: Path, folder: Path, *, options: Options, say: Say) -> BuildResult:
        say(f"optimising {model_path.name}")
        open_session(model_path, optimised_path=folder / OPTIMISED_NAME)
        onnxruntime: Any = require_package("onnxruntime", engine="ort")
        return BuildResult(OPTIMISED_NAME, {"onnxruntime": str(onnxruntime.__version__), "graph_optimisation": "ALL"})


class OrtCudaEngine(_OrtEngine):
    """ONNX Runtime on an NVIDIA GPU, TF32 off."""

    provider = "CUDAExecutionProvider"
    key_word = "ort-cuda"
    on_gpu = True

    @staticmethod
    def _provider_options(threads: int, options: Options) -> Dict[str, str]:
        return {"use_tf32": "0"}  # its 10 bits of mantissa would break parity in fp32


class OrtTensorrtEngine(_OrtEngine):
    """ONNX Runtime with TensorRT inside, which builds at every load."""

    provider = "TensorrtExecutionProvider"
    key_word = "ort-tensorrt"
    on_gpu = True
    whole = True


class OrtXnnpackEngine(_OrtEngine):
    """ONNX Runtime with XNNPACK, for ARM processors; the threads are XNNPACK's own."""

    provider = "XnnpackExecutionProvider"
    key_word = "ort-xnnpack"

    @staticmethod
    def _provider_options(threads: int, options: Options) -> Dict[str, str]:
        return {"intra_op_num_threads": str(threads)}


class OrtCoremlEngine(_OrtEngine):
    """ONNX Runtime with Core ML, on Apple's devices."""

    provider = "CoreMLExecutionProvider"
    key_word = "ort-coreml"
    whole = True

    @staticmethod
    def _provider_options(threads: int, options: Options) -> Dict[str, str]:
        return {"ModelFormat": "MLProgram"}


class OrtQnnEngine(_OrtEngine):
    """ONNX Runtime with Qualcomm's QNN; option backend: htp is the neural processor."""

    provider = "QNNExecutionProvider"
    key_word = "ort-qnn"
    whole = True
    OPTIONS: ClassVar[Mapping[str, Tuple[str, ...]]] = {**_OrtEngine.OPTIONS, "backend": ("htp", "cpu")}

    @staticmethod
    def _provider_options(threads: int, options: Options) -> Dict[str, str]:
        return {"backend_type": options.get("backend", "htp")}


def _tells_placement() -> bool:
    """Whether this ONNX Runtime says which provider runs which node; since 1.24."""
    onnxruntime: Any = require_package("onnxruntime", engine="ort")
    return hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")


def _placement_config(*, allowed: bool) -> Dict[str, str]:
    if _tells_placement():
        return {"session.record_ep_graph_assignment_info": "1"}
    return {} if allowed else {"session.disable_cpu_ep_fallback": "1"}  # an older one can at least refuse


def _placement(session: Any, provider: str, *, allowed: bool) -> Dict[str, str]:
    if _tells_placement():
        nodes = nodes_by_provider(session.get_provider_graph_assignment_info())
        return refuse_fallback(nodes, provider, allowed=allowed)
    if allowed:
        return {"nodes_on_provider": "unknown", "fallback": "this onnxruntime does not tell what runs on the CPU"}
    return {"nodes_on_provider": "all"}


def _axes(shape: Any) -> Axes:
    return tuple(length if isinstance(length, int) else None for length in shape)
