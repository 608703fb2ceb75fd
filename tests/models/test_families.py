"""What every family promises, at tiny sizes: masks, one graph, export, gradients."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import DENSE, EFFICIENT, FAMILIES, MULTI, SHUFFLE
from tiny_models import lively
from torch import Tensor, nn

from edgelip.errors import RecipeError, ShapeError
from edgelip.models.catalogue import BACKBONES
from edgelip.models.classifier import inside_word
from edgelip.models.hypercomplex import PHMLayer, densified
from edgelip.models.inputs import kind_of
from edgelip.models.zoo import build_classifier

FRAMES, SIDE, WORDS = 5, 24, 6
SAMPLES = 640 * FRAMES


@cache
def network(name: str, **options: Any) -> Any:
    family, tiny = FAMILIES[name]
    return lively(build_classifier(family, num_words=WORDS, options=tiny | options))


def is_audio(name: str) -> bool:
    return name.startswith("audio")


def inputs(name: str, num_clips: int = 3, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_clips, 1, SAMPLES) if is_audio(name) else (num_clips, 1, FRAMES, SIDE, SIDE)
    return torch.randn(shape, generator=generator)


def extras(name: str, num_clips: int, num_frames: int = FRAMES) -> tuple[Tensor, ...]:
    """Word boundaries, for the nets that take them: the word is in frames 1 and 2."""
    if "boundary" not in name:
        return ()
    return (inside_word(torch.tensor([[1, 2]] * num_clips), num_frames).float(),)


def units(name: str) -> int:
    return 640 if is_audio(name) else 1


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=4)
@given(lengths=st.lists(st.integers(1, FRAMES), min_size=2, max_size=2), filler=st.sampled_from([9.0, float("nan")]))
@torch.no_grad()
def test_a_clip_depends_on_nothing_but_its_own_frames(name: str, lengths: list[int], filler: float) -> None:
    model, alone, step = network(name), inputs(name, 2), units(name)
    together = alone.clone()
    for row, length in zip(together, lengths, strict=True):
        row[:, length * step :] = filler
    logits = model(together, step * torch.tensor(lengths), *extras(name, 2))
    for i, length in enumerate(lengths):
        cut = model(alone[i : i + 1, :, : length * step], None, *extras(name, 1, length))
        torch.testing.assert_close(logits[i : i + 1], cut, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in FAMILIES if "eflip" not in name])
@torch.no_grad()
def test_as_published_the_padding_is_seen(name: str) -> None:
    """The defect that `as_published` reproduces; full clips are the same in both forms."""
    model, published, step = network(name), network(name, as_published=True), units(name)
    published.load_state_dict(model.state_dict())
    x, more = inputs(name, 2), extras(name, 2)
    torch.testing.assert_close(published(x, None, *more), model(x, None, *more))
    lengths = step * torch.tensor([FRAMES, 3])
    x[1, :, 3 * step :] = 0.0
    logits, corrected = published(x, lengths, *more), model(x, lengths, *more)
    torch.testing.assert_close(logits[0], corrected[0], rtol=2e-5, atol=2e-5)
    assert (logits[1] - corrected[1]).abs().max() > 1e-4


@torch.no_grad()
def test_published_attention_mixes_clips_and_takes_no_lengths() -> None:
    family, tiny = FAMILIES["eflip_token"]
    model = lively(build_classifier(family, num_words=WORDS, options=tiny | {"attention": "batch"}))
    model.trunk.last.weight.mul_(100)  # so that the features outweigh the biases
    x = inputs("eflip", 2) * torch.tensor([1.0, 9.0])[:, None, None, None, None]
    assert (model(x)[:1] - model(x[:1])).abs().max() > 1e-3
    token = network("eflip_token")
    model.load_state_dict(token.state_dict())
    torch.testing.assert_close(model(x[:1]), token(x[:1]))  # one clip at a time it is the per-frame map
    with pytest.raises(ShapeError, match=r"clips of full length only; it takes no lengths\. Import .* --corrected"):
        model(x, torch.tensor([3, 4]))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("dctcn_phm2_f", "dctcn_boundary_phm2")])
def test_each_family_compiles_into_one_graph(name: str) -> None:
    torch._dynamo.reset()
    model, x, more = network(name), inputs(name), extras(name, 3)
    lengths = units(name) * torch.tensor([FRAMES, 2, 4])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, lengths, *more), model(x, lengths, *more), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mstcn_phm2", "eflip_time"])
def test_training_compiles_into_one_graph_with_the_same_gradients(name: str) -> None:
    torch._dynamo.reset()
    family, tiny = FAMILIES[name]
    model = lively(build_classifier(family, num_words=WORDS, options=tiny | {"dropout": 0.0})).train()
    x, lengths = inputs(name), torch.tensor([FRAMES, 2, 4])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.load_state_dict(state)
        model.zero_grad()
        run(x, lengths)[:, 0].sum().backward()
        gradients.append({key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_each_family_exports_with_a_free_batch(name: str) -> None:
    model, x, more = network(name), inputs(name, 2), extras(name, 2)
    batch = torch.export.Dim("batch", min=1)
    arguments = (x, units(name) * torch.tensor([FRAMES, 3]), *more)
    program = torch.export.export(model, arguments, dynamic_shapes=tuple({0: batch} for _ in arguments))
    others = (inputs(name, 4, seed=1), units(name) * torch.tensor([1, 5, 2, 3]), *extras(name, 4))
    torch.testing.assert_close(program.module()(*others), model(*others), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAMILIES if "phm" in name])
@torch.no_grad()
def test_the_densified_network_computes_the_same(name: str) -> None:
    model, x, more = network(name), inputs(name), extras(name, 3)
    dense = densified(model)
    assert not any(isinstance(module, PHMLayer) for module in dense.modules())
    assert torch.equal(dense(x, None, *more), model(x, None, *more))


def test_phm_takes_the_layers_it_is_published_for() -> None:
    """Source of the counts: 19 convolutions in ResNet-18; 160 layers in DC-TCN, 28 in MS-TCN (published code)."""

    def layers(name: str) -> list[str]:
        with torch.device("meta"):
            model = build_classifier(name, num_words=500)
        return [key for key, module in model.named_modules() if isinstance(module, PHMLayer)]

    assert len(layers("dctcn_phm16")) == 179
    assert len(layers("dctcn_phm4_f")) == 180
    assert len(layers("dctcn_phm4_ablate_b")) == 160
    assert len(layers("dctcn_phm4_ablate_t")) == 19
    assert len(layers("mstcn_resnet18_phm4")) == 47
    assert all(key.startswith("temporal.") for key in layers("audio_dctcn_phm4"))
    assert not any("head" in key for key in layers("dctcn_phm16"))


def test_phm_that_does_not_fit_names_the_layer_and_the_divisors() -> None:
    with pytest.raises(RecipeError, match=r"PHM n=3 .* of trunk\.blocks\.0\.conv1\.conv\. Choose n from \[2, 4, 8"):
        build_classifier("dctcn_dense", num_words=4, options={"phm": {"n": 3, "parts": ["trunk"]}})
    with pytest.raises(RecipeError, match=r"PHM n=16 does not divide the 56 output and 896 input channels of temporal"):
        build_classifier("dctcn_phm16", num_words=4, options={"phm": {"n": 16}})


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("lip_tcn", DENSE | {"growth": (12,)}, "block_config has 2 blocks and growth 1; they must agree"),
        ("lip_tcn", DENSE | {"growth": (10, 10)}, "multiples of the 3 kernels"),
        ("lip_tcn", DENSE | {"kernels": (3, 4, 5)}, "must be odd"),
        ("lip_tcn", MULTI | {"boundary": True}, "boundary is defined for clips with temporal 'dctcn' only"),
        ("lip_tcn", MULTI | {"temporal": "tcn"}, "temporal 'tcn' has one branch"),
        ("lip_tcn", SHUFFLE | {"trunk_width": 0.75}, r"trunk_width is 0.75; ShuffleNetV2 has \[0.5, 1.0, 1.5, 2.0\]"),
        ("eflip", EFFICIENT | {"num_heads": 3}, "num_heads 3 must divide half of last_width, 8"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_each_other_are_refused(family: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_classifier(family, num_words=4, options=options)


@torch.no_grad()
def test_word_boundaries_are_asked_for_and_checked() -> None:
    model, x = network("dctcn_boundary"), inputs("dctcn_boundary", 2)
    with pytest.raises(ShapeError, match=r"This network needs word boundaries: 0/1 of shape \(B, T, 1\)"):
        model(x)
    with pytest.raises(ShapeError, match=r"word boundaries have shape \(2, 4, 1\); expected \(2, 5, 1\)\."):
        model(x, None, torch.zeros(2, 4, 1))
    with pytest.raises(ShapeError, match="This network takes no word boundaries"):
        network("dctcn")(x, None, torch.zeros(2, 5, 1))
    early, late = (inside_word(torch.tensor([span, span]), FRAMES).float() for span in ([0, 1], [3, 4]))
    assert (model(x, None, early) - model(x, None, late)).abs().max() > 1e-3
    whole, word = model.word_logits(x, torch.tensor([[0, 1], [0, 1]]))
    torch.testing.assert_close(whole, model(x, None, early))
    assert (whole - word).abs().max() > 1e-4


def test_normalisation_sees_the_positions_beyond_the_ends_in_training() -> None:
    """Published temporal nets normalise the full convolution and cut afterwards."""
    from edgelip.models.blocks import conv1d

    torch.manual_seed(0)
    block = conv1d(3, 4, 5, dilation=2, bias=True, overhang=True)
    x = torch.randn(2, 3, 9)
    full = nn.functional.conv1d(x, block.conv.weight, block.conv.bias, padding=8, dilation=2)
    mean, variance = full.mean(dim=(0, 2)), full.var(dim=(0, 2), correction=0)
    expected = (full - mean[:, None]) / torch.sqrt(variance[:, None] + 1e-5)
    torch.testing.assert_close(block(x), expected[..., 4:-4])
    torch.testing.assert_close(block.norm.running_mean, 0.1 * mean)
    block.eval()
    torch.testing.assert_close(block(x), block.norm(full)[..., 4:-4])


@pytest.mark.parametrize("name", BACKBONES)
def test_every_configuration_of_the_catalogue_builds(name: str) -> None:
    with torch.device("meta"):
        model = build_classifier(name, num_words=500)
        shapes = {"video": (29, 88, 88), "audio": (640 * 29,), "landmarks": (29, 543, 3)}
        if name == "sign_conv_transformer":
            shapes["landmarks"] = (29, 118, 2)
        x = torch.zeros(1, 1, *shapes[kind_of(name, {})])
        more = (torch.zeros(1, 29, 1),) if "boundary" in name else ()
        assert model(x, None, *more).shape == (1, 500)
    assert BACKBONES[name].source
