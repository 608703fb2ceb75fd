"""What an engine is, and the table of those that edgelip can open.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import abc
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Callable, ClassVar, Dict, Mapping, Optional, Tuple, Type

import numpy as np

from edgelip.runtime.errors import BundleError, MissingError, UsageError

ENGINES: Dict[str, str] = {
    "ort": "edgelip.runtime.engines.ort:OrtEngine",
    "ort-cuda": "edgelip.runtime.engines.ort:OrtCudaEngine",
    "ort-tensorrt": "edgelip.runtime.engines.ort:OrtTensorrtEngine",
    "ort-xnnpack": "edgelip.runtime.engines.ort:OrtXnnpackEngine",
    "ort-coreml": "edgelip.runtime.engines.ort:OrtCoremlEngine",
    "ort-qnn": "edgelip.runtime.engines.ort:OrtQnnEngine",
    "openvino": "edgelip.runtime.engines.openvino:OpenvinoEngine",
    "tensorrt": "edgelip.runtime.engines.trt:TensorrtEngine",
    "tensorrt-rtx": "edgelip.runtime.engines.trt:TensorrtRtxEngine",
}

# ONNX Runtime 1.31 sends events of its use when it is imported, unless this is set before.
_QUIET: Dict[str, Dict[str, str]] = {"onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"}}

_REMEDIES: Dict[str, str] = {
    "tensorrt": "On a Jetson it comes with JetPack (sudo apt-get install python3-libnvinfer, and a virtual environment "
    "made with --system-site-packages); elsewhere pip install tensorrt where NVIDIA's driver is"
}

Axes = Tuple[Optional[int], ...]  # None: any length
Options = Mapping[str, str]
Say = Callable[[str], None]


@dataclass(frozen=True)
class BuildResult:
    """What a build wrote. main: the file that the engine opens; settings: all that bears on it, versions too."""

    main: str
    settings: Mapping[str, str]


class Engine(abc.ABC):
    """A loaded model: `with open_engine(...) as engine: engine.infer(clips)`. Used by one thread at a time.

    OPTIONS: what may be set by name, with the words it takes; an empty tuple stands for text that the engine checks.
    """

    package: ClassVar[str]  # what must be installed
    needs_build: ClassVar[bool] = False  # True: opens only what `build` made for this kind of device
    on_gpu: ClassVar[bool] = False  # True: the processor waits while an NVIDIA GPU computes
    OPTIONS: ClassVar[Mapping[str, Tuple[str, ...]]] = {}

    @abc.abstractmethod
    def __init__(self, model_path: Path, *, threads: int, options: Options) -> None:
        """Load an ONNX file, or the `main` of a build. Raises BundleError in one line if the engine refuses it."""

    @classmethod
    @abc.abstractmethod
    def device_key(cls, options: Options) -> str:
        """The kind of device that a build with `options` is for, such as 'x86-avx512vnni-ort1.31'."""

    @classmethod
    def build(cls, model_path: Path, folder: Path, *, options: Options, say: Say) -> BuildResult:
        """Make of an ONNX file what runs on device_key(options), in the empty `folder`; some engines have nothing to.

        Raises BundleError if it refuses the model.
        """
        raise NotImplementedError

    @property
    @abc.abstractmethod
    def input_axes(self) -> Axes:
        """Shape of the one input, (B, 1, T, H, W)."""

    @property
    @abc.abstractmethod
    def output_axes(self) -> Axes:
        """Shape of the one output, (B, V)."""

    @property
    @abc.abstractmethod
    def settings(self) -> Dict[str, str]:
        """Version and every setting that bears on speed or precision, for the record."""

    @abc.abstractmethod
    def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
        """float32 clips in, float32 logits (B, V) out. Raises BundleError if the engine fails on them."""

    def fallback(self, precision: str) -> Optional[str]:
        """What ran elsewhere than claimed, or in another precision than the model's, `precision`; None if nothing did.

        May load the model once more and run a clip of zeros, never inside what is timed.
        """
        return self.settings.get("fallback")

    def infer_split(self, clips_B1THW: np.ndarray) -> Tuple[np.ndarray, Optional[int]]:
        """The same logits, and the nanoseconds of copying the clips to a device of its own; None where nobody tells.

        The copy is waited for before the model begins: slower than `infer`, which does not.
        """
        return self.infer(clips_B1THW), None

    @property
    def most_clips(self) -> Optional[int]:
        """How many clips one inference takes; None for any number."""
        return self.input_axes[0]

    def activation_bytes(self, clips_B1THW: np.ndarray) -> Optional[int]:
        """Memory for what lies between the layers in an inference of these clips; None where the engine does not tell.

        May load the model once more, never inside what is timed.
        """
        return None

    @abc.abstractmethod
    def close(self) -> None:
        """Free the model; infer must not be called afterwards."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def engine_class(name: str) -> Type[Engine]:
    """The class behind `name`, its package imported.

    Raises UsageError if there is no such engine, MissingError if its package is not installed.
    """
    kind = engine_kind(name)
    require_package(kind.package, engine=name)
    return kind


