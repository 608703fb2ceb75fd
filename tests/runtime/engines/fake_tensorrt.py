"""A fake TensorRT as far as its names were recorded, put in the place of the package and of CUDA.

`make_module("10.3.0")` has exactly the classes and members of tensorrt_api/10.3.0.json, with enough behaviour to build,
open and run the models of tiny_bundles.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_trt_build
import fake_trt_run
import numpy as np
import pytest
from fake_trt_run import FakeCuda
from recorded_api import Api, Strict
from tiny_bundles import SPEC, expected_logits, make_clips, write_model

from edgelip.runtime.clip import network_input
from edgelip.runtime.engines import cuda, trt
from edgelip.runtime.engines.engine import Engine, engine_class
from edgelip.runtime.errors import MissingError

BEHAVIOUR = {
    name: kind
    for module in (fake_trt_build, fake_trt_run)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Strict) and kind is not Strict
}


class FakeTensorrt(ModuleType):
    """The module; `api` is for the test, everything else is as recorded."""

    def __init__(self, api: Api) -> None:
        super().__init__("tensorrt_rtx" if api.rtx else "tensorrt")
        self.api = api
        self.__version__ = api.version.replace("rtx-", "")
        api.cuda = FakeCuda((8, 6) if api.rtx else (8, 7))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for some
            raise AttributeError(name)
        return self.api.find(name)


def make_module(version: str, *, without: tuple[str, str] | None = None) -> FakeTensorrt:
    """without: (class or enum, member) that is taken away, member "" for the whole class."""
    return FakeTensorrt(Api(version, without, BEHAVIOUR))


def install(module: FakeTensorrt, monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    """Put the fake in the place of the package and of CUDA, off any Jetson; the engine class that uses it."""
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cuda, "open_cuda", lambda: _cuda_of(module))
    monkeypatch.setattr(trt, "jetpack_version", lambda: None)
    return engine_class(module.__name__.replace("_", "-"))


def build_and_run(kind: type[Engine], root: Path, options: dict[str, str]) -> dict[str, Any]:
    """A bundle's model built in its place, opened and run on 7 clips; the plan as the fake wrote it."""
    folder = root / "engines" / "key" / "model"
    folder.mkdir(parents=True)
    write_model(root / "model.onnx")
    kind.device_key(options)
    result = kind.build(root / "model.onnx", folder, options=options, say=lambda text: None)
    frames_NTHW = make_clips(7)
    with kind(folder / result.main, threads=1, options=options) as engine:
        logits_NV = engine.infer(network_input(frames_NTHW, SPEC))
    np.testing.assert_allclose(logits_NV, expected_logits(frames_NTHW), atol=1e-5)
    plan: dict[str, Any] = json.loads((folder / result.main).read_bytes())
    return plan


def _cuda_of(module: FakeTensorrt) -> FakeCuda:
    if module.api.cuda is None:
        raise MissingError("there is no CUDA device (fake).")
    return module.api.cuda
