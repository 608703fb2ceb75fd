from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgelip.report.ledger import Ledger
from edgelip.report.plot import PANELS, _corners, png_from_ledger

pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
sys.path.insert(0, str(Path(__file__).parent))
from test_ledger import HEADER, make_row


def _image(ledger: Ledger) -> np.ndarray:
    import io

    from matplotlib.image import imread

    png = png_from_ledger(ledger)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    image: np.ndarray = imread(io.BytesIO(png))
    return image


def _share_of(image: np.ndarray, red: int, green: int, blue: int) -> float:
    return float((np.abs(image[..., :3] * 255 - (red, green, blue)).max(axis=2) < 12).mean())


def test_the_plot_has_both_panels_and_colours_by_place() -> None:
    rows = [
        make_row("dense", file_bytes=3_600_000),
        make_row("small", file_bytes=300_000, top1_pct=92.5, latency_p50_ms=1.0),
        make_row("beaten", file_bytes=3_700_000, top1_pct=92.1, latency_p50_ms=5.0),
        make_row("noisy", badge="NOISY", file_bytes=500_000, latency_p50_ms=3.0),
    ]
    image = _image(Ledger.from_rows(HEADER, rows))
    assert image.shape[1] > 1.9 * image.shape[0]
    halves = np.array_split(image, 2, axis=1)
    for colour in ((31, 78, 156), (107, 119, 133), (180, 83, 31)):  # front, behind it, not valid
        assert all(_share_of(half, *colour) > 1e-4 for half in halves)
    without = _image(Ledger.from_rows(HEADER, rows[:2]))
    assert _share_of(without, 180, 83, 31) == 0


def test_a_ledger_with_nothing_to_plot_still_gives_a_picture() -> None:
    unknown = {name: None for name in make_row("x") if name != "variant"}
    image = _image(Ledger.from_rows({}, [{"variant": "x", **unknown}]))
    assert image.shape[2] == 4
    assert np.isfinite(image).all()


def test_the_front_is_drawn_as_stairs() -> None:
    rows = [
        make_row(name, file_bytes=kb * 1000, top1_pct=top1)
        for name, kb, top1 in (("c", 9, 95), ("a", 1, 80), ("b", 4, 90))
    ]
    front = list(Ledger.from_rows({}, rows).rows)
    assert _corners(front, PANELS[0]) == [(1, 80), (4, 80), (4, 90), (9, 90), (9, 95)]
    assert _corners([], PANELS[0]) == []


def test_the_users_matplotlib_settings_change_nothing() -> None:
    import matplotlib

    ledger = Ledger.from_rows(HEADER, [make_row("dense")])
    before = png_from_ledger(ledger)
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "red"}):
        assert png_from_ledger(ledger) == before
