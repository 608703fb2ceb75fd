from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import expected_logits, make_clips, write_bundle

from edgelip.runtime.check import check
from edgelip.runtime.errors import BundleError

FRAMES = make_clips(8)


@pytest.mark.parametrize("engine", ["ort", "openvino"])
def test_check_accepts_a_good_bundle(tmp_path: Path, engine: str) -> None:
    (parity,) = check(write_bundle(tmp_path / "tiny"), engine)
    assert (parity.num_files, parity.num_clips, parity.precision) == (3, 8, "fp32")
    assert parity.line().startswith(f"OK tiny: 3 files, 8 clips, fp32 on {engine}, max |difference| ")
    assert parity.line().endswith("(limit 0.0001), words equal")


def test_check_refuses_logits_beyond_the_limit(tmp_path: Path) -> None:
    logits = expected_logits(FRAMES)
    logits[5, 2] += 0.01
    folder = write_bundle(tmp_path / "tiny", expected={"frames": FRAMES, "logits": logits})
    with pytest.raises(BundleError, match=r"tiny \(fp32 on ort\) .* max \|difference\| .*e-03 at clip 5, limit 0.0001"):
        check(folder)


def test_check_scales_the_difference_by_large_logits(tmp_path: Path) -> None:
    logits = expected_logits(FRAMES)
    logits[0] *= 1 + 5e-4  # up to 3 logits: relative 5e-4, absolute more
    folder = write_bundle(
        tmp_path / "tiny",
        expected={"frames": FRAMES, "logits": logits},
        edit=lambda manifest: manifest["models"][0].update(tolerance=6e-4),
    )
    (parity,) = check(folder)
    scaled = np.abs(expected_logits(FRAMES) - logits) / np.maximum(1, np.abs(logits))
    assert parity.max_difference == pytest.approx(scaled.max(), abs=1e-6)


def test_check_accepts_a_tie_that_falls_the_other_way_and_says_so(tmp_path: Path) -> None:
    logits = expected_logits(FRAMES)
    best, second = np.argsort(-logits[3])[:2]
    logits[3, second] = logits[3, best] + 1e-6  # the engine sees `best` ahead by far less than the limit below
    gap = float(expected_logits(FRAMES)[3, best] - expected_logits(FRAMES)[3, second])
    folder = write_bundle(
        tmp_path / "tiny",
        expected={"frames": FRAMES, "logits": logits},
        edit=lambda manifest: manifest["models"][0].update(tolerance=2 * gap),
    )
    (parity,) = check(folder)
    assert parity.num_equal_words == 7
    assert parity.line().endswith("words equal at 7 of 8 clips, the others are ties within the limit")


def test_check_refuses_another_word_where_the_margin_is_beyond_the_limit(tmp_path: Path) -> None:
    logits = expected_logits(FRAMES)
    logits[0] = logits[0][::-1]
    margin = abs(float(logits[0, 0] - logits[0, 2]))
    limit = 0.49 * margin / max(1, float(abs(logits[0]).max()))
    folder = write_bundle(
        tmp_path / "tiny",
        expected={"frames": FRAMES, "logits": logits},
        edit=lambda manifest: manifest["models"][0].update(tolerance=limit),
    )
    with pytest.raises(BundleError, match=r"does not give the expected numbers: .* at clip 0"):
        check(folder)


def test_check_of_an_engine_the_bundle_was_not_made_for(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny", edit=lambda manifest: manifest["models"][0].update(engines=["ort"]))
    with pytest.raises(BundleError, match="tiny has no model for engine 'openvino'"):
        check(folder, "openvino")
