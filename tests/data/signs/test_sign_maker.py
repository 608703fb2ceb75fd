from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sign_files import REAL, made_raw, needs_real, write_hdf5, write_parquet

from edgelip.data.readers.samples import Sample
from edgelip.data.signs.gislr import read_gislr
from edgelip.data.signs.maker import LandmarkMaker, raw_landmarks
from edgelip.data.signs.pictures import drawn_points
from edgelip.data.stores.building import build_store
from edgelip.data.stores.workers import Workers
from edgelip.data.unusable import UnusableClip
from edgelip.errors import ClipError
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec, landmarks_from_raw

SPEC = ClipSpec(kind="landmarks", timing="span", frames=4, points="holistic118", axes=2)
MAKER = LandmarkMaker(SPEC)


def sample(path: Path, name: str = "", **fields: int) -> Sample:
    return Sample("duck", path, name or path.name, "train", speaker="7", **fields)  # type: ignore[arg-type]


def test_parquet_hdf5_and_arrays_give_the_same_clip(tmp_path: Path) -> None:
    raw = made_raw(6)
    np.save(tmp_path / "a.npy", raw)
    np.savez(tmp_path / "a.npz", landmarks=raw)
    expected = landmarks_from_raw(raw, SPEC)
    for source in (
        sample(write_parquet(tmp_path / "a.parquet", raw)),
        sample(write_hdf5(tmp_path / "7.hdf5", {"100": (raw, 0)}), "7.hdf5/100"),
        sample(tmp_path / "a.npy"),
        sample(tmp_path / "a.npz"),
    ):
        made = MAKER.make(source)
        np.testing.assert_array_equal(made.frames, expected)
        assert (made.first, made.last) == (0, 3)
        assert np.isnan(made.duration_s)


def test_a_span_is_cut_from_an_array_of_several_signs(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", xyz=made_raw(9))
    got = raw_landmarks(sample(tmp_path / "all.npz", "all.npz:2:5", first=2, last=5))
    np.testing.assert_array_equal(got, made_raw(9)[2:6])
    with pytest.raises(UnusableClip, match=r"all\.npz:7:9 has frames 7 to 9; the file has 0 to 8\.") as caught:
        raw_landmarks(sample(tmp_path / "all.npz", "all.npz:7:9", first=7, last=9))
    assert caught.value.reason == "span"


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (
            np.zeros((4, 68, 2), np.float32),
            r"a\.npy holds float32 \(4, 68, 2\); expected float \(T, 543, 3\) as one of",
        ),
        (np.zeros((4, 543, 3), np.uint8), r"a\.npy holds uint8 \(4, 543, 3\)"),
        (np.full((4, 543, 3), np.nan, np.float32), r"a\.npy: no point of holistic118 was found in any of 4 frames"),
        (np.full((4, 543, 3), np.inf, np.float32), r"a\.npy: landmarks hold inf"),
    ],
)
def test_arrays_without_a_signer_are_unusable(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnusableClip, match=said) as caught:
        MAKER.make(sample(tmp_path / "a.npy"))
    assert caught.value.reason == "landmarks"


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(pickle.dumps([1]))
    with pytest.raises(UnusableClip, match=r"a\.npy cannot be read: is neither \.npy nor \.npz"):
        MAKER.make(sample(tmp_path / "a.npy"))
    np.save(tmp_path / "b.npy", np.array([{}], object))
    with pytest.raises(UnusableClip, match=r"b\.npy cannot be read: holds Python objects"):
        MAKER.make(sample(tmp_path / "b.npy"))


def test_what_is_missing_or_of_another_kind_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(UnusableClip, match=r"a\.npy does not exist; expected float"):
        MAKER.make(sample(tmp_path / "a.npy"))
    with pytest.raises(UnusableClip, match=r"a\.mp4 ends in '\.mp4'; expected \.parquet, \.hdf5, \.h5, \.npz, \.npy\."):
        MAKER.make(sample(tmp_path / "a.mp4"))


def test_a_contract_of_video_is_refused() -> None:
    with pytest.raises(ClipError, match=r"signs are landmarks; the clip contract has kind 'video'\."):
        LandmarkMaker(ClipSpec())


def test_a_store_of_signs_holds_what_the_maker_makes_and_counts_the_rest(tmp_path: Path) -> None:
    samples = [sample(write_parquet(tmp_path / f"{number}.parquet", made_raw(5, seed=number))) for number in range(3)]
    (tmp_path / "1.parquet").write_bytes(b"nonsense")
    built = build_store(
        tmp_path / "store",
        samples,
        MAKER,
        words=("duck",),
        progress=Progress(quiet=True),
        name="signs",
        workers=Workers(1),
    )
    assert built.store is not None
    np.testing.assert_array_equal(
        np.asarray(built.store.frames[:]), np.stack([MAKER.make(samples[number]).frames for number in (0, 2)])
    )
    assert [(failure.name, failure.reason) for failure in built.failures] == [("1.parquet", "damaged")]


@needs_real
def test_the_real_parquet_files_and_an_hdf5_written_from_them_give_the_same_tensors(tmp_path: Path) -> None:
    listing = read_gislr(REAL)
    assert len(listing.samples) == 3
    assert {error.reason for error in listing.unusable.values()} == {"missing"}
    for number, each in enumerate(listing.samples):
        path = write_hdf5(tmp_path / "1.hdf5", {each.clip_id: (raw_landmarks(each), 0)}, channels_first=number % 2 == 0)
        again = sample(path, f"1.hdf5/{each.clip_id}")
        np.testing.assert_array_equal(raw_landmarks(again), raw_landmarks(each))
        for points in ("lips40", "holistic118", "holistic130", "all543"):
            maker = LandmarkMaker(ClipSpec(kind="landmarks", timing="span", frames=32, points=points, axes=3))
            np.testing.assert_array_equal(maker.make(again).frames, maker.make(each).frames)


def test_points_are_drawn_and_lost_ones_are_not(tmp_path: Path) -> None:
    clip = landmarks_from_raw(made_raw(6), SPEC)[None]
    clip[0, 1] = np.nan
    frames = drawn_points(clip, SPEC.point_set, side_px=40)
    assert frames.shape == (1, 4, 40, 40)
    assert frames.dtype == np.uint8
    assert (frames[0, 1] == 255).all()
    assert set(np.unique(frames[0, 2])) == {0, 150, 255}  # hands black, face grey
    assert (drawn_points(np.full_like(clip, np.nan), SPEC.point_set) == 255).all()
