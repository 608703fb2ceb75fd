"""ONNX Runtime's Python API in a plain loop, in a process without edgelip: one JSON line with every sample.

    python plain_onnxruntime.py MODEL CLIPS.npy SECONDS THREADS

CLIPS.npy: network inputs, float32 (N, 1, T, H, W); one clip a run, round and round. Timed: InferenceSession.run.
"""

import json
import sys
import time

import numpy as np
import onnxruntime


def main(model: str, clips: str, seconds: str, threads: str) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = int(threads), 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    clips_N1THW = np.load(clips, allow_pickle=False)
    inputs = [clips_N1THW[index : index + 1] for index in range(len(clips_N1THW))]
    warm = time.perf_counter() + 0.5
    while time.perf_counter() < warm:
        session.run(None, {name: inputs[0]})
    samples_ns: list[int] = []
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end or len(samples_ns) < 64:
        clip_11THW = inputs[len(samples_ns) % len(inputs)]
        begin = time.perf_counter_ns()
        session.run(None, {name: clip_11THW})
        samples_ns.append(time.perf_counter_ns() - begin)
    assert "edgelip" not in sys.modules
    print(json.dumps({"version": onnxruntime.__version__, "samples_ns": samples_ns}))


if __name__ == "__main__":
    main(*sys.argv[1:])
