"""Which published family a checkpoint is of, by the names of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgelip.errors import CheckpointError, UsageError

Shapes = Mapping[str, tuple[int, ...]]
Published = Literal["vsr_phm", "mpc001", "eflip"]
PUBLISHED: tuple[Published, ...] = ("vsr_phm", "mpc001", "eflip")


@dataclass(frozen=True)
class Recognition:
    """A family of edgelip.models.catalogue.FAMILIES, its options, and what was read on the way."""

    published: Published
    family: str
    options: Mapping[str, Any]
    num_words: int
    phm_n: int | None = None


def published_family(shapes: Shapes) -> Published:
    """Raises CheckpointError if the names are those of none."""
    if "fc_layer.weight" in shapes and any(name.startswith("frontend_3d.") for name in shapes):
        return "eflip"
    if "tcn.tcn_output.weight" in shapes and any(name.startswith("trunk.") for name in shapes):
        is_phm = any(name.startswith(("trunk.", "tcn.", "frontend3D.")) and name.endswith(".A") for name in shapes)
        return "vsr_phm" if is_phm else "mpc001"
    raise CheckpointError(
        f"the tensors are of no model that import knows (first: {', '.join(list(shapes)[:3])}); expected the names of "
        "vsr_phm and mpc001 (trunk.*, frontend3D.*, tcn.*) or of EfLipReading (frontend_3d.*, tcn_block.*, fc_layer.*)."
    )


def check_family(found: Published, wanted: str | None) -> Published:
    """What the user calls it, where the tensors agree. A dense net has the same names in vsr_phm and mpc001."""
    if wanted is None or wanted == found:
        return found
    if wanted == "vsr_phm" and found == "mpc001":
        return "vsr_phm"
    reason = {
        "vsr_phm": "it has PHM factors A and F",
        "mpc001": "it has frontend3D.* or trunk.* and tcn.*",
        "eflip": "it has frontend_3d.* and fc_layer.*",
    }[found]
    raise UsageError(f"the file is a {found} checkpoint ({reason}); got --family {wanted}. Drop --family.")
