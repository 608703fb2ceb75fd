"""How fast training clips are made: store to normalised batch, ours against the published way, and the epoch's feed.

    OMP_NUM_THREADS=1 python benchmarks/feeding.py             # one minute
    OMP_NUM_THREADS=1 python benchmarks/feeding.py --check     # exit 3 above the limit, 6 if the machine was too busy

Clips of 29 x 96 x 96 uint8 become float32 (B, 1, 29, 88, 88), on one core: random crop, flip, normalisation, time mask.
"Published" is our own code for what the published LRW pipeline does with each clip, in float64: divide by 255, crop,
flip, normalise, mask by the mean, then the batch is padded and turned into a tensor; its clips equal ours (tested).
It reads each clip from a compressed .npz of its own, as there; a row leaves that out. Ours reads a store of shards.
All are timed in turns, batch by batch, over random clips; files are in the page cache after a first round.

The feed of an epoch: clips are read by a thread while the batch before is worked on. Per row, the time between asking
for a batch and having it, as a share of the epoch: with work of a fixed length on another device (the program waits, as
it does for a GPU), with making the batches as the work, and with files that were dropped from the page cache.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Median, elapsed_ms, environment, interleave, markdown_table, median_interval, ratio, significant
from result_files import exit_code_of, machine_lines, save

from edgelip.data.stores.store import Store, StoreWriter
from edgelip.errors import GoalMissed, MeasurementError
from edgelip.runtime.clip import ClipSpec
from edgelip.train.augment import Augmentation, training_batch
from edgelip.train.batch import NetworkBatch
from edgelip.train.feed import EpochBatches, ReadAhead, StoredClips
from edgelip.train.mixing import drawn_mixing, mixed
from edgelip.train.pixels import Room

LIMIT_MS = 0.15  # a clip, store to batch, on one core
PUBLISHED_FILES, PUBLISHED = "published, a .npz a clip", "published, clips in memory"
OURS = "ours, store to batch"
RECIPE = Augmentation(flip=True, random_crop=True, time_mask_frames=15)
STEPS_MS = (2.0, 10.0)  # of the device that is fed, a batch


def published_clip(
    frames_THW: np.ndarray, spec: ClipSpec, *, top: int, left: int, flip: bool, mask: tuple[int, int]
) -> np.ndarray:
    """One training clip in float64, in the published order."""
    clip = frames_THW / 255.0
    clip = clip[:, top : top + spec.input_px, left : left + spec.input_px]
    if flip:
        clip = clip[:, :, ::-1]
    clip = (clip - spec.mean) / spec.std
    start, count = mask
    if count:
        clip[start : start + count] = clip.mean()
    return clip


def published_batch(clips: Sequence[np.ndarray], spec: ClipSpec, draws: random.Random) -> torch.Tensor:
    """Clips of one batch: drawn, made one by one, padded to the longest."""
    slack, made = spec.stored_px - spec.input_px, []
    for frames in clips:
        num_frames = len(frames)
        left, top = draws.randint(0, slack), draws.randint(0, slack)
        flip = draws.random() < 0.5
        before, count = draws.randrange(15), draws.randrange(15)
        start = draws.randrange(max(1, num_frames - before))
        mask = (start, count if before and before < num_frames else 0)
        made.append(published_clip(frames, spec, top=top, left=left, flip=flip, mask=mask))
    longest = max(len(clip) for clip in made)
    padded = np.zeros((len(made), longest, spec.input_px, spec.input_px))
    for place, clip in enumerate(made):
        padded[place, : len(clip)] = clip
    return torch.FloatTensor(padded).unsqueeze(1)


def write_clips(folder: Path, num_clips: int, spec: ClipSpec) -> tuple[Store, list[Path]]:
    """Clips with the texture of mouths (smooth, with noise), once as a store and once as a file each."""
    rng, side = np.random.default_rng(0), spec.stored_px
    wave = np.sin(np.linspace(0, 7, side))[:, None] * np.cos(np.linspace(0, 5, side))
    files, labels = [], np.zeros(num_clips, np.int64)
    words = np.tile([spec.frames // 3, 2 * spec.frames // 3], (num_clips, 1))
    with StoreWriter(folder / "store", num_clips, spec, words=("A", "B"), source_sha256="0" * 64) as writer:
        for number in range(num_clips):
            noise = rng.normal(0, 4, (spec.frames, side, side))
            clip = (110 + 40 * wave + noise + rng.uniform(-20, 20)).astype(np.uint8)
            one = slice(number, number + 1)
            writer.write(number, clip[None], labels_B=labels[one], speakers_B=labels[one], boundaries_B2=words[one])
            files.append(folder / f"{number}.npz")
            np.savez_compressed(files[-1], data=clip)
        return writer.finish(), files


def subjects_of(store: Store, files: Sequence[Path], batch_size: int) -> dict[str, Callable[[], object]]:
    """What is timed: each call makes one batch of random clips."""
    spec, clips, room, mixing_room = store.spec, StoredClips(store), Room(), Room()
    chosen, draws, python_draws = np.random.default_rng(1), torch.Generator().manual_seed(1), random.Random(1)

    def some() -> list[int]:
        return chosen.choice(len(store), batch_size, replace=False).tolist()

    def ours(augmentation: Augmentation) -> NetworkBatch:
        frames, _, boundaries = clips[some()]
        return training_batch(frames, boundaries, spec, augmentation, draws, room=room)

    def with_mixup() -> object:
        seen = ours(RECIPE)
        mixing = drawn_mixing(batch_size, seen.clips.shape[2:], draws, mixup_alpha=0.4)
        assert mixing is not None
        return mixed(seen, mixing, room=mixing_room)

    everything = Augmentation(
        flip=True, random_crop=True, time_mask_frames=15, shift_frames=2, brightness=0.2, variable_length=True
    )
    held = [np.asarray(store.frames[index]) for index in range(min(len(store), 4 * batch_size))]
    return {
        PUBLISHED_FILES: lambda: published_batch([np.load(files[i])["data"] for i in some()], spec, python_draws),
        PUBLISHED: lambda: published_batch([held[i % len(held)] for i in some()], spec, python_draws),
        OURS: lambda: ours(RECIPE),
        "of that, reading the store": lambda: clips[some()],
        "ours, validation": lambda: ours(Augmentation()),
        "ours, with shift, brightness and variable length too": lambda: ours(everything),
        "ours, with mixup": with_mixup,
    }


def epoch_wait(store: Store, batch_size: int, *, ahead: int, work: Callable[[Any], object]) -> tuple[float, float]:
    """Share of one epoch spent waiting for batches, and clips a second."""
    feed = ReadAhead(StoredClips(store), EpochBatches(len(store), batch_size, seed=0), ahead=ahead)
    start, waited, num_clips = time.perf_counter(), 0.0, 0
    batches = iter(feed)
    for _ in range(len(feed)):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        work(batch)
        num_clips += len(batch[1])
    total = time.perf_counter() - start
    return waited / total, num_clips / total


def drop_from_cache(folder: Path) -> None:
    """Ask the kernel to forget the files of a store, so that the next epoch reads the disk. Linux only."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def feeds(folder: Path, batch_size: int, rounds: int) -> list[dict[str, Any]]:
    """Epochs of each kind, with and without reading ahead."""
    spec, room, draws = Store.open(folder).spec, Room(), torch.Generator().manual_seed(2)

    def make(batch: Any) -> object:
        return training_batch(batch[0], batch[2], spec, RECIPE, draws, room=room)

    works: dict[str, Callable[[Any], object]] = {
        f"a device that takes {step:g} ms a batch": lambda batch, step=step: time.sleep(step / 1e3)  # type: ignore[misc]
        for step in STEPS_MS
    }
    works["making the batches"] = make
    kinds = [(name, work, False) for name, work in works.items()]
    if hasattr(os, "posix_fadvise"):
        kinds.append((f"files not in the page cache, {next(iter(works))}", next(iter(works.values())), True))
    rows = []
    for name, work, cold in kinds:
        for ahead in (0, 2):
            samples = []
            for _ in range(rounds):
                if cold:
                    drop_from_cache(folder)
                samples.append(epoch_wait(Store.open(folder), batch_size, ahead=ahead, work=work))
            shares, rates = ([sample[part] for sample in samples] for part in (0, 1))
            rows.append(
                {"work": name, "ahead": ahead, "waited": median_interval(shares), "rate": median_interval(rates)}
            )
    return rows


