"""Every published layout, complete with an Adam state and made-up values, imports strictly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from published_files import LRW, adam, layout, write, write_lightning

from edgelip.models.published.importer import import_published
from edgelip.models.zoo import build_classifier

LAYOUTS = {  # folder: what the tensors say of PHM
    "dctcn_dense": None,
    "dctcn_boundary": None,
    "dctcn_phm2": 2,
    "dctcn_phm4": 4,
    "dctcn_phm8": 8,
    "dctcn_phm16": 16,
    "dctcn_phm4_f": 4,
    "dctcn_phm4_ablate_b": 4,
    "dctcn_phm4_ablate_t": 4,
    "dctcn_boundary_phm4": 4,
    "mstcn_resnet18": None,
    "mstcn_resnet18_phm4": 4,
    "snv1x_dsmstcn3x": None,
    "snv1x_tcn1x": None,
    "snv1x_tcn2x": None,
    "snv05x_tcn1x": None,
    "snv05x_tcn2x": None,
    "audio_dctcn_dense": None,
    "audio_dctcn_phm4": 4,
    "eflip_T": None,
    "eflip_S": None,
    "eflip_B": None,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_imports_whole_with_its_optimiser(name: str, golden: Path, tmp_path: Path) -> None:
    tensors = layout(golden, name)
    if name.startswith("eflip"):
        source = write_lightning(tmp_path / "epoch=9.ckpt", tensors, optimizer_states=[adam(tensors)])
    else:
        source = write(tmp_path / "ckpt.best.pth", tensors, optimiser=adam(tensors))
    imported = import_published(source, lrw_words=LRW, config=golden / name / "config.json")
    architecture = imported.checkpoint.architecture
    assert architecture.backbone == name
    assert architecture.options["as_published"] is True
    assert len(architecture.words) == 500
    assert imported.recognition.phm_n == LAYOUTS[name]
    expected = json.loads((golden / name / "meta.json").read_text())["params"]
    assert imported.num_parameters == expected
    with torch.device("meta"):
        model = build_classifier(architecture.backbone, num_words=500, options=architecture.options)
    model.load_state_dict(dict(imported.checkpoint.tensors), strict=True, assign=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    state = imported.checkpoint.optimiser
    assert state is not None
    assert state.step == 7
    assert state.settings == {"lr": 3e-4, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert state.first_moments.keys() == state.second_moments.keys() == dict(model.named_parameters()).keys()
    for parameter, moment in state.first_moments.items():  # `adam` gives each parameter its own values as moments
        assert torch.equal(moment, imported.checkpoint.tensors[parameter]), parameter


def test_aliases_are_written_once_and_either_spelling_is_enough(golden: Path, tmp_path: Path) -> None:
    tensors = layout(golden, "snv05x_tcn1x")
    config = golden / "snv05x_tcn1x" / "config.json"
    both = import_published(write(tmp_path / "a.pth", tensors), lrw_words=LRW, config=config)
    for absent in (".net.", (".conv1.", ".conv2.", ".batchnorm1.", ".batchnorm2.", ".relu1.", ".relu2.")):
        marks = (absent,) if isinstance(absent, str) else absent
        fewer = {
            key: value
            for key, value in tensors.items()
            if not (key.startswith("tcn.tcn_trunk") and any(mark in key for mark in marks))
        }
        assert len(fewer) == len(tensors) - 64
        one = import_published(write(tmp_path / "b.pth", fewer), lrw_words=LRW, config=config)
        assert one.checkpoint.sha256 == both.checkpoint.sha256


def test_aliases_that_differ_are_refused(golden: Path, tmp_path: Path) -> None:
    tensors = layout(golden, "snv05x_tcn1x")
    tensors["tcn.tcn_trunk.network.2.net.5.bias"] = torch.zeros(256)
    with pytest.raises(ValueError, match=r"network\.2\.conv2\.bias and .*net\.5\.bias are two spellings .* differ"):
        import_published(write(tmp_path / "a.pth", tensors), lrw_words=LRW)
