"""Every published family as an ONNX file: ONNX Runtime computes what torch computes, factors are what is stored."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import lively

from edgelip.deploy.export import export_model
from edgelip.errors import UsageError
from edgelip.models.hypercomplex import PHMLayer
from edgelip.models.zoo import build_classifier

VIDEO = [name for name in FAMILIES if "audio" not in name and "boundary" not in name]


def clips() -> torch.Tensor:
    return torch.randn(3, 1, 5, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", VIDEO)
def test_the_file_computes_what_the_network_computes(name: str) -> None:
    family, tiny = FAMILIES[name]
    model = lively(build_classifier(family, num_words=6, options=tiny))
    exported = export_model(model, clips(), metadata={"variant": name})  # raises beyond 1e-4
    assert exported.max_difference < 1e-4
    stored = sum(int(np.prod(tensor.dims)) for tensor in onnx.load_from_string(exported.content).graph.initializer)
    dense = sum(p.numel() for p in model.parameters())
    factors = [module for module in model.modules() if isinstance(module, PHMLayer)]
    # A normalisation becomes a bias and, behind factors, a scale a row; shapes of the folding are a few integers.
    assert stored < dense + sum(13 + layer.out_channels for layer in factors) + 0.05 * dense


def test_unused_queries_and_keys_are_left_out_of_the_file() -> None:
    sizes = {}
    for attention in ("time", "token"):
        family, tiny = FAMILIES["eflip_token"]
        model = lively(build_classifier(family, num_words=6, options=tiny | {"attention": attention}))
        content = export_model(model, clips(), metadata={}).content
        graph = onnx.load_from_string(content).graph
        sizes[attention] = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    channels = 8
    assert sizes["time"] - sizes["token"] >= 2 * channels * (channels + 1) - 2 * channels


def test_a_network_with_word_boundaries_is_no_bundle_yet() -> None:
    family, tiny = FAMILIES["dctcn_boundary_phm2"]
    model = lively(build_classifier(family, num_words=6, options=tiny))
    with pytest.raises(UsageError, match=r"takes a word-boundary indicator; a bundle takes clips only"):
        export_model(model, clips(), metadata={})
