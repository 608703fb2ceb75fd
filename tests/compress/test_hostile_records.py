"""What a checkpoint says of its stages is not trusted: no record may cost memory or end in anything but a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_models import SPEC, TOOLS, WORDS, dense_checkpoint, lively
from torch.utils._python_dispatch import TorchDispatchMode

from edgelip.compress import STAGES
from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, stage_from_config
from edgelip.errors import CheckpointError
from edgelip.models.checkpoint import Architecture, Checkpoint, checkpoint_from_model
from edgelip.models.zoo import build_classifier

CONFIGS: dict[str, dict[str, Any]] = {
    "activation": {},
    "prune": {"round_to": 8},
    "phm": {"n": 4, "terms": 2},
    "low_rank": {"layers": ["head"], "rank": 2},
    "sparsify": {"pattern": "unstructured", "layers": ["head"]},
    "store": {"dense": 8},
    "ptq": {"float_layers": ["head"]},
    "qat": {"float_layers": ["head"]},
    "nncf": {"stage": "ptq", "backend": "nncf"},
}
VALUES = (10**9, -1, 1.5, None, "__class__", [10**9], {"__class__": 1})
NAMES = ("__class__", "", "frontend", "head.weight")
MOST_NUMBERS = 1 << 20  # in one tensor: the networks here have 50 thousand


class Refuse(TorchDispatchMode):
    """Fails the test where a tensor is made that the network has no use for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            assert result.numel() <= MOST_NUMBERS, f"{func} made {tuple(result.shape)}"
        return result


@cache
def checkpoint(stage: str) -> Checkpoint:
    parent = dense_checkpoint()
    if stage == "activation":  # the small network has none but ReLU
        backbone, options = FAMILIES["mstcn_prelu"]
        model = lively(build_classifier(backbone, num_words=len(WORDS), options=options))
        parent = checkpoint_from_model(model, Architecture(backbone, options, WORDS, SPEC.to_json()))
    return apply_stage(parent, stage_from_config({"stage": stage, "tune": {"epochs": 0}} | CONFIGS[stage]), TOOLS)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to what a record holds; below its first table one entry of each stands for all."""
    if path:
        yield path
    entries = list(tree.items() if isinstance(tree, Mapping) else enumerate(tree)) if is_folder(tree) else []
    for key, value in entries[:1] if path else entries:
        yield from places(value, (*path, key))


def is_folder(tree: Any) -> bool:
    return isinstance(tree, (Mapping, list, tuple))


def changed(record: Any, path: tuple[Any, ...], value: Any, *, rename: bool = False) -> Any:
    record = deepcopy(record)
    folder = record
    for key in path[:-1]:
        folder = folder[key]
    if rename:
        folder[value] = folder.pop(path[-1])
    else:
        folder[path[-1]] = value
    return record


def hostile_records(record: Any) -> Iterator[Any]:
    for path in places(record):
        for value in VALUES:
            yield changed(record, path, value)
        if isinstance(path[-1], str):
            for name in NAMES:
                yield changed(record, path, name, rename=True)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "ptq"])  # restored as qat is
def test_a_hostile_record_is_refused_or_harmless(stage: str) -> None:
    good = checkpoint(stage)
    refusals: list[str] = []
    for record in hostile_records(good.architecture.stages[-1]["record"]):
        entry = {**good.architecture.stages[-1], "record": record}
        stages = (*good.architecture.stages[:-1], entry)
        try:
            with Refuse():
                model = model_from_checkpoint(replace(good, architecture=replace(good.architecture, stages=stages)))
        except CheckpointError as error:
            refusals.append(str(error))
        else:
            assert sum(parameter.numel() for parameter in model.parameters()) < MOST_NUMBERS
    assert len(refusals) > 5
    assert not [text for text in refusals if "\n" in text or len(text) > 500]


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("phm", {"n": 10**9}),
        ("phm", {"terms": 10**9}),
        ("phm", {"groups": [{"layers": ["*"], "n": 10**9}]}),
        ("low_rank", {"rank": 10**9}),
        ("prune", {"round_to": 10**9}),
        ("prune", {"steps": 10**9}),
        ("sparsify", {"sparsity": 10**9}),
        ("store", {"dense": 10**9}),
        ("qat", {"calibration_clips": 10**9}),
        ("activation", {"layers": 10**9}),
    ],
)
def test_a_hostile_setting_is_refused(stage: str, setting: dict[str, Any]) -> None:
    good = checkpoint(stage)
    last = good.architecture.stages[-1]
    stages = (*good.architecture.stages[:-1], {**last, "config": {**last["config"], **setting}})
    with pytest.raises(CheckpointError, match="describes a model that cannot be built: Stage"):
        model_from_checkpoint(replace(good, architecture=replace(good.architecture, stages=stages)))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"weights": {"pre_hooks.x.0": "__class__"}}, "rounds '__class__', which the model has not"),
        ({"module_path": "os"}, "module_path: Input should be 'nncf.torch.quantization.layers'"),
        ({"module_cls_name": "__class__"}, "module_cls_name: Input should be 'SymmetricQuantizer'"),
        ({"module_config.num_bits": 10**9}, "num_bits: Input should be 8"),
        ({"module_config.scale_shape": [10**9]}, "less than or equal to 65536"),
        ({"module_config.scale_shape": [60_000, 60_000]}, "holds more than 65536 scales"),
        ({"hook_names_in_model": ["__class__"]}, "hook_names_in_model.0: String should match"),
    ],
)
def test_a_record_tells_nncf_nothing_but_what_was_asked_of_it(setting: dict[str, Any], text: str) -> None:
    good = checkpoint("nncf")
    (key, value), last = next(iter(setting.items())), good.architecture.stages[-1]
    path = (key,) if key in last["record"] else ("config", "compression_state", 0, *key.split("."))
    stages = (*good.architecture.stages[:-1], {**last, "record": changed(last["record"], path, value)})
    with pytest.raises(CheckpointError, match=re.escape(text)):
        model_from_checkpoint(replace(good, architecture=replace(good.architecture, stages=stages)))
