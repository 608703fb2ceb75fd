"""`edgelip export CHECKPOINT`: one checkpoint to one checked bundle.

Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from edgelip.deploy.sign import read_private_key, sign_bundle
from edgelip.errors import UsageError
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec, pool_frames

CHECK_WORDS = ("ABOUT", "CHANGE", "MILLION", "PEOPLE")  # any: the file is checked on their clips, not its accuracy
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+=,-]{0,127}")  # what edgelip.runtime.manifest reads


def export_checkpoint(
    path: Path, *, out: Path | None, name: str | None, as_json: bool, sign: Path | None = None
) -> str:
    """Write the bundle of a checkpoint and say what it is. Raises UsageError if bundles cannot hold such a network."""
    if out is None:
        raise UsageError(f"A checkpoint needs a folder for its bundle: edgelip export {path} -o FOLDER.")
    name = out.resolve().name if name is None else name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"A bundle cannot be called {name!r}; expected letters, digits and ' ._+=,-'. Choose another --name."
        )
    if sign is not None:
        read_private_key(sign)
    from edgelip.cli.bundling import bundle_from_checkpoint
    from edgelip.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    spec = ClipSpec.from_json(checkpoint.architecture.clip)
    Progress().say(f"export {path}")
    frames_BTHW = check_clips(spec)
    data = "not recorded in the checkpoint that it comes from"
    exported = bundle_from_checkpoint(out, checkpoint, frames_BTHW, name=name, data=data)
    if sign is not None:
        sign_bundle(out, sign)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    result = {
        "bundle": str(out),
        "name": name,
        "files": [
            {
                "file": file.file_name,
                "file_bytes": len(file.content),
                "engines": list(file.engines),
                "max_difference": file.max_difference,
                "tolerance": file.tolerance,
            }
            for file in exported.files
        ],
        "num_check_clips": len(exported.logits_BV),
        "parameters": manifest["ledger"]["parameters"],
        "macs": manifest["ledger"]["macs"],
        "weights_sha256": checkpoint.sha256,
    }
    if as_json:
        return json.dumps(result, indent=1)
    lines = [
        f"{file.file_name}, {len(file.content):,} bytes; ONNX Runtime against torch: max |difference| "
        f"{file.max_difference:.1e} on {len(exported.logits_BV)} clips (limit {file.tolerance:.2g})"
        for file in exported.files
    ]
    return "\n".join([str(out), *lines])


def check_clips(spec: ClipSpec) -> np.ndarray:
    """4 stored clips as `spec` wants them: procedural mouths scaled to its size, or procedural signs."""
    import torch

    if spec.kind == "landmarks":
        from edgelip.data.synthetic.signing import SigningSpec
        from edgelip.data.synthetic.stored_signs import made_signs

        return made_signs(SigningSpec(), "val", range(0, 16, 4), spec).clips

    from edgelip.data.synthetic.clips import SyntheticSpec, render_clips

    generator = SyntheticSpec(words=CHECK_WORDS, frames=spec.frames)
    frames_BTHW = render_clips(generator, "val", range(len(CHECK_WORDS))).frames_BTHW
    if frames_BTHW.shape[-1] != spec.roi_px:
        size = (spec.roi_px, spec.roi_px)
        scaled = torch.nn.functional.interpolate(frames_BTHW.float(), size, mode="bilinear", antialias=True)
        frames_BTHW = scaled.round().clamp(0, 255).to(torch.uint8)
    return pool_frames(frames_BTHW.numpy(), spec.pool)
