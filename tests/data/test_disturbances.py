"""Axes: N clips, T frames, H rows, W columns, P points, A coordinates."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.data import disturbances
from edgelip.data.disturbances import DISTURBANCES, at_fps, disturbed, dropped, require_conditions, shifted
from edgelip.data.draws import Draws
from edgelip.data.resample import resample
from edgelip.data.video import StampedFrame
from edgelip.errors import ShapeError, UsageError
from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(frames=8, roi_px=24, pool=1, crop_px=20)
SIGNS = ClipSpec(kind="landmarks", timing="span", frames=8, points="lips40", axes=2)


def clips(num_clips: int = 2, *, frames: int = 8, side_px: int = 24, seed: int = 0) -> np.ndarray:
    """uint8 (N, T, S, S): smooth blobs that move."""
    noise = np.random.default_rng(seed).integers(0, 256, (num_clips * frames, side_px, side_px)).astype(np.uint8)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), side_px / 10) for frame in noise])
    stretched = np.clip((smooth.astype(float) - smooth.mean()) * 4 + 128, 0, 255).astype(np.uint8)
    return stretched.reshape(num_clips, frames, side_px, side_px)


def points(num_clips: int = 2) -> np.ndarray:
    found = np.random.default_rng(0).random((num_clips, 8, 40, 2)).astype(np.float32)
    found[0, 0, 0] = np.nan
    return found


@pytest.mark.parametrize("condition", list(DISTURBANCES))
def test_every_condition_changes_a_clip_and_depends_on_its_number_alone(condition: str) -> None:
    frames = clips(3)
    both = disturbed(frames, condition, SPEC, numbers=[4, 9, 12])
    assert both.shape == frames.shape
    assert both.dtype == np.uint8
    assert not np.array_equal(both, frames)
    alone = disturbed(frames[1:2], condition, SPEC, numbers=[9])
    assert np.array_equal(alone[0], both[1])


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([name for name in DISTURBANCES if not name.startswith("h264")]),
    st.integers(1, 12),
    st.integers(8, 40),
    st.integers(0, 2**31),
)
def test_any_clip_keeps_its_shape(condition: str, num_frames: int, side_px: int, number: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, num_frames, side_px, side_px)).astype(np.uint8)
    spec = ClipSpec(frames=num_frames, roi_px=side_px, pool=1, crop_px=side_px)
    assert disturbed(frames, condition, spec, numbers=[number]).shape == frames.shape


@pytest.mark.parametrize(("share", "count"), [(0.05, 1), (0.10, 2), (0.20, 4)])
def test_a_share_of_frames_is_dropped_and_the_one_before_shown(share: float, count: int) -> None:
    for number in range(20):
        picks = dropped(20, Draws(0, number, "d"), 25.0, share=share)
        lost = np.flatnonzero(picks != np.arange(20))
        assert len(lost) == count
        assert all(picks[frame] == picks[frame - 1] for frame in lost)
        assert picks[0] == 0


def test_a_share_that_is_no_whole_number_of_frames_is_met_on_average() -> None:
    counts = [(dropped(29, Draws(0, number, "d"), 25.0, share=0.05) != np.arange(29)).sum() for number in range(2000)]
    assert {*counts} == {1, 2}
    assert np.mean(counts) == pytest.approx(0.05 * 29, abs=0.05)


@pytest.mark.parametrize("lower_fps", [15.0, 20.0])
def test_a_lower_rate_shows_the_frames_that_resampling_a_video_does(lower_fps: float) -> None:
    def at(rate: float, numbers: list[int], to: float) -> list[int]:
        frames = [StampedFrame(t / rate, 1 / rate, np.full((1, 1), n)) for t, n in enumerate(numbers)]
        return [int(frame.gray_HW[0, 0]) for _, frame in resample(frames, to, source="a", max_frames=100)]

    twice = at(lower_fps, at(25.0, list(range(29)), lower_fps), 25.0)
    expected = (twice + [twice[-1]] * 29)[:29]
    assert at_fps(29, Draws(0, 0, "f"), 25.0, lower_fps=lower_fps).tolist() == expected
    assert len({*expected}) == round(29 * lower_fps / 25)


def test_shifted_clips_repeat_their_ends() -> None:
    ways = {tuple(shifted(6, Draws(0, number, "s"), 25.0, by=3)) for number in range(20)}
    assert ways == {(3, 4, 5, 5, 5, 5), (0, 0, 0, 0, 1, 2)}


def test_jitter_moves_each_frame_by_so_many_px_of_an_roi_and_nowhere_on_average() -> None:
    cross = np.zeros((60, 48, 48), np.uint8)
    cross[:, 24, :] = cross[:, :, 24] = 250
    moved = disturbances.jittered(cross, Draws(0, 0, "j"), px=8.0).astype(float)
    columns = (moved[:, 2] * np.arange(48)).sum(axis=1) / moved[:, 2].sum(axis=1) - 24
    assert np.abs(columns).max() == pytest.approx(4, abs=0.3)  # 8 px of 96 are 4 of 48
    assert columns.mean() == pytest.approx(0, abs=3 * 4 / 3**0.5 / 60**0.5)
    assert len(np.unique(columns.round(2))) > 40


def test_roll_and_scale_turn_and_enlarge_around_the_middle() -> None:
    spot = np.zeros((1, 49, 49), np.uint8)
    spot[0, 24, 36:43] = 255  # 15 px right of the middle

    def centre(frames: np.ndarray) -> tuple[float, float]:
        weight = frames[0] / frames.sum()
        return float((weight.sum(axis=1) * np.arange(49)).sum()) - 24, float(
            (weight.sum(axis=0) * np.arange(49)).sum()
        ) - 24

    for number in range(6):
        draws = Draws(0, number, "r")
        down, right = centre(disturbances.rolled(spot, draws, degrees=10.0))
        turned = draws.sign("way") * np.radians(10)
        assert (right, down) == pytest.approx((15 * np.cos(turned), 15 * np.sin(turned)), abs=0.3)
        assert centre(disturbances.scaled(spot, draws, share=0.1))[1] == pytest.approx(
            15 * (1 + 0.1 * draws.sign("way")), abs=0.3
        )


def test_low_light_has_a_fifth_of_the_light_and_a_sensors_noise() -> None:
    grey = np.full((20, 48, 48), 200, np.uint8)
    dark = disturbances.darker(grey, Draws(0, 0, "l"), light=0.2).astype(float)
    assert dark.mean() == pytest.approx(40, abs=0.1)
    assert dark.std() == pytest.approx((2.0**2 + 0.05 * 40 + 1 / 12) ** 0.5, rel=0.02)  # and rounding


def test_gamma_is_the_formula() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    bright = disturbances.with_gamma(ramp, Draws(0, 0, "g"), gamma=0.6).ravel()
    assert bright.tolist() == [round(255 * (grey / 255) ** 0.6) for grey in range(256)]


def test_a_quarter_of_the_mouth_is_covered() -> None:
    frames = clips(1, side_px=96)[0]
    places = set()
    for number in range(20):
        changed = (disturbances.occluded(frames, Draws(0, number, "o")) != frames).any(axis=0)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 30)  # of 40 x 60 px
        places.add((int(rows[0]), int(columns[0])))
    assert places == {(28, 18), (28, 48), (48, 18), (48, 48)}


def test_conditions_of_no_strength_change_nothing() -> None:
    frames, draws = clips(1)[0], Draws(0, 3, "n")
    whole = np.arange(8)
    assert dropped(8, draws, 25.0, share=0.0).tolist() == whole.tolist()
    assert at_fps(8, draws, 25.0, lower_fps=25.0).tolist() == whole.tolist()
    assert shifted(8, draws, 25.0, by=0).tolist() == whole.tolist()
    for same in (
        disturbances.jittered(frames, draws, px=0.0),
        disturbances.rolled(frames, draws, degrees=0.0),
        disturbances.scaled(frames, draws, share=0.0),
        disturbances.darker(frames, draws, light=1.0),
        disturbances.with_gamma(frames, draws, gamma=1.0),
    ):
        assert np.array_equal(same, frames)


def test_worse_codecs_differ_more_and_the_best_hardly() -> None:
    frames = clips(1, side_px=48)[0]

    def error(recoded: np.ndarray) -> float:
        return float(np.abs(recoded.astype(float) - frames).mean())

    draws = Draws(0, 0, "c")
    by_crf = [error(disturbances.h264(frames, crf)) for crf in (0, 28, 42)]
    assert by_crf[0] < 1
    assert by_crf == sorted(by_crf)
    by_quality = [error(disturbances.as_jpeg(frames, draws, quality=quality)) for quality in (100, 50, 10)]
    assert by_quality == sorted(by_quality)
    assert by_quality[0] < 2


def test_frames_of_odd_size_are_encoded_too() -> None:
    frames = clips(1, side_px=97)[0][:2, :, :95]
    assert disturbances.h264(frames, 28).shape == (2, 97, 95)


@pytest.mark.parametrize("condition", ["dropped_20", "fps_15", "jitter_4", "shift_3"])
def test_landmarks_know_conditions_in_time_and_jitter(condition: str) -> None:
    before = points()
    after = disturbed(before, condition, SIGNS, numbers=[0, 1])
    assert (after.dtype, after.shape) == (np.float32, before.shape)
    assert not np.array_equal(after, before, equal_nan=True)
    if condition == "jitter_4":
        assert np.nanmax(np.abs(after - before)) <= 0.004 + 1e-6
        assert np.isnan(after[0, 0, 0]).all()


@pytest.mark.parametrize(
    ("names", "spec", "message"),
    [
        (["low_ligth"], SPEC, "There is no robustness condition 'low_ligth'. Did you mean 'low_light'?"),
        (["blur", "blur"], SPEC, "The robustness condition 'blur' is named twice. Name each once."),
        (["blur"], SIGNS, "'blur' needs frames; these bundles take landmarks, for which there are dropped_5"),
        (["fps_20"], ClipSpec(fps=20.0), "'fps_20' lowers the rate; these clips have 20 frames/s. Leave it out."),
    ],
)
def test_conditions_that_do_not_fit_are_refused(names: list[str], spec: ClipSpec, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_conditions(names, spec)
    assert message in str(raised.value)


def test_each_clip_needs_its_number() -> None:
    with pytest.raises(ShapeError, match=r"^1 numbers for clips of shape \(2, 8, 24, 24\); expected \(N, T, H, W\)"):
        disturbed(clips(), "blur", SPEC, numbers=[1])
