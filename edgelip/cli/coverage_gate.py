"""Whether a bundle that is called int8 runs in int8."""

from __future__ import annotations

from pathlib import Path

from edgelip.bench.graph import Int8Coverage, input_name, int8_coverage
from edgelip.deploy.layer_names import layers_of
from edgelip.errors import GoalMissed
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input

SHOWN_LAYERS = 5


def check_coverage(folder: Path, *, min_int8_pct: float) -> Int8Coverage:
    """The share of a bundle's multiply-adds that ONNX Runtime runs in int8. Raises GoalMissed if it is less."""
    bundle = Bundle.open(folder)
    model = bundle.model_for("ort")
    clip_11THW = network_input(bundle.expected().frames_NTHW[:1], bundle.manifest.clip)
    coverage = int8_coverage(model.path, {input_name(model.path): clip_11THW})
    if coverage.int8_pct >= min_int8_pct:
        return coverage
    names = {output: name for name, outputs in layers_of(bundle, model.path.name).items() for output in outputs}
    worst = sorted(coverage.float_macs.items(), key=lambda entry: -entry[1])
    shown = [f"{names.get(node, node)} {100 * macs / coverage.total_macs:.1f} %" for node, macs in worst[:SHOWN_LAYERS]]
    if len(worst) > SHOWN_LAYERS:
        shown.append(f"{len(worst) - SHOWN_LAYERS} more")
    by_itself = ""
    if coverage.self_rounded:
        by_itself = (
            f"{len(coverage.self_rounded)} of them have float weights that ONNX Runtime rounds by itself, as nothing "
            "was calibrated for. "
        )
    raise GoalMissed(
        f"Variant {bundle.name!r} is called int8, but {coverage.int8_pct:.1f} % of its multiply-adds run in int8 on "
        f"ONNX Runtime; expected {min_int8_pct:g} % (export.min_int8_pct). In float: {', '.join(shown)}. {by_itself}"
        "Layers whose result only float layers read run in float too. "
        'Use backend = "own", leave fewer layers in float (float_layers, keep, max_divergence, min_sqnr_db), or lower '
        "min_int8_pct. Nothing was published."
    )
