from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundles import write_bundle

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.errors import BundleError
from edgelip.runtime.manifest import MANIFEST_LIMIT_BYTES, manifest_from_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def _put(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return edit


REFUSED = {
    "newer schema": (
        _put("schema_version", value=3),
        "tiny: bundle has schema 3; this edgelip reads 2. Upgrade edgelip.",
    ),
    "older schema": (
        _put("schema_version", value=1),
        "tiny: bundle has schema 1; this edgelip reads 2. Export the bundle again.",
    ),
    "schema as text": (
        _put("schema_version", value="1"),
        "tiny: manifest schema_version is '1'; expected a whole number.",
    ),
    "schema true": (
        _put("schema_version", value=True),
        "tiny: manifest schema_version is True; expected a whole number.",
    ),
    "path out of the folder": (
        _put("files", "../x", value={"sha256": "0" * 64, "bytes": 0}),
        "tiny: manifest lists the file '../x'; expected a plain name inside the bundle.",
    ),
    "absolute path": (
        _put("files", "/etc/passwd", value={"sha256": "0" * 64, "bytes": 0}),
        "tiny: manifest lists the file '/etc/passwd'; expected a plain name inside the bundle.",
    ),
    "name with a line break": (
        _put("files", "a\n", value={"sha256": "0" * 64, "bytes": 0}),
        "tiny: manifest lists the file 'a\\n'; expected a plain name inside the bundle.",
    ),
    "file too large": (
        _put("files", "model.fp32.onnx", "bytes", value=1 << 40),
        "tiny: manifest says model.fp32.onnx has 1099511627776 bytes; the limit is 2147483648.",
    ),
    "model that is not listed": (
        _put("models", 0, "file", value="other.onnx"),
        "tiny: manifest gives model other.onnx, which it does not list among its files.",
    ),
    "model that is no model": (
        _put("models", 0, "file", value="MODEL_CARD.md"),
        "tiny: manifest gives MODEL_CARD.md as a model; expected an .onnx file, each once.",
    ),
    "model twice": (
        lambda manifest: manifest["models"].append(manifest["models"][0]),
        "tiny: manifest gives model.fp32.onnx as a model; expected an .onnx file, each once.",
    ),
    "unknown precision": (
        _put("models", 0, "precision", value="int3"),
        "tiny: manifest precision is 'int3'; expected 'fp32' or 'fp16' or 'int8' or 'fp8'.",
    ),
    "int8 that does not say how": (
        _put("models", 0, "precision", value="int8"),
        "tiny: manifest activations is None; expected 'u8' or 's8'.",
    ),
    "activations of a float file": (
        _put("models", 0, "activations", value="u8"),
        "tiny: manifest activations is 'u8'; expected None.",
    ),
    "unknown weights": (
        _put("models", 0, "weights", value=["dense"]),
        "tiny: manifest weights is list; expected 'dense' or 'factors'.",
    ),
    "no model": (_put("models", value=[]), "tiny: manifest lists no model. Export the bundle again."),
    "no engine": (
        _put("models", 0, "engines", value=[]),
        "tiny: manifest engines of model.fp32.onnx are list; expected names such as 'ort'.",
    ),
    "no words": (_put("vocabulary", value=[]), "tiny: manifest vocabulary has 0 words; expected 1 to 100000."),
    "same word twice": (
        _put("vocabulary", value=["A", "B", "A"]),
        "tiny: manifest vocabulary holds the same word twice.",
    ),
    "word with an escape": (
        _put("vocabulary", value=["A\x1b[2J"]),
        "tiny: manifest vocabulary holds 'A\\x1b[2J'; expected 1 to 64 characters.",
    ),
    "no tolerance": (
        _put("models", 0, "tolerance", value=None),
        "tiny: manifest tolerance of model.fp32.onnx is None; expected a number above 0.",
    ),
    "tolerance 0": (
        _put("models", 0, "tolerance", value=0),
        "tiny: manifest tolerance of model.fp32.onnx is 0; expected a number above 0.",
    ),
    "names that differ by case": (
        _put("files", "Model.fp32.onnx", value={"sha256": "0" * 64, "bytes": 0}),
        "tiny: manifest lists the file 'Model.fp32.onnx', which other systems take for a device or for another listed "
        "file; expected names that differ by more than case.",
    ),
    "device name": (
        _put("files", "nul.txt", value={"sha256": "0" * 64, "bytes": 0}),
        "tiny: manifest lists the file 'nul.txt', which other systems take for a device or for another listed file; "
        "expected names that differ by more than case.",
    ),
    "clip fps as text": (_put("clip", "fps", value="25"), "tiny: manifest: clip fps is '25'; expected a number."),
    "clip std as truth": (_put("clip", "std", value=True), "tiny: manifest: clip std is True; expected a number."),
    "clip of too many frames": (
        _put("clip", "frames", value=10**9),
        "tiny: manifest: clip frames is 1000000000; expected a whole number from 1 to 1000.",
    ),
    "hash of another kind": (
        _put("weights_sha256", value="md5"),
        "tiny: manifest weights_sha256 is 'md5'; expected [0-9a-f]{64}.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_manifest_refuses(tmp_path: Path, case: str) -> None:
    edit, message = REFUSED[case]
    with pytest.raises(BundleError) as caught:
        Bundle.open(write_bundle(tmp_path / "tiny", edit=edit))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not readable JSON"),
        (b"\xff\xfe", "is not readable JSON"),
        (b"[]", "holds a list; expected an object"),
        (b"[" * 100_000, "is not readable JSON"),
        (b'{"a": 1, "a": 2}', "a key stands twice"),
        (b'{"a": NaN}', "is not finite"),
        (b'{"a": 1e999}', "is not finite"),
        (b'{"a": ' + b"9" * 4_000_000 + b"}", "a number of 4000000 digits"),
        (b"{}", "manifest has no 'schema_version'"),
    ],
)
def test_manifest_refuses_text(content: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        manifest_from_bytes(content)


def test_manifest_is_not_read_beyond_its_limit(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    with (tmp_path / "big" / "manifest.json").open("wb") as file:
        file.truncate(MANIFEST_LIMIT_BYTES + 1)
    with pytest.raises(BundleError, match=r"manifest\.json has 4194305 bytes; the limit is 4194304"):
        Bundle.open(tmp_path / "big")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("../x"),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_the_manifest_is_accepted_or_a_bundle_error(folder: Path, data: st.DataObject) -> None:
    manifest = copy.deepcopy(json.loads((folder / "manifest.json").read_text()))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = manifest
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and data.draw(st.booleans()):
                place = place[key]
                continue
            if data.draw(st.booleans()):
                place[key] = data.draw(_JSON)
            else:
                del place[key]
            break
    _open_or_bundle_error(folder, json.dumps(manifest).encode())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), new=st.binary(max_size=3), cut=st.integers(0, 3))
def test_any_changed_bytes_of_the_manifest_are_accepted_or_a_bundle_error(
    folder: Path, position: int, new: bytes, cut: int
) -> None:
    content = (folder / "manifest.json").read_bytes()
    position %= len(content)
    _open_or_bundle_error(folder, content[:position] + new + content[position + cut :])


def _open_or_bundle_error(folder: Path, content: bytes) -> None:
    original = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(content)
    try:
        Bundle.open(folder).expected()
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        (folder / "manifest.json").write_bytes(original)
