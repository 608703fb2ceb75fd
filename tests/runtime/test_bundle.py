from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import SPEC, WORDS, file_entry, make_clips, write_bundle

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.errors import BundleError


def _relist(folder: Path, name: str) -> None:
    """Make the manifest true again after `name` has changed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = file_entry(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_bundle_opens_with_its_words_and_clip_contract(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "tiny"))
    assert bundle.manifest.vocabulary == WORDS
    assert bundle.manifest.clip == SPEC
    assert bundle.model_for("ort").path.name == "model.fp32.onnx"
    assert bundle.expected().frames_NTHW.shape == (8, 4, 8, 8)


def test_bundle_is_named_by_the_hash_of_its_manifest(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    assert Bundle.open(folder).sha256 == file_entry(folder / "manifest.json")["sha256"]


def test_bundle_allows_files_that_the_manifest_does_not_list(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    (folder / "accuracy.json").write_text("{}")
    (folder / "other.onnx").write_bytes(b"not used")
    assert Bundle.open(folder).model_for("ort").path.name == "model.fp32.onnx"


@pytest.mark.parametrize("name", ["model.fp32.onnx", "expected.npz", "MODEL_CARD.md"])
def test_bundle_refuses_one_changed_byte(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "phm4")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    said = file_entry(folder / name)["sha256"][:8]
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert str(caught.value).startswith(f"phm4: {name} has changed: sha256 {said}.., manifest says ")
    assert str(caught.value).endswith("Export the bundle again or copy it anew.")


def test_bundle_refuses_a_file_of_another_size_before_hashing_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "phm4")
    with (folder / "model.fp32.onnx").open("ab") as file:
        file.truncate(1 << 40)  # a sparse terabyte: hashing it would not end
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx has changed: 1099511627776 bytes, manifest says \d+\."):
        Bundle.open(folder)


def test_bundle_refuses_a_missing_file(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    (folder / "model.fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"tiny: model\.fp32\.onnx is missing\. Export the bundle again"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["model.fp32.onnx", "manifest.json"])
def test_bundle_refuses_a_link_even_to_the_right_content(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "tiny")
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match=f"{name} is a link, folder or device; expected a plain file"):
        Bundle.open(folder)


def test_bundle_refuses_a_pipe_without_waiting_on_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    (folder / "model.fp32.onnx").unlink()
    os.mkfifo(folder / "model.fp32.onnx")
    with pytest.raises(BundleError, match="is a link, folder or device"):
        Bundle.open(folder)


def test_bundle_says_what_is_wrong_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    for name, reason in [
        ("absent", "does not exist"),
        ("empty", "is empty; expected a bundle"),
        ("other", "has no manifest.json; expected a bundle"),
        ("other/notes.txt", "is a file; expected a bundle"),
    ]:
        with pytest.raises(BundleError, match=f"{name} {reason}"):
            Bundle.open(tmp_path / name)


def test_bundle_lists_what_it_has_when_asked_for_another_model(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "tiny"))
    with pytest.raises(BundleError, match=r"tiny has no model for engine 'trt'. It has: fp32 for ort, openvino\."):
        bundle.model_for("trt")
    with pytest.raises(BundleError, match="tiny has no int8 model for engine 'ort'"):
        bundle.model_for("ort", "int8")


def test_expected_refuses_clips_of_another_shape(tmp_path: Path) -> None:
    folder = write_bundle(
        tmp_path / "tiny", expected={"frames": make_clips(8)[:, :3], "logits": np.zeros((8, 3), np.float32)}
    )
    with pytest.raises(BundleError, match=r"frames are uint8 \(8, 3, 8, 8\); expected uint8 \(N, 4, 8, 8\)"):
        Bundle.open(folder).expected()


@pytest.mark.parametrize(
    "logits",
    [np.zeros((8, 3), np.float64), np.zeros((8, 4), np.float32), np.full((8, 3), np.nan, np.float32)],
    ids=["dtype", "words", "nan"],
)
def test_expected_refuses_logits_that_do_not_fit(tmp_path: Path, logits: np.ndarray) -> None:
    folder = write_bundle(tmp_path / "tiny", expected={"frames": make_clips(8), "logits": logits})
    with pytest.raises(BundleError, match=r"tiny: expected\.npz logits are"):
        Bundle.open(folder).expected()


def test_expected_never_unpickles(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    np.savez(folder / "expected.npz", frames=np.array([{"a": 1}], object), logits=np.zeros((8, 3), np.float32))
    _relist(folder, "expected.npz")
    with pytest.raises(BundleError, match="holds Python objects; expected plain numbers"):
        Bundle.open(folder).expected()


def test_expected_refuses_a_zip_bomb_before_inflating_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    num_clips = 1 << 32  # 4 TiB of zeros, were they unpacked
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (num_clips, 4, 8, 8)}
    )
    with zipfile.ZipFile(folder / "expected.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", header.getvalue() + bytes(50 << 20))
    _relist(folder, "expected.npz")
    assert (folder / "expected.npz").stat().st_size < 100_000
    with pytest.raises(BundleError, match=r"unpacks to 1099511627776 bytes; the limit is 536870912"):
        Bundle.open(folder).expected()
