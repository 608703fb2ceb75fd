"""benchmarks/factored.py and benchmarks/conversion.py judge and keep what they measure."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgelip.errors import UsageError
from edgelip.models.zoo import build_classifier

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/ by name."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


def row(macs: float, latency: float) -> dict[str, Any]:
    return {"macs_ratio": macs, "latency_ratio": {"value": latency}}


def test_the_threshold_is_the_largest_share_at_which_most_are_faster(script: Any) -> None:
    factored = script("factored")
    fast, slow = [row(0.1, 0.5)] * 9, row(0.38, 1.2)
    assert factored.threshold([*fast, slow]) == 1.0
    assert factored.threshold([*fast, slow, slow]) == 0.3
    assert factored.threshold([row(0.05, 1.5)]) is None


def test_both_forms_of_a_chain_compute_the_same(script: Any) -> None:
    factored = script("factored")
    layer = factored.TOY_LAYERS[0]
    forms = [factored.chain(layer, n=4, terms=1, factored=choice) for choice in (False, True)]
    x = torch.randn(2, layer.into, *layer.positions)
    assert [form[0].runs_factored() for form in forms] == [False, True]
    torch.testing.assert_close(forms[0](x), forms[1](x), rtol=1e-4, atol=1e-4)


def test_a_row_is_kept_until_its_settings_change(script: Any, tmp_path: Path) -> None:
    conversion = script("conversion")
    calls: list[int] = []

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"right": conversion.packed(np.array([True, False]))}

    first = conversion.kept_row(tmp_path / "row.json", {"n": 2}, make)
    assert conversion.kept_row(tmp_path / "row.json", {"n": 2}, make) == first
    assert conversion.unpacked(first["right"]).tolist() == [True, False]
    conversion.kept_row(tmp_path / "row.json", {"n": 4}, make)
    assert len(calls) == 2


def test_the_same_layers_are_converted_at_every_n(script: Any) -> None:
    conversion = script("conversion")
    network = build_classifier("small", num_words=5)
    layers = conversion.chosen_layers(network, [2, 4, 8])
    assert "trunk.blocks.2.conv2.conv" in layers
    assert "trunk.blocks.0.shortcut.conv" not in layers  # 512 numbers: n = 8 makes it larger
    with pytest.raises(UsageError, match=r"No convolution of this network is worth PHM at n=7\. Take smaller --n\."):
        conversion.chosen_layers(network, [7])


def test_gains_are_over_fresh_factors(script: Any) -> None:
    conversion = script("conversion")
    right = {"random": "1000", "nearest": "1110", "nearest, permuted": "1111"}
    rows = {
        (run, 2, start): {"right": text, "untuned_right": "0000", "energy_kept": None if start == "random" else 0.5}
        for run in range(3)
        for start, text in right.items()
    }
    lines = conversion.table(rows, [90.0], 3).splitlines()
    assert "+50.00" in next(line for line in lines if "| nearest |" in line)
    assert "+75.00, +75.00, +75.00" in next(line for line in lines if "permuted" in line)
