from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgelip.cli.bench_bundles import note_of


def _run(badge: str, *reasons: str) -> Any:
    return SimpleNamespace(badge=badge, reasons=reasons)


def test_comparison_of_invalid_bundles_says_so() -> None:
    bundles = [Path("dist/dense"), Path("dist/phm4")]
    valid = [_run("VALID"), _run("VALID")]
    assert note_of(bundles, [valid, valid]) is None
    spoilt = [_run("NOISY", "a neighbour"), _run("THROTTLED", "too hot", "a neighbour")]
    assert note_of(bundles, [valid, spoilt]) == "This comparison is not valid because dist/phm4 is THROTTLED (too hot)."
    assert note_of(bundles[:1], [spoilt]) is None  # nothing is compared
