"""Olive's own OnnxEvaluator on an ONNX file and our clips: one JSON line with what it reports.

    python olive_evaluator.py MODEL CLIPS.npy SECONDS THREADS RUN_MS

It takes a number of runs, no duration: as many as fill SECONDS at RUN_MS each. It times the first clip alone, over and
over. Its figures are those of numpy.percentile, which interpolates; its samples are not among its results.
"""

import json
import sys

import numpy as np
import olive
import torch
from olive.data.config import DataConfig
from olive.data.registry import Registry
from olive.evaluator.metric import Metric, MetricType
from olive.evaluator.olive_evaluator import OliveEvaluatorConfig
from olive.hardware import Device
from olive.model import ONNXModelHandler

FIGURES = ("p50", "p90", "p99", "min", "max", "avg")


class Clips(torch.utils.data.Dataset):
    """Network inputs under the name that the file gives them, each with a label that nobody reads."""

    def __init__(self, path: str, name: str) -> None:
        self._clips_N1THW = np.load(path, allow_pickle=False)
        self._name = name

    def __len__(self) -> int:
        return len(self._clips_N1THW)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        return {self._name: torch.from_numpy(self._clips_N1THW[index])}, 0


def main(model: str, clips: str, seconds: str, threads: str, run_ms: str) -> None:
    session = {"intra_op_num_threads": int(threads), "inter_op_num_threads": 1}
    handler = ONNXModelHandler(model, inference_settings={"session_options": session})
    data_set = Clips(clips, handler.io_config["input_names"][0])
    Registry.register_dataset("clips_in_memory")(lambda **_: data_set)
    num_runs = max(64, int(float(seconds) * 1000 / float(run_ms)))
    runs = {"warmup_num": max(10, num_runs // 4), "repeat_test_num": num_runs, "sleep_num": 0}
    metric = Metric(
        name="latency",
        type=MetricType.LATENCY,
        data_config=DataConfig(
            name="clips",
            load_dataset_config={"type": "clips_in_memory"},
            pre_process_data_config={"type": "skip_pre_process"},
            post_process_data_config={"type": "skip_post_process"},
            dataloader_config={"type": "default_dataloader", "params": {"batch_size": 1}},
        ),
        sub_types=[{"name": n, "priority": 1 if n == "p50" else -1, "metric_config": runs} for n in FIGURES],
    )
    config = OliveEvaluatorConfig(type="OnnxEvaluator", metrics=[metric])
    result = config.create_evaluator(handler).evaluate(
        handler, config.metrics, device=Device.CPU, execution_providers=["CPUExecutionProvider"]
    )
    print(json.dumps({"version": olive.__version__, "num_samples": num_runs, "result": result.model_dump()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
