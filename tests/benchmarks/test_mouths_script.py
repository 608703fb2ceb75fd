"""mouths.py measures, judges and writes. No time is asserted."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelip.errors import GoalMissed, MeasurementError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("mouths")


def found_with(iou: float, centre_px: float) -> dict[str, Any]:
    return {
        "iou": [iou] * 20,
        "centre_px": [1.0] * 18 + [centre_px] * 2,
        "found_share": 1.0,
        "side_ratio": 1.0,
        "roll_error_deg": 0.5,
    }


@pytest.mark.skipif(not (SHARED / "grid" / "raw").is_dir(), reason="the GRID originals are not at ../shared/data/grid")
def test_it_writes_what_it_measured(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "DISTURBANCES", {"mirrored": script.DISTURBANCES["mirrored"]})
    data = tmp_path / "data"
    (data / "grid" / "raw").mkdir(parents=True)
    raw = SHARED / "grid" / "raw"
    shutil.copy(raw / "s3_lwwz6n.mp4", data / "grid" / "raw")
    lines = (raw / "boxes.csv").read_text().splitlines()
    kept = [lines[0], *(line for line in lines if line.startswith("s3_lwwz6n"))]
    (data / "grid" / "raw" / "boxes.csv").write_text("\n".join(kept))
    sheet = tmp_path / "rois.png"
    arguments = ["--data", str(data), "--rounds", "1", "--out", str(tmp_path), "--sheet", str(sheet)]
    assert script.main(arguments) == 0
    result = json.loads((tmp_path / "mouths.json").read_text())
    assert list(result["videos"]) == ["s3_lwwz6n.mp4", "all"]
    assert len(result["videos"]["s3_lwwz6n.mp4"][0]["iou"]) == 75
    assert list(result["disturbed"]) == ["mirrored"]
    assert result["seconds_of_video"] == 3
    assert [len(each) for each in result["samples_s"].values()] == [1, 1, 1, 1]
    assert "| s3_lwwz6n.mp4 | 0.9" in (tmp_path / "mouths.md").read_text()
    assert sheet.stat().st_size > 1000


def test_the_limits_are_of_each_video(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = {script.WHOLE: script.Median(9.0, 8.9, 9.1)}, {script.WHOLE: script.Median(7.0, 6.9, 7.1)}
    good = {"a": [found_with(0.9, 5.0)]}
    script.check(good, fast, tmp_path)
    for bad in (found_with(0.79, 5.0), found_with(0.9, 7.0)):  # 10 % of the centres too far
        with pytest.raises(
            GoalMissed, match=r"^b: mean IoU 0\.\d+, centre within 6 px on \d+\.0 % of frames; the limits"
        ):
            script.check({**good, "b": [bad]}, fast, tmp_path)
    monkeypatch.setattr(script.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    with pytest.raises(GoalMissed, match=r"mouths are found at 7\.00 .* times real time; the limit is 8\."):
        script.check(good, slow, tmp_path)
    monkeypatch.setattr(script.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    with pytest.raises(MeasurementError, match=r"99\.0 programs wanted \d+ processors"):
        script.check(good, slow, tmp_path)


def test_a_video_without_a_face_counts_as_missed(script: Any) -> None:
    lost = script.places(np.zeros((3, 64, 64), np.uint8), np.ones((3, 4)), name="a")
    assert script.judged([lost]) == (0.0, 0.0)
    assert "| a | 0.000 |" in script.places_table({"a": [lost]})


def test_every_disturbance_moves_boxes_as_it_moves_pixels(script: Any) -> None:
    """A bright square on black is found again by its pixels."""
    frames = np.zeros((4, 120, 160), np.uint8)
    frames[:, 50:71, 60:91] = 250
    boxes_T4 = np.tile([75.0, 60.0, 31.0, 0.0], (4, 1))
    for name, disturb in script.DISTURBANCES.items():
        moved, moved_T4 = disturb(frames, boxes_T4)
        for frame, (x, y, side, _) in zip(moved, moved_T4, strict=True):
            rows, columns = np.nonzero(frame > 0.6 * frame.max())
            np.testing.assert_allclose((columns.mean(), rows.mean()), (x, y), atol=1.1, err_msg=name)
            assert len(rows) == pytest.approx(31 * 21 * (side / 31) ** 2, rel=0.25), name


def test_data_that_is_not_there_is_named(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--data", str(tmp_path)]) == 2
    assert "boxes.csv cannot be read" in capsys.readouterr().err
