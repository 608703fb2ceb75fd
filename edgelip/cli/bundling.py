"""One checkpoint to one bundle: the file, checked against torch, and what the tables say about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgelip.cli.scorers import mixes_clips, needs_boundaries
from edgelip.compress import STAGES
from edgelip.compress.pipeline import model_from_checkpoint, stages_from_configs
from edgelip.compress.stage import Stage
from edgelip.deploy.forms import forms_of
from edgelip.errors import UsageError
from edgelip.models.census import count_macs, count_parameters
from edgelip.models.checkpoint import Checkpoint
from edgelip.models.hypercomplex import PHMLayer
from edgelip.runtime.clip import ClipSpec, network_input

if TYPE_CHECKING:
    from edgelip.deploy.export import Exported


def bundle_from_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    frames_BTHW: np.ndarray,
    *,
    name: str,
    data: str,
    recipe: str | None = None,
    precisions: Sequence[str] = ("fp16",),
) -> Exported:
    """Write the bundle of a checkpoint at `folder`, all or nothing. Returns what is in its ONNX files.

    frames_BTHW: stored clips to check on. data: what it was trained on, in words; recipe: the name of one.
    precisions: of a float network, beside fp32; a quantised one gives int8 whatever they are.
    Raises UsageError if bundles cannot hold such a network, GoalMissed if ONNX Runtime does not compute what torch
    computes.
    """
    from edgelip.deploy.bundle_writer import write_bundle
    from edgelip.deploy.export import export_model  # needs onnx, which training does not

    architecture = checkpoint.architecture
    spec = ClipSpec.from_json(architecture.clip)
    model = model_from_checkpoint(checkpoint)
    refuse_unbundled(model, spec, name=name)
    stages = stages_from_configs([entry["config"] for entry in architecture.stages if entry["stage"] in STAGES])
    clips = torch.from_numpy(network_input(frames_BTHW, spec))
    metadata: Mapping[str, str] = {
        "schema_version": "2",
        "variant": name,
        **({} if recipe is None else {"recipe": recipe}),
        "words": "\n".join(architecture.words),
        "clip": json.dumps(spec.to_json(), sort_keys=True),
        "weights_sha256": checkpoint.sha256,
    }
    wanted = None if is_quantised(stages) else precisions
    exported = export_model(model, clips, metadata=metadata, precisions=wanted)
    phm_n = terms_of(model)
    write_bundle(
        folder,
        name=name,
        exported=exported,
        checkpoint=checkpoint,
        frames_BTHW=frames_BTHW,
        ledger={
            "parameters": count_parameters(model),
            "macs": count_macs(model, clips),
            "method": method_of(stages, phm_n=phm_n),
            "phm_n": phm_n,
            "data": data,
        },
    )
    return exported


def refuse_unbundled(model: nn.Module, spec: ClipSpec, *, name: str) -> None:
    """Raises UsageError for a network that takes anything but a clip on its own: a bundle gives it nothing else."""
    if spec.kind == "audio":
        raise UsageError(
            f"{name} takes {spec.kind}; a bundle takes clips of frames or landmarks. Run the checkpoint itself: "
            "edgelip predict CHECKPOINT WAVEFORMS.npy --normalised."
        )
    if needs_boundaries(model):
        raise UsageError(
            f"{name} takes word boundaries; a bundle takes clips only, so it cannot be exported yet. "
            "Use the variant without boundary, or run the checkpoint itself: edgelip predict --boundaries."
        )
    if mixes_clips(model):
        raise UsageError(
            f"{name} attends over the clips of a batch, so a clip's words depend on its batch mates; a bundle's may "
            "not. Import it anew: edgelip import FILE --corrected."
        )


def engines_for(stages: Sequence[Stage]) -> list[str]:
    """Engines that take a file of a variant."""
    # Factors change which file an engine takes, not which engines there are.
    forms = forms_of(quantised=is_quantised(stages), built=False)
    return list(dict.fromkeys(engine for form in forms for engine in form.engines))


def is_quantised(stages: Sequence[Stage]) -> bool:
    """Whether a variant runs in int8."""
    return any(stage.integer for stage in stages)


def terms_of(model: nn.Module) -> int | None:
    """The terms n of a model's PHM layers, the largest if they differ; None if it has none."""
    return max((module.n for module in model.modules() if isinstance(module, PHMLayer)), default=None)


def method_of(stages: Sequence[Stage], *, phm_n: int | None) -> str:
    """A model's stages in words, as the table shows them. phm_n: of its PHM layers, made by a stage or not."""
    made_by_stage = any(stage.name == "phm" for stage in stages)
    words = [] if phm_n is None or made_by_stage else [f"PHM n={phm_n}"]
    return " + ".join([*words, *(stage.label for stage in stages)]) or "dense fp32"
