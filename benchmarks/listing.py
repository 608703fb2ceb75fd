"""How long it takes to list an LRW tree: names from the folders, durations from the annotations, no video opened.

    python benchmarks/listing.py --clips 50000

Writes an empty tree of that many clips, and as many annotations, to a temporary folder and reads it `--rounds` times.
The files are in the page cache: a disk that has not seen them yet is slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from edgelip.data.readers.lrw import read_lrw

ANNOTATION = "Disk reference: 1\nChannel: 3\nProgram start: 2013\nClip start: 121.86 seconds\nDuration: 0.52 seconds\n"
CLIPS_A_FOLDER = 1000


def write_tree(root: Path, num_clips: int) -> None:
    for number in range(num_clips):
        place, at = divmod(number, CLIPS_A_FOLDER)
        word, split = f"WORD{place // 3:03d}", ("train", "val", "test")[place % 3]
        folder = root / word / split
        if at == 0:
            folder.mkdir(parents=True)
        (folder / f"{word}_{at:05d}.mp4").touch()
        (folder / f"{word}_{at:05d}.txt").write_text(ANNOTATION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times_s: dict[str, list[float]] = {"none": [], "beside": []}
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), options.clips)
        for _ in range(options.rounds):
            for annotations, samples_s in times_s.items():
                start_ns = time.perf_counter_ns()
                found = len(read_lrw(Path(folder), annotations=annotations).samples)  # type: ignore[arg-type]
                samples_s.append((time.perf_counter_ns() - start_ns) / 1e9)
                assert found == options.clips
    result = {
        f"us_per_clip_annotations_{kind}": round(1e6 * statistics.median(samples_s) / options.clips, 2)
        for kind, samples_s in times_s.items()
    }
    print(json.dumps({"clips": options.clips, "rounds": options.rounds, **result, "samples_s": times_s}, indent=1))


if __name__ == "__main__":
    main()
