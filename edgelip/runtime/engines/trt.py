"""TensorRT and TensorRT-RTX: a plan is built for one kind of device, then opened and run there.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

import abc
import hashlib
from pathlib import Path
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

import numpy as np

from edgelip.runtime.engines import cuda as cuda_runtime
from edgelip.runtime.engines.engine import Axes, BuildResult, Engine, Options, Say, require_package
from edgelip.runtime.engines.trt_build import Plan, build_plan, compute_capabilities, require_supported
from edgelip.runtime.engines.trt_open import NOTE_NAME, PlanNote, layers_json, note_for, open_plan, refit
from edgelip.runtime.engines.trt_options import RTX_OPTIONS, TENSORRT_OPTIONS, PlanOptions, plan_options
from edgelip.runtime.engines.trt_run import PlanRunner
from edgelip.runtime.errors import BundleError, MissingError, UsageError
from edgelip.runtime.manifest import FILE_LIMIT_BYTES
from edgelip.runtime.plain_files import read_plain
from edgelip.runtime.sensors.board import jetpack_version

PLAN_NAME = "engine.plan"
TIMING_CACHE_NAME = "timing.cache"
LAYERS_NAME = "layers.json"
PLAN_LIMIT_BYTES = FILE_LIMIT_BYTES
_TURING = "75"


class _PlanEngine(Engine):
    """A plan on CUDA device 0. `threads` has no meaning there."""

    needs_build = True
    on_gpu = True
    name: ClassVar[str]
    word: ClassVar[str]  # of the device key

    def __init__(self, model_path: Path, *, threads: int = 1, options: Optional[Options] = None) -> None:
        trt = self._trt()
        chosen = plan_options(options or {})
        cuda = cuda_runtime.open_cuda()
        here = _sm(cuda)
        if chosen.sm not in (None, here):
            raise BundleError(f"{model_path.name} is built for sm{chosen.sm}, this is sm{here}. Leave --option sm out.")
        note = note_for(model_path)
        content = read_plain(model_path, limit_bytes=PLAN_LIMIT_BYTES)
        plan = open_plan(trt, content, str(model_path), note=note)
        if note.weights is not None:
            refit(trt, plan, model_path, note)
        self._runner = PlanRunner(trt, plan, cuda, str(model_path))
        self._settings = {
            self.package: str(trt.__version__),
            "cuda_runtime": cuda.runtime_version(),
            "device": f"sm{here}",
            "batch": "/".join(map(str, self._runner.batch)),
            "weights": f"put back from {note.weights}" if note.weights else "in the plan",
        }

    @classmethod
    def device_key(cls, options: Options) -> str:
        trt = cls._trt()
        version = ".".join(str(trt.__version__).split(".")[:3])
        chosen = plan_options(options)
        key = f"{cls._device_word(trt, chosen)}-{cls.word}{version}"
        jetpack = jetpack_version()
        return f"{key}-jp{jetpack}" if jetpack else key

    @classmethod
    def build(cls, model_path: Path, folder: Path, *, options: Options, say: Say) -> BuildResult:
        trt = cls._trt()
        chosen = plan_options(options)
        device = cls._device_word(trt, chosen)
        onnx = read_plain(model_path, limit_bytes=FILE_LIMIT_BYTES)
        plan = build_plan(trt, onnx, model_path.name, chosen, say=say)
        with (folder / PLAN_NAME).open("wb") as file:
            file.write(plan.content)
        settings = {cls.package: str(trt.__version__), "device": device, **plan.settings, "timing_cache": "none"}
        if plan.timing_cache:
            (folder / TIMING_CACHE_NAME).write_bytes(plan.timing_cache)
            digest = hashlib.sha256(plan.timing_cache).hexdigest()
            settings["timing_cache"] = f"{len(plan.timing_cache)} bytes, sha256 {digest}"
        if chosen.weight_stripped or chosen.version_compatible:
            stripped = (model_path.name, hashlib.sha256(onnx).hexdigest()) if chosen.weight_stripped else (None, "")
            (folder / NOTE_NAME).write_bytes(PlanNote(chosen.version_compatible, *stripped).to_bytes())
        settings["layers"] = cls._write_layers(trt, plan, folder, chosen)
        say(f"{PLAN_NAME}: {(folder / PLAN_NAME).stat().st_size} bytes for {device}")
        return BuildResult(PLAN_NAME, settings)

    @classmethod
    def _write_layers(cls, trt: Any, plan: Plan, folder: Path, chosen: PlanOptions) -> str:
        """Write what the inspector says if this machine can open the plan; a word for the record."""
        try:
            here = _sm(cuda_runtime.open_cuda())
        except MissingError:
            return "none: no CUDA device here to open the plan on"
        if chosen.sm not in (None, here):
            return f"none: built for sm{chosen.sm}, this is sm{here}"
        note = PlanNote(host_code=chosen.version_compatible)
        text = layers_json(trt, open_plan(trt, plan.content, PLAN_NAME, note=note))
        (folder / LAYERS_NAME).write_text(text, encoding="utf-8")
        return LAYERS_NAME

    @classmethod
    def _trt(cls) -> Any:
        trt: Any = require_package(cls.package, engine=cls.name)
        require_supported(trt, cls.package)
        return trt

    @classmethod
    @abc.abstractmethod
    def _device_word(cls, trt: Any, chosen: PlanOptions) -> str:
        """'sm87': what a build with these options runs on."""

    @property
    def input_axes(self) -> Axes:
        return (None, *self._runner.clip)

    @property
    def output_axes(self) -> Axes:
        return (None, self._runner.num_words)

    @property
    def settings(self) -> Dict[str, str]:
        return dict(self._settings)

    @property
    def most_clips(self) -> Optional[int]:
        return self._runner.batch[1]

    def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
        return self._runner.infer(clips_B1THW)

    def infer_split(self, clips_B1THW: np.ndarray) -> Tuple[np.ndarray, Optional[int]]:
        return self._runner.infer_split(clips_B1THW)

    def activation_bytes(self, clips_B1THW: np.ndarray) -> Optional[int]:
        """Of one execution context, which the plan fixed for its largest batch."""
        return self._runner.activation_bytes

    def close(self) -> None:
        self._runner.close()


class TensorrtEngine(_PlanEngine):
    """NVIDIA TensorRT 10 or newer, built on the device that runs it.

    Options: see trt_options.PlanOptions. With hardware_compatible=ampere_plus the plan, and its key, is for all devices
    from compute capability 8.0 on.
    """

    package = "tensorrt"
    name = "tensorrt"
    word = "trt"
    OPTIONS: ClassVar[Mapping[str, Tuple[str, ...]]] = TENSORRT_OPTIONS

    @classmethod
    def _device_word(cls, trt: Any, chosen: PlanOptions) -> str:
        here = _sm(cuda_runtime.open_cuda())
        if chosen.hardware_compatible != "ampere_plus":
            return f"sm{here}"
        if int(here) < 80:
            raise UsageError(f"Option hardware_compatible is 'ampere_plus', this is sm{here}; expected sm80 or newer.")
        return "sm80plus"


class TensorrtRtxEngine(_PlanEngine):
    """NVIDIA TensorRT for RTX: option sm=86 builds for that compute capability on a machine without any GPU.

    One build is for one compute capability, so that its key names it; build again for another.
    """

    # Version 1.7.1 writes another plan (0.5 % smaller, 4 % larger) for what is built right after a failed sm75 build.
    _spoilt: ClassVar[bool] = False

    package = "tensorrt_rtx"
    name = "tensorrt-rtx"
    word = "rtx"
    OPTIONS: ClassVar[Mapping[str, Tuple[str, ...]]] = RTX_OPTIONS

    @classmethod
    def build(cls, model_path: Path, folder: Path, *, options: Options, say: Say) -> BuildResult:
        if cls._spoilt and options.get("sm") != _TURING:
            what = (
                f"a build for sm{_TURING} failed in this process, and TensorRT-RTX would write another plan after that"
            )
            raise BundleError(f"{what}. Build {model_path.name} in a process of its own.")
        try:
            return super().build(model_path, folder, options=options, say=say)
        except BundleError:
            cls._spoilt = cls._spoilt or options.get("sm") == _TURING
            raise

    @classmethod
    def _device_word(cls, trt: Any, chosen: PlanOptions) -> str:
        known = list(compute_capabilities(trt))
        if chosen.sm is None:
            try:
                return f"sm{_sm(cuda_runtime.open_cuda())}"
            except MissingError as error:
                choice = f"Or build for another machine: --option sm={'|'.join(known)}."
                raise MissingError(f"{error} {choice}") from error
        if chosen.sm not in known:
            raise UsageError(f"Option sm is {chosen.sm[:80]!r}; expected one of {', '.join(known)}.")
        return f"sm{chosen.sm}"


def _sm(cuda: Any) -> str:
    major, minor = cuda.compute_capability()
    return f"{major}{minor}"
