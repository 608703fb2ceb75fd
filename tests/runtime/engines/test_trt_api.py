"""The TensorRT engine against the recorded names of five versions: built, opened and run with those names alone."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from fake_tensorrt import build_and_run, install, make_module
from recorded_api import RECORDED

from edgelip.runtime.engines.engine import Engine
from edgelip.runtime.errors import BundleError, MissingError, UsageError

VERSIONS = ("10.3.0", "10.13.3", "10.16.1", "11.4.0", "rtx-1.7.1")
# Everything that takes a member of its own; weight_stripped adds the whole way of putting weights back.
EVERY_OPTION = {
    "max_batch": "4",
    "workspace_mib": "64",
    "weight_stripped": "yes",
    "version_compatible": "yes",
}
TENSORRT_ONLY = {
    "hardware_compatible": "ampere_plus",
    "builder_optimization_level": "4",
    "sparse": "yes",
    "tf32": "yes",
}
# Without these a build or run goes on: the engine asks for them by name.
ASKED_FOR = {
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),  # always on in 11
    ("IProgressMonitor", ""),
    ("ComputeCapability", ""),  # tells TensorRT-RTX from TensorRT
    ("BuilderFlag", "TF32"),  # nothing to switch off
}


def runs_of(version: str) -> list[dict[str, str]]:
    """Options of the runs that together touch every name the engine uses in a version."""
    if version.startswith("rtx"):
        return [{}, {**EVERY_OPTION, "sm": "86"}, {"tf32": "yes"}]
    return [{}, {**EVERY_OPTION, **TENSORRT_ONLY}]


def build_and_run_all(version: str, kind: type[Engine], root: Path) -> None:
    """Every way through the engine, those that end in an error too."""
    for number, options in enumerate(runs_of(version)):
        build_and_run(kind, root / str(number), options)
    (root / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"cannot read model\.onnx: Assertion failed"):
        kind.build(root / "model.onnx", root, options={}, say=str)
    with patch("fake_trt_run.weights_of", return_value={}), pytest.raises(BundleError, match="it lacks weights, bias"):
        build_and_run(kind, root / "refit", {"weight_stripped": "yes"})


def used_in(version: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    module = make_module(version)
    kind = install(module, monkeypatch)
    build_and_run_all(version, kind, root)
    return module.api.used


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_opens_and_runs_with_its_own_names(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_module(version)
    plan = build_and_run(install(module, monkeypatch), tmp_path, {})
    assert plan["typed"] is True
    assert plan["flags"] == []
    assert plan["bounds"] == [[1, 1, 4, 6, 6], [1, 1, 4, 6, 6], [16, 1, 4, 6, 6]]
    assert plan["verbosity"] == "ProfilingVerbosity.DETAILED"
    assert plan["capability"] == ("ComputeCapability.CURRENT" if module.api.rtx else "None")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_engine_uses_is_in_the_record_and_nothing_else(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = json.loads((RECORDED / f"{version}.json").read_text())
    used = used_in(version, tmp_path, monkeypatch)
    assert used <= {(owner, member) for owner, members in recorded.items() for member in [*members, ""]}
    # What versions do not share: the rest must be in all of them.
    own = {("ComputeCapability", ""), ("ComputeCapability", "CURRENT"), ("IBuilderConfig", "num_compute_capabilities")}
    own |= {("IBuilderConfig", "set_compute_capability"), ("ComputeCapability", "SM86")}
    for other in VERSIONS:
        names = json.loads((RECORDED / f"{other}.json").read_text())
        assert {(owner, member) for owner, member in used - own if member not in [*names.get(owner, []), ""]} == set()


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0", "rtx-1.7.1"])
def test_without_any_one_used_name_the_engine_fails_on_it(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = used_in(version, tmp_path / "whole", monkeypatch)
    assert len(used) > 60
    for owner, member in sorted(used - ASKED_FOR):
        kind = install(make_module(version, without=(owner, member)), monkeypatch)
        with pytest.raises((AttributeError, UsageError), match=rf"has no {owner}.?{member}"):
            build_and_run_all(version, kind, tmp_path / f"{owner}{member}")


@pytest.mark.parametrize("version", ["10.3.0", "rtx-1.7.1"])
@pytest.mark.parametrize("name", sorted(ASKED_FOR - {("ComputeCapability", "")}))  # which 10.3.0 has not anyway
def test_names_that_are_asked_for_may_be_missing(
    version: str, name: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = install(make_module(version, without=name), monkeypatch)
    plan = build_and_run(kind, tmp_path, {})
    assert plan["typed"] is (name[1] != "STRONGLY_TYPED")


def test_tensorrt_8_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kind = install(make_module("8.6.1"), monkeypatch)
    wanted = (
        "tensorrt is 8.6.1; expected 10.0 or newer. Upgrade the board to JetPack 6 or newer, or run the bundle with "
        "ONNX Runtime (--engine ort)."
    )
    for refused in (
        lambda: kind.device_key({}),
        lambda: kind.build(tmp_path / "m.onnx", tmp_path, options={}, say=print),
        lambda: kind(tmp_path / "engine.plan", threads=1, options={}),
    ):
        with pytest.raises(MissingError) as caught:
            refused()
        assert str(caught.value) == wanted


def test_a_newer_major_version_is_taken_if_the_names_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = make_module("11.4.0")
    module.__version__ = "13.0.0.1"
    kind = install(module, monkeypatch)
    assert kind.device_key({}) == "sm87-trt13.0.0"
    build_and_run(kind, tmp_path, {})


def test_an_option_that_a_version_lacks_is_refused_with_version_and_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind = install(make_module("10.3.0", without=("BuilderFlag", "STRIP_PLAN")), monkeypatch)
    with pytest.raises(UsageError) as caught:
        build_and_run(kind, tmp_path, {"weight_stripped": "yes"})
    assert str(caught.value) == (
        "TensorRT 10.3.0 has no BuilderFlag.STRIP_PLAN, which option weight_stripped=yes needs. Leave the option out, "
        "or use a version that has it."
    )
    # A level of 10.13 that 10.3 has not.
    kind = install(make_module("10.3.0"), monkeypatch)
    with pytest.raises(UsageError, match=r"TensorRT 10.3.0 has no HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"):
        build_and_run(kind, tmp_path / "b", {"hardware_compatible": "same_compute_capability"})
