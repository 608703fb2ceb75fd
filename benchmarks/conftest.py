"""What the suites of the public API run on: bundles and a store that they make themselves, with weights freshly drawn.

Speed depends neither on weights nor on what the clips show. Axes: B clips, T frames, H rows, W columns.
"""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at torch's import: spinning threads stall on shared cores

import numpy as np
import pytest
import torch
from networks import settle_norms
from torch import nn

from edgelip.compress.pipeline import stage_from_config
from edgelip.compress.stage import LabelledClips, Tools
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.deploy.bundle_writer import write_bundle
from edgelip.deploy.export import export_model
from edgelip.models.census import count_macs, count_parameters
from edgelip.models.checkpoint import Architecture, checkpoint_from_model
from edgelip.models.zoo import build_classifier
from edgelip.runtime.clip import ClipSpec, network_input

BACKBONE, NUM_WORDS, NUM_STORED = "small", 25, 512
SPEC = ClipSpec(pool=2)  # that of the quickstart: 96 px ROIs averaged to 48, cropped to 44


def mouth_clips(num_clips: int, spec: ClipSpec, *, seed: int = 0) -> np.ndarray:
    """Smooth grey frames with noise, uint8 (B, T, H, W), as a store of `spec` holds them."""
    rng, side = np.random.default_rng(seed), spec.stored_shape[-1]
    wave = np.sin(np.linspace(0, 7, side))[:, None] * np.cos(np.linspace(0, 5, side))
    noise = rng.normal(0, 4, (num_clips, *spec.stored_shape))
    return np.clip(110 + 40 * wave + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def frames_BTHW() -> np.ndarray:
    return mouth_clips(8, SPEC)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, frames_BTHW: np.ndarray) -> dict[str, Path]:
    """A bundle of the quickstart's network in float32 and one in int8."""
    torch.manual_seed(0)
    clips = torch.from_numpy(network_input(frames_BTHW, SPEC))
    network = build_classifier(BACKBONE, num_words=NUM_WORDS, options={})
    settle_norms(network, clips)
    labelled = LabelledClips(clips, torch.arange(len(clips)))
    tools = Tools(finetune=_untouched, calibration=lambda: labelled, probe=lambda: labelled)
    int8 = stage_from_config({"stage": "ptq", "keep": "int8"}).prepare(deepcopy(network), tools)[0]
    words = tuple(f"WORD{number:02}" for number in range(NUM_WORDS))
    architecture = Architecture(BACKBONE, {}, words, SPEC.to_json())
    ledger = {
        "method": "freshly drawn",
        "data": "nothing",
        "parameters": count_parameters(network),
        "macs": count_macs(network, clips[:1]),
        "phm_n": None,
    }
    folder = tmp_path_factory.mktemp("bundles")
    return {
        name: write_bundle(
            folder / name,
            name=name,
            exported=export_model(model, clips, metadata={"variant": name}, precisions=()),
            checkpoint=checkpoint_from_model(model, architecture),
            frames_BTHW=frames_BTHW,
            ledger=ledger,
        )
        for name, model in (("fp32", network), ("int8", int8))
    }


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """512 clips of 29 x 48 x 48."""
    clips_BTHW, labels_B = mouth_clips(NUM_STORED, SPEC), np.arange(NUM_STORED, dtype=np.int64) % 2
    boundaries_B2 = np.tile([SPEC.frames // 3, 2 * SPEC.frames // 3], (NUM_STORED, 1))
    folder = tmp_path_factory.mktemp("store") / "clips"
    with StoreWriter(folder, NUM_STORED, SPEC, words=("A", "B"), source_sha256="0" * 64) as writer:
        writer.write(0, clips_BTHW, labels_B=labels_B, speakers_B=labels_B, boundaries_B2=boundaries_B2)
        return writer.finish()


def _untouched(student: nn.Module, **_: object) -> nn.Module:
    return student
