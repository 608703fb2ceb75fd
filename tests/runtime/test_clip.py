"""The input contract; what its pixels become is in tests/data/test_stores_of_spans.py."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_bundles import SPEC, make_clips

from edgelip.runtime.clip import ClipSpec, crop_clips, network_input, normalise_clips
from edgelip.runtime.errors import ClipError


def test_a_contract_for_audio_goes_through_json() -> None:
    spec = ClipSpec(kind="audio", frames=30)
    assert ClipSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "smell"}, r"clip kind is 'smell'; expected 'video', 'audio' or 'landmarks'\."),
        (
            {"kind": "audio", "fps": 30.0},
            r"clip timing 'window', fps 30\.0 of kind 'audio'; expected 'window' and 25, ",
        ),
        ({"kind": "audio", "timing": "span"}, r"expected 'window' and 25, feature frames of 640 samples at 16 kHz\."),
        ({"kind": "audio", "frames": 0}, r"clip frames is 0; expected a whole number from 1 to 1000\."),
    ],
)
def test_contracts_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        ClipSpec.from_json({**ClipSpec().to_json(), **fields})


def test_frames_for_a_classifier_of_audio_are_refused() -> None:
    with pytest.raises(ClipError, match=r"takes audio, not frames; expected normalised waveforms, float32"):
        network_input(np.zeros((1, 29, 96, 96), np.uint8), ClipSpec(kind="audio"))


def test_cropping_and_normalising_are_the_halves_of_the_input() -> None:
    frames_NTHW = make_clips(3)
    cropped_NTHW = crop_clips(frames_NTHW, SPEC)
    np.testing.assert_array_equal(cropped_NTHW, frames_NTHW[:, :, 1:7, 1:7])
    assert np.shares_memory(cropped_NTHW, frames_NTHW)
    clips_N1THW = normalise_clips(cropped_NTHW, SPEC)
    np.testing.assert_array_equal(clips_N1THW, network_input(frames_NTHW, SPEC))
    wanted_N1THW = (frames_NTHW[:, None, :, 1:7, 1:7] / 255 - SPEC.mean) / SPEC.std
    np.testing.assert_allclose(clips_N1THW, wanted_N1THW, atol=1e-5)
