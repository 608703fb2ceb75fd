from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from sign_files import made_raw, write_hdf5

from edgelip.data.signs.hdf5_landmarks import read_hdf5, sign_tokens
from edgelip.data.unusable import UnusableClip


@pytest.mark.parametrize("channels_first", [True, False])
def test_both_layouts_give_frames_by_points_by_axes(tmp_path: Path, channels_first: bool) -> None:
    path = write_hdf5(tmp_path / "7.hdf5", {"100": (made_raw(), 4)}, channels_first=channels_first)
    got = read_hdf5(path, "100")
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, made_raw())
    assert sign_tokens(path) == {"100": 4}


@pytest.mark.parametrize("num_frames", [1, 3, 543])
def test_a_layout_is_told_by_its_last_axis(tmp_path: Path, num_frames: int) -> None:
    raw = np.random.default_rng(0).random((num_frames, 543, 3), dtype=np.float32)
    for first in (True, False):
        path = write_hdf5(tmp_path / "7.hdf5", {"1": (raw, 0)}, channels_first=first)
        np.testing.assert_array_equal(read_hdf5(path, "1"), raw)


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (
            np.zeros((3, 5, 468), np.float32),
            r"has 'feature' float32 \(3, 5, 468\); expected 'feature' float \(3, T, 543\)",
        ),
        (np.zeros((3, 0, 543), np.float32), r"has 'feature' float32 \(3, 0, 543\)"),
        (np.zeros((3, 5001, 543), np.float16), r"has 'feature' float16 \(3, 5001, 543\); .* T up to 5000"),
        (np.zeros((3, 5, 543), np.int32), r"has 'feature' int32 \(3, 5, 543\)"),
    ],
)
def test_a_feature_of_another_form_is_refused(tmp_path: Path, feature: np.ndarray, said: str) -> None:
    path = tmp_path / "7.hdf5"
    with h5py.File(path, "w") as file:
        file["100/feature"], file["100/token"] = feature, np.array([1])
    with pytest.raises(UnusableClip, match=rf"7\.hdf5 group '100' {said}") as caught:
        read_hdf5(path, "100")
    assert caught.value.reason == "landmarks"


def test_tokens_of_another_form_make_their_sign_unusable_and_no_other(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "7.hdf5", {"1": (made_raw(), 3), "2": (made_raw(), 4)})
    with h5py.File(path, "a") as file:
        del file["1/token"]
        file["1/token"] = np.array([1.5])
        file["3"] = np.zeros(4)
        file.create_group("4")
    found = sign_tokens(path)
    assert found["2"] == 4
    said = {name: str(error) for name, error in found.items() if isinstance(error, UnusableClip)}
    assert "has 'token' float64 (1,); expected one whole number (1,)." in said["1"]
    assert "'3' is no group." in said["3"]
    assert "has no 'token' of its own" in said["4"]


def test_nothing_leads_out_of_the_file(tmp_path: Path) -> None:
    secret = write_hdf5(tmp_path / "secret.hdf5", {"1": (made_raw(), 3)})
    (tmp_path / "secret.raw").write_bytes(made_raw().tobytes())
    path = tmp_path / "7.hdf5"
    with h5py.File(path, "w") as file:
        file["group"] = h5py.ExternalLink(str(secret), "/1")
        file["soft"] = h5py.SoftLink("/group")
        file["feature/token"] = np.array([1])
        file["feature/feature"] = h5py.ExternalLink(str(secret), "/1/feature")
        outside = file.create_group("outside")
        outside["token"] = np.array([1])
        outside.create_dataset(
            "feature", (3, 543, 3), np.float32, external=[(str(tmp_path / "secret.raw"), 0, h5py.h5f.UNLIMITED)]
        )
        layout = h5py.VirtualLayout((3, 3, 543), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "1/feature", (3, 3, 543))
        file["virtual/token"] = np.array([1])
        file["virtual"].create_virtual_dataset("feature", layout)
    for group, said in (
        ("group", "is no group of the file itself"),
        ("soft", "is no group of the file itself"),
        ("../secret.hdf5/1", "is no group of the file itself"),
        ("feature", "has no 'feature' of its own"),
        ("outside", "'feature' keeps its numbers in other files"),
        ("virtual", "'feature' keeps its numbers in other files"),
    ):
        with pytest.raises(UnusableClip, match=said):
            read_hdf5(path, group)


def test_what_is_no_hdf5_file_is_refused(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "7.hdf5", {"1": (made_raw(), 3)})
    content = path.read_bytes()
    for damage in (b"", b"nonsense" * 100, content[:600]):
        path.write_bytes(damage)
        with pytest.raises(UnusableClip, match=r"7\.hdf5 cannot be read as HDF5 \(.+\)\. Copy it again\.") as caught:
            read_hdf5(path, "1")
        assert caught.value.reason == "damaged"
    with pytest.raises(UnusableClip, match=r"8\.hdf5 does not exist; expected an HDF5 file of one signer\."):
        sign_tokens(tmp_path / "8.hdf5")
