from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import classifier, clips

from edgelip.errors import RecipeError, ShapeError, UsageError
from edgelip.models.zoo import build_classifier

MODEL = classifier()


@given(lengths=st.lists(st.integers(1, 6), min_size=3, max_size=3), filler=st.sampled_from([0.0, 9.0, float("nan")]))
@torch.no_grad()
def test_a_clip_depends_on_nothing_but_its_own_frames(lengths: list[int], filler: float) -> None:
    inputs = clips(3)
    together = inputs.clone()
    for row, length in zip(together, lengths, strict=True):
        row[:, length:] = filler
    logits = MODEL(together, torch.tensor(lengths))
    for i, length in enumerate(lengths):
        alone = MODEL(inputs[i : i + 1, :, :length])  # cut to its length: no mask, no mates
        torch.testing.assert_close(logits[i : i + 1], alone, rtol=0, atol=2e-6)


@torch.no_grad()
def test_full_lengths_equal_no_lengths() -> None:
    inputs = clips(3)
    torch.testing.assert_close(MODEL(inputs, torch.tensor([6, 6, 6])), MODEL(inputs), rtol=0, atol=2e-6)


@torch.no_grad()
def test_frames_and_their_order_matter() -> None:
    inputs = clips(2)
    logits = MODEL(inputs)
    assert (MODEL(inputs.flip(2)) - logits).abs().max() > 1e-2
    assert (MODEL(inputs, torch.tensor([6, 3])) - logits)[1].abs().max() > 1e-2


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"clips have shape \(2, 6, 20, 20\); expected \(B, 1, T, H, W\)\."):
        MODEL(clips(2)[:, 0])
    with pytest.raises(ShapeError, match=r"lengths have shape \(1,\); expected \(2,\), one a clip\."):
        MODEL(clips(2), torch.tensor([3]))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_draws_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = build_classifier("small", num_words=4, options={}, seed=3).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = build_classifier("small", num_words=4, options={}, seed=3).state_dict()
    other = build_classifier("small", num_words=4, options={}, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_unknown_backbones_and_options_name_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"There is no backbone 'smal'\. Did you mean 'small'\?"):
        build_classifier("smal", num_words=4, options={})
    with pytest.raises(
        RecipeError,
        match=r"model\.options of backbone 'small': unknown key 'stem_widht'\. Did you mean 'stem_width'\?",
    ):
        build_classifier("small", num_words=4, options={"stem_widht": 8})


@torch.no_grad()
def test_word_logits_are_the_head_on_the_mean_of_the_words_own_frames() -> None:
    inputs = clips(2)
    whole, word = MODEL.word_logits(inputs, torch.tensor([[0, 5], [2, 3]]))
    torch.testing.assert_close(whole, MODEL(inputs))
    torch.testing.assert_close(word[0], whole[0])  # its word fills the clip
    features: list[torch.Tensor] = []
    handle = MODEL.temporal.register_forward_hook(lambda module, taken, given: features.append(given))
    MODEL(inputs)
    handle.remove()
    torch.testing.assert_close(word[1], MODEL.head(features[0][1, :, 2:4].mean(dim=1)))
