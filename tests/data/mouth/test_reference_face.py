from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from edgelip.data.mouth.alignment import LEFT_EYE, LIPS, RIGHT_EYE
from edgelip.data.mouth.reference_face import own_face, read_face
from edgelip.errors import UsageError


def test_the_own_face_stands_upright_and_symmetric_in_its_frame() -> None:
    face = own_face()
    assert face.shape == (68, 2)
    assert face.min() > 0
    assert face.max() < 256
    mirrored = {(round(256 - x, 3), round(y, 3)) for x, y in face}
    assert mirrored == {(round(x, 3), round(y, 3)) for x, y in face}
    np.testing.assert_allclose(face[LIPS].mean(axis=0), (128, 160))
    assert face[RIGHT_EYE, 0].max() < 128 < face[LEFT_EYE, 0].min()


def test_the_own_face_gives_rois_the_scale_of_the_other_finders() -> None:
    face = own_face()
    assert np.hypot(*(face[45] - face[36])) == pytest.approx(88 * 0.973)


def test_the_own_face_is_not_the_mean_face_of_the_lrw_tools(golden: Path) -> None:
    published = np.load(golden / "preproc" / "20words_mean_face.npy")
    assert np.abs(own_face() - published).max(axis=1).min() > 0.05  # no point was taken over
    centred = [face - face.mean(axis=0) for face in (own_face(), published)]
    scaled = [face / np.sqrt((face**2).sum()) for face in centred]
    assert np.abs(scaled[0] - scaled[1]).max() > 0.01  # and it is no similarity of it


def test_a_users_face_is_read_from_npy_and_npz(tmp_path: Path, golden: Path) -> None:
    face = own_face() + 1
    np.save(tmp_path / "face.npy", face.astype(np.float32))
    np.savez(tmp_path / "face.npz", mean_face=face)
    np.testing.assert_allclose(read_face(tmp_path / "face.npy"), face, rtol=1e-6)
    np.testing.assert_array_equal(read_face(tmp_path / "face.npz"), face)
    assert read_face(golden / "preproc" / "20words_mean_face.npy").dtype == np.float64


def wrong(part: slice, value: float) -> np.ndarray:
    face = own_face()
    face[part] = value
    return face


@pytest.mark.parametrize(
    ("face", "why"),
    [
        (np.zeros((68, 3)), r"float64 of shape \(68, 3\)"),
        (np.zeros((67, 2)), r"shape \(67, 2\)"),
        (np.zeros((68, 2), bool), "is bool"),
        (np.array(["a"]), "is <U1"),
        (wrong(LIPS, np.nan), "values that are not finite"),
        (own_face() / 256 - 0.5, "reaches from -0.2909 to 0.3168"),
        (own_face() * 2, "reaches from"),
        (own_face() / 256, "does not stand upright"),
        (own_face()[:, ::-1], "does not stand upright"),
        (own_face() * [1, -1] + np.array([0, 256]), "does not stand upright"),
        (256 - own_face(), "does not stand upright"),
        (own_face() * 0.4 + np.array([0, 165]), r"has its mouth at \(51, 229\), where no window of 96 px fits"),
    ],
)
def test_what_is_no_face_is_refused(tmp_path: Path, face: np.ndarray, why: str) -> None:
    np.save(tmp_path / "face.npy", np.ascontiguousarray(face))
    with pytest.raises(UsageError, match=rf"mean face .*{why}.*; expected an array \(68, 2\) of x and y in a frame"):
        read_face(tmp_path / "face.npy")


def test_a_face_in_a_pickle_or_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "face.npy").write_bytes(pickle.dumps(own_face()))
    np.save(tmp_path / "objects.npy", np.array([None], object), allow_pickle=True)
    for name, why in (
        ("face.npy", "is neither .npy nor .npz"),
        ("objects.npy", "holds Python objects"),
        ("none.npy", "does not exist"),
        (".", "is a folder"),
    ):
        with pytest.raises(UsageError, match=f"mean face .*{why}"):
            read_face(tmp_path / name)
