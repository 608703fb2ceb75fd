from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import expected_logits, make_clips, write_bundle

from edgelip.runtime import artefact
from edgelip.runtime.artefact import SIDECAR, build_artefact, find_artefact
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import check
from edgelip.runtime.engines.engine import engine_class
from edgelip.runtime.engines.ort import OrtEngine
from edgelip.runtime.errors import BundleError, MissingError, UsageError
from edgelip.runtime.recogniser import Recogniser

BUILDING = ["ort", "openvino"]  # engines that build here


def _silent(line: str) -> None:
    pass


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "tiny"))


@pytest.mark.parametrize("engine", BUILDING)
def test_a_build_runs_in_place_of_the_onnx_file(bundle: Bundle, engine: str) -> None:
    lines: list[str] = []
    with Recogniser(bundle, engine=engine) as recogniser:
        assert recogniser.settings["model"] == "model.fp32.onnx, not built"
    built = build_artefact(bundle, engine=engine, say=lines.append)
    key = engine_class(engine).device_key({})
    assert built.folder == bundle.path / "engines" / key / "model.fp32"
    assert lines
    with Recogniser(bundle, engine=engine) as recogniser:
        assert recogniser.settings["model"] == f"model.fp32.onnx, built for {key}"
        np.testing.assert_allclose(recogniser.logits(make_clips(5)), expected_logits(make_clips(5)), atol=1e-5)
    (parity,) = check(bundle.path, engine)
    assert parity.num_equal_words == 8


def test_the_sidecar_says_what_was_built_of_what(bundle: Bundle) -> None:
    built = build_artefact(bundle, engine="openvino", say=_silent)
    sidecar = json.loads((built.folder / SIDECAR).read_text())
    assert sidecar["bundle_sha256"] == bundle.sha256
    assert sidecar["model"] == "model.fp32.onnx"
    assert (
        set(sidecar["files"])
        == {"model.xml", "model.bin"}
        == {file.name for file in built.folder.iterdir()} - {SIDECAR}
    )
    assert sidecar["settings"]["openvino"]
    assert sidecar["command"] == (f"python -m edgelip.runtime build {bundle.path} --engine openvino --precision fp32")


def test_building_again_replaces_the_build(bundle: Bundle) -> None:
    first = build_artefact(bundle, engine="openvino", say=_silent)
    (first.folder / "model.bin").write_bytes(b"changed")
    again = build_artefact(bundle, engine="openvino", say=_silent)
    assert (again.folder, again.files["model.bin"]) == (first.folder, first.files["model.bin"])
    assert sorted(path.name for path in first.folder.parent.iterdir()) == ["model.fp32"]


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        fields = json.loads((folder / SIDECAR).read_text())
        (folder / SIDECAR).write_text(json.dumps({**fields, **changes}))

    return edit


def _lengthen(folder: Path) -> None:
    with (folder / "model.xml").open("ab") as file:
        file.write(b" ")


def _link(folder: Path) -> None:
    (folder / "model.xml").rename(folder.parent / "elsewhere.xml")
    (folder / "model.xml").symlink_to(folder.parent / "elsewhere.xml")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another bundle": (_edit(bundle_sha256="0" * 64), "bundle_sha256 is '0000"),
    "another model": (_edit(model_sha256="0" * 64), "model_sha256 is '0000"),
    "another key inside": (_edit(device_key="sm86-rtx1.7.1"), "device_key is 'sm86-rtx1.7.1'; expected 'openvino"),
    "another engine": (_edit(engine="ort"), "engine is 'ort'; expected 'openvino'"),
    "newer sidecar": (_edit(schema_version=2), "schema_version is '2'; expected 1"),
    "a path out": (_edit(main="../x", files={"../x": {"sha256": "0" * 64, "bytes": 1}}), "lists the file '../x'"),
    "main not listed": (_edit(main="other.xml"), "main is 'other.xml', which it does not list"),
    "files as text": (_edit(files="model.xml"), "main is 'model.xml', which it does not list"),
    "changed file": (_lengthen, "model.xml has changed: "),
    "a link": (_link, "model.xml is a link, folder or device"),
    "no json": (lambda folder: (folder / SIDECAR).write_text("{"), "artefact.json is not readable JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_build_that_does_not_fit_is_refused_before_the_engine(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    damage, message = DAMAGE[case]
    damage(build_artefact(bundle, engine="openvino", say=_silent).folder)

    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr("edgelip.runtime.recogniser.open_engine", never)
    with pytest.raises(BundleError) as caught:
        Recogniser(bundle, engine="openvino")
    text = str(caught.value)
    assert text.startswith("tiny: the build for openvino")
    assert message in text
    assert text.endswith(
        f"Rebuild here: python -m edgelip.runtime build {bundle.path} --engine openvino --precision fp32"
    )


def test_a_build_for_another_device_is_named_with_the_way_to_rebuild(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_artefact(bundle, engine="ort", say=_silent)
    here = engine_class("ort").device_key({})
    monkeypatch.setattr(OrtEngine, "device_key", classmethod(lambda cls, options: "arm64-neon-ort1.31"))
    model = bundle.model_for("ort")
    assert find_artefact(bundle, model, "ort", options={}) is None  # the ONNX file serves
    monkeypatch.setattr(OrtEngine, "needs_build", True)
    with pytest.raises(BundleError) as caught:
        Recogniser(bundle)
    rebuild = f"python -m edgelip.runtime build {bundle.path} --engine ort --precision fp32"
    assert str(caught.value) == f"tiny is built for {here}; this is arm64-neon-ort1.31. Rebuild here: {rebuild}"
    shutil.rmtree(bundle.path / "engines")
    with pytest.raises(MissingError) as missing:
        Recogniser(bundle)
    assert str(missing.value) == f"tiny is not built for ort yet, and this is arm64-neon-ort1.31. Build it: {rebuild}"


def test_an_engine_without_builds_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(OrtEngine, "build")
    with pytest.raises(UsageError, match=r"^Engine 'ort' runs the ONNX file as it is; there is nothing to build\.$"):
        build_artefact(bundle, engine="ort", say=_silent)
    assert not (bundle.path / "engines").exists()


def test_a_full_disk_leaves_the_earlier_build(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_artefact(bundle, engine="ort", say=_silent)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefact, "_write_synced", full)
    with pytest.raises(MissingError, match=r"model\.fp32 cannot be written \(No space left on device\)"):
        build_artefact(bundle, engine="ort", say=_silent)
    monkeypatch.undo()
    assert find_artefact(bundle, bundle.model_for("ort"), "ort", options={}) == first