def engine_kind(name: str) -> Type[Engine]:
    """The same, its package not imported and perhaps not there."""
    if name not in ENGINES:
        raise UsageError(f"There is no engine {name!r}. Known: {', '.join(ENGINES)}.")
    module, _, attribute = ENGINES[name].partition(":")
    kind: Type[Engine] = getattr(import_module(module), attribute)
    return kind


def builds(kind: Type[Engine]) -> bool:
    """Does the engine make something of an ONNX file before it runs?"""
    return kind.build.__func__ is not Engine.build.__func__  # type: ignore[attr-defined]  # a classmethod has one


def check_options(name: str, options: Options) -> Options:
    """The same options. Raises UsageError for one that the engine `name` does not know, or a word it does not take."""
    known = engine_class(name).OPTIONS
    for option, word in options.items():
        if option not in known:
            has = f"It has {', '.join(known)}." if known else "It has none."
            raise UsageError(f"Engine {name!r} has no option {option!r}. {has}")
        if known[option] and word not in known[option]:
            raise UsageError(f"Option {option} of engine {name!r} is {word!r}; expected {' or '.join(known[option])}.")
    return options


def open_engine(
    name: str,
    model_path: Path,
    *,
    threads: int = 1,
    num_words: Optional[int] = None,
    options: Optional[Options] = None,
) -> Engine:
    """Load `model_path` into the engine `name` on `threads` CPU threads.

    Raises UsageError, MissingError (see engine_class), or BundleError if the engine refuses the model or the model
    does not take clips (B, 1, T, H, W) to logits (B, num_words).
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; expected 1 or more.")
    kind = engine_class(name)
    engine = kind(Path(model_path), threads=threads, options=check_options(name, options or {}))
    takes, gives = engine.input_axes, engine.output_axes
    if len(takes) != 5 or takes[1] not in (1, None) or len(gives) != 2:
        engine.close()
        raise BundleError(f"{model_path} takes {takes} to {gives}; expected clips (B, 1, T, H, W) to logits (B, V).")
    if num_words is not None and gives[1] not in (num_words, None):
        engine.close()
        raise BundleError(f"{model_path} gives {gives[1]} logits a clip; the vocabulary has {num_words} words.")
    return engine


def require_package(package: str, *, engine: str) -> ModuleType:
    """Import `package`, its reports to its maker switched off. Raises MissingError saying how to get it."""
    for name, value in _QUIET.get(package, {}).items():
        os.environ.setdefault(name, value)
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _broken(package, engine, error) from error
        remedy = _REMEDIES.get(package, f"pip install {package.replace('_', '-')}")
        raise MissingError(f"{package} is not installed; the engine {engine!r} needs it. {remedy}") from error
    except ImportError as error:
        raise _broken(package, engine, error) from error


def _broken(package: str, engine: str, error: ImportError) -> MissingError:
    what = f"{package} cannot be imported ({first_line(error)})"
    return MissingError(f"{what}; the engine {engine!r} needs it. Reinstall {package}.")


def first_line(error: BaseException) -> str:
    """An engine's message cut to one line of at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def short_version(version: str) -> str:
    """Major and minor: '1.31' of '1.31.1'."""
    return ".".join(version.split(".")[:2])
