from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgelip.runtime.errors import ClipError
from edgelip.runtime.landmarks import NUM_POINTS, PARTS, POINTS, chosen_points, fit_points, normalised, point_set

LIPS = point_set("lips40")
HOLISTIC = point_set("holistic118")


def clips(num_points: int, *, seed: int = 0, lost: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.normal(0.5, 0.2, (3, 5, num_points, 2)).astype(np.float32)
    points[rng.random((3, 5, num_points)) < lost] = np.nan
    return points


@pytest.mark.parametrize(
    ("name", "count", "parts"),
    [
        ("lips40", 40, {"face": 40}),
        ("holistic118", 118, {"face": 76, "left_hand": 21, "right_hand": 21}),
        ("holistic130", 130, {"face": 76, "left_hand": 21, "pose": 12, "right_hand": 21}),
        ("all543", 543, {"face": 468, "left_hand": 21, "pose": 33, "right_hand": 21}),
    ],
)
def test_subsets_have_the_published_sizes_and_no_point_twice(name: str, count: int, parts: dict[str, int]) -> None:
    points = point_set(name)
    assert len(points) == len(set(points.indices)) == count
    assert {part: len(positions) for part, positions in points.parts.items()} == parts
    for part, positions in points.parts.items():
        assert all(points.indices[position] in PARTS[part] for position in positions)
    assert points.indices[points.reference] == 17


def test_the_130_set_is_the_118_set_and_the_arms_with_its_face_in_ascending_order() -> None:
    points = point_set("holistic130")
    assert set(points.indices) == {*HOLISTIC.indices, *range(500, 512)}
    assert list(points.indices[:76]) == sorted(points.indices[:76])


@pytest.mark.parametrize("name", ["lips40", "holistic118", "holistic130"])
def test_mirroring_twice_changes_nothing_and_hands_change_places(name: str) -> None:
    points = point_set(name)
    assert points.mirror is not None
    assert [points.mirror[position] for position in points.mirror] == list(range(len(points)))
    pairs = {(points.indices[a], points.indices[b]) for a, b in enumerate(points.mirror)}
    expected = {(61, 291), (0, 0), (17, 17)}
    if name != "lips40":
        expected |= {(468, 522), (542, 488), (33, 263), (98, 327)}
    if name == "holistic130":
        expected |= {(500, 501), (511, 510)}
    assert expected <= pairs


def test_all_points_have_no_mirror_pairs() -> None:
    assert point_set("all543").mirror is None


def test_an_unknown_subset_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ClipError, match=r"clip points is 'lips'; expected one of lips40, holistic118, holistic130, all"
    ):
        point_set("lips")


def test_body_normalisation_is_distance_from_the_lower_lip_in_units_of_its_root_mean_square() -> None:
    got = normalised(clips(118), HOLISTIC, "body")
    for clip_TPA, result_TPA in zip(clips(118).astype(np.float64), got, strict=True):
        for axis in range(2):
            origin = np.nanmean(clip_TPA[:, HOLISTIC.reference, axis])
            distance_TP = clip_TPA[..., axis] - origin
            unit = np.sqrt(np.nanmean(distance_TP**2))
            np.testing.assert_allclose(result_TPA[..., axis], np.nan_to_num(distance_TP / unit), rtol=0, atol=2e-6)


