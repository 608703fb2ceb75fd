"""`edgelip data inspect`: what is in a data set, before hours are spent on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgelip.cli.source_options import SourceOptions
from edgelip.errors import UsageError
from edgelip.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from edgelip.data.inspection import Inspection, Lengths
    from edgelip.data.readers.samples import Sample

_MOST_LISTED = 3


def inspect_source(
    source: Path,
    options: SourceOptions,
    *,
    sample: int | None,
    compare: bool | None,
    jobs: int | None,
    sheet: Path | None,
    sheet_clips: int,
    as_json: bool,
) -> str:
    """Counts, lengths, speakers, what cannot be used and why, what is there twice.

    sample: decode so many files only. compare: look for files that are there twice; None: unless `sample` is given.
    """
    from edgelip.data.inspection import inspect_listing
    from edgelip.data.readers.source import detect_reader
    from edgelip.data.stores.store_inspection import find_stores, inspect_stores
    from edgelip.data.stores.workers import Workers, available_cpus

    progress = Progress()
    stores = find_stores(source)
    if stores:
        options.refuse_all(source)
        if sample is not None or jobs is not None or compare is False:
            raise UsageError(f"{source} is prepared: --sample, --jobs and --no-duplicates have no effect on it.")
        found = inspect_stores(stores, source, verify=True, progress=progress)
        if sheet is not None:
            write_sheet(sheet, *_store_frames(stores.values(), sheet_clips))
    else:
        listing = options.listing(source, progress)
        reader = detect_reader(source) if options.reader == "auto" else options.reader
        found = inspect_listing(
            listing,
            reader,
            sample=sample,
            compare=sample is None if compare is None else compare,
            workers=Workers(jobs or available_cpus()),
            progress=progress,
        )
        if sheet is not None:
            good = [item for item in listing.samples if item.name not in found.unusable]
            write_sheet(sheet, *sample_frames(good, sheet_clips))
    if as_json:
        return json.dumps({"num_clips": found.num_clips, "reasons": found.reasons(), **asdict(found)}, indent=1)
    return "\n".join([*_lines(found), *([f"contact sheet: {sheet}"] if sheet is not None else [])])


def write_sheet(out: Path, frames_BTHW: np.ndarray, labels: Sequence[str]) -> None:
    """A PNG with a row a clip."""
    from edgelip.data.preview import contact_sheet, save_png

    save_png(out, contact_sheet(frames_BTHW, labels, every=1))


def sample_frames(samples: Sequence[Sample], num_clips: int) -> tuple[np.ndarray, list[str]]:
    """Frames and words for a sheet of samples."""
    from edgelip.data.sheets import frames_of_samples

    return frames_of_samples(samples, num_clips)


def _store_frames(folders: Iterable[Path], num_clips: int) -> tuple[np.ndarray, list[str]]:
    from edgelip.data.sheets import frames_of_store
    from edgelip.data.stores.store import Store

    return frames_of_store(Store.open(next(iter(folders))), num_clips)


def _lines(found: Inspection) -> list[str]:
    lines = [f"{found.source} ({found.reader}): {found.num_clips:,} clips of {len(found.words)} words"]
    lines += _splits(found)
    lines += [_length_line("frames a word", found.frames, "")] if found.frames else []
    lines += [_length_line("seconds a word", found.seconds, " s")] if found.seconds else []
    decoded = "" if found.num_decoded == found.num_files else f" (of {found.num_decoded:,} files decoded)"
    lines += [f"size{decoded}: {_listed(found.sizes)} px"] if found.sizes else []
    lines += [f"frames/s{decoded}: {_listed(found.rates)}"] if found.rates else []
    lines += _speakers(found)
    lines += _unusable(found, decoded)
    if found.flat:
        lines.append(f"nothing to see in {_clips(len(found.flat))} (all of one grey), such as {found.flat[0]}")
    lines += _doubles(found)
    return lines + [f"note: {note}" for note in found.notes]


def _splits(found: Inspection) -> list[str]:
    lines = [f"{'split':<7}{'clips':>10}{'words':>8}{'speakers':>10}  clips a word: least, median, most"]
    for split, total in found.split_counts().items():
        by_word = sorted((number[split], word) for word, number in found.counts.items())
        present = [number for number, _ in by_word if number]
        (least, rare), (most, common) = next(item for item in by_word if item[0]), by_word[-1]
        median = present[len(present) // 2]
        spread = f"{least:,} {rare}, {median:,}, {most:,} {common}"
        speakers = f"{found.speakers[split]:,}" if split in found.speakers else "-"
        lines.append(f"{split:<7}{total:>10,}{len(present):>8,}{speakers:>10}  {spread}")
        absent = [word for number, word in by_word if not number]
        if absent:
            some = ", ".join(absent[:_MOST_LISTED]) + (" ..." if len(absent) > _MOST_LISTED else "")
            lines.append(f"       no clip of {len(absent)} {'word' if len(absent) == 1 else 'words'}: {some}")
    return lines


def _length_line(what: str, lengths: Lengths, unit: str) -> str:
    return (
        f"{what}: least {lengths.least:g}{unit}, 5 % {lengths.p5:g}{unit}, median {lengths.median:g}{unit}, "
        f"95 % {lengths.p95:g}{unit}, most {lengths.most:g}{unit} ({lengths.num_known:,} known)"
    )


def _speakers(found: Inspection) -> list[str]:
    if not found.speakers:
        return ["speakers: not known, so nothing tells whether one is in training and test"]
    lines = []
    for shared in found.shared_speakers:
        some = ", ".join(shared.speakers[:_MOST_LISTED]) + (" ..." if len(shared.speakers) > _MOST_LISTED else "")
        who = "1 speaker is" if len(shared.speakers) == 1 else f"{len(shared.speakers)} speakers are"
        lines.append(f"{who} in {shared.splits[0]} and {shared.splits[1]}: {some}")
    if not lines:
        lines = ["speakers: none is in two splits"]
    if found.num_without_speaker:
        lines.append(f"speakers: not known of {_clips(found.num_without_speaker)}")
    return lines


def _unusable(found: Inspection, decoded: str) -> list[str]:
    if not found.unusable:
        return [f"unusable: none{decoded}"]
    lines = [f"unusable: {_clips(len(found.unusable))}{decoded}"]
    for reason, number in found.reasons().items():
        first = next(message for why, message in found.unusable.values() if why == reason)
        lines.append(f"{number:>7,} {reason}: {first}")
    return lines


def _doubles(found: Inspection) -> list[str]:
    lines = []
    if found.shared_files:
        lines.append(f"videos with words in more than one split: {found.shared_files:,}")
    if found.doubles is None:
        return [*lines, "duplicates: not looked for"]
    groups = {
        "in more than one split": found.doubles.across_splits,
        "under more than one word": found.doubles.across_words,
        "in one split": found.doubles.within,
    }
    told = [f"{len(names):,} {where}, such as {' = '.join(names[0][:2])}" for where, names in groups.items() if names]
    return lines + ([f"the same clip: {text}" for text in told] or ["duplicates: none"])


def _clips(number: int) -> str:
    return "1 clip" if number == 1 else f"{number:,} clips"


def _listed(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    items = [f"{name} ({number:,})" for name, number in counts.items()]
    return ", ".join(items[:_MOST_LISTED]) + (f" and {len(items) - _MOST_LISTED} more" if len(items) > 3 else "")