def speed_table(per_clip: Mapping[str, Median], times: Mapping[str, Median]) -> str:
    rows = []
    for name, median in per_clip.items():
        limit = f"<= {LIMIT_MS:g}" if name == OURS else ""
        verdict = ("pass" if median.value <= LIMIT_MS else "MISS") if limit else ""
        rows.append([name, median.text(), times[name].text() if name in times else "", limit, verdict])
    head = ["what", "ms a clip on one core (95 %)", f"times `{OURS}`", "limit", ""]
    return markdown_table(head, rows)


def feed_table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        [row["work"], str(row["ahead"]), f"{100 * row['waited'].value:.1f}", significant(row["rate"].value, 4)]
        for row in rows
    ]
    return markdown_table(["work on each batch", "batches ahead", "waited, % of the epoch", "clips/s"], cells)


def run(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=7, help="of each feed")
    parser.add_argument("--toy", action="store_true", help="tiny clips")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-feeding")
    parser.add_argument("--check", action="store_true", help="exit 3 if the limit is missed")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    machine = environment({"torch": torch.__version__, "numpy": np.__version__})  # the load before it is ours
    spec = ClipSpec(frames=6, roi_px=12, crop_px=8) if arguments.toy else ClipSpec()
    with tempfile.TemporaryDirectory(prefix="edgelip-feeding-") as temporary:
        store, files = write_clips(Path(temporary), arguments.clips, spec)
        subjects = subjects_of(store, files, arguments.batch)
        for subject in subjects.values():
            subject()
        timed = {name: lambda subject=subject: elapsed_ms(subject)[0] for name, subject in subjects.items()}  # type: ignore[misc]
        samples = interleave(timed, rounds=arguments.rounds)
        fed = feeds(store.folder, arguments.batch, arguments.epochs)
    per_clip = {name: median_interval([ms / arguments.batch for ms in each]) for name, each in samples.items()}
    times = {name: ratio(samples[name], samples[OURS]) for name in samples if name != OURS}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    command = shlex.join(["python", "benchmarks/feeding.py", *(sys.argv[1:] if argv is None else argv)])
    folder = arguments.out or Path(__file__).parent / "results" / f"{today}-feeding"
    tables = [speed_table(per_clip, times), feed_table(fed)]
    settings = f"Batches of {arguments.batch} out of {arguments.clips} clips."
    save(
        folder,
        "feeding",
        numbers={
            "date": today,
            "command": command,
            "environment": machine,
            "limit_ms": LIMIT_MS,
            "ms_per_clip": {name: median.to_json() for name, median in per_clip.items()},
            "times_ours": {name: median.to_json() for name, median in times.items()},
            "feeds": [{**row, "waited": row["waited"].to_json(), "rate": row["rate"].to_json()} for row in fed],
            "samples_ms_per_batch": samples,
        },
        sections=[
            f"# Training clips: store to batch, and the feed of an epoch, {today}",
            f"{settings} One core.",
            *tables,
            f"`{command}`",
            machine_lines(machine),
        ],
    )
    print("\n\n".join(tables))
    if arguments.check and per_clip[OURS].value > LIMIT_MS:
        load, num_cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
        if load > num_cpus:
            raise MeasurementError(f"{load:.1f} programs wanted {num_cpus} processors. Repeat it when they are free.")
        raise GoalMissed(f"a clip takes {per_clip[OURS].text()} ms; the limit is {LIMIT_MS:g}. See {folder}.")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="feeding")


if __name__ == "__main__":
    sys.exit(main())
