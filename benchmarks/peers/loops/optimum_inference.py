"""optimum-benchmark's inference scenario on a folder around an ONNX file: one JSON line with its report.

    python optimum_inference.py MODEL FOLDER SECONDS THREADS T H W

It takes a Transformers model and makes random inputs by task. The nearest task to frames of a mouth is image
classification, the frames as channels; the file is laid beside the configuration of a network of that task.
"""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, InlineConfig, ORTConfig

CONFIGURATION = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}


def main(model: str, folder: str, seconds: str, threads: str, frames: str, height: str, width: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(model, Path(folder) / "model.onnx")
    (Path(folder) / "config.json").write_text(json.dumps({**CONFIGURATION, "num_channels": int(frames)}))
    shapes = {"batch_size": 1, "num_channels": int(frames), "height": int(height), "width": int(width)}
    report = Benchmark.launch(
        BenchmarkConfig(
            name="clips",
            scenario=InferenceConfig(duration=int(float(seconds)) or 1, iterations=64, input_shapes=shapes),
            launcher=InlineConfig(),
            backend=ORTConfig(
                model=folder,
                task="image-classification",
                library="transformers",
                model_type="resnet",
                device="cpu",
                export=False,
                session_options={"intra_op_num_threads": int(threads), "inter_op_num_threads": 1},
            ),
        )
    )
    print(json.dumps({"version": version("optimum-benchmark"), "report": report.to_dict()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
