"""What kind of clip a backbone reads, and the options that the clips decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edgelip.errors import RecipeError
from edgelip.models.catalogue import BACKBONES, LANDMARK_FAMILIES, Backbone
from edgelip.runtime.clip import ClipSpec

Kind = Literal["video", "audio", "landmarks"]
_OF_LANDMARKS = ("points", "axes")
_EXAMPLES: Mapping[str, str] = {
    "video": "small",
    "audio": "audio_dctcn_dense",
    "landmarks": "sign_conv_transformer",
}


def kind_of(backbone: str, options: Mapping[str, Any]) -> Kind:
    """The kind of clip that a configuration, or a family, reads with these options."""
    named = BACKBONES.get(backbone) or Backbone(backbone)
    if named.family in LANDMARK_FAMILIES:
        return "landmarks"
    return "audio" if {**named.options, **options}.get("modality") == "audio" else "video"


def options_for(backbone: str, options: Mapping[str, Any], spec: ClipSpec) -> dict[str, Any]:
    """The options of a network for these clips: as given, with the landmarks of the clips where it reads those.

    Raises RecipeError for a backbone that reads another kind of clip, or for options that say other landmarks.
    """
    kind = kind_of(backbone, options)
    if kind != spec.kind:
        raise RecipeError(
            f"model.backbone {backbone!r} reads {kind}; the clips are {spec.kind}. Choose a backbone for {spec.kind}, "
            f"such as {_EXAMPLES[spec.kind]!r} (`edgelip list backbones` names all), or other data."
        )
    if kind != "landmarks":
        return dict(options)
    decided = dict(zip(_OF_LANDMARKS, spec.input_shape[-2:], strict=True))
    for name, value in decided.items():
        if options.get(name, value) != value:
            raise RecipeError(
                f"model.options.{name} of backbone {backbone!r} is {options[name]!r}; the clips have {value}. Leave it "
                "out: the clips decide it."
            )
    return {**options, **decided}
