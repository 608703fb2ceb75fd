"""What may be chosen when a TensorRT engine is built, read from words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple

from edgelip.runtime.engines.engine import Options
from edgelip.runtime.errors import UsageError

_YES_NO = ("no", "yes")
_COMMON: Dict[str, Tuple[str, ...]] = {
    "min_batch": (),
    "opt_batch": (),
    "max_batch": (),
    "workspace_mib": (),
    "tf32": _YES_NO,
    "weight_stripped": _YES_NO,
    "version_compatible": _YES_NO,
}
TENSORRT_OPTIONS: Mapping[str, Tuple[str, ...]] = {
    **_COMMON,
    "builder_optimization_level": ("0", "1", "2", "3", "4", "5"),  # TensorRT takes 9 without a word and uses 5
    "sparse": _YES_NO,
    "hardware_compatible": ("no", "ampere_plus", "same_compute_capability"),
    "timing_cache": (),
}
# TensorRT-RTX 1.7.1 wrote the same plan at levels 0 and 5, and with and without `sparse` of a 2:4 sparse network: it
# chooses kernels when a plan is opened. So these are no options there.
RTX_OPTIONS: Mapping[str, Tuple[str, ...]] = {**_COMMON, "sm": ()}

DEFAULT_BATCH = (1, 1, 16)
_MAX_BATCH = 1024
_MAX_WORKSPACE_MIB = 1 << 20


@dataclass(frozen=True)
class PlanOptions:
    """How a plan is built.

    batch: fewest, best and most clips of one run; None leaves it to the model, or to DEFAULT_BATCH where its batch is
    free. tf32: let fp32 products round to 10 bits; off, so that fp32 logits agree within 1e-4. weight_stripped: leave
    the weights out, they are put back from the ONNX file when the plan is opened. version_compatible: a plan that later
    TensorRT versions open too. hardware_compatible: a plan for all devices from Ampere on, or for all of the same
    compute capability. timing_cache: measured kernel times of earlier builds. sm: compute capability to build for
    without a device of that kind, TensorRT-RTX only.
    """

    batch: Optional[Tuple[int, int, int]] = None
    workspace_mib: Optional[int] = None
    builder_optimization_level: Optional[int] = None
    tf32: bool = False
    sparse: bool = False
    weight_stripped: bool = False
    version_compatible: bool = False
    hardware_compatible: str = "no"
    timing_cache: Optional[Path] = None
    sm: Optional[str] = None


def plan_options(options: Options) -> PlanOptions:
    """Read options whose words were checked. Raises UsageError naming option, what it is and what was expected."""
    level = options.get("builder_optimization_level")
    cache = options.get("timing_cache")
    return PlanOptions(
        batch=_batch(options),
        workspace_mib=_whole(options, "workspace_mib", most=_MAX_WORKSPACE_MIB),
        builder_optimization_level=None if level is None else int(level),
        tf32=options.get("tf32") == "yes",
        sparse=options.get("sparse") == "yes",
        weight_stripped=options.get("weight_stripped") == "yes",
        version_compatible=options.get("version_compatible") == "yes",
        hardware_compatible=options.get("hardware_compatible", "no"),
        timing_cache=None if cache is None else Path(cache),
        sm=options.get("sm"),
    )


def _batch(options: Options) -> Optional[Tuple[int, int, int]]:
    if not any(name in options for name in ("min_batch", "opt_batch", "max_batch")):
        return None
    least = _whole(options, "min_batch", most=_MAX_BATCH) or DEFAULT_BATCH[0]
    best = _whole(options, "opt_batch", most=_MAX_BATCH) or least
    most = _whole(options, "max_batch", most=_MAX_BATCH) or max(DEFAULT_BATCH[2], best)
    if not least <= best <= most:
        raise UsageError(f"batch is {least}/{best}/{most}; expected min_batch <= opt_batch <= max_batch.")
    return least, best, most


def _whole(options: Options, name: str, *, most: int) -> Optional[int]:
    word = options.get(name)
    if word is None:
        return None
    if not (word.isascii() and word.isdigit() and len(word) < 10 and 1 <= int(word) <= most):
        raise UsageError(f"Option {name} is {word[:80]!r}; expected a whole number from 1 to {most}.")
    return int(word)
