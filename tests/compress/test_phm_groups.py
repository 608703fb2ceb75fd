"""Stage `phm` with an n a group, few terms, the head, a permutation; and what its records rebuild."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import TOOLS, classifier, clips, dense_checkpoint, lively

from edgelip.compress.phm_layers import Factors
from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, stage_from_config
from edgelip.deploy.export import export_model
from edgelip.errors import StageError
from edgelip.models.census import count_macs
from edgelip.models.factored import FACTORED_RATIO, factored_macs_ratio
from edgelip.models.hypercomplex import PHMLayer, PHMLinear
from edgelip.models.zoo import build_classifier

INNER = ["trunk.blocks.1.conv2.conv", "temporal.*"]


def stage(**fields: Any) -> Any:
    return stage_from_config({"stage": "phm", **fields})


def prepared(**fields: Any) -> tuple[Any, dict[str, Any]]:
    return stage(**fields).prepare(classifier(), TOOLS)  # type: ignore[no-any-return]


def test_groups_give_each_layer_its_n_and_terms() -> None:
    groups = [{"layers": ["trunk.*", "!*.shortcut.*"], "n": 8}, {"layers": ["t*.conv"], "n": 4, "terms": 1}]
    model, record = prepared(groups=groups)
    assert record["layers"]["trunk.blocks.1.conv2.conv"] == {"n": 8, "terms": 8, "factored": False}
    assert record["layers"]["temporal.blocks.0.conv1.conv"]["terms"] == 1
    assert record["layers"]["trunk.blocks.1.shortcut.conv"]["n"] == 4
    for name, entry in record["layers"].items():
        layer = model.get_submodule(name)
        assert (layer.n, layer.terms, layer.factored) == (entry["n"], entry["terms"], entry["factored"])


def test_few_terms_run_factored_where_that_saves_enough() -> None:
    model, record = prepared(n=8, terms=1, layers=INNER)
    for name, entry in record["layers"].items():
        weight = classifier().get_submodule(name).weight
        ratio = factored_macs_ratio(tuple(weight.shape), n=8, terms=1)  # type: ignore[arg-type]
        assert entry["factored"] == (ratio <= FACTORED_RATIO)
    folded, _ = prepared(n=8, terms=1, layers=INNER, execution="folded")
    factored, _ = prepared(n=8, terms=1, layers=INNER, execution="factored")
    torch.testing.assert_close(folded(clips()), factored(clips()), rtol=1e-4, atol=1e-4)
    macs = [count_macs(network.eval(), clips(1)) for network in (factored, model, folded)]
    assert macs == sorted(macs)
    assert macs[0] < 0.9 * macs[2] == 0.9 * count_macs(classifier(), clips(1))


@pytest.mark.parametrize(
    "stages",
    [
        [{"stage": "store", "blocks": 8, "dense": 8}],
        pytest.param([], marks=pytest.mark.slow),
        pytest.param([{"stage": "qat"}], marks=pytest.mark.slow),
    ],
)
def test_a_factored_network_is_exported_as_it_answers(stages: list[dict[str, Any]]) -> None:
    """export_model itself compares ONNX Runtime with torch."""
    model, _ = prepared(n=8, terms=1, layers=INNER, execution="factored")
    for fields in stages:
        model, _ = stage_from_config(fields).prepare(model.eval(), TOOLS)
    exported = export_model(model.eval(), clips(4), metadata={})
    np.testing.assert_allclose(exported.logits_BV, model(clips(4)).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_the_head_becomes_phm_if_asked() -> None:
    model, record = prepared(n=2, head=True, layers=["temporal.*"])
    assert isinstance(model.head, PHMLinear)
    assert "head" in record["layers"]
    named, _ = prepared(groups=[{"layers": ["head"], "n": 2}])
    assert isinstance(named.head, PHMLinear)
    with pytest.raises(StageError) as caught:
        prepared(n=4, head=True)
    assert str(caught.value) == (
        "PHM n=4 does not divide the 6 output and 32 input channels of head. Choose n from [2]. Stages 'low_rank' and "
        "'store' make it smaller too."
    )


def test_a_pattern_means_convolutions_where_it_fits_one() -> None:
    """Squeeze-excitations and the like are named by a pattern of their own; attention cuts its weights itself."""
    dense = lively(build_classifier("lip_tcn", num_words=6, options=FAMILIES["dctcn"][1]))
    _, record = stage(n=2, layers=["temporal.*"]).prepare(dense, TOOLS)
    assert not any("excite" in name for name in record["layers"])
    dense = lively(build_classifier("lip_tcn", num_words=6, options=FAMILIES["dctcn"][1]))
    _, record = stage(n=2, layers=["temporal.*excite.reduce"]).prepare(dense, TOOLS)
    assert all(name.endswith("excite.reduce") for name in record["layers"])
    attention = lively(build_classifier("eflip", num_words=6, options=FAMILIES["eflip_time"][1]))
    with pytest.raises(StageError, match=r"No convolution or linear layer is called '\*in_projection'"):
        stage(n=2, layers=["*in_projection"]).prepare(attention, TOOLS)


def test_a_permutation_is_reported_with_what_it_gained() -> None:
    fields: dict[str, Any] = {"n": 4, "layers": ["trunk.blocks.1.conv?.conv"]}
    model, record = prepared(**fields, permute=True)
    before, after = record["energy_before_permutation"], record["energy"]
    assert before.keys() == after.keys() == record["layers"].keys()
    assert sum(after.values()) > sum(before.values())
    assert before == prepared(**fields)[1]["energy"]
    assert record["permuted_in_time"]
    assert model(clips()).isfinite().all()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"groups": [{"layers": ["trunk.*"], "n": 2}], "n": 8}, "n has no effect beside groups; leave one of them out"),
        ({"groups": [{"layers": ["a"], "n": 2}], "head": True}, "head has no effect beside groups; leave one of them"),
        ({"groups": [{"layers": ["a"], "n": 2, "terms": 3}]}, "terms = 3 is more than n = 2; take n or fewer"),
        ({"n": 4, "terms": 5}, "terms = 5 is more than n = 4; take n or fewer"),
        ({"budget_kb": 9, "n": 2}, "n has no effect beside budget_kb; leave one of them out"),
        ({"stored_bits": 8}, "stored_bits has an effect with budget_kb only; set that too"),
        ({"choices": [2]}, "choices has an effect with budget_kb only; set that too"),
        ({"budget_kb": 9, "choices": [99]}, "choices [99] must be 0 or 1 (dense) to 64"),
        ({"start": "random", "permute": True}, 'permute has no effect with start = "random"'),
        ({"execution": "folded"}, "execution = 'folded' has an effect with fewer terms than n only; set terms"),
    ],
)  # fmt: skip
def test_settings_without_effect_are_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        stage(**fields)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"n": 16, "layers": ["trunk.*"]},
            "PHM n=16 gives trunk.blocks.0.conv1.conv 4240 numbers for the 2304 of its weight 16x16x3x3. The largest n "
            "that pays is 8.",
        ),
        (
            {"groups": [{"layers": ["trunk.*"], "n": 2}, {"layers": ["trunk.blocks.0.*"], "n": 4}]},
            "Groups before it name all layers of group ['trunk.blocks.0.*']. Remove it.",
        ),
        (
            {"n": 8, "terms": 7, "layers": ["trunk.blocks.1.conv2.conv"], "execution": "factored"},
            "trunk.blocks.1.conv2.conv run factored with n=8 and 7 terms takes 1.07 times the multiply-adds of its "
            'dense weight. Take fewer terms, or execution = "auto".',
        ),
        ({"n": 7, "terms": 2}, "PHM n=7 fits none of the 11 convolutions: it must divide their channels and "
         "2 (n^2 + |W|/n^2) must be below |W|/2. Choose another n, or name layers."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        prepared(**fields)
    assert str(caught.value) == text


def test_a_stage_is_called_by_what_it_does() -> None:
    groups = [{"layers": ["trunk.*"], "n": 8}, {"layers": ["t*.conv"], "n": 4, "terms": 1}]
    labels = [
        stage(**fields).label for fields in ({"n": 8}, {"n": 8, "terms": 2}, {"groups": groups}, {"budget_kb": 9.5})
    ]
    assert labels == ["PHM n=8", "PHM n=8, 2 terms", "PHM n=4/8, 1 term", "PHM within 9.5 kB"]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 8, "terms": 2, "layers": INNER, "execution": "factored"},
        {"groups": [{"layers": ["trunk.blocks.1.*"], "n": 4}, {"layers": ["head"], "n": 2, "terms": 1}]},
        {"budget_kb": 80, "probe_clips": 4},
    ],
)
@torch.no_grad()
def test_a_checkpoint_rebuilds_every_kind_of_record(fields: dict[str, Any]) -> None:
    checkpoint = apply_stage(dense_checkpoint(), stage(**fields), TOOLS)
    first, second = (model_from_checkpoint(checkpoint) for _ in range(2))
    assert torch.equal(first(clips()), second(clips()))
    assert any(isinstance(module, PHMLayer) for module in first.modules())
    state = checkpoint.tensors
    assert all(torch.equal(first.state_dict()[name], state[name]) for name in state)


def test_a_record_of_one_n_for_all_layers_is_read_as_before() -> None:
    names = ["temporal.blocks.0.conv1.conv", "trunk.blocks.1.conv2.conv"]
    model = stage(n=4).restore(classifier(), {"n": 4, "layers": names})
    made = {name: m for name, m in model.named_modules() if isinstance(m, PHMLayer)}
    assert sorted(made) == names
    assert all((layer.n, layer.terms, layer.factored) == (4, 4, False) for layer in made.values())


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"nowhere": Factors(4, 4).__dict__}, "names a layer 'nowhere' that the model has not."),
        ({"trunk.blocks.0": Factors(4, 4).__dict__}, "names a layer 'trunk.blocks.0' that the model has not."),
        ({"head": {"n": 2, "terms": 3, "factored": False}}, "gives head n=2, terms=3, factored=False; expected whole"),
        ({"head": {"n": 2.0, "terms": 2, "factored": False}}, "gives head n=2.0, terms=2, factored=False"),
        ({"head": {"n": 10**9, "terms": 2, "factored": False}}, "gives head n=1000000000, terms=2, factored=False"),
        ({"head": {"n": 2, "terms": 2, "factored": "yes"}}, "gives head n=2, terms=2, factored='yes'"),
    ],
)
def test_a_record_that_cannot_be_is_refused(entry: dict[str, Any], text: str) -> None:
    with pytest.raises(StageError) as caught:
        stage().restore(classifier(), {"layers": entry})
    assert text in str(caught.value)
