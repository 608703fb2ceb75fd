"""The reference of the PHM timings computes what ours computes, and phm_cost.py judges what it measures."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgelip.models.hypercomplex import phm_from_dense

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/ by name."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["dctcn_phm16", "dctcn_phm4_f", "mstcn_resnet18_phm4"])
@torch.no_grad()
def test_the_published_forward_gives_the_same_logits(script: Any, name: str, train: bool) -> None:
    networks, as_published = script("networks"), script("as_published")
    network = networks.build_network(name, toy=True).train(train)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    reference = as_published.as_published_forward(network)
    assert sum(isinstance(module, as_published.RebuiltLayer) for module in reference.modules()) > 20
    clips = networks.example_clips(3, toy=True, seed=2)
    torch.testing.assert_close(reference(clips), network(clips), atol=1e-4, rtol=1e-4)
    assert network(clips).std() > 0.1  # so that agreement means something


@pytest.mark.parametrize("layer", [nn.Linear(8, 12), nn.Conv1d(8, 4, 3), nn.Conv2d(4, 8, 2), nn.Conv3d(4, 4, 2)])
def test_its_terms_are_the_kronecker_products(script: Any, layer: nn.Module) -> None:
    """Against torch.kron, one tap of the kernel at a time."""
    made = phm_from_dense(layer, n=4)
    terms = script("as_published").kronecker_terms(made.A, made.F)
    assert terms.shape == (4, *layer.weight.shape)
    taps, blocks = (tensor.reshape(*tensor.shape[:3], -1) for tensor in (terms, made.F))
    for term in range(4):
        for tap in range(blocks.shape[-1]):
            expected = torch.kron(made.A[term], blocks[term, :, :, tap])
            torch.testing.assert_close(taps[term, :, :, tap], expected)


def test_the_reference_trains_the_same_parameters(script: Any) -> None:
    """Gradients of the factors agree with those of the folded form."""
    made = phm_from_dense(nn.Conv1d(8, 8, 3), n=4)
    reference = script("as_published").RebuiltLayer(made)
    x = torch.randn(2, 8, 7, generator=torch.Generator().manual_seed(0))
    for run in (made, reference):
        run(x).square().sum().backward()
        grads, made.A.grad, made.F.grad = (made.A.grad, made.F.grad), None, None
        if run is made:
            expected = grads
    torch.testing.assert_close(grads, expected)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6)])
def test_the_interval_of_a_median_covers_95_percent(script: Any, count: int, rank: int) -> None:
    """Ranks of the sign test: P[both bounds on one side] by the binomial, and one rank further is too much."""
    median = script("interleaved").median_interval(list(range(count, 0, -1)))
    assert (median.low, median.high) == (rank, count + 1 - rank)

    def outside(k: int) -> float:
        return 2 * sum(math.comb(count, i) for i in range(k)) / 2**count

    assert outside(rank) <= 0.05 < outside(rank + 1)


def test_five_samples_have_no_interval(script: Any) -> None:
    median = script("interleaved").median_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (median.value, median.low, median.high) == (3.0, None, None)
    assert median.text() == "3.00 (too few rounds)"


def test_every_round_begins_with_another_subject(script: Any) -> None:
    order: list[str] = []
    subjects = {name: (lambda name=name: order.append(name)) for name in "abc"}
    script("interleaved").interleave(subjects, rounds=3)
    assert "".join(order) == "abcbcacab"


def test_a_finding_is_judged_by_its_median(script: Any) -> None:
    phm_cost = script("phm_cost")

    def verdict(value: float, limit: str | None) -> str:
        finding = phm_cost.Finding("x", phm_cost.Median(value, 0.9, 1.2), "", limit)
        assert finding.cells()[3] == finding.verdict
        return str(finding.verdict)

    assert [verdict(1.05, "<= 1.05"), verdict(1.06, "<= 1.05")] == ["pass", "MISS"]
    assert [verdict(5.0, ">= 5"), verdict(4.9, ">= 5"), verdict(1.0, None)] == ["pass", "MISS", ""]


@pytest.mark.slow
def test_a_toy_run_writes_its_table_and_fails_the_check_it_misses(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phm_cost = script("phm_cost")
    monkeypatch.setattr(phm_cost, "training_peak_mib", lambda name, arguments: 1.0)
    monkeypatch.setattr(phm_cost, "AGREEMENT_LIMIT", "<= -1")  # which nothing meets
    arguments = ["--toy", "--backbone", "mstcn_resnet18_phm4", "--rounds", "6", "--check", "--out", str(tmp_path)]
    assert phm_cost.main(arguments) == 3
    output = capsys.readouterr()
    assert "phm_cost: 2 limits are missed: max scaled difference, ONNX Runtime to torch; max scaled" in output.err
    assert "| training step, ours / dense |" in output.out
    result = json.loads((tmp_path / "phm_cost.json").read_text())
    assert result["command"] == f"python benchmarks/phm_cost.py {' '.join(arguments)}"
    assert all(len(samples) == 6 for samples in result["samples_ms"].values())
    rows = {finding["what"]: finding for finding in result["findings"]}
    assert rows["max scaled difference, ONNX Runtime to torch"]["verdict"] == "MISS"
    assert rows["torch eager, as published / ours"]["measured"]["low"] is not None
    assert (tmp_path / "phm_cost.md").read_text().startswith("# What PHM costs: mstcn_resnet18_phm4, 20")


def test_a_network_that_cannot_be_timed_is_refused(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("phm_cost").main(["--toy", "--backbone", "dctcn_phm61"]) == 2
    expected = "phm_cost: There is no network 'dctcn_phm61' to time. Did you mean 'dctcn_phm16'?"
    assert capsys.readouterr().err.strip() == expected
