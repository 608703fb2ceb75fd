"""`edgelip train`, afresh and going on from a checkpoint: what is taken over, what is refused, and after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tools_of
from typer.testing import CliRunner

from edgelip.cli.train import train_recipe
from edgelip.cli.verbs import app
from edgelip.compress.pipeline import apply_stage, model_from_checkpoint, stages_from_configs
from edgelip.errors import CheckpointError, RecipeError, UsageError
from edgelip.models.checkpoint import (
    Checkpoint,
    OptimiserState,
    checkpoint_from_model,
    load_checkpoint,
    save_checkpoint,
)
from edgelip.models.zoo import build_classifier
from edgelip.runtime.clip import ClipSpec

ROOT = Path(__file__).parent.parent.parent
DEBUG = ROOT / "tests" / "recipes" / "debug.toml"
TINY = (
    "data.train_clips=16", "data.val_clips=8", "data.train_speakers=2", "train.epochs=2", "train.precision=32-true",
    "model.options={ stem_width = 8, trunk_widths = [16], temporal_width = 16, temporal_blocks = 1 }",
    'variant=[{name="dense"}]',
)  # fmt: skip
SETTINGS = {"lr": 1e-3, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
WORDS = ("ABOUT", "PEOPLE", "SPEND", "YOUNG")


def train(folder: Path, *overrides: str, start: Path | None = None) -> dict[str, Any]:
    text = train_recipe(DEBUG, overrides=[*TINY, *overrides], out=folder, as_json=True, start=start)
    result: dict[str, Any] = json.loads(text)
    return result


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder: clips are rendered once."""
    return tmp_path_factory.mktemp("train") / "dist"


@pytest.fixture(scope="module")
def fresh(dist: Path) -> dict[str, Any]:
    return train(dist)


@pytest.fixture(scope="module")
def checkpoint(fresh: dict[str, Any]) -> Checkpoint:
    return load_checkpoint(Path(fresh["checkpoint"]))


