from __future__ import annotations

import numpy as np
import pytest

from edgelip.report.labels import overlap_px2, place_labels

FRAME = np.array([0.0, 0.0, 700.0, 600.0])


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_neither_each_other_nor_what_is_drawn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points_px = generator.uniform((80, 80), (620, 520), (12, 2))
    sizes_px = np.stack([generator.uniform(30, 130, 12), np.full(12, 16.0)], 1)
    drawn = [np.array([x - 7, y - 50, x + 7, y + 50]) for x, y in points_px]
    boxes = place_labels(points_px, sizes_px, frame=FRAME, drawn=drawn)
    everything = np.array([*drawn, *boxes])
    for index, box in enumerate(boxes):
        others = np.delete(everything, len(drawn) + index, axis=0)
        assert overlap_px2(box, others).sum() == 0
        np.testing.assert_allclose(box[2:] - box[:2], sizes_px[index])
        assert (box[:2] >= FRAME[:2]).all()
        assert (box[2:] <= FRAME[2:]).all()


def test_a_label_without_neighbours_is_beside_its_point() -> None:
    (box,) = place_labels(np.array([[300.0, 300.0]]), np.array([[60.0, 16.0]]), frame=FRAME, drawn=[])
    assert 300 < box[0] < 320
    assert box[1] < 300 + 16 < box[3] + 16


def test_labels_of_the_same_point_differ_in_place() -> None:
    boxes = place_labels(np.full((4, 2), 300.0), np.full((4, 2), 40.0), frame=FRAME, drawn=[])
    assert all(overlap_px2(box, np.delete(boxes, i, axis=0)).sum() == 0 for i, box in enumerate(boxes))


def test_overlap_is_an_area() -> None:
    box = np.array([0.0, 0.0, 10.0, 10.0])
    others = np.array([[5, 5, 20, 20], [10, 0, 20, 10], [2, 2, 4, 5]], float)
    assert overlap_px2(box, others).tolist() == [25, 0, 6]
