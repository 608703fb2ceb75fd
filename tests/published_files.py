"""Files in the published layouts: whole ones with made-up values, and a tiny DC-TCN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LRW = tuple(f"W{number:03d}" for number in range(500))
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
GROUP = {"lr": 3e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False}


def layout(golden: Path, name: str) -> dict[str, Tensor]:
    """Tensors in the names, shapes and order of a published model; element i of tensor k is k + i."""
    keys = json.loads((golden / name / "keys.json").read_text())
    count = torch.arange(max(math.prod(shape) for shape, _ in keys.values()) + len(keys), dtype=torch.float32)
    tensors: dict[str, Tensor] = {}
    for number, (key, (shape, kind)) in enumerate(keys.items()):
        first = next((k for k in tensors if k == alias_of(key)), None)
        if first is not None:
            tensors[key] = tensors[first]
        elif kind == "int64":
            tensors[key] = torch.tensor(number)
        else:
            tensors[key] = count[number : number + math.prod(shape)].view(shape)
    return tensors


def alias_of(key: str) -> str:
    """The first spelling of a tensor that the single-branch TCN stores twice; other keys as they are."""
    if ".tcn_trunk.network." not in key or ".net." not in key:
        return key
    start, _, rest = key.partition(".net.")
    place, _, kind = rest.partition(".")
    names = ("conv1", "batchnorm1", "", "relu1", "", "conv2", "batchnorm2", "", "relu2")
    return f"{start}.{names[int(place)]}.{kind}"


def adam(tensors: Mapping[str, Tensor], *, step: float = 7) -> dict[str, Any]:
    """State whose moments equal the parameter they belong to, numbered as torch numbers the published model's."""
    parameters = [tensor for key, tensor in tensors.items() if not key.endswith(BUFFERS) and alias_of(key) == key]
    state = {
        number: {"step": torch.tensor(step), "exp_avg": tensor, "exp_avg_sq": tensor.abs()}
        for number, tensor in enumerate(parameters)
    }
    return {"state": state, "param_groups": [{**GROUP, "params": list(range(len(parameters)))}]}


def write(path: Path, tensors: Mapping[str, Tensor], *, optimiser: Any = None, best: Any = 0.865) -> Path:
    """A .pth of vsr_phm or mpc001."""
    torch.save(
        {
            "epoch_idx": 80,
            "model_state_dict": dict(tensors),
            "optimizer_state_dict": {} if optimiser is None else optimiser,
            "best_prec": best,
        },
        path,
    )
    return path


def write_lightning(path: Path, tensors: Mapping[str, Tensor], **more: Any) -> Path:
    """A .ckpt of EfLipReading."""
    torch.save({"epoch": 9, "state_dict": {f"model.{key}": value for key, value in tensors.items()}, **more}, path)
    return path


def tiny_dctcn(*, n: int | None = None, prelu: bool = True, num_words: int = 3, dense_trunk: bool = False) -> Any:
    """A complete DC-TCN with ResNet-18 in published names: stages 4, 4, 4, 8; blocks of 2 and 1 layers."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) - 0.4

    def weight(key: str, out: int, inputs: int, *kernel: int, linear: bool = False, phm: bool = True) -> None:
        if n is None or not phm:
            tensors[f"{key}.weight"] = draw(out, inputs, *kernel)
        else:
            tensors[f"{key}.A"] = draw(n, n, n)
            tensors[f"{key}.{'S' if linear else 'F'}"] = draw(n, out // n, inputs // n, *kernel)

    def norm(key: str, width: int) -> None:
        for kind in ("weight", "bias", "running_mean"):
            tensors[f"{key}.{kind}"] = draw(width)
        tensors[f"{key}.running_var"] = draw(width) + 1
        tensors[f"{key}.num_batches_tracked"] = torch.tensor(5)

    def act(key: str, width: int) -> None:
        if prelu:
            tensors[f"{key}.weight"] = draw(width)

    inputs = 4
    for stage, width in enumerate((4, 4, 4, 8), start=1):
        for half in (0, 1):
            block = f"trunk.layer{stage}.{half}"
            for i in (1, 2):
                weight(f"{block}.conv{i}", width, inputs if i == 1 else width, 3, 3, phm=not dense_trunk)
                norm(f"{block}.bn{i}", width)
                act(f"{block}.relu{i}", width)
            if stage > 1 and half == 0:
                weight(f"{block}.downsample.0", width, inputs, 1, 1, phm=not dense_trunk)
                norm(f"{block}.downsample.1", width)
            inputs = width
    weight("frontend3D.0", 4, 1, 5, 7, 7, phm=False)
    norm("frontend3D.1", 4)
    act("frontend3D.2", 4)
    features = "tcn.tcn_trunk.features"
    for block, layers in enumerate((2, 1), start=1):
        weight(f"{features}.transition{block - 1}.conv", 32, inputs, 1)
        norm(f"{features}.transition{block - 1}.norm", 32)
        if prelu or block == 1:
            tensors[f"{features}.transition{block - 1}.prelu.weight"] = draw(32)
        inputs = 32
        for number in range(1, layers + 1):
            layer = f"{features}.denseblock{block}.denselayer{number}"
            for cbcr, width in (("cbcr0", inputs), ("cbcr1", 8)):
                for k, kernel in enumerate((3, 5)):
                    if cbcr == "cbcr0":
                        weight(f"{layer}.cbcr0_se_{k}.fc.0", width // 16, width, linear=True)
                        weight(f"{layer}.cbcr0_se_{k}.fc.2", width, width // 16, linear=True)
                    tensors[f"{layer}.{cbcr}_{k}.net.0.bias"] = draw(4)
                    weight(f"{layer}.{cbcr}_{k}.net.0", 4, width, kernel)
                    norm(f"{layer}.{cbcr}_{k}.net.1", 4)
                    act(f"{layer}.{cbcr}_{k}.net.3", 4)
            tensors[f"{layer}.downsample.bias"] = draw(8)
            weight(f"{layer}.downsample", 8, inputs, 1)
            act(f"{layer}.relu_final", 8)
            inputs += 8
    norm(f"{features}.norm5", inputs)
    tensors["tcn.tcn_output.weight"], tensors["tcn.tcn_output.bias"] = draw(num_words, inputs), draw(num_words)
    return tensors
