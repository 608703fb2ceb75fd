"""Bundles: everything a device needs, in one folder that checks itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from edgelip import __version__
from edgelip.deploy.export import Exported, ExportedFile
from edgelip.deploy.layer_names import layer_table
from edgelip.files import replace_folder
from edgelip.models.checkpoint import Checkpoint
from edgelip.runtime.clip import ClipSpec

SCHEMA_VERSION = 2
_NOUNS = {
    "video": ("lip-reading", "speakers", "the lips"),
    "landmarks": ("sign-reading", "signers", "the signs"),
}  # of the model card


def write_bundle(
    folder: Path,
    *,
    name: str,
    exported: Exported,
    checkpoint: Checkpoint,
    frames_BTHW: np.ndarray,
    ledger: Mapping[str, Any],
) -> Path:
    """Write a bundle, all or nothing. frames: the stored clips whose logits `exported` carries."""
    architecture = checkpoint.architecture
    arrays = BytesIO()
    np.savez_compressed(arrays, frames=frames_BTHW, logits=exported.logits_BV.astype(np.float32))
    contents = {
        **{file.file_name: file.content for file in exported.files},
        "expected.npz": arrays.getvalue(),
        "MODEL_CARD.md": _model_card(name, exported, checkpoint, ledger).encode(),
    }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "producer": f"edgelip {__version__}",
        "files": {
            file: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for file, content in contents.items()
        },
        "vocabulary": list(architecture.words),
        "clip": dict(architecture.clip),
        "models": [_model_entry(file) for file in exported.files],
        "weights_sha256": checkpoint.sha256,
        "lineage": [_lineage_entry(entry) for entry in architecture.stages],
        "ledger": {**ledger, "layers": layer_table(exported.files)},
    }
    with replace_folder(folder, only_if_holds="manifest.json") as partial:
        for file, content in contents.items():
            (partial / file).write_bytes(content)
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def _lineage_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A stage and its configuration; of one that quantises also what on, and which layers it left in float."""
    told = {key: entry["record"][key] for key in ("calibration", "float_layers") if key in entry.get("record", {})}
    return {"stage": entry["stage"], "config": entry["config"], **told}


def _model_entry(file: ExportedFile) -> dict[str, Any]:
    return {
        "file": file.file_name,
        "precision": file.precision,
        "activations": file.activations,
        "weights": file.weights,
        "engines": list(file.engines),
        "tolerance": file.tolerance,
    }


def _input_line(clip: Mapping[str, Any]) -> str:
    if clip.get("kind") == "landmarks":
        spec = ClipSpec.from_json(clip)
        return f"{spec.frames} frames of {spec.num_points} landmarks ({spec.points}), {spec.axes} coordinates each"
    side = f"{clip['roi_px']} x {clip['roi_px']} pixels"
    return f"{clip['frames']} gray mouth frames of {side} at {clip['fps']:g} fps ({clip['timing']})"


def _model_card(name: str, exported: Exported, checkpoint: Checkpoint, ledger: Mapping[str, Any]) -> str:
    architecture = checkpoint.architecture
    clip = architecture.clip
    reads, people, what = _NOUNS[clip.get("kind", "video")]
    stages = " -> ".join(entry["stage"] for entry in architecture.stages)
    quantised = "".join(
        f"\n| ranges set on | {told['clips']} training clips of {told['words']} words, evenly taken from "
        f"{told['drawn']} of sha256 {told['sha256'][:12]} |"
        for told in (entry.get("record", {}).get("calibration") for entry in architecture.stages)
        if told
    )
    precisions = ", ".join(dict.fromkeys(file.precision for file in exported.files))
    files = "\n".join(
        f"| {file.file_name} | {len(file.content):,} | {', '.join(file.engines)} | {file.max_difference:.1e} |"
        for file in exported.files
    )
    return f"""# {name}

A {reads} word classifier in {precisions}, made by edgelip {__version__}.

| | |
|---|---|
| input | {_input_line(clip)} |
| output | logits over {len(architecture.words)} words |
| backbone | {architecture.backbone} |
| stages | {stages} |
| stored parameters | {ledger["parameters"]:,} |
| multiply-adds a clip | {ledger["macs"]:,} |
| trained on | {ledger["data"]} |{quantised}

| file | bytes | engines that take it | ONNX Runtime against torch |
|---|---|---|---|
{files}

The last column is the largest |difference| / max(1, |logit|) on the clips of `expected.npz`.
Accuracy is measured on these files and stands beside it in `accuracy.json`.
`python -m edgelip.runtime check .` shows whether it runs here as it did where it was made.

Words: {", ".join(architecture.words)}.

Limits: it knows these words only and always answers one of them. Accuracy holds for data like the training data;
nothing is claimed for other {people}, cameras or languages. Do not read {what} of people who do not know of it.
"""
