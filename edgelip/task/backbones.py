"""What a word classifier can be built on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgelip.errors import UsageError
from edgelip.models.catalogue import BACKBONES, FAMILIES
from edgelip.models.inputs import kind_of
from edgelip.registry import nearest


def available_backbones(*, family: str | None = None) -> list[str]:
    """Names that `WordClassifier` takes: named configurations that read video and need no word boundaries.

    family: only those of one family. Raises UsageError for a family that there is not.
    """
    if family is not None and family not in FAMILIES:
        raise UsageError(f"There is no family {family!r}. {nearest(family, FAMILIES)}")
    return [
        name
        for name, backbone in BACKBONES.items()
        if family in (None, backbone.family) and why_unfit(name, {}) is None
    ]


def backbone_details(name: str) -> dict[str, Any]:
    """What `edgelip list backbones` says of a name, and its options.

    name, family, options, parameters, gmac (one clip of 29 x 88 x 88, 500 words), fp32_mb, published_top1_pct (LRW, or
    None) and source. Raises UsageError for a name that there is not.
    """
    from edgelip.models.census import describe

    details = describe(name).to_json()
    return {
        "name": details.pop("name"),
        "family": details.pop("family"),
        "options": dict(BACKBONES[name].options),
        **details,
    }


def why_unfit(backbone: str, options: Mapping[str, Any]) -> str | None:
    """Why folders of videos cannot feed a backbone with these options, or None where they can."""
    kind = kind_of(backbone, options)
    if kind != "video":
        return f"reads {'sound' if kind == 'audio' else kind}, not video"
    known = BACKBONES[backbone].options if backbone in BACKBONES else {}
    merged = {**known, **options}
    if merged.get("boundary"):
        return "needs the frames of the word in each clip, which folders of videos do not tell"
    return None
