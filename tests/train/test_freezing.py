from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import Killed, Killing
from tiny_models import WORDS, classifier
from torch import Tensor

from edgelip.data.stores.store import Store, StoreWriter
from edgelip.errors import UsageError
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec
from edgelip.train.fit import STATE_FILE, FitResult, fit
from edgelip.train.freezing import FreezeParts, Freezing
from edgelip.train.module import Schedule

SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)
SCHEDULE = Schedule(epochs=3, batch_size=6, learning_rate=3e-3)
PARTS = ("frontend", "trunk")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(3)
    labels = np.arange(18) % len(WORDS)
    clips = rng.integers(0, 60, (18, 6, 24, 24)) + 35 * labels[:, None, None, None]
    with StoreWriter(
        tmp_path_factory.mktemp("stores") / "train", 18, SPEC, words=WORDS, source_sha256="0" * 64
    ) as writer:
        writer.write(0, clips.astype(np.uint8), labels_B=labels, speakers_B=labels * 0)
        return writer.finish()


def train(
    store: Store, workspace: Path, freezing: Freezing | None, *, epochs: int = 3, progress: Progress | None = None
) -> FitResult:
    workspace.mkdir(exist_ok=True)
    return fit(
        classifier(), train=store, val=store, spec=SPEC, schedule=replace(SCHEDULE, epochs=epochs),
        workspace=workspace, progress=progress or Progress(quiet=True), name="t", freezing=freezing,
    )  # fmt: skip


def last_weights(workspace: Path) -> dict[str, Tensor]:
    """Of the last epoch, not of the best."""
    state = torch.load(workspace / STATE_FILE, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


def changed(weights: dict[str, Tensor]) -> dict[str, set[str]]:
    """Names of parameters and buffers that differ from the start, by part; what only counts steps left out."""
    start = classifier().state_dict()
    different: dict[str, set[str]] = {part: set() for part in ("frontend", "trunk", "temporal", "head")}
    for name, tensor in weights.items():
        if not torch.equal(tensor, start[name]):
            different[name.split(".")[0]].add(name)
    return different


def test_frozen_parts_keep_every_bit_and_the_others_learn(tmp_path: Path, store: Store) -> None:
    result = train(store, tmp_path, Freezing(PARTS))
    different = changed(last_weights(tmp_path))
    assert different["frontend"] == different["trunk"] == set()
    start = classifier().state_dict()
    for part in ("temporal", "head"):
        assert different[part] == {name for name in start if name.startswith(part)}
    assert all(parameter.requires_grad for parameter in result.model.parameters())
    assert not result.model.training


def test_parts_join_in_at_their_epoch(tmp_path: Path, store: Store) -> None:
    start = classifier().state_dict()
    with pytest.raises(Killed):
        train(store, tmp_path, Freezing(PARTS, until_epoch=2), progress=Killing("epoch 3"))
    different = changed(last_weights(tmp_path))
    assert different["frontend"] == different["trunk"] == set()  # after two epochs
    train(store, tmp_path, Freezing(PARTS, until_epoch=2))
    different = changed(last_weights(tmp_path))
    for part in PARTS:  # parameters and statistics
        assert different[part] == {name for name in start if name.startswith(part)}


@pytest.mark.parametrize(("until_epoch", "epoch"), [(None, 2), (1, 2), (1, 3), (2, 2)])
def test_a_killed_run_freezes_on_to_the_same_bits(
    tmp_path: Path, store: Store, until_epoch: int | None, epoch: int
) -> None:
    freezing = Freezing(PARTS, until_epoch)
    train(store, tmp_path / "whole", freezing)
    with pytest.raises(Killed):
        train(store, tmp_path / "killed", freezing, progress=Killing(f"epoch {epoch}"))
    train(store, tmp_path / "killed", freezing)
    whole, resumed = last_weights(tmp_path / "whole"), last_weights(tmp_path / "killed")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_no_freezing_trains_every_part(tmp_path: Path, store: Store) -> None:
    train(store, tmp_path, None, epochs=1)
    assert all(changed(last_weights(tmp_path)).values())


def test_what_the_caller_froze_stays_frozen() -> None:
    model = classifier()
    model.head.bias.requires_grad_(False)
    freezer = FreezeParts(model, Freezing(("head",)), epochs=1)
    freezer.release()
    assert [parameter.requires_grad for parameter in model.head.parameters()] == [True, False]


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^the model has no part 'stem' to freeze; it has frontend, trunk, temporal,"):
        FreezeParts(classifier(), Freezing(("stem",)), epochs=1)


@pytest.mark.parametrize("until_epoch", [0, 3, 4])
def test_thawing_outside_the_run_is_refused(until_epoch: int) -> None:
    with pytest.raises(
        UsageError,
        match=rf"^frozen until epoch {until_epoch} \(counted from 0\) in a run of 3 epochs: expected from 1 to 2\.",
    ):
        FreezeParts(classifier(), Freezing(PARTS, until_epoch), epochs=3)
