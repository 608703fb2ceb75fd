"""A published checkpoint as one of ours: recognised, renamed, checked, and described so that it can be built again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgelip.errors import CheckpointError, RecipeError, UsageError
from edgelip.models.catalogue import BACKBONES, FAMILIES
from edgelip.models.checkpoint import Architecture, Checkpoint
from edgelip.models.published.configuration import read_json
from edgelip.models.published.container import Container, read_container
from edgelip.models.published.names import is_buffer
from edgelip.models.published.optimiser import optimiser_state
from edgelip.models.published.recognise import (
    PUBLISHED,
    Recognition,
    check_family,
    published_family,
)
from edgelip.models.published.recognise_eflip import recognise_eflip
from edgelip.models.published.recognise_tcn import recognise_tcn
from edgelip.models.published.tensors import fit_tensors
from edgelip.models.published.vocabulary import vocabulary
from edgelip.models.zoo import build_classifier
from edgelip.registry import lookup, nearest
from edgelip.runtime.clip import ClipSpec

_EFLIP_MEAN, _EFLIP_STD = 0.4161, 0.1688  # grey level of its training clips; sadevans/EfLipReading
_MAX_WORDS = 100_000  # of a checkpoint of ours
_FREE = {"as_published", "dropout", "attention"}  # options that a named configuration may differ in


@dataclass(frozen=True)
class Imported:
    """The checkpoint and what there is to say about it."""

    checkpoint: Checkpoint
    recognition: Recognition
    num_parameters: int
    epochs: int | None
    best_accuracy_pct: float | None
    words_origin: str
    optimiser: str
    behaviour: tuple[str, ...]
    notes: tuple[str, ...]


def import_published(
    path: Path,
    *,
    lrw_words: Sequence[str],
    family: str | None = None,
    config: Path | None = None,
    words: Sequence[str] | None = None,
    averaged: bool = False,
    corrected: bool = False,
    keep_optimiser: bool = True,
) -> Imported:
    """Read a published checkpoint of vsr_phm, mpc001 or EfLipReading, executing nothing in it.

    lrw_words: the 500 words of LRW, the default vocabulary; words: another, in label order. averaged: take the moving
    average of the parameters. corrected: without the defects of the published code that change results.
    Raises CheckpointError for a file that cannot be read or recognised, UsageError where an argument contradicts it.
    """
    if family is not None and family not in PUBLISHED:
        raise UsageError(f"There is no published family {family!r}. {nearest(family, PUBLISHED)}")
    fields = {} if config is None else read_json(config)
    container = read_container(path)
    try:
        return _imported(
            container,
            fields,
            source="" if config is None else str(config),
            family=family,
            words=words,
            lrw_words=lrw_words,
            averaged=averaged,
            corrected=corrected,
            keep_optimiser=keep_optimiser,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _imported(
    container: Container,
    fields: dict[str, Any],
    *,
    source: str,
    family: str | None,
    words: Sequence[str] | None,
    lrw_words: Sequence[str],
    averaged: bool,
    corrected: bool,
    keep_optimiser: bool,
) -> Imported:
    shapes = {name: tuple(tensor.shape) for name, tensor in container.tensors.items()}
    published = check_family(published_family(shapes), family)
    listed = None
    if published == "eflip":
        found, told = recognise_eflip(shapes, fields, container.settings, source=source)
        listed = told.words_list
    else:
        found = recognise_tcn(shapes, fields, source=source, published=published)
    if not 1 <= found.num_words <= _MAX_WORDS:
        raise CheckpointError(f"the head has {found.num_words} classes; expected 1 to {_MAX_WORDS}.")
    options = {**found.options, **_behaviour_options(found, corrected=corrected)}
    named = vocabulary(found.num_words, published, given=words, listed=listed, lrw=lrw_words)
    expected, num_parameters = _expected(found.family, options, found.num_words)
    fitted = fit_tensors(_averaged(container) if averaged else container.tensors, expected)
    state, optimiser = None, "left out, as asked"
    if averaged:
        optimiser = "left out: it belongs to the raw parameters, not to their average"
    elif keep_optimiser:
        state, optimiser = optimiser_state(container.optimiser, fitted.parameters, expected)
    backbone, kept = _named(found.family, options)
    record = {
        "published": published,
        "sha256": container.sha256,
        "file": container.name,
        "epochs": container.epochs,
        "best_accuracy_pct": container.best_accuracy_pct,
        "corrected": corrected,
        "ema": averaged,
    }
    architecture = Architecture(
        backbone=backbone,
        options=kept,
        words=named.words,
        clip=_clip(found).to_json(),
        stages=({"stage": "import", "config": record, "record": {}},),
    )
    return Imported(
        checkpoint=Checkpoint(architecture, fitted.tensors, state),
        recognition=found,
        num_parameters=num_parameters,
        epochs=container.epochs,
        best_accuracy_pct=container.best_accuracy_pct,
        words_origin=named.origin,
        optimiser=optimiser,
        behaviour=_behaviour(found, corrected=corrected),
        notes=(*fitted.notes, *_notes(container, averaged=averaged)),
    )


def _averaged(container: Container) -> dict[str, Tensor]:
    """Averaged parameters with the raw running statistics, which the published validation paired."""
    if container.averaged is None:
        raise UsageError(f"{container.name} holds no averaged parameters (EMACallback). Leave --ema out.")
    absent = [name for name in container.tensors if not is_buffer(name) and name not in container.averaged]
    unknown = [name for name in container.averaged if name not in container.tensors]
    if absent or unknown:
        raise CheckpointError(
            f"the averaged parameters do not pair up with the raw ones: {len(absent)} missing and {len(unknown)} "
            f"unknown, such as {(absent + unknown)[0]}. Leave --ema out."
        )
    return {name: raw if is_buffer(name) else container.averaged[name] for name, raw in container.tensors.items()}


def _expected(family: str, options: Mapping[str, Any], num_words: int) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes of the model that the options describe, and its number of parameters; it takes no memory."""
    try:
        with torch.device("meta"):
            model = build_classifier(family, num_words=num_words, options=options)
    except RecipeError as error:
        raise CheckpointError(f"the model that the tensors describe cannot be built: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return shapes, sum(parameter.numel() for parameter in model.parameters())


def _behaviour_options(found: Recognition, *, corrected: bool) -> dict[str, Any]:
    if found.family == "eflip":
        return {"attention": "token" if corrected else "batch", "as_published": not corrected}
    return {"as_published": not corrected}


def _named(family: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The configuration of the catalogue that this is, and the options that differ; else the family and all options."""
    schema = lookup(FAMILIES, family, kind="backbone")
    full = schema.model_validate(dict(options)).model_dump(mode="json")
    for name, entry in BACKBONES.items():
        if entry.family != family:
            continue
        known = schema.model_validate(dict(entry.options)).model_dump(mode="json")
        differing = {key: value for key, value in full.items() if value != known[key]}
        if differing.keys() <= _FREE:
            return name, differing
    return family, full


def _clip(found: Recognition) -> ClipSpec:
    if found.options.get("modality") == "audio":
        return ClipSpec(kind="audio")
    if found.family == "eflip":
        return ClipSpec(mean=_EFLIP_MEAN, std=_EFLIP_STD)
    return ClipSpec()


def _behaviour(found: Recognition, *, corrected: bool) -> tuple[str, ...]:
    lines: list[str] = []
    if found.family == "eflip" and corrected:
        lines += [
            "corrected: attention sees one clip at a time; batches give what the published code gives at batch 1",
            "corrected: running statistics follow the mean of many batches (momentum 0.01, was 0.99)",
        ]
    elif found.family == "eflip":
        lines += [
            "as published: attention runs over the clips of a batch, so a clip's result depends on its batch mates",
            "as published: running statistics are nearly those of the last batch (momentum 0.99)",
        ]
    if found.family == "eflip" and not corrected:
        lines.append("as published: clips of full length only, for nothing hides padding")
    elif corrected:
        lines.append(
            "corrected: padding is hidden from the temporal net, so a padded clip gives the result that it gives alone"
        )
    else:
        lines.append("as published: the temporal net sees padding, so a padded clip gives another result than alone")
    phm = found.options.get("phm")
    if phm is not None and phm["channels"] == "floor":
        lines.append(f"as published: PHM n={phm['n']} drops the channels beyond the last multiple of {phm['n']}")
    if phm is not None and found.options.get("trunk") == "shufflenet":
        lines.append("as published: the ShuffleNetV2 trunk is dense; PHM is in the temporal net only")
    return tuple(lines)


def _notes(container: Container, *, averaged: bool) -> tuple[str, ...]:
    if container.averaged is None:
        return ()
    if averaged:
        return ("parameters are their moving average; running statistics are the raw ones",)
    return ("the file also holds averaged parameters, which were left out; --ema takes them",)