@pytest.fixture(scope="module")
def saved(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained checkpoint with the state of an optimiser that moves everything one way."""
    parameters = dict(model_from_checkpoint(checkpoint).named_parameters())
    first = {name: torch.full_like(p.detach(), 0.05) for name, p in parameters.items()}
    second = {name: torch.full_like(p.detach(), 0.01) for name, p in parameters.items()}
    path = tmp_path_factory.mktemp("saved") / "with state.safetensors"
    save_checkpoint(replace(checkpoint, optimiser=OptimiserState(5000, first, second, SETTINGS)), path)
    return path


@pytest.fixture(scope="module")
def continued(dist: Path, saved: Path) -> dict[str, Any]:
    return train(dist, start=saved)


def test_a_fresh_training_leaves_a_checkpoint_without_a_start(fresh: dict[str, Any], checkpoint: Checkpoint) -> None:
    (entry,) = checkpoint.architecture.stages
    assert (entry["stage"], entry["record"]) == ("train", {})
    assert "start" not in entry["config"]
    assert checkpoint.sha256 == fresh["weights_sha256"]
    assert checkpoint.optimiser is None
    assert fresh["epochs"] == 2


def test_training_goes_on_from_a_checkpoint(continued: dict[str, Any], checkpoint: Checkpoint, saved: Path) -> None:
    made, start = load_checkpoint(Path(continued["checkpoint"])), load_checkpoint(saved)
    assert made.architecture.words == checkpoint.architecture.words == WORDS
    assert made.architecture.options == checkpoint.architecture.options
    assert [entry["stage"] for entry in made.architecture.stages] == ["train", "train"]
    assert start.optimiser is not None
    assert made.architecture.stages[1]["record"] == {
        "start_sha256": checkpoint.sha256,
        "start_optimiser_sha256": start.optimiser.sha256,
    }
    assert made.optimiser is None
    distance = {
        name: float((made.tensors[name] - checkpoint.tensors[name]).abs().max())
        for name in checkpoint.tensors
        if name.endswith(("weight", "bias"))
    }
    assert 0 < max(distance.values()) < 0.05  # near the start: a fresh draw differs by its own size
    model_from_checkpoint(made)


def test_the_optimiser_state_counts(dist: Path, continued: dict[str, Any], fresh: dict[str, Any]) -> None:
    afresh = train(dist, start=Path(fresh["checkpoint"]))
    assert afresh["checkpoint"] != continued["checkpoint"]
    assert afresh["weights_sha256"] != continued["weights_sha256"]
    record = load_checkpoint(Path(afresh["checkpoint"])).architecture.stages[1]["record"]
    assert record["start_optimiser_sha256"] is None


def test_the_start_is_known_by_its_content(dist: Path, continued: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved, tmp_path / "copy.safetensors")
    for result in (
        train(dist, start=tmp_path / "copy.safetensors"),
        train(dist, f"train.start={saved}"),
        train(dist, "model={}", start=saved),  # [model] may be left out
    ):
        assert result["checkpoint"] == continued["checkpoint"]
    other = load_checkpoint(saved)
    assert other.optimiser is not None
    save_checkpoint(replace(other, optimiser=replace(other.optimiser, step=4999)), tmp_path / "other.safetensors")
    assert train(dist, start=tmp_path / "other.safetensors")["checkpoint"] != continued["checkpoint"]


def test_the_command_takes_from(dist: Path, continued: dict[str, Any], saved: Path) -> None:
    arguments = ["train", str(DEBUG), "--from", str(saved), "--out", str(dist), "--json"]
    for override in TINY:
        arguments += ["--set", override]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == continued


def test_two_starts_are_refused(dist: Path, saved: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(dist, "train.start=x", start=saved)
    assert str(caught.value) == (
        f"--from {saved} and --set train.start both name a checkpoint to go on from; give one."
    )


def test_what_is_taken_over_is_said(
    checkpoint: Checkpoint, saved: Path, tmp_path: Path, dist: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dist, tmp_path / "dist", ignore=shutil.ignore_patterns("train-*"))
    train(tmp_path / "dist", start=saved)
    text = f"training goes on from {saved}: weights {checkpoint.sha256[:12]}, AdamW's state of step 5000"
    assert text in " ".join(capfd.readouterr().err.split())


def refusal(dist: Path, *overrides: str, start: Path) -> str:
    with pytest.raises((RecipeError, CheckpointError)) as caught:
        train(dist, *overrides, start=start)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(start), "FILE")


def test_a_start_that_is_not_there_is_refused(dist: Path, tmp_path: Path) -> None:
    assert refusal(dist, start=tmp_path / "x").startswith("There is no checkpoint FILE.")


def test_another_model_is_refused(dist: Path, saved: Path) -> None:
    text = refusal(dist, "model.options.stem_width=16", start=saved)
    assert text.startswith('[model] asks for backbone \'small\' with options {"stem_width": 16, "temporal_blocks": 1, ')
    assert "; train.start FILE holds 'small' with options {\"stem_width\": 8, " in text
    assert text.endswith("Leave [model] out: the checkpoint says both.")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("ABOUT", "PEOPLE", "YOUNG", "SPEND"), "4; the first to differ is number 2 (from 0): 'SPEND' and 'YOUNG'."),
        (WORDS[:3], "3; the first to differ is number 3 (from 0): 'YOUNG' and nothing."),
        ((*WORDS, "THERE"), "5; the first to differ is number 4 (from 0): nothing and 'THERE'."),
    ],
)  # fmt: skip
def test_other_words_are_refused(dist: Path, saved: Path, words: tuple[str, ...], text: str) -> None:
    assert refusal(dist, f"data.words={json.dumps(words)}", start=saved) == (
        f"train.start FILE reads 4 words and the data have {text} "
        "Give data.words the words of the checkpoint in its order."
    )


def test_another_clip_contract_is_refused(dist: Path, saved: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert refusal(dist, "clip.mean=0.5", "clip.pool=1", start=saved) == (
        "train.start FILE takes clips of input_px 44, mean 0.421; [clip] gives input_px 88, mean 0.5. Correct [clip] "
        "(input_px is crop_px / pool)."
    )
    clip = {**checkpoint.architecture.clip, "frames": 25, "std": 0.2}
    other = replace(checkpoint, architecture=replace(checkpoint.architecture, clip=clip))
    save_checkpoint(other, tmp_path / "m")
    text = "train.start FILE takes clips of frames 25, std 0.2; [clip] gives frames 29, std 0.165. "
    assert refusal(dist, start=tmp_path / "m").startswith(text)


def test_a_network_of_audio_is_refused(dist: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    audio = replace(checkpoint.architecture, clip=ClipSpec(kind="audio").to_json())
    save_checkpoint(replace(checkpoint, architecture=audio), tmp_path / "m")
    text = "train.start FILE is a classifier of audio; training takes clips. Choose another."
    assert refusal(dist, start=tmp_path / "m") == text
    options = {"modality": "audio", "trunk_widths": [4, 4, 4, 4], "temporal": "tcn", "kernels": [3], "branch_width": 8}
    network = build_classifier("lip_tcn", num_words=4, options=options)
    said_to_see = replace(checkpoint.architecture, backbone="lip_tcn", options=options, stages=())
    save_checkpoint(checkpoint_from_model(network, said_to_see), tmp_path / "n")
    assert refusal(dist, "model={}", start=tmp_path / "n") == text


def compressed(checkpoint: Checkpoint, path: Path, **stage: Any) -> Path:
    """The checkpoint one stage later, without training."""
    clips = torch.linspace(-1, 1, 2 * 29 * 44 * 44).reshape(2, 1, 29, 44, 44)
    (made,) = stages_from_configs([stage])
    save_checkpoint(apply_stage(checkpoint, made, tools_of(clips)), path)
    return path


def test_compressed_checkpoints_train_on(dist: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    start = compressed(checkpoint, tmp_path / "m", stage="phm", n=2, layers=["trunk.*"])
    made = load_checkpoint(Path(train(dist, start=start)["checkpoint"]))
    assert [entry["stage"] for entry in made.architecture.stages] == ["train", "phm", "train"]
    assert any(name.endswith(".F") for name in made.tensors)
    assert not torch.equal(*(c.tensors["head.weight"] for c in (made, load_checkpoint(start))))
    model_from_checkpoint(made)


def test_quantised_checkpoints_train_on(dist: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    start = compressed(checkpoint, tmp_path / "m", stage="qat")
    made = load_checkpoint(Path(train(dist, start=start)["checkpoint"]))
    assert [entry["stage"] for entry in made.architecture.stages] == ["train", "qat", "train"]
    assert made.sha256 != load_checkpoint(start).sha256
    model_from_checkpoint(made)


def test_a_variant_must_follow_the_stages_of_the_start(dist: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    start = compressed(checkpoint, tmp_path / "m", stage="phm", n=2, layers=["trunk.*"])
    twice = 'variant=[{name="x",stages=[{stage="phm",n=4}]}]'
    assert refusal(dist, twice, start=start) == (
        "variant 'x' cannot follow train.start, which went through phm: Stage 'phm' applies once; "
        "the variant names it 2 times. Keep one."
    )
    before = 'variant=[{name="x",stages=[{stage="prune",pruning_ratio=0.5}]}]'
    assert refusal(dist, before, start=start).endswith(
        "Stage 'prune' (structure) comes after 'phm' (structure). Order them: prune, phm."
    )


def kill_when(reached: Callable[[], bool], arguments: list[str]) -> None:
    """Run edgelip in a session of its own and end it with SIGKILL once `reached`."""
    command = [sys.executable, "-m", "edgelip", *arguments]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True, cwd=ROOT)
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "ended before the point was reached"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_training_goes_on_to_the_same_weights(dist: Path, saved: Path, tmp_path: Path) -> None:
    longer = "train.epochs=30"
    whole = train(dist, longer, start=saved)
    cache = tmp_path / "dist" / ".cache"
    shutil.copytree(dist / ".cache", cache, ignore=shutil.ignore_patterns("train-*"))
    arguments = ["train", str(DEBUG), "--from", str(saved), "--out", str(tmp_path / "dist")]
    for override in (*TINY, longer):
        arguments += ["--set", override]
    kill_when(lambda: any(cache.glob("train-*.part/training.ckpt")), arguments)
    assert not [path for path in cache.glob("train-*") if path.suffix != ".part"]
    resumed = train(tmp_path / "dist", longer, start=saved)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["epochs"] == 30
