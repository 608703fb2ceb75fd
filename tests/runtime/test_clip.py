"""The input contract; what its pixels become is in tests/data/test_stores_of_spans.py."""

from __future__ import annotations

import numpy as np
import pytest

from edgelip.runtime.clip import ClipSpec, network_input
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
