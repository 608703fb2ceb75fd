from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from edgelip.data.synthetic.articulation import PARAMETERS
from edgelip.data.synthetic.geometry import Mouth, lay_out
from edgelip.data.synthetic.hashing import Draws
from edgelip.data.synthetic.render import NOISE_ENTRIES
from edgelip.data.synthetic.render import paint as paint_into
from edgelip.data.synthetic.speakers import Conditions, Spreads, draw_conditions, draw_speakers
from edgelip.data.synthetic.words import TARGETS

FRAMES = 3


def paint(mouth: Mouth, conditions: Conditions) -> Tensor:
    num_clips = mouth.skin_rows_BTRY.shape[0]
    return paint_into(mouth, conditions, torch.empty(num_clips, FRAMES, 96, 96, dtype=torch.uint8))


def scene(count: int, severity: float, **track: float) -> tuple[Mouth, Conditions]:
    spreads = Spreads().scaled(severity)
    draws = Draws(torch.arange(count))
    tracks_BPT = torch.zeros(count, len(PARAMETERS), FRAMES)
    tracks_BPT[:, PARAMETERS.index("width")] = 0.5
    for name, value in track.items():
        tracks_BPT[:, PARAMETERS.index(name)] = value
    conditions = draw_conditions(draws, spreads, FRAMES, NOISE_ENTRIES)
    return lay_out(tracks_BPT, draw_speakers(draws, spreads, 1, len(TARGETS), len(PARAMETERS)), conditions), conditions


def test_skin_is_the_exact_product_of_its_patterns() -> None:
    """float32 products of the rounded patterns lose nothing, so no order of summation can change them."""
    mouth, _ = scene(6, 1.0)
    rows, columns = mouth.skin_rows_BTRY.transpose(2, 3), mouth.skin_columns_BTRX
    assert torch.equal((rows @ columns).double(), rows.double() @ columns.double())


def test_pixels_in_double_precision_agree_within_one_grey_level() -> None:
    """Stands in for a GPU, which rounds a multiply-add once instead of twice."""
    mouth, conditions = scene(12, 1.0, jaw=0.6, teeth=0.5, tongue=0.4)
    exact = Mouth(*(getattr(mouth, field.name).double() for field in dataclasses.fields(mouth)))
    difference = paint(mouth, conditions).int() - paint(exact, conditions).int()
    assert int(difference.abs().max()) <= 1


def test_steps_of_a_column_add_up_to_nothing() -> None:
    """Below the mouth the skin must be as bright as it is without a mouth."""
    mouth, _ = scene(8, 1.0, jaw=0.7, rounding=0.4)
    total = mouth.step_height_KBTX.sum(0)
    assert float(total.abs().max()) < 0.01


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("jaw", 0.1, 0.9), ("teeth", 0.0, 1.0), ("tongue", 0.0, 1.0), ("rounding", 0.0, 1.0), ("width", 0.1, 0.9)],
)
def test_every_articulator_can_be_seen(name: str, low: float, high: float) -> None:
    frames = [paint(*scene(1, 0.0, **{"jaw": 0.4, "teeth": 0.4, name: value})).float() for value in (low, high)]
    assert float((frames[0] - frames[1]).abs()[..., 30:75, 20:76].mean()) > 3.0


def test_labiodental_contact_brings_the_lower_lip_to_the_teeth() -> None:
    apart, together = (scene(1, 0.0, jaw=0.5, teeth=0.7, labiodental=value)[0] for value in (0.0, 1.0))
    lower_lip = 6  # the step from inside the mouth to the lower lip
    height = [float(-(m.step_shift_KBTX / m.step_scale_KBTX)[lower_lip, 0, 0, 48]) for m in (apart, together)]
    assert height[1] < height[0] - 4.0


def test_mouth_is_nowhere_but_in_the_lower_rows() -> None:
    """The painter skips the rows above; no step may begin there, even for the most extreme speakers."""
    mouth, _ = scene(400, 1.0, jaw=1.0, teeth=1.0)
    starts = -(mouth.step_shift_KBTX / mouth.step_scale_KBTX)
    visible = mouth.step_height_KBTX.abs() > 1.0
    assert float(starts[visible].min()) > 16.0


def test_frames_are_neither_black_nor_burnt_out() -> None:
    mouth, conditions = scene(60, 1.0, jaw=0.4, teeth=0.5)
    grey = paint(mouth, conditions).float()
    assert 60 < float(grey.mean()) < 170
    assert float((grey.flatten(1).std(1) < 5).float().mean()) == 0.0
