"""The ways in which gpu.py runs a network: as published, and ours in several forms. Needs torch, onnx, onnxruntime.

A variant's `build` takes the network (on the CPU, eval mode) and tensors on the device, and returns a step: a function
that launches one inference, or one training step, and returns logits, or the loss, on the device.
"""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from as_published import as_published_forward
from torch import Tensor, nn
from torch.nn import functional

from edgelip.errors import MeasurementError, MissingError
from edgelip.models.blocks import fold_norms
from edgelip.models.hypercomplex import densified
from edgelip.models.transformer import Attention
from edgelip.registry import require

Step = Callable[[], Tensor]
LEARNING_RATE = 1e-5  # small, so that losses of float32 and bfloat16 stay comparable over some steps
TF32 = {"off": (False, False), "default": (False, True), "on": (True, True)}  # matrix products, convolutions


@dataclass(frozen=True)
class Variant:
    """tf32: a key of TF32, set while the variant runs; graph: its step is captured as a CUDA graph."""

    what: str
    build: Callable[..., Step]
    tf32: str = "default"
    graph: bool = False
    only_cuda: bool = False


def use_tf32(policy: str) -> None:
    """Set what float32 arithmetic may be rounded to TF32; "default" is what PyTorch starts with."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = TF32[policy]


def captured(step: Step) -> Step:
    """The step as a CUDA graph; it must have run before. The returned tensor is overwritten by the next replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def served(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Dense, norms folded, without gradients."""
    network = densified(network).eval()
    fold_norms(network)
    network = network.requires_grad_(False).to(device, dtype)
    return channels_last(network) if dtype == torch.bfloat16 else network


def channels_last(network: nn.Module) -> nn.Module:
    """Lay dense 2-D convolutions out for tensor cores, in place; PHM layers follow the activations they are given."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _inference(network: nn.Module, clips: Tensor, dtype: torch.dtype = torch.float32) -> Step:
    @torch.no_grad()
    def step() -> Tensor:
        logits: Tensor = network(clips.to(dtype))
        return logits.float()

    return step


def published_inference(network: nn.Module, clips: Tensor) -> Step:
    return _inference(as_published_forward(network).to(clips.device), clips)


def strict_inference(network: nn.Module, clips: Tensor) -> Step:
    """PHM layers as they are: what the other forms are compared with."""
    return _inference(deepcopy(network).to(clips.device), clips)


def float_inference(network: nn.Module, clips: Tensor) -> Step:
    return _inference(served(network, clips.device, torch.float32), clips)


def bfloat_inference(network: nn.Module, clips: Tensor) -> Step:
    return _inference(served(network, clips.device, torch.bfloat16), clips, torch.bfloat16)


def compiled_inference(network: nn.Module, clips: Tensor) -> Step:
    compiled = torch.compile(served(network, clips.device, torch.bfloat16), mode="reduce-overhead", dynamic=False)
    return _inference(compiled, clips, torch.bfloat16)  # type: ignore[arg-type]


def onnxruntime_inference(network: nn.Module, clips: Tensor) -> Step:
    """Dense float32 on the provider of the device; every convolution and product must run there.

    Raises MissingError without the provider, MeasurementError if work falls back to another.
    """
    onnxruntime: Any = require("onnxruntime", extra="ort")
    provider = "CUDAExecutionProvider" if clips.is_cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise MissingError(f"onnxruntime {onnxruntime.__version__} has no {provider}; install onnxruntime-gpu.")
    if clips.is_cuda:
        onnxruntime.preload_dlls()  # those that PyTorch brought
    content = _onnx_bytes(served(network, torch.device("cpu"), torch.float32), clips.cpu())
    feed = {"clips": clips.cpu().numpy()}
    away = _kernels_elsewhere(onnxruntime, content, feed, provider)
    if away:
        raise MeasurementError(
            f"ONNX Runtime runs {', '.join(away)} beside {provider}; expected it to run all products."
        )
    session = onnxruntime.InferenceSession(content, providers=[provider])
    logits = torch.empty(len(clips), network.head.out_features, device=clips.device)  # type: ignore[union-attr, arg-type]
    binding = session.io_binding()
    for bind, name, tensor in ((binding.bind_input, "clips", clips), (binding.bind_output, "logits", logits)):
        bind(name, clips.device.type, 0, np.float32, list(tensor.shape), tensor.data_ptr())

    def step() -> Tensor:
        if clips.is_cuda:  # ONNX Runtime's stream does not wait for PyTorch's
            torch.cuda.current_stream().synchronize()
        session.run_with_iobinding(binding)
        return logits

    return step


def _onnx_bytes(network: nn.Module, clips: Tensor) -> bytes:
    """By the exporter that needs no onnxscript."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {"input_names": ["clips"], "output_names": ["logits"]}
        torch.onnx.export(network, (clips,), target, dynamo=False, opset_version=18, **names)
    return target.getvalue()


def _kernels_elsewhere(onnxruntime: Any, content: bytes, feed: Mapping[str, Any], provider: str) -> list[str]:
    """Convolutions and products that do not run on the provider, from the profile of one run."""
    with tempfile.TemporaryDirectory(prefix="edgelip-ort-") as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
        session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    heavy = [k for k in kernels if any(word in k["op_name"] for word in ("Conv", "Gemm", "MatMul"))]
    if not heavy:
        raise MeasurementError("The profile of ONNX Runtime shows no convolution; expected the network's.")
    return sorted({k["op_name"] for k in heavy if k["provider"] != provider})


def _training(
    network: nn.Module, clips: Tensor, *, fused: bool, bfloat: bool, compiled: bool = False, ours: bool = True
) -> Step:
    """Forward, loss, backward, AdamW. Dropout is off, so that losses can be compared."""
    network = (deepcopy(network) if ours else as_published_forward(network)).to(clips.device).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, Attention):
            module.dropout = 0.0
    if bfloat:
        channels_last(network)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, fused=fused, capturable=fused and clips.is_cuda
    )
    labels = torch.arange(len(clips), device=clips.device)
    run: Any = torch.compile(network, dynamic=False) if compiled else network

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(clips.device.type, dtype=torch.bfloat16, enabled=bfloat, cache_enabled=False):
            logits = run(clips)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.detach()

    return step


def published_training(network: nn.Module, clips: Tensor) -> Step:
    return _training(network, clips, fused=False, bfloat=False, ours=False)


def float_training(network: nn.Module, clips: Tensor) -> Step:
    return _training(network, clips, fused=True, bfloat=False)


def bfloat_training(network: nn.Module, clips: Tensor) -> Step:
    return _training(network, clips, fused=True, bfloat=True)


def compiled_training(network: nn.Module, clips: Tensor) -> Step:
    return _training(network, clips, fused=True, bfloat=True, compiled=True)


PUBLISHED = "as published"
_REBUILT = "float32 eager, the published forward: PHM weights summed from materialised products each time, 3-D stem"
_DENSE = "dense, norms folded"
_BF16_GRAPH = Variant(
    f"{_DENSE}, bfloat16 weights, channels last, CUDA graph", bfloat_inference, graph=True, only_cuda=True
)
_BF16_TRAINING = Variant(
    "bfloat16 autocast, channels last, fused AdamW, CUDA graph of the whole step", bfloat_training, "on", True, True
)
LATENCY: dict[str, Variant] = {
    PUBLISHED: Variant(_REBUILT, published_inference),
    "fp32 eager": Variant(f"{_DENSE}, float32 eager", float_inference),
    "fp32 graph": Variant(f"{_DENSE}, float32, CUDA graph", float_inference, graph=True, only_cuda=True),
    "tf32 graph": Variant(f"{_DENSE}, TF32, CUDA graph", float_inference, "on", True, True),
    "bf16 eager": Variant(f"{_DENSE}, bfloat16 weights, channels last, eager", bfloat_inference),
    "bf16 graph": _BF16_GRAPH,
    "onnxruntime": Variant(
        f"{_DENSE}, float32 file, ONNX Runtime, provider's default precision", onnxruntime_inference
    ),
}
TRAINING: dict[str, Variant] = {
    PUBLISHED: Variant(_REBUILT + ", AdamW", published_training),
    "fp32 eager": Variant("float32 eager, weights folded in one product, fused AdamW", float_training),
    "tf32 eager": Variant("the same in TF32", float_training, "on", only_cuda=True),
    "bf16 eager": Variant("bfloat16 autocast, channels last, fused AdamW", bfloat_training, "on"),
    "bf16 graph": _BF16_TRAINING,
}
# Compilation takes minutes, so these come last, beside the two that they are to be compared with.
COMPILED_LATENCY: dict[str, Variant] = {
    PUBLISHED: LATENCY[PUBLISHED],
    "bf16 graph": _BF16_GRAPH,
    "bf16 compiled": Variant(
        f"{_DENSE}, bfloat16 weights, torch.compile reduce-overhead", compiled_inference, only_cuda=True
    ),
}
COMPILED_TRAINING: dict[str, Variant] = {
    PUBLISHED: TRAINING[PUBLISHED],
    "bf16 graph": _BF16_TRAINING,
    "bf16 compiled": Variant("bfloat16 autocast, fused AdamW, torch.compile", compiled_training, "on", only_cuda=True),
}
