"""`edgelip bench BUNDLE --predict DEVICE`: what the datasheet allows at best; nothing is run."""

from __future__ import annotations

from pathlib import Path

from edgelip.registry import require
from edgelip.runtime.bundle import Bundle


def roofline_text(bundle: Path, device: str, *, engine: str | None, precision: str | None, as_json: bool) -> str:
    """The roofline of the file that `engine` on `device` takes from the bundle, as a table or as JSON.

    device: name or path of a description; engine: default the device's own; precision: default the first of the engine.
    Raises UsageError if the device does not take them or its datasheet lacks a number, BundleError if the bundle does
    not hold them, MissingError without onnx.
    """
    require("onnx", extra="onnx")
    from edgelip.deploy.layer_costs import layer_costs, load_graph
    from edgelip.deploy.roofline import predict, prediction_json, prediction_text
    from edgelip.deploy.target import load_device, refuse_precision

    target = load_device(device)
    chosen = engine or target.engine
    opened = Bundle.open(bundle)
    if precision is not None:
        refuse_precision(target, chosen, precision)
    model = opened.model_for(chosen, precision)
    refuse_precision(target, chosen, model.precision)
    prediction = predict(layer_costs(load_graph(model.path)), target, model=f"{opened.name}/{model.path.name}")
    return prediction_json(prediction) if as_json else prediction_text(prediction)
