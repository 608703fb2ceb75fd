"""What comes before the clip: decoding a video, and finding and cropping the mouth, timed in a process of their own.

As `edgelip predict VIDEO` does both: the decoder on one thread, frames brought to the rate of the clip, the finder
"haar". Run as `python -m edgelip.cli.bench_video VIDEO`, it prints the samples as JSON.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from edgelip.bench.isolate import PACKAGE_ROOT, THREAD_VARIABLES, error_of_exit
from edgelip.errors import ClipError, EdgelipError, UsageError
from edgelip.runtime.clip import ClipSpec, require_video

DECODE, MOUTH = "decode", "mouth"


def video_split(video: Path, spec: ClipSpec, *, repeats: int, threads: int = 1) -> dict[str, list[int]]:
    """Nanoseconds of "decode" and "mouth" for one clip's worth of frames, `repeats` samples each, in a fresh process.

    decode: from opening the file until its first `spec.frames` frames are gray arrays at `spec.fps`. mouth: the ROIs of
    these frames. One round before the first counts for nothing. threads: of OpenCV and numpy.
    Raises UsageError for a video that is too short, shows no face or cannot be read.
    """
    require_video(spec)
    if repeats < 1:
        raise UsageError(f"repeats is {repeats}; expected 1 or more, and 11 for a median.")
    arguments = [str(video.resolve()), "--frames", str(spec.frames), "--fps", str(spec.fps)]
    arguments += ["--repeats", str(repeats), "--threads", str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", "edgelip.cli.bench_video", *arguments],
        cwd=PACKAGE_ROOT,
        env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise error_of_exit(done.returncode, done.stderr, what=f"timing {video}")
    samples: dict[str, list[int]] = json.loads(done.stdout)
    return samples


def timed_split(video: Path, *, num_frames: int, fps: float, repeats: int, threads: int) -> dict[str, list[int]]:
    """The same in this process."""
    import cv2

    from edgelip.data.mouth.haar import HaarFinder

    cv2.setNumThreads(threads)
    finder = HaarFinder()
    samples: dict[str, list[int]] = {DECODE: [], MOUTH: []}
    for number in range(repeats + 1):
        start_ns = time.perf_counter_ns()
        frames_THW = _first_frames(video, num_frames, fps)
        decoded_ns = time.perf_counter_ns()
        finder.crop(frames_THW, source=str(video))
        end_ns = time.perf_counter_ns()
        if number > 0:  # the first reads the cascades and fills the caches
            samples[DECODE].append(decoded_ns - start_ns)
            samples[MOUTH].append(end_ns - decoded_ns)
    return samples


def _first_frames(video: Path, num_frames: int, fps: float) -> np.ndarray:
    """uint8 (T, H, W). Raises ClipError if the video has fewer."""
    from edgelip.data.resample import resample
    from edgelip.data.video import open_video

    most = 100 * num_frames  # a source of a higher rate has more frames than the clip
    with open_video(video, max_frames=most) as frames:
        at_fps = resample(frames, fps, source=str(video), max_frames=most)
        found = [frame.gray_HW for _, frame in islice(at_fps, num_frames)]
    if len(found) < num_frames:
        raise ClipError(
            f"{video} has {len(found)} frames at {fps:g} frames/s; a clip takes {num_frames}. Give a longer video."
        )
    return np.stack(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the samples; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edgelip.cli.bench_video", description="Times of a video's mouths.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=29)
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--repeats", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    try:
        samples = timed_split(
            options.video,
            num_frames=options.frames,
            fps=options.fps,
            repeats=options.repeats,
            threads=options.threads,
        )
    except EdgelipError as error:
        sys.stderr.write(f"edgelip: {' '.join(str(error).split())}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
