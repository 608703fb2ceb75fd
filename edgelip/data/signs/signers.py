"""Splits by whole signers: who signs in one split signs in no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from edgelip.data.readers.held_out import hold_out
from edgelip.data.readers.samples import Sample, Split
from edgelip.errors import UsageError
from edgelip.registry import nearest


def signers_apart(
    samples: Sequence[Sample],
    *,
    val_signers: Sequence[str] | None,
    test_signers: Sequence[str] | None,
    val_share: float | None,
    test_share: float | None,
) -> tuple[list[Sample], list[str]]:
    """The samples with their splits, and notes; all are for training where nothing is asked for.

    val_signers, test_signers: by name. val_share, test_share: about so many of the samples, by whole signers, chosen
    by the hash of their names. Raises UsageError for signers that are not there, in both, or none left to train on.
    """
    splits: dict[str, Split] = {}
    known = Counter(sample.speaker for sample in samples)
    asked: tuple[tuple[Split, Sequence[str] | None, float | None], ...]
    asked = (("test", test_signers, test_share), ("val", val_signers, val_share))
    for split, signers, share in asked:
        if signers is not None and share is not None:
            raise UsageError(f"{split}_signers and {split}_share both choose who is held out. Give one.")
        for signer in signers or ():
            if signer not in known:
                raise UsageError(f"{split}_signers has {signer!r}, who signs nothing. {nearest(signer, sorted(known))}")
            if signer in splits:
                raise UsageError(f"signer {signer!r} is in {splits[signer]}_signers and {split}_signers. Choose one.")
            splits[signer] = split
    if splits and len(splits) == len(known):
        raise UsageError(f"all {len(known)} signers are held out; expected at least one to train on.")
    placed = [replace(sample, split=splits.get(sample.speaker, "train")) for sample in samples]
    for split, _, share in asked:
        if share is not None:
            others = [sample for sample in placed if sample.split != "train"]
            kept, held = hold_out([sample for sample in placed if sample.split == "train"], share, split)
            placed = [*kept, *held, *others]
    notes = []
    for split in ("val", "test"):
        signers = sorted({sample.speaker for sample in placed if sample.split == split})
        if signers:
            number = sum(sample.split == split for sample in placed)
            named = ", ".join(signers[:5]) + (f" and {len(signers) - 5} more" if len(signers) > 5 else "")
            notes.append(f"{split}: {number} signs of {len(signers)} signers who sign nowhere else ({named})")
    return placed, notes
