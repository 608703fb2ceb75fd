"""What an engine is, and the table of those that edgelip can open.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import abc
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Optional, Tuple, Type

import numpy as np

from edgelip.runtime.errors import BundleError, MissingError, UsageError

ENGINES: Dict[str, str] = {
    "ort": "edgelip.runtime.engines.ort:OrtEngine",
    "openvino": "edgelip.runtime.engines.openvino:OpenvinoEngine",
}

Axes = Tuple[Optional[int], ...]  # None: any length


class Engine(abc.ABC):
    """A loaded model: `with open_engine(...) as engine: engine.infer(clips)`. Used by one thread at a time."""

    package: str  # what must be installed

    @abc.abstractmethod
    def __init__(self, model_path: Path, *, threads: int) -> None:
        """Load the model. Raises BundleError in one line if the engine refuses it."""

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
    if name not in ENGINES:
        raise UsageError(f"There is no engine {name!r}. Known: {', '.join(ENGINES)}.")
    module, _, attribute = ENGINES[name].partition(":")
    found: Any = getattr(import_module(module), attribute)
    require_package(found.package, engine=name)
    kind: Type[Engine] = found
    return kind


def open_engine(name: str, model_path: Path, *, threads: int = 1, num_words: Optional[int] = None) -> Engine:
    """Load `model_path` into the engine `name` on `threads` CPU threads.

    Raises UsageError, MissingError (see engine_class), or BundleError if the engine refuses the model or the model
    does not take clips (B, 1, T, H, W) to logits (B, num_words).
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; expected 1 or more.")
    engine = engine_class(name)(Path(model_path), threads=threads)
    takes, gives = engine.input_axes, engine.output_axes
    if len(takes) != 5 or takes[1] not in (1, None) or len(gives) != 2:
        engine.close()
        raise BundleError(f"{model_path} takes {takes} to {gives}; expected clips (B, 1, T, H, W) to logits (B, V).")
    if num_words is not None and gives[1] not in (num_words, None):
        engine.close()
        raise BundleError(f"{model_path} gives {gives[1]} logits a clip; the vocabulary has {num_words} words.")
    return engine


def require_package(package: str, *, engine: str) -> ModuleType:
    """Import `package`. Raises MissingError saying how to get it."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _broken(package, engine, error) from error
        raise MissingError(
            f"{package} is not installed; the engine {engine!r} needs it. pip install {package}"
        ) from error
    except ImportError as error:
        raise _broken(package, engine, error) from error


def _broken(package: str, engine: str, error: ImportError) -> MissingError:
    what = f"{package} cannot be imported ({first_line(error)})"
    return MissingError(f"{what}; the engine {engine!r} needs it. Reinstall {package}.")


def first_line(error: BaseException) -> str:
    """An engine's message cut to one line of at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
