"""The network of a checkpoint in torch, eager or compiled, in a plain loop: one JSON line with every sample.

    python torch_forward.py eager|compile CHECKPOINT CLIPS.npy LOGITS.npy SECONDS THREADS

LOGITS.npy: what the deployed file gives for CLIPS.npy: the network must give the same, to 1e-3.
The first run, which compiles, is reported apart.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at torch's import: spinning threads stall on shared cores

import numpy as np
import torch

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.models.checkpoint import load_checkpoint


def main(kind: str, checkpoint: str, clips: str, logits: str, seconds: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    network = model_from_checkpoint(load_checkpoint(Path(checkpoint))).eval()
    clips_N1THW = torch.from_numpy(np.load(clips, allow_pickle=False))
    inputs = [clips_N1THW[index : index + 1] for index in range(len(clips_N1THW))]
    run = torch.compile(network) if kind == "compile" else network
    with torch.inference_mode():
        begin = time.perf_counter_ns()
        run(inputs[0])
        first_ms = (time.perf_counter_ns() - begin) / 1e6
        computed_NV = np.concatenate([run(clip).numpy() for clip in inputs])
        error = float(np.abs(computed_NV - np.load(logits, allow_pickle=False)).max())
        if error > 1e-3:
            sys.exit(f"{checkpoint} gives other logits than the file, by {error:.3g}; expected 1e-3 at most.")
        warm = time.perf_counter() + 0.5
        while time.perf_counter() < warm:
            run(inputs[0])
        samples_ns: list[int] = []
        end = time.perf_counter() + float(seconds)
        while time.perf_counter() < end or len(samples_ns) < 64:
            clip_11THW = inputs[len(samples_ns) % len(inputs)]
            begin = time.perf_counter_ns()
            run(clip_11THW)
            samples_ns.append(time.perf_counter_ns() - begin)
    print(json.dumps({"version": torch.__version__, "samples_ns": samples_ns, "first_ms": first_ms, "error": error}))


if __name__ == "__main__":
    main(*sys.argv[1:])
