"""Two bundles on the same clips: whether they may be compared, and where their test clips are."""

from __future__ import annotations

from pathlib import Path

from edgelip.bench.suite import TestClips
from edgelip.errors import UsageError
from edgelip.report.strict import json_from_file
from edgelip.runtime.bundle import Bundle

ACCURACY = "accuracy.json"
_LARGEST_BYTES = 1 << 20


def find_clips(*bundles: Bundle, remedy: str = "Give them: --clips CLIPS.npz with frames, labels.") -> Path:
    """The test clips on which an export measured these bundles, in its cache beside them.

    Raises UsageError if there are none, or not the same for all.
    """
    measured: dict[str, str] = {}
    for bundle in bundles:
        try:
            fields = json_from_file(bundle.path / ACCURACY, largest_bytes=_LARGEST_BYTES, remedy="")
            measured[bundle.name] = str(fields["clips_sha256"])
        except (UsageError, KeyError, TypeError):
            continue
    if not measured:
        names = " or ".join(dict.fromkeys(bundle.name for bundle in bundles))
        raise UsageError(f"No {ACCURACY} in {names} says which test clips are theirs. {remedy}")
    first, wanted = next(iter(measured.items()))
    other = next((name for name, sha256 in measured.items() if sha256 != wanted), None)
    if other is not None:
        raise UsageError(f"{first} and {other} were measured on different test clips. {remedy}")
    for folder in dict.fromkeys(bundle.path.resolve().parent for bundle in bundles):
        for path in sorted((folder / ".cache").glob("data-test-*/clips.npz")):
            if TestClips.open(path).sha256 == wanted:
                return path
    raise UsageError(f"The test clips of {bundles[-1].name} (sha256 {wanted[:12]}..) are not beside it. {remedy}")


def refuse_unlike(reference: Bundle, suspect: Bundle) -> None:
    """Raises UsageError unless both answer the same words to the same kind of clip."""
    ours, theirs = reference.manifest, suspect.manifest
    if ours.vocabulary != theirs.vocabulary:
        differing = [word for word in theirs.vocabulary if word not in ours.vocabulary]
        detail = f"{differing[0]!r} is not among the former's" if differing else "in another order or number"
        raise UsageError(
            f"{reference.name} knows {len(ours.vocabulary)} words and {suspect.name} {len(theirs.vocabulary)}, "
            f"{detail}; expected the same words. Compare bundles of one recipe."
        )
    if ours.clip != theirs.clip:
        fields = [key for key, value in ours.clip.to_json().items() if theirs.clip.to_json()[key] != value]
        raise UsageError(
            f"{reference.name} and {suspect.name} take different clips ({', '.join(fields)}); expected the same. "
            "Compare bundles of one recipe."
        )
