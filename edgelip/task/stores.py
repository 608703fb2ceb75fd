"""Prepared stores of a task's clips: kept in a cache, made again where a file has changed, twins told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgelip.cache import step_key
from edgelip.data.clip_maker import ClipMaker
from edgelip.data.mouth.maker import MOUTH_SOURCES
from edgelip.data.readers.duplicates import store_sources
from edgelip.data.readers.samples import Sample, Split, samples_sha256
from edgelip.data.stores.building import build_store, refuse_failures
from edgelip.data.stores.shards import Failure
from edgelip.data.stores.store import Store
from edgelip.data.stores.workers import Workers, available_cpus
from edgelip.errors import MissingError
from edgelip.progress import Progress

Unusable = Literal["refuse", "skip"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """The stores, and the samples of each split that gave no clip."""

    stores: Mapping[Split, Store]
    failures: Mapping[Split, tuple[Failure, ...]]


def prepare_stores(
    found: Mapping[Split, Sequence[Sample]],
    words: Sequence[str],
    maker: ClipMaker,
    *,
    cache: Path,
    unusable: Unusable,
    progress: Progress,
) -> Prepared:
    """The clips of every split, from the cache or made into it; a killed call is gone on with.

    unusable: "refuse" raises ClipError for samples that give no clip, "skip" counts them and says so.
    Raises MissingError where the cache cannot be written, ClipError for a split without a usable clip.
    """
    _require_writable(cache)
    stores: dict[Split, Store] = {}
    failures: dict[Split, tuple[Failure, ...]] = {}
    for split, samples in found.items():
        config = {"samples": samples_sha256(samples), "words": list(words), "clip": maker.spec.to_json()}
        key = step_key(f"clips-{split}", config | {"maker": dict(maker.identity())}, sources=MOUTH_SOURCES)
        built = build_store(
            cache / key,
            samples,
            maker,
            words=words,
            progress=progress,
            name=f"prepare {split}",
            workers=Workers(available_cpus()),
        )
        if unusable == "refuse":
            refuse_failures(built.failures, len(samples))
        elif built.failures:
            first = built.failures[0]
            progress.say(
                f"{split}: {len(built.failures)} of {len(samples)} clips are left out, such as {first.name}: "
                f"{first.message}"
            )
        stores[split], failures[split] = built.usable(), built.failures
    _warn_of_twins(stores, found, progress)
    return Prepared(stores, failures)


def _require_writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        usable = os.access(cache, os.W_OK)
    except OSError:
        usable = False
    if not usable:
        raise MissingError(f"the cache {cache} cannot be written. Give cache= another folder.")


def _warn_of_twins(stores: Mapping[Split, Store], found: Mapping[Split, Sequence[Sample]], progress: Progress) -> None:
    """Say so where validation or test clips are training clips too: their accuracy would mean nothing."""
    if "train" not in stores:
        return
    trained = set(store_sources(stores["train"]))
    for split, store in stores.items():
        paths = {sample.name: sample for sample in found[split]}
        sources = store_sources(store)
        twins = [name for name, source in zip(store.names, sources, strict=True) if source in trained]
        if split != "train" and twins:
            first = paths[twins[0]].path
            progress.say(f"{split}: {len(twins)} of {len(store)} clips are training clips too, such as {first}")
