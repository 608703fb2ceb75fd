from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from edgelip.data.synthetic.hashing import Draws
from edgelip.data.synthetic.speakers import Spreads, draw_conditions, draw_speakers

MANY = Draws(torch.arange(4000))


def test_severity_scales_every_spread() -> None:
    spreads, half = Spreads(), Spreads().scaled(0.5)
    for field in fields(Spreads):
        assert getattr(half, field.name) == pytest.approx(0.5 * getattr(spreads, field.name))


def test_shares_stay_probabilities() -> None:
    assert Spreads(compressed_share=0.5).scaled(3.0).compressed_share == 1.0


def test_speakers_differ_by_the_stated_spreads() -> None:
    spreads = Spreads()
    speakers = draw_speakers(MANY, spreads, 2, 3, 7)
    assert float(speakers.gain_B.log().std()) == pytest.approx(spreads.speaker_log_gain, rel=0.05)
    assert float(speakers.rate_B.log().std()) == pytest.approx(spreads.speaker_log_rate, rel=0.05)
    assert float(speakers.idiosyncrasy_BGP.std()) == pytest.approx(spreads.speaker_idiosyncrasy, rel=0.05)
    assert float((speakers.hair_B > 0).float().mean()) == pytest.approx(
        spreads.facial_hair_share * (1 - spreads.lipstick_share), abs=0.03
    )


def test_lips_differ_from_skin_and_nobody_is_brighter_than_white() -> None:
    speakers = draw_speakers(MANY, Spreads(), 2, 3, 7)
    assert float((speakers.lip_albedo_B < speakers.skin_albedo_B).float().mean()) > 0.9
    assert float(speakers.skin_albedo_B.max()) < 1.0
    assert float(speakers.tooth_albedo_B.max()) < 1.0


def test_camera_keeps_the_mouth_in_the_picture() -> None:
    conditions = draw_conditions(MANY, Spreads(), 29, 1000)
    for place_BT in (conditions.x_px_BT, conditions.y_px_BT):
        assert float((place_BT - 47.5).abs().max()) < 14
        assert float(place_BT.mean()) == pytest.approx(47.5, abs=0.2)


def test_calm_camera_neither_moves_nor_loses_frames() -> None:
    conditions = draw_conditions(MANY, Spreads().scaled(0.0), 29, 1000)
    assert float((conditions.x_px_BT - 47.5).abs().max()) < 1e-5
    assert not bool(conditions.repeated_BT.any())
    assert float(conditions.occluder_B4[:, 2].max()) == 0.0
    assert float(conditions.compression_B.max()) == 0.0


def test_first_frame_is_never_a_repetition() -> None:
    conditions = draw_conditions(MANY, Spreads(dropped_share=1.0), 29, 1000)
    assert bool(conditions.repeated_BT[:, 1:].any())
    assert not bool(conditions.repeated_BT[:, 0].any())
