"""The arrays that OpenVINO's engine keeps bound are nobody else's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import expected_logits, make_clips, write_bundle

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.recogniser import Recogniser

pytest.importorskip("openvino")


def test_logits_of_each_call_are_its_own_whatever_its_number_of_clips(tmp_path: Path) -> None:
    frames_NTHW = make_clips(5)
    wanted_NV = expected_logits(frames_NTHW)
    with Recogniser(Bundle.open(write_bundle(tmp_path / "tiny")), engine="openvino") as recogniser:
        kept = [recogniser.logits(frames_NTHW[first:last]) for first, last in ((0, 1), (1, 2), (2, 5), (0, 1), (1, 5))]
    for logits_BV, (first, last) in zip(kept, ((0, 1), (1, 2), (2, 5), (0, 1), (1, 5)), strict=True):
        np.testing.assert_allclose(logits_BV, wanted_NV[first:last], rtol=1e-4, atol=1e-4)


def test_engine_results_do_not_change_later_and_clips_may_be_read_only(tmp_path: Path) -> None:
    with Recogniser(Bundle.open(write_bundle(tmp_path / "tiny")), engine="openvino") as recogniser:
        clips_B1THW = np.random.default_rng(0).normal(size=(2, 1, 4, 6, 6)).astype(np.float32)
        clips_B1THW.flags.writeable = False
        first = recogniser.engine.infer(clips_B1THW[:1])
        before = first.copy()
        second = recogniser.engine.infer(clips_B1THW[1:])
        np.testing.assert_array_equal(first, before)
        assert not np.array_equal(first, second)
