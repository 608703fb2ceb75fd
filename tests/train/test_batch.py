"""Clips of several lengths on their way through networks, losses and whole trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from killing import Killed, Killing
from tiny_models import SPEC, WORDS, classifier, clips, lively
from torch import nn

from edgelip.data.stores.store import Store, StoreWriter
from edgelip.errors import UsageError
from edgelip.models.zoo import build_classifier
from edgelip.progress import Progress
from edgelip.train.augment import Augmentation
from edgelip.train.batch import NetworkBatch, refuse_variable_length, refuse_whole_words
from edgelip.train.fit import FitResult, fit
from edgelip.train.losses import Distillation
from edgelip.train.mixing import drawn_mixing
from edgelip.train.module import Schedule, WordTask

TCN: dict[str, Any] = {"trunk_widths": (8, 8, 8, 8), "block_config": (1,), "growth": (6,), "reduced": 8}
LENGTHS = [3, 6, 1, 4]


def tcn(**options: Any) -> nn.Module:
    network: nn.Module = lively(
        build_classifier("lip_tcn", num_words=6, options={**TCN, "excite": False, **options}, seed=1)
    )
    return network


def padded(order: list[int]) -> NetworkBatch:
    """Clips cut to LENGTHS, in this order, as long as the longest."""
    kept = clips(4)[order]
    lengths = [LENGTHS[index] for index in order]
    for clip, length in zip(kept, lengths, strict=True):
        clip[:, length:] = 0
    return NetworkBatch(kept, torch.tensor([[0, LENGTHS[index] - 1] for index in order]), torch.tensor(lengths))


@torch.no_grad()
@pytest.mark.parametrize("build", [classifier, tcn])
def test_a_clip_of_a_batch_gives_what_it_gives_alone(build: Any) -> None:
    network = build()
    mixed_up, by_length = [2, 0, 3, 1], [1, 3, 0, 2]
    given = [padded(order).logits(network) for order in (mixed_up, by_length)]
    for order, logits in zip((mixed_up, by_length), given, strict=True):
        for index, row in zip(order, logits, strict=True):
            alone = network(clips(4)[index : index + 1, :, : LENGTHS[index]])
            torch.testing.assert_close(row, alone[0], rtol=1e-4, atol=1e-4)
            short_of = network(clips(4)[index : index + 1])
            assert LENGTHS[index] == 6 or not torch.allclose(row, short_of[0], atol=1e-3)


@torch.no_grad()
def test_the_word_of_a_whole_clip_is_the_clip() -> None:
    network = classifier()
    batch = padded([0, 1, 2, 3])
    dirty = batch.clips.clone()
    for clip, length in zip(dirty, LENGTHS, strict=True):
        clip[:, length:] = 7.0  # as a longer partner leaves it in mixup
    whole, word = replace(batch, clips=dirty).word_logits(network)
    torch.testing.assert_close(whole, batch.logits(network), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(word, whole, rtol=1e-4, atol=1e-4)


def test_networks_that_know_full_clips_only_are_refused_at_once() -> None:
    varied = Schedule(epochs=1, augmentation=Augmentation(variable_length=True))
    with pytest.raises(UsageError) as caught:
        WordTask(tcn(boundary=True), spec=SPEC, schedule=varied, num_steps=1)
    assert str(caught.value) == (
        "variable_length is on and the network takes word boundaries, which are those of the uncropped clip; "
        "expected one or the other. Set train.variable_length = false, or model.options.boundary = false."
    )
    full_only = classifier()
    full_only.takes_lengths = False
    for model, teacher in ((full_only, None), (classifier(), full_only), (nn.Linear(2, 2), None)):
        with pytest.raises(UsageError) as caught:
            WordTask(model, spec=SPEC, schedule=varied, num_steps=1, teacher=teacher)
        assert str(caught.value) == (
            "variable_length is on and the network takes no lengths: it knows clips of full length only. "
            "Set train.variable_length = false, or choose a backbone that takes lengths."
        )
    refuse_variable_length(classifier())


def test_words_that_fill_their_clips_leave_nothing_to_vary() -> None:
    refuse_whole_words(np.array([[0, 5], [0, 4]]), 6)
    with pytest.raises(UsageError) as caught:
        refuse_whole_words(np.array([[0, 5], [0, 5]]), 6)
    assert str(caught.value) == (
        "variable_length is on and has no effect: the word fills all 6 frames of each of the 2 clips. "
        "Prepare clips that say where their word lies, or set train.variable_length = false."
    )


def test_a_training_of_such_clips_is_refused_before_it_starts(tmp_path: Path) -> None:
    whole: Any = SimpleNamespace(boundaries=np.array([[0, 5], [0, 5]]))
    schedule = Schedule(epochs=1, augmentation=Augmentation(variable_length=True))
    with pytest.raises(UsageError, match="variable_length is on and has no effect"):
        fit(
            classifier(), train=whole, val=whole, spec=SPEC, schedule=schedule, workspace=tmp_path,
            progress=Progress(quiet=True), name="t",
        )  # fmt: skip


class Telling(nn.Module):
    """Logits say whose pixels a clip has: clip i is filled with its label."""

    def forward(self, clips_B1THW: torch.Tensor) -> torch.Tensor:
        level = clips_B1THW.mean(dim=(1, 2, 3, 4)) * SPEC.std + SPEC.mean  # of 255
        return -((255 * level[:, None] - torch.arange(6.0)) ** 2)


@pytest.mark.parametrize("changes", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}])
def test_mixed_clips_are_scored_against_both_words(changes: dict[str, float]) -> None:
    labels = torch.tensor([0, 5, 1, 4])
    frames = labels.to(torch.uint8)[:, None, None, None].expand(4, 6, 24, 24)
    task = WordTask(Telling(), spec=SPEC, schedule=Schedule(epochs=1, **changes), num_steps=1)  # type: ignore[arg-type]
    task.trainer = type("Trainer", (), {"current_epoch": 0})()  # type: ignore[assignment]
    different = 0
    for number in range(6):
        loss = task.training_step((frames, labels, torch.tensor([[0, 5]] * 4)), number)
        seed = hash((0, 0, number)) & (2**62 - 1)
        mixing = drawn_mixing(4, (6, 20, 20), torch.Generator().manual_seed(seed), **changes)
        assert mixing is not None
        share = mixing.share
        if mixing.window is not None:
            share = 1 - float(np.prod([part.stop - part.start for part in mixing.window])) / (6 * 20 * 20)
        partners = labels[mixing.partner_B]
        logits = -(((share * labels + (1 - share) * partners)[:, None] - torch.arange(6.0)) ** 2)
        log_p = logits.log_softmax(dim=1)
        rows = torch.arange(4)
        expected = -(share * log_p[rows, labels] + (1 - share) * log_p[rows, partners]).mean()
        assert float(loss) == pytest.approx(float(expected), rel=1e-3)
        different += int((partners != labels).any())
    assert different


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    made = []
    for split, num_clips in (("train", 24), ("val", 6)):
        rng = np.random.default_rng(num_clips)
        labels = np.arange(num_clips) % len(WORDS)
        folder = tmp_path_factory.mktemp("lengths") / split
        with StoreWriter(folder, num_clips, SPEC, words=WORDS, source_sha256="0" * 64) as writer:
            stored = rng.integers(0, 256, (num_clips, 6, 24, 24), dtype=np.uint8)
            first = np.arange(num_clips) % 4
            boundaries = np.stack([first, first + np.arange(num_clips) % 3], axis=1)
            writer.write(0, stored, labels_B=labels, speakers_B=labels * 0, boundaries_B2=boundaries)
            made.append(writer.finish())
    return made[0], made[1]


EVERYTHING = Augmentation(
    flip=True, random_crop=True, time_mask_frames=4, time_mask_draw="published", variable_length=True
)


@pytest.mark.parametrize(
    ("changes", "distils"),
    [
        ({"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "rate_schedule": "epoch_cosine"}, False),
        ({"cutmix_alpha": 1.0, "cutmix_cut": "box", "boundary_weight": 0.5}, False),
        ({"train_norms": False}, True),
    ],
)
def test_a_killed_run_of_varied_lengths_goes_on_to_the_same_bits(
    tmp_path: Path, stores: tuple[Store, Store], changes: dict[str, Any], distils: bool
) -> None:
    schedule = Schedule(epochs=2, batch_size=8, augmentation=EVERYTHING, **changes)

    def run(folder: str, progress: Progress) -> FitResult:
        (tmp_path / folder).mkdir(exist_ok=True)
        return fit(
            classifier(), train=stores[0], val=stores[1], spec=SPEC, schedule=schedule, workspace=tmp_path / folder,
            progress=progress, name="t", teacher=classifier(seed=3) if distils else None,
            distillation=Distillation() if distils else None,
        )  # fmt: skip

    whole = run("whole", Progress(quiet=True))
    with pytest.raises(Killed):
        run("killed", Killing("epoch 2"))
    resumed = run("killed", Progress(quiet=True))
    other = resumed.model.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in whole.model.state_dict().items())
    assert [e["loss"] for e in resumed.history] == [e["loss"] for e in whole.history]
    fresh = classifier().state_dict()
    assert any(not torch.equal(tensor, fresh[name]) for name, tensor in other.items())
