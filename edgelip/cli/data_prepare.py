"""`edgelip data prepare`: any data set to stores that `edgelip train` reads."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgelip.cli.mouth_options import MouthOptions
from edgelip.cli.prepare_options import ClipOptions, clip_maker
from edgelip.cli.source_options import SourceOptions
from edgelip.data.plan import Plan
from edgelip.data.preparation import FAILURES_FILE, Prepared, plan_of, prepare
from edgelip.data.readers.samples import SPLITS, Split
from edgelip.data.readers.source import detect_reader
from edgelip.data.stores.store_folder import gigabytes
from edgelip.data.stores.workers import LOCAL_CLUSTER, Workers, available_cpus
from edgelip.errors import UsageError
from edgelip.progress import Progress

if TYPE_CHECKING:
    from edgelip.data.readers.samples import Listing

_Options = TypeVar("_Options", "SourceOptions", "PrepareOptions", "MouthOptions")
_NUM_NAMED = 2  # clips that the table names of each reason


@dataclass(frozen=True)
class PrepareOptions:
    """What is asked for beside the data set and its reader. scale_to: clips of a larger set, for the plan alone."""

    out: Path
    clip: ClipOptions
    mouth: MouthOptions
    jobs: int | None = None
    cluster: str | None = None
    dry_run: bool = False
    scale_to: int | None = None

    def __post_init__(self) -> None:
        if self.scale_to is not None and not self.dry_run:
            raise UsageError("--clips scales the plan of --dry-run. Add --dry-run or leave it out.")

    @property
    def workers(self) -> Workers:
        """One a processor here unless told otherwise; all of a cluster that runs already."""
        if self.jobs is not None:
            return Workers(self.jobs, self.cluster)
        return Workers(available_cpus() if self.cluster in (None, LOCAL_CLUSTER) else 0, self.cluster)


@dataclass(frozen=True)
class Outcome:
    """text: for stdout. prepared: None of a dry run."""

    text: str
    prepared: Prepared | None


def prepare_source(source: Path, reading: SourceOptions, options: PrepareOptions, *, as_json: bool) -> Outcome:
    """List, plan, prepare. Raises UsageError for options that do not fit, and what reading and building raise."""
    progress = Progress()
    if options.cluster is not None:  # workers stand elsewhere
        source, reading = source.absolute(), _absolute(reading)
        options = replace(_absolute(options), mouth=_absolute(options.mouth))
    listing = reading.listing(source, progress)
    if not _is_manifest(source, reading):
        _refuse_inside(options.out, listing)
    for note in listing.notes:
        progress.say(note)
    for note in _absent([split for split in SPLITS if listing.of(split)]):
        progress.say(note)
    maker = clip_maker(options.mouth, options.clip.spec(listing), listing, progress)
    plan = plan_of(listing, maker, options.out, options.workers)
    if options.dry_run:
        text = json.dumps(plan.to_json(scale_to=options.scale_to)) if as_json else plan.text(scale_to=options.scale_to)
        return Outcome(text, None)
    progress.say(plan.text())
    prepared = prepare(listing, maker, options.out, plan=plan, workers=options.workers, progress=progress)
    return Outcome(json.dumps(_to_json(prepared, plan)) if as_json else _table(prepared, plan), prepared)


def _absolute(options: _Options) -> _Options:
    """The same options with every path from the root of the file system."""
    named = {field.name: getattr(options, field.name) for field in fields(options)}
    changed: dict[str, Any] = {name: path.absolute() for name, path in named.items() if isinstance(path, Path)}
    return replace(options, **changed)


def _is_manifest(source: Path, reading: SourceOptions) -> bool:
    return (detect_reader(source) if reading.reader == "auto" else reading.reader) == "csv"


def _refuse_inside(out: Path, listing: Listing) -> None:
    root, place = listing.root.resolve(), out.resolve()
    if place == root or (root.is_dir() and root in place.parents):
        raise UsageError(f"--out {out} lies in the data set {listing.root}, which is read. Choose a folder beside it.")


def _table(prepared: Prepared, plan: Plan) -> str:
    lines = [f"{'split':<6} {'found':>9} {'usable':>9} {'unusable':>9} {'size':>8}  store"]
    for split, built in prepared.built.items():
        num = 0 if built.store is None else len(built.store)
        found, sha256 = prepared.found[split], "none" if built.store is None else built.store.sha256[:16]
        size = gigabytes(num * plan.clip_bytes)
        lines.append(f"{split:<6} {found:>9,} {num:>9,} {found - num:>9,} {size:>8}  {sha256}")
    if prepared.unlisted:
        number = len(prepared.unlisted)
        lines.append(f"{'none':<6} {number:>9,} {0:>9} {number:>9,} {'':>8}  left out when listed")
    changed = sum(built.num_changed for built in prepared.built.values())
    if changed:
        lines.append(f"{changed} clips had changed since they were prepared, and were prepared again")
    for reason, number in prepared.reasons.most_common():
        names = [failure.name for _, failure in prepared.failures if failure.reason == reason]
        more = ", ..." if number > _NUM_NAMED else ""
        lines.append(f"unusable, {reason:<12} {number:>6,}  {', '.join(names[:_NUM_NAMED])}{more}")
    for note, number in sorted(prepared.notes.items(), key=lambda pair: (-pair[1], pair[0])):
        lines.append(f"note, {number:>6,} {'clip' if number == 1 else 'clips'}: {note}")
    lines += _absent(prepared.found)
    lines.append(f"{len(prepared.words)} words in {prepared.folder}; {FAILURES_FILE} lists what is unusable and why")
    return "\n".join(lines)


def _absent(splits: Collection[Split]) -> list[str]:
    """A line on the splits without which `edgelip train` does not start, if there are such."""
    absent = [split for split in SPLITS if split not in splits]
    if not absent:
        return []
    shares = " ".join(f"--{split}-share 0.1" for split in absent if split != "train")
    remedy = f": {shares} holds clips out (folders, signs)" if shares else ""
    return [f"no clips for {' and '.join(absent)}, which `edgelip train` needs{remedy}"]


def _to_json(prepared: Prepared, plan: Plan) -> dict[str, object]:
    splits = {}
    for split, built in prepared.built.items():
        num = 0 if built.store is None else len(built.store)
        splits[split] = {
            "found": prepared.found[split],
            "usable": num,
            "bytes": num * plan.clip_bytes,
            "sha256": None if built.store is None else built.store.sha256,
            "made_again": built.num_changed,
        }
    return {
        "folder": str(prepared.folder),
        "num_words": len(prepared.words),
        "splits": splits,
        "in_no_split": len(prepared.unlisted),
        "reasons": dict(prepared.reasons),
        "notes": dict(prepared.notes),
        "plan": plan.to_json(),
    }
