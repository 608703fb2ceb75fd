from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import Killed, Killing
from tiny_models import WORDS, classifier
from torch import nn

from edgelip.data.stores.store import Store, StoreWriter
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec
from edgelip.train.augment import Augmentation
from edgelip.train.feed import EpochBatches, loader
from edgelip.train.fit import STATE_FILE, FitResult, fit
from edgelip.train.losses import Distillation
from edgelip.train.module import Schedule, WordTask

SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)
AUGMENTED = Augmentation(flip=True, shift_frames=1, time_mask_frames=2, brightness=0.2, random_crop=True)
SCHEDULE = Schedule(epochs=3, batch_size=8, learning_rate=3e-3, label_smoothing=0.05, augmentation=AUGMENTED)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Clips whose brightness rises with the label, so that something can be learnt."""
    made = []
    for split, num_clips in (("train", 36), ("val", 12)):
        rng = np.random.default_rng(num_clips)
        labels = np.arange(num_clips) % len(WORDS)
        clips = rng.integers(0, 60, (num_clips, 6, 24, 24)) + 35 * labels[:, None, None, None]
        folder = tmp_path_factory.mktemp("stores") / split
        with StoreWriter(folder, num_clips, SPEC, words=WORDS, source_sha256="0" * 64) as writer:
            writer.write(0, clips.astype(np.uint8), labels_B=labels, speakers_B=labels * 0)
            made.append(writer.finish())
    return made[0], made[1]


def train(stores: tuple[Store, Store], workspace: Path, schedule: Schedule = SCHEDULE, **more: Any) -> FitResult:
    workspace.mkdir(exist_ok=True)
    more.setdefault("progress", Progress(quiet=True))
    return fit(
        more.pop("model", classifier()), train=stores[0], val=stores[1], spec=SPEC, schedule=schedule,
        workspace=workspace, name="t", **more,
    )  # fmt: skip


def same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, stores: tuple[Store, Store], epoch: int) -> None:
    teacher, distillation = classifier(seed=5), Distillation()
    whole = train(stores, tmp_path / "whole", teacher=teacher, distillation=distillation)
    with pytest.raises(Killed):
        train(
            stores, tmp_path / "killed", teacher=teacher, distillation=distillation, progress=Killing(f"epoch {epoch}")
        )
    assert (tmp_path / "killed" / STATE_FILE).is_file() == (epoch > 1)
    torch.manual_seed(1234)  # another process has other global draws
    resumed = train(stores, tmp_path / "killed", teacher=teacher, distillation=distillation)
    assert same(resumed.model, whole.model)
    assert resumed.val_top1 == whole.val_top1
    assert [e["val_top1"] for e in resumed.history] == [e["val_top1"] for e in whole.history]
    assert [e["loss"] for e in resumed.history] == [e["loss"] for e in whole.history]
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [STATE_FILE]


def test_a_run_killed_after_its_last_epoch_only_returns(tmp_path: Path, stores: tuple[Store, Store]) -> None:
    first = train(stores, tmp_path)
    again = train(stores, tmp_path, progress=Killing("epoch"))  # a single further step would die
    assert same(again.model, first.model)
    assert len(again.history) == 3


def test_an_interrupt_stays_an_interrupt(tmp_path: Path, stores: tuple[Store, Store]) -> None:
    import signal

    with pytest.raises(KeyboardInterrupt):
        train(stores, tmp_path, progress=Killing("epoch 2", KeyboardInterrupt))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_learns_and_leaves_its_input_alone(tmp_path: Path, stores: tuple[Store, Store]) -> None:
    model = classifier()
    before = deepcopy(model)
    teacher = classifier(seed=5)
    schedule = Schedule(epochs=8, batch_size=8, learning_rate=5e-3)
    result = train(stores, tmp_path, schedule, model=model, teacher=teacher, distillation=Distillation(0.1, 2.0))
    assert result.val_top1 >= 0.5  # chance 1/6
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert same(model, before)
    assert same(teacher, classifier(seed=5))
    assert not result.model.training


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path, stores: tuple[Store, Store]) -> None:
    result = train(stores, tmp_path, Schedule(epochs=4, batch_size=8, learning_rate=0.05))
    accuracies = [entry["val_top1"] for entry in result.history]
    assert result.val_top1 == max(accuracies)
    task = WordTask(result.model, spec=SPEC, schedule=SCHEDULE, num_steps=1)
    correct = 0
    with torch.no_grad():
        for batch in loader(stores[1], batch_size=5, seed=None):
            task.validation_step(batch, 0)
        correct = task._correct
    assert correct / 12 == pytest.approx(result.val_top1)


def test_norms_stay_where_they_are_if_told_so(tmp_path: Path, stores: tuple[Store, Store]) -> None:
    frozen = train(stores, tmp_path / "a", Schedule(epochs=1, batch_size=8, train_norms=False)).model
    moving = train(stores, tmp_path / "b", Schedule(epochs=1, batch_size=8)).model
    start = classifier().state_dict()
    statistics = [name for name in start if "running" in name]
    assert statistics
    assert all(torch.equal(frozen.state_dict()[name], start[name]) for name in statistics)
    moved = [name for name in statistics if not torch.equal(moving.state_dict()[name], start[name])]
    assert moved == statistics


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    def order(seed: int | None, epoch: int) -> list[list[int]]:
        batches = EpochBatches(20, 6, seed=seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1, 2) == order(1, 2)
    orders = [order(1, 2), order(1, 3), order(2, 2)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    for found in orders:
        flat = [index for batch in found for index in batch]
        assert [len(batch) for batch in found] == [6, 6, 6]  # whole batches only
        assert len(set(flat)) == 18
    assert [i for batch in order(None, 0) for i in batch] == list(range(20))  # in order, all of them
    assert len(EpochBatches(3, 8, seed=1)) == len(list(EpochBatches(3, 8, seed=1))) == 1


def test_the_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    schedule = Schedule(epochs=1, learning_rate=0.1, warmup_fraction=0.2)
    task = WordTask(classifier(), spec=SPEC, schedule=schedule, num_steps=20)
    setup = task.configure_optimizers()
    rates = []
    for _ in range(20):
        rates.append(setup["optimizer"].param_groups[0]["lr"])
        setup["optimizer"].step()
        setup["lr_scheduler"]["scheduler"].step()
    expected = [0.1 * (i + 1) / 4 for i in range(4)] + [
        0.05 * (1 + math.cos(math.pi * (i - 4) / 16)) for i in range(4, 20)
    ]
    assert rates == pytest.approx(expected)
    matrices, vectors = setup["optimizer"].param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0)
    assert all(p.ndim > 1 for p in matrices["params"])
    assert all(p.ndim <= 1 for p in vectors["params"])
