"""Preparation of a data set: killed at half and gone on with, by one worker and two, on a Ray cluster; and the store.

    python benchmarks/preparation.py --check      # some minutes on two quiet cores; exit 3 if a store differs
    python benchmarks/preparation.py --clips 300 --rounds 1 --out runs/toy

Procedural clips are encoded to H.264 of 96 x 96 px in a tree as LRW's; every preparation is `edgelip data prepare` in a
process of its own, start to end, the workers' start included. One is killed (SIGKILL, workers too) when half of its
shards are there. Rounds of one worker and two take turns; files are in the page cache. Opening is that of an index of
500,000 clips over files of the right size that hold nothing; a batch is 32 clips drawn at random from the small store.
Medians over rounds; intervals are 95 % and assume no distribution.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
from interleaved import Median, elapsed_ms, environment, interleave, markdown_table, median_interval
from result_files import exit_code_of, machine_lines, save

from edgelip.data.stores import shards
from edgelip.data.stores.npy_files import npy_bytes, npy_header
from edgelip.data.stores.store import Store
from edgelip.data.stores.store_index import content_sha256
from edgelip.data.synthetic.clips import SyntheticSpec, render_clips
from edgelip.errors import GoalMissed, MeasurementError
from edgelip.runtime.clip import ClipSpec

WORDS = ("ABOUT", "BENEFIT", "CHANCE", "DURING", "EVERY")
ANNOTATION = "Disk reference: 0\nChannel: none\nProgram start: 0\nClip start: 0\nDuration: {:.2f} seconds\n"
LARGE = 500_000
BATCH = 32
CHUNK = 50


def write_tree(root: Path, num_clips: int) -> None:
    """WORD/train/WORD_00001.mp4 and its annotation."""
    spec = SyntheticSpec(words=WORDS, seed=6)
    numbers = dict.fromkeys(WORDS, 0)
    for start in range(0, num_clips, CHUNK):
        batch = render_clips(spec, "train", range(start, min(num_clips, start + CHUNK)))
        rows = zip(batch.frames_BTHW.numpy(), batch.labels_B.tolist(), batch.boundary_B2.tolist(), strict=True)
        for frames_THW, label, (first, last) in rows:
            word = WORDS[label]
            numbers[word] += 1
            stem = root / word / "train" / f"{word}_{numbers[word]:05d}"
            stem.parent.mkdir(parents=True, exist_ok=True)
            _write_mp4(stem.with_suffix(".mp4"), frames_THW)
            stem.with_suffix(".txt").write_text(ANNOTATION.format((last - first + 1) / 25))


def _write_mp4(path: Path, frames_THW: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "20"})
        stream.height, stream.width = frames_THW.shape[1:]
        stream.pix_fmt = "yuv420p"
        for gray_HW in frames_THW:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray_HW, format="gray")))
        container.mux(stream.encode())


def prepare(tree: Path, out: Path, *options: str) -> str:
    """sha256 of the store; raises MeasurementError with the last line if it fails."""
    done = subprocess.run([*_command(tree, out), *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasurementError(f"preparation ended with {done.returncode}: {(done.stderr.splitlines() or ['?'])[-1]}")
    return str(json.loads(done.stdout)["splits"]["train"]["sha256"])


def kill_at_half(tree: Path, out: Path, num_shards: int) -> int:
    """Start a preparation by two workers, kill it and them when half of its shards are there; how many there were."""
    running = subprocess.Popen(
        [*_command(tree, out), "--jobs", "2"], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while running.poll() is None and _num_made(out) < num_shards // 2:
        time.sleep(0.01)
    if running.poll() is not None:
        raise MeasurementError("the preparation ended before it could be killed. Take more --clips.")
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    return _num_made(out)


def _num_made(out: Path) -> int:
    return len(list(out.glob("train/shard-*.json")))


def _command(tree: Path, out: Path) -> list[str]:
    options = ["--reader", "lrw", "--mouth", "none", "--json"]
    return [sys.executable, "-m", "edgelip", "data", "prepare", str(tree), "--out", str(out), *options]


def write_large_index(folder: Path, num_clips: int) -> None:
    """A store of so many clips of 29 x 96 x 96: index and names as they would be, clips of files without content."""
    spec = ClipSpec()
    per_shard = shards.clips_per_shard(spec)
    rows = np.zeros(num_clips, shards.ROW)
    rows["label"], rows["last"] = np.arange(num_clips) % 500, 28
    folder.mkdir(parents=True)
    sizes = [min(per_shard, num_clips - start) for start in range(0, num_clips, per_shard)]
    for number, size in enumerate(sizes):
        path = folder / shards.shard_name(number)
        path.write_bytes(npy_header((size, *spec.stored_shape), spec.stored_dtype))
        os.truncate(path, npy_bytes((size, *spec.stored_shape), spec.stored_dtype))
    (folder / shards.ROWS).write_bytes(npy_header(rows.shape, shards.ROW) + rows.tobytes())
    names = "".join(f"ABSOLUTELY/train/ABSOLUTELY_{number:06d}.mp4\n" for number in range(num_clips))
    (folder / shards.NAMES).write_text(names)
    index: dict[str, Any] = {
        "version": shards.VERSION,
        "spec": spec.to_json(),
        "words": [f"WORD{number}" for number in range(500)],
        "speaker_names": [""],
        "source_sha256": "0" * 64,
        "num_clips": num_clips,
        "shards": [[number, size, "0" * 64] for number, size in enumerate(sizes)],
        "rows_sha256": "0" * 64,
        "names_sha256": "0" * 64,
    }
    (folder / shards.INDEX).write_text(json.dumps({**index, "sha256": content_sha256(index)}))


def reading(store: Store, large: Path, rounds: int) -> dict[str, Median]:
    """Milliseconds to open the large store, to read its names, and per clip of a random batch."""
    out = np.empty((BATCH, *store.spec.stored_shape), store.spec.stored_dtype)
    draws = np.random.default_rng(0)

    def batch() -> float:
        return elapsed_ms(lambda: store.frames.take_into(draws.integers(0, len(store), BATCH), out))[0] / BATCH

    subjects = {
        "open 500,000 clips, ms": lambda: elapsed_ms(lambda: Store.open(large))[0],
        "names of 500,000 clips, ms": lambda: elapsed_ms(lambda: Store.open(large).names)[0],
        "random batch of 32, ms a clip": batch,
    }
    for run in subjects.values():
        run()
    found = interleave(subjects, rounds=max(5 * rounds, 15))
    return {name: median_interval(samples) for name, samples in found.items()}


def run(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="preparations by one worker and by two")
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 3 if a store differs")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/DATE-preparation")
    arguments = parser.parse_args(argv)
    num_shards = -(-arguments.clips // shards.clips_per_shard(ClipSpec()))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tree = work / "tree"
        write_tree(tree, arguments.clips)
        _say(f"{arguments.clips} clips written, {num_shards} shards")
        hashes = {"two workers": prepare(tree, work / "whole", "--jobs", "2")}
        left = kill_at_half(tree, work / "killed", num_shards)
        there = {path.name: path.stat().st_mtime_ns for path in (work / "killed" / "train").glob("shard-*.npy")}
        hashes["killed at half, gone on with"] = prepare(tree, work / "killed", "--jobs", "2")
        kept = sum((work / "killed" / "train" / name).stat().st_mtime_ns == at for name, at in there.items())
        _say(f"killed with {left} of {num_shards} shards made; {kept} of them kept")
        seconds: dict[str, list[float]] = {"one worker": [], "two workers": []}
        if not arguments.without_ray:
            started = time.perf_counter()
            hashes["Ray cluster of two workers"] = prepare(tree, work / "ray", "--cluster", "local", "--jobs", "2")
            seconds["Ray cluster of two workers"] = [time.perf_counter() - started]
        for number in range(arguments.rounds):
            for name, jobs in (("one worker", 1), ("two workers", 2)):
                started = time.perf_counter()
                found = prepare(tree, work / f"round{number}-{jobs}", "--jobs", str(jobs))
                seconds[name].append(time.perf_counter() - started)
                if hashes.setdefault(name, found) != found:
                    hashes[f"{name}, round {number}"] = found
                _say(f"{name}: {arguments.clips / seconds[name][-1]:.0f} clips/s")
        write_large_index(work / "large", LARGE)
        read = reading(Store.open(work / "whole" / "train"), work / "large", arguments.rounds)
    rates = {name: median_interval([arguments.clips / each for each in found]) for name, found in seconds.items()}
    same = len(set(hashes.values())) == 1 and kept >= left
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    command = shlex.join(["python", "benchmarks/preparation.py", *(sys.argv[1:] if argv is None else argv)])
    machine = environment({"av": av.__version__, "numpy": np.__version__})
    about = {"date": today, "command": command, "clips": arguments.clips, "rounds": arguments.rounds}
    figures = {name: asdict(median) for name, median in {**rates, **read}.items()}
    numbers = {**about, "environment": machine, "sha256": hashes, "shards": num_shards, "shards_at_kill": left}
    rows = [[name, hashes[name][:16], rates[name].text() if name in rates else ""] for name in hashes]
    verdict = "All stores are the same" if same else "THE STORES DIFFER"
    text = [
        f"# Preparation of {arguments.clips:,} clips, {today}",
        markdown_table(["preparation", "sha256 of the store", "clips/s (95 %)"], rows),
        f"{verdict}. The killed one had made {left} of {num_shards} shards; {kept} of them were kept.",
        markdown_table(["reading", "median (95 %)"], [[name, median.text()] for name, median in read.items()]),
        f"`{command}`",
        machine_lines(machine),
    ]
    out = arguments.out or Path(__file__).parent / "results" / f"{today}-preparation"
    save(out, "preparation", numbers={**numbers, "kept": kept, "figures": figures, "samples_s": seconds}, sections=text)
    print(*text[:4], sep="\n\n")
    if arguments.check and not same:
        raise GoalMissed(f"the stores differ ({hashes}), or finished shards were made again ({kept} of {left} kept).")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code_of(run, argv, name="preparation")


if __name__ == "__main__":
    sys.exit(main())