def test_normalisation_by_parts_gives_each_part_mean_0_and_root_mean_square_1() -> None:
    stored = clips(118)
    got = normalised(stored, HOLISTIC, "parts")
    for positions in HOLISTIC.parts.values():
        found = ~np.isnan(stored[:, :, list(positions), 0])
        for clip_TP2, found_TP in zip(got[:, :, list(positions)], found, strict=True):
            np.testing.assert_allclose(clip_TP2[found_TP].mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose((clip_TP2[found_TP] ** 2).mean(axis=0), 1, atol=1e-5)
            assert not clip_TP2[~found_TP].any()


@given(st.sampled_from(["body", "parts"]), st.floats(-3, 3), st.floats(0.1, 10), st.floats(0.1, 10))
def test_place_and_size_of_the_signer_in_the_picture_do_not_count(
    normalise: str, offset: float, width: float, height: float
) -> None:
    stored = clips(118, seed=4)
    moved = (stored * np.array([width, height]) + offset).astype(np.float32)
    np.testing.assert_allclose(
        normalised(moved, HOLISTIC, normalise), normalised(stored, HOLISTIC, normalise), rtol=0, atol=2e-3
    )


def test_a_point_with_one_lost_coordinate_is_lost() -> None:
    stored = clips(40, lost=0)
    stored[0, 2, 7, 1] = np.nan
    got = normalised(stored, LIPS, "body")
    assert got[0, 2, 7].tolist() == [0, 0]
    stored[0, 2, 7, 0] = np.nan
    np.testing.assert_array_equal(got, normalised(stored, LIPS, "body"))


def test_without_the_lower_lip_the_mean_of_all_points_is_the_origin() -> None:
    stored = clips(40, lost=0)
    stored[:, :, LIPS.reference] = np.nan
    got = normalised(stored, LIPS, "body")
    others = [place for place in range(40) if place != LIPS.reference]
    np.testing.assert_allclose(got[:, :, others].mean(axis=(1, 2)), 0, atol=1e-5)


@pytest.mark.parametrize("value", [0.25, np.nan])
def test_a_clip_in_which_nothing_moves_or_nothing_is_found_becomes_zeros(value: float) -> None:
    for normalise in ("body", "parts"):
        assert not normalised(np.full((1, 4, 118, 3), value, np.float32), HOLISTIC, normalise).any()


def test_resampling_keeps_the_ends_and_is_linear_between_found_points() -> None:
    points = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None] * np.ones((5, 2, 2), np.float32)
    got = fit_points(points, 9)
    np.testing.assert_allclose(got[:, 0, 0], np.linspace(0, 1, 9), atol=1e-6)


def test_between_a_found_and_a_lost_point_the_nearer_one_counts() -> None:
    points = np.array([1, np.nan, 3, np.nan], np.float32)[:, None, None]
    got = fit_points(points, 10)[:, 0, 0]  # at frames 0, 1/3, 2/3, 1, ... 3
    np.testing.assert_array_equal(got, np.array([1, 1, np.nan, np.nan, np.nan, 3, 3, 3, np.nan, np.nan], np.float32))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 7), st.just(2), st.just(2)), elements=st.floats(-9, 9, width=32)),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
def test_resampling_stays_within_what_was_there(points: np.ndarray, num_frames: int, random: object) -> None:
    lost = np.array([random.random() < 0.3 for _ in range(len(points))])  # type: ignore[attr-defined]
    points[lost] = np.nan
    got = fit_points(points, num_frames)
    assert got.shape == (num_frames, 2, 2)
    assert got.dtype == np.float32
    if not lost.all():
        assert np.nanmin(points) - 1e-5 <= np.nanmin(np.append(got, np.nanmin(points)))
        assert np.nanmax(np.append(got, np.nanmax(points))) <= np.nanmax(points) + 1e-5
    if not lost.any():
        assert not np.isnan(got).any()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            np.zeros((4, 468, 3), np.float32),
            r"landmarks are float32 \(4, 468, 3\); expected float \(T, 543, 3\), T from 1",
        ),
        (np.zeros((4, 543, 3), np.uint8), r"landmarks are uint8 \(4, 543, 3\)"),
        (np.zeros((0, 543, 3), np.float32), r"landmarks are float32 \(0, 543, 3\)"),
        (np.zeros((543, 3), np.float32), r"landmarks are float32 \(543, 3\)"),
        (np.zeros((4, 543, 1), np.float32), r"landmarks are float32 \(4, 543, 1\)"),
        (np.zeros((4, 543, 4), np.float32), r"landmarks are float32 \(4, 543, 4\)"),
    ],
)
def test_raw_landmarks_of_another_shape_are_refused(raw: np.ndarray, said: str) -> None:
    with pytest.raises(ClipError, match=said):
        chosen_points(raw, LIPS, 2)


def test_every_named_subset_exists() -> None:
    assert [point_set(name).name for name in POINTS] == list(POINTS)
    assert sum(len(inside) for inside in PARTS.values()) == NUM_POINTS
