"""Open a TensorRT plan: deserialise it, put stripped weights back, say what its layers are.

Beside a plan that needs more than itself lies `plan.json`: the ONNX file that holds the weights of a stripped plan, and
whether the plan brings host code, a small runtime of the version that built it. Who opens a plan runs what is in it, so
the caller has proven it before.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from edgelip.runtime.engines.engine import first_line
from edgelip.runtime.engines.trt_log import Transcript, make_logger
from edgelip.runtime.errors import BundleError, MissingError
from edgelip.runtime.manifest import FILE_LIMIT_BYTES, json_object
from edgelip.runtime.plain_files import read_plain

NOTE_NAME = "plan.json"
_NOTE_LIMIT_BYTES = 4096
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.onnx")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What CUDA's own codes for "no driver, no device" look like in TensorRT's words.
_NO_DEVICE = re.compile(r"cudaError (35|46|100)\b|no CUDA-capable device", re.IGNORECASE)


@dataclass(frozen=True)
class PlanNote:
    """What opening a plan takes beside it. weights: name of the bundle's ONNX file, sha256 its content."""

    host_code: bool = False
    weights: Optional[str] = None
    sha256: str = ""

    def to_bytes(self) -> bytes:
        weights = {"model": self.weights, "sha256": self.sha256} if self.weights else None
        return json.dumps({"host_code": self.host_code, "weights": weights}).encode() + b"\n"


def note_for(plan_path: Path) -> PlanNote:
    """The note beside a plan; a plan without one needs nothing. Raises BundleError if it is not one."""
    path = plan_path.with_name(NOTE_NAME)
    if not path.is_file():
        return PlanNote()
    fields: Dict[str, Any] = json_object(read_plain(path, limit_bytes=_NOTE_LIMIT_BYTES), NOTE_NAME)
    weights = fields.get("weights")
    name, sha256 = (None, "") if not isinstance(weights, dict) else (weights.get("model"), weights.get("sha256"))
    proper = weights is None or all(
        isinstance(text, str) and pattern.fullmatch(text) for text, pattern in ((name, _MODEL_NAME), (sha256, _SHA256))
    )
    if not proper or not isinstance(fields.get("host_code"), bool):
        raise BundleError(f"{NOTE_NAME} is not what build writes beside a plan. Build again.")
    return PlanNote(fields["host_code"], name, str(sha256))


@dataclass(frozen=True)
class OpenPlan:
    """A plan in memory, and what must live as long: the logger and the runtime that it came from."""

    engine: Any
    runtime: Any
    logger: Any
    transcript: Transcript


def open_plan(trt: Any, content: Any, label: str, *, note: Optional[PlanNote] = None) -> OpenPlan:
    """Deserialise. Raises MissingError without a CUDA device, BundleError with TensorRT's own first error."""
    transcript = Transcript(lambda text: None)
    logger = make_logger(trt, transcript)
    try:
        runtime = trt.Runtime(logger)
        if note is not None and note.host_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(content)
    except (TypeError, RuntimeError, ValueError) as error:
        raise _refusal(label, f"{transcript.first_error()} ({first_line(error)})") from error
    if engine is None:
        raise _refusal(label, transcript.first_error())
    return OpenPlan(engine, runtime, logger, transcript)


def refit(trt: Any, plan: OpenPlan, plan_path: Path, note: PlanNote) -> None:
    """Put the weights of a stripped plan back, from the ONNX file of the bundle that it lies in.

    Raises BundleError if the file is another or does not hold all of them.
    """
    assert note.weights is not None
    path = plan_path.resolve().parents[3] / note.weights  # BUNDLE/engines/<device key>/<model>/<plan>
    onnx = read_plain(path, limit_bytes=FILE_LIMIT_BYTES)
    if hashlib.sha256(onnx).hexdigest() != note.sha256:
        raise BundleError(f"{plan_path.name} was stripped of other weights than {path.name} holds. Build again.")
    refitter = trt.Refitter(plan.engine, plan.logger)
    parser = trt.OnnxParserRefitter(refitter, plan.logger)
    if not (parser.refit_from_bytes(onnx) and refitter.refit_cuda_engine()):
        missing = ", ".join(refitter.get_missing_weights()[:5])
        lacks = f"it lacks {missing}" if missing else plan.transcript.first_error()
        raise BundleError(f"TensorRT cannot put the weights of {path.name} into {plan_path.name}: {lacks}")


def layers_json(trt: Any, plan: OpenPlan) -> str:
    """Layers, kernels and precisions of the plan as TensorRT's inspector tells them."""
    inspector = plan.engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _refusal(label: str, reason: str) -> Exception:
    if _NO_DEVICE.search(reason):
        return MissingError(f"there is no CUDA device to open {label} on: {reason}")
    return BundleError(f"TensorRT cannot load {label}: {reason}")
