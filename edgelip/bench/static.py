"""What is known of a bundle's file without timing it: numbers, bytes, resident weights, the share that runs in int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgelip.bench.graph import input_name, int8_coverage, optimised_weights_bytes
from edgelip.bench.isolate import Subject
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input


def static_fields(
    bundle: Bundle, subject: Subject, *, graph: bool = True, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """parameters, macs, file_bytes, bundle_bytes, resident_weights_bytes, int8_coverage_pct; None where nobody tells.

    graph: let ONNX Runtime optimise and run the file here for the last two; other engines do not tell them.
    Raises BundleError if the bundle has no such file, MissingError without onnx or onnxruntime.
    """
    path = bundle.model_for(subject.engine, subject.precision).path
    fields: dict[str, Any] = {
        "parameters": bundle.manifest.ledger.get("parameters"),
        "macs": bundle.manifest.ledger.get("macs"),
        "file_bytes": path.stat().st_size,
        "bundle_bytes": sum(entry.num_bytes for entry in bundle.manifest.files),
        "resident_weights_bytes": None,
        "int8_coverage_pct": None,
    }
    if graph and subject.engine == "ort":
        say(f"graph of {row_name(bundle, subject)}")
        clip_11THW = network_input(bundle.expected().frames_NTHW[:1], bundle.manifest.clip)
        fields["resident_weights_bytes"] = optimised_weights_bytes(path)
        fields["int8_coverage_pct"] = int8_coverage(path, {input_name(path): clip_11THW}).int8_pct
    return fields


def row_name(bundle: Bundle, subject: Subject) -> str:
    """The bundle's name, with the precision if one was asked for."""
    return bundle.name if subject.precision is None else f"{bundle.name}-{subject.precision}"


def method_of(bundle: Bundle, precision: str | None) -> str:
    """The steps to a bundle as it says them, with the precision that was asked for."""
    method = str(bundle.manifest.ledger.get("method", ""))
    return method if precision is None else f"{method.removesuffix('fp32').strip()} {precision}".strip()
