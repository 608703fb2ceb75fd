"""`edgelip blame A B`: which layers, words and clips a suspect bundle loses against a reference.

Axes: N clips, V words.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelip.bench.suite import TestClips
from edgelip.cache import Cache
from edgelip.cli.blame_layers import layer_part
from edgelip.cli.blame_words import visemes_of, word_part, write_sheet
from edgelip.cli.pairing import find_clips, refuse_unlike
from edgelip.deploy.blame.scoring import ENGINE, Clips, Deadline, Scorer
from edgelip.errors import UsageError
from edgelip.files import claim, write_atomic, writing
from edgelip.progress import Progress
from edgelip.report.blame import blame_markdown, blame_text
from edgelip.runtime.bundle import Bundle, ModelFile
from edgelip.runtime.engines.engine import engine_class

RESULT, TEXT, SHEET = "blame.json", "blame.md", "flipped.png"


@dataclass(frozen=True)
class BlameOptions:
    """precision: of the suspect's file; minutes: None measures to the end; together: layers put back at once."""

    clips: Path | None = None
    out: Path | None = None
    precision: str | None = None
    minutes: float | None = None
    threads: int = 1
    together: int = 3
    num_shown: int = 40


def blame_bundles(reference_path: Path, suspect_path: Path, options: BlameOptions, *, as_json: bool) -> str:
    """Measure, write blame.json, blame.md and flipped.png, and return the result as text or JSON."""
    engine_class(ENGINE)  # a missing package is said before anything large is read
    reference, suspect = Bundle.open(reference_path), Bundle.open(suspect_path)
    refuse_unlike(reference, suspect)
    files = _reference_file(reference), suspect.model_for(ENGINE, options.precision)
    if _sha256(reference, files[0]) == _sha256(suspect, files[1]):
        raise UsageError(
            f"{suspect.name} is the same network as {reference.name}: {files[1].path.name} has the same content. "
            "Give the bundle before compression and the one after it."
        )
    test = TestClips.open(options.clips or find_clips(reference, suspect))
    clips = _fitting(test, reference)
    out = options.out or suspect.path.resolve().parent / f"blame-{reference.name}-{suspect.name}"
    with writing(out):
        (out / ".cache").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / ".cache", os.O_RDONLY)
    try:
        claim(descriptor, out)
        progress = Progress()
        scorer = Scorer(
            Cache(out / ".cache"),
            clips,
            num_words=len(reference.manifest.vocabulary),
            threads=options.threads,
            progress=progress,
        )
        result = _measure(reference, suspect, files, test, scorer, options)
        words = result["words"]
        write_sheet(out / SHEET, clips, words["flips"][: options.num_shown])
        write_atomic(out / TEXT, blame_markdown(result))
        content = json.dumps(result, indent=1, allow_nan=False) + "\n"
        write_atomic(out / RESULT, content)
    finally:
        os.close(descriptor)
    return content.rstrip() if as_json else f"{blame_text(result)}\n\n{out}"


def _measure(
    reference: Bundle,
    suspect: Bundle,
    files: tuple[ModelFile, ModelFile],
    test: TestClips,
    scorer: Scorer,
    options: BlameOptions,
) -> dict[str, Any]:
    # Without these two there is nothing to say: the time limit is that of the layers.
    both = [
        scorer.logits(file.path.read_bytes(), name=f"words of {bundle.name}")
        for bundle, file in zip((reference, suspect), files, strict=True)
    ]
    deadline = Deadline(options.minutes)
    vocabulary, lips = reference.manifest.vocabulary, reference.manifest.clip.kind == "video"
    words = word_part(vocabulary, test, *both, visemes=visemes_of(vocabulary) if lips else None)
    layers = layer_part(
        reference, suspect, files, test, scorer, both[1], deadline=deadline, together=options.together,
        lost=words["total"]["lost"] - words["total"]["gained"],
    )  # fmt: skip
    described = [
        {"name": bundle.name, "file": file.path.name, "bundle_sha256": bundle.sha256}
        for bundle, file in zip((reference, suspect), files, strict=True)
    ]
    return {
        "schema_version": 1,
        "reference": described[0],
        "suspect": described[1],
        "engine": ENGINE,
        "threads": options.threads,
        "clips": {"num_clips": scorer.clips.num_clips, "sha256": scorer.clips.sha256},
        "layers": layers,
        "words": words,
    }


def _reference_file(reference: Bundle) -> ModelFile:
    """The most exact file that ONNX Runtime takes."""
    return reference.model_for(ENGINE)


def _sha256(bundle: Bundle, file: ModelFile) -> str:
    return next(entry.sha256 for entry in bundle.manifest.files if entry.name == file.path.name)


def _fitting(test: TestClips, bundle: Bundle) -> Clips:
    """Raises ClipError if the clips do not fit the words and the clip contract."""
    test.require_fit(bundle)
    return Clips(test.path, len(test.labels_N), test.sha256, bundle.manifest.clip)
