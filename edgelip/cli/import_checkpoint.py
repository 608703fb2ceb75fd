"""`edgelip import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgelip.errors import UsageError


def import_checkpoint(
    source: Path,
    *,
    out: Path,
    family: str | None,
    config: Path | None,
    words: Path | None,
    averaged: bool,
    corrected: bool,
    keep_optimiser: bool,
    as_json: bool,
) -> str:
    """Write a published checkpoint as one of ours. Returns what it is, what was kept and what to run next."""
    _check_out(source, out)
    from edgelip.data.synthetic.words import pronunciations
    from edgelip.models.checkpoint import save_checkpoint
    from edgelip.models.published.importer import import_published
    from edgelip.words import read_words, words_beside, write_words

    imported = import_published(
        source,
        lrw_words=tuple(pronunciations()),
        family=family,
        config=config,
        words=None if words is None else read_words(words),
        averaged=averaged,
        corrected=corrected,
        keep_optimiser=keep_optimiser,
    )
    save_checkpoint(imported.checkpoint, out)
    write_words(words_beside(out), imported.checkpoint.architecture.words)
    architecture = imported.checkpoint.architecture
    found = imported.recognition
    result: dict[str, Any] = {
        "checkpoint": str(out),
        "weights_sha256": imported.checkpoint.sha256,
        "published": found.published,
        "backbone": architecture.backbone,
        "options": dict(architecture.options),
        "parameters": imported.num_parameters,
        "words": len(architecture.words),
        "words_origin": imported.words_origin,
        "phm_n": found.phm_n,
        "epochs": imported.epochs,
        "best_accuracy_pct": imported.best_accuracy_pct,
        "optimiser": imported.checkpoint.optimiser is not None,
        "optimiser_note": imported.optimiser,
        "behaviour": list(imported.behaviour),
        "notes": list(imported.notes),
        "next": _next_commands(out, found.options),
    }
    return json.dumps(result, indent=1) if as_json else _text(result)


def _check_out(source: Path, out: Path) -> None:
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; expected a file to write, such as {out / 'model.safetensors'}.")
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(f"--out {out} is the checkpoint to import; choose another file.")


def _next_commands(out: Path, options: Any) -> list[str]:
    if options.get("modality") == "audio":
        return [f"edgelip predict {out} WAVEFORMS.npy --normalised"]
    boundaries = " --boundaries BOUNDARIES.npy" if options.get("boundary") else ""
    return [
        f"edgelip predict {out} CLIPS.npy --normalised{boundaries}",
        f"edgelip train RECIPE --from {out}",
        f"edgelip export {out} -o BUNDLE",
    ]


def _text(result: dict[str, Any]) -> str:
    epochs = result["epochs"]
    progress = ["epochs unknown" if epochs is None else f"{epochs} epoch{'' if epochs == 1 else 's'}"]
    if result["best_accuracy_pct"] is not None:
        progress.append(f"best accuracy {result['best_accuracy_pct']} % as stored")
    phm = "dense" if result["phm_n"] is None else f"PHM n={result['phm_n']}"
    lines = [
        result["checkpoint"],
        f"{result['published']} checkpoint: {result['backbone']}, {phm}, {result['parameters']} parameters, "
        f"{result['words']} words, {', '.join(progress)}",
        f"words: {result['words_origin']}",
        f"optimiser state: {result['optimiser_note']}",
        *result["behaviour"],
        *(f"note: {note}" for note in result["notes"]),
        *(f"next: {command}" for command in result["next"]),
    ]
    return "\n".join(lines)
