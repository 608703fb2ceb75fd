"""Training that goes on from an optimiser's state, against AdamW by hand; word boundaries for networks that ask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import Killed, Killing
from torch import Tensor, nn

from edgelip.data.stores.store import Store, StoreWriter
from edgelip.errors import CheckpointError
from edgelip.models.checkpoint import OptimiserState
from edgelip.models.zoo import build_classifier
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec, network_input
from edgelip.train.augment import Augmentation, training_batch
from edgelip.train.feed import loader
from edgelip.train.fit import FitResult, fit
from edgelip.train.module import Schedule, WordTask

WORDS = ("ABOUT", "BELOW", "CHEESE")
SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)
SETTINGS = {"lr": 0.1, "weight_decay": 0.3, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
ONE_STEP = Schedule(epochs=1, batch_size=8, clips_per_epoch=8, learning_rate=3e-3, weight_decay=0.02, seed=4)


class Tiny(nn.Module):
    """Clips (B, 1, 6, 20, 20) to logits (B, 3), frames as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3, stride=2, bias=False)  # before a norm its gradient is noise
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 81, len(WORDS))

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(clips[:, 0])).tanh().flatten(1))


def tiny(seed: int = 0) -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tiny()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    made = []
    for split, num_clips in (("train", 24), ("val", 6)):
        rng = np.random.default_rng(num_clips)
        labels = np.arange(num_clips) % len(WORDS)
        clips = rng.integers(0, 256, (num_clips, 6, 24, 24), dtype=np.uint8)
        first = np.arange(num_clips) % 4
        boundaries = np.stack([first, first + np.arange(num_clips) % 3], axis=1)
        folder = tmp_path_factory.mktemp("stores") / split
        with StoreWriter(folder, num_clips, SPEC, words=WORDS, source_sha256="0" * 64) as writer:
            writer.write(0, clips, labels_B=labels, speakers_B=labels * 0, boundaries_B2=boundaries)
            made.append(writer.finish())
    return made[0], made[1]


def train(stores: tuple[Store, Store], workspace: Path, schedule: Schedule = ONE_STEP, **more: Any) -> FitResult:
    workspace.mkdir(exist_ok=True)
    more.setdefault("progress", Progress(quiet=True))
    return fit(
        more.pop("model", tiny()), train=stores[0], val=stores[1], spec=SPEC, schedule=schedule,
        workspace=workspace, name="t", **more,
    )  # fmt: skip


def adamw(model: nn.Module, *, rate: float, decay: float, settings: dict[str, float]) -> torch.optim.AdamW:
    """As the trainer sets it up: no decay for vectors."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (settings["beta1"], settings["beta2"])
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=settings["eps"])


def one_step(model: nn.Module, optimiser: torch.optim.AdamW, frames: Tensor, labels: Tensor) -> None:
    optimiser.zero_grad()
    clips = torch.from_numpy(network_input(frames.numpy(), SPEC))
    nn.functional.cross_entropy(model.train()(clips), labels).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimiser.step()


def state_of(model: nn.Module, optimiser: torch.optim.AdamW, settings: dict[str, float]) -> OptimiserState:
    states = {name: optimiser.state[parameter] for name, parameter in model.named_parameters()}
    (step,) = {int(state["step"]) for state in states.values()}
    first, second = ({name: state[key].clone() for name, state in states.items()} for key in ("exp_avg", "exp_avg_sq"))
    return OptimiserState(step, first, second, settings)


@pytest.fixture(scope="module")
def trained(stores: tuple[Store, Store]) -> tuple[Tiny, OptimiserState, Tiny]:
    """A model after 3 steps by hand, AdamW's state there, and the model one further step on."""
    model = tiny()
    optimiser = adamw(model, rate=0.01, decay=0.05, settings=SETTINGS)
    for frames, labels, _ in loader(stores[0], batch_size=8, seed=9):
        one_step(model, optimiser, frames, labels)
    state = state_of(model, optimiser, SETTINGS)
    before = tiny()
    before.load_state_dict(model.state_dict())
    for group, decay in zip(optimiser.param_groups, (ONE_STEP.weight_decay, 0.0), strict=True):
        group["lr"], group["weight_decay"] = ONE_STEP.learning_rate, decay
    ((frames, labels, _),) = loader(stores[0], batch_size=8, seed=4, clips_per_epoch=8)
    one_step(model, optimiser, frames, labels)
    return before, state, model


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    other = b.state_dict()
    return max(float((tensor - other[name]).abs().max()) for name, tensor in a.state_dict().items())


def test_a_step_from_a_state_equals_adamw_by_hand(
    tmp_path: Path, stores: tuple[Store, Store], trained: tuple[Tiny, OptimiserState, Tiny]
) -> None:
    before, state, after = trained
    assert state.step == 3
    continued = train(stores, tmp_path / "a", model=before, optimiser=state).model
    assert largest_difference(continued, after) < 1e-6
    afresh = train(stores, tmp_path / "b", model=before).model
    assert largest_difference(afresh, after) > 1e-3
    assert largest_difference(before, after) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [{"step": 1}, *({"settings": {**SETTINGS, name: value}} for name, value in (("beta1", 0.7), ("eps", 1e-8)))],
)
def test_step_betas_and_eps_belong_to_the_state(
    tmp_path: Path, stores: tuple[Store, Store], trained: tuple[Tiny, OptimiserState, Tiny], changes: dict[str, Any]
) -> None:
    before, state, after = trained
    other = train(stores, tmp_path, model=before, optimiser=replace(state, **changes)).model
    assert largest_difference(other, after) > 1e-5


def test_rate_and_decay_of_the_state_do_not_count(
    tmp_path: Path, stores: tuple[Store, Store], trained: tuple[Tiny, OptimiserState, Tiny]
) -> None:
    before, state, after = trained
    other = replace(state, settings={**SETTINGS, "lr": 7.0, "weight_decay": 0.0})
    assert largest_difference(train(stores, tmp_path, model=before, optimiser=other).model, after) < 1e-6


def test_the_given_state_stays_as_it_is(
    tmp_path: Path, stores: tuple[Store, Store], trained: tuple[Tiny, OptimiserState, Tiny]
) -> None:
    before, state, _ = trained
    sha256 = state.sha256
    train(stores, tmp_path, model=before, optimiser=state)
    assert state.sha256 == sha256


def test_a_killed_run_keeps_its_own_state(
    tmp_path: Path, stores: tuple[Store, Store], trained: tuple[Tiny, OptimiserState, Tiny]
) -> None:
    before, state, _ = trained
    schedule = replace(ONE_STEP, epochs=3, clips_per_epoch=None)
    whole = train(stores, tmp_path / "whole", schedule, model=before, optimiser=state)
    assert largest_difference(whole.model, train(stores, tmp_path / "afresh", schedule, model=before).model) > 1e-3
    # The state given again must not be put over the one that the first epoch made of it: nor may any other.
    for name, given in (("same", state), ("other", replace(state, step=90, settings={**SETTINGS, "beta1": 0.1}))):
        with pytest.raises(Killed):
            train(stores, tmp_path / name, schedule, model=before, optimiser=state, progress=Killing("epoch 2"))
        resumed = train(stores, tmp_path / name, schedule, model=before, optimiser=given)
        assert largest_difference(resumed.model, whole.model) == 0
        assert [e["loss"] for e in resumed.history] == [e["loss"] for e in whole.history]


def test_the_state_of_another_model_is_refused(
    tmp_path: Path, stores: tuple[Store, Store], trained: tuple[Tiny, OptimiserState, Tiny]
) -> None:
    before, state, _ = trained
    less = [
        {key: value for key, value in moments.items() if key != "head.bias"}
        for moments in (state.first_moments, state.second_moments)
    ]
    with pytest.raises(CheckpointError) as caught:
        train(stores, tmp_path, model=before, optimiser=OptimiserState(3, less[0], less[1], SETTINGS))
    assert str(caught.value) == (
        "The optimiser state is of 4 parameters and the model has 5; 'head.bias' is in one alone. "
        "Start from a checkpoint without optimiser state."
    )
    wide = {"head.bias": torch.zeros(4)}
    other = OptimiserState(3, {**state.first_moments, **wide}, {**state.second_moments, **wide}, SETTINGS)
    with pytest.raises(CheckpointError) as caught:
        train(stores, tmp_path, model=before, optimiser=other)
    assert str(caught.value) == (
        "The optimiser state of 'head.bias' has shape (4,); the parameter has (3,). "
        "Start from a checkpoint without optimiser state."
    )


def test_moments_lie_as_the_parameters_do(trained: tuple[Tiny, OptimiserState, Tiny]) -> None:
    _, state, _ = trained
    model = tiny().to(memory_format=torch.channels_last)
    task = WordTask(model, spec=SPEC, schedule=ONE_STEP, num_steps=1, optimiser=state)
    held = task.configure_optimizers()["optimizer"].state
    assert held[model.conv.weight]["exp_avg"].stride() == model.conv.weight.stride()
    assert torch.equal(held[model.conv.weight]["exp_avg"], state.first_moments["conv.weight"])
    assert torch.equal(held[model.norm.bias]["exp_avg_sq"], state.second_moments["norm.bias"])
    steps = [held[parameter]["step"] for parameter in model.parameters()]
    assert all(step.dtype == torch.float32 and step.shape == () and float(step) == 3 for step in steps)
    assert len({step.data_ptr() for step in steps}) == 5  # AdamW counts in place


class Bounded(Tiny):
    """Wants an indicator and remembers it."""

    boundary = True

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Tensor] = []

    def forward(self, clips: Tensor, lengths: Tensor | None = None, boundaries_BT1: Tensor | None = None) -> Tensor:
        assert boundaries_BT1 is not None
        self.heard.append(boundaries_BT1)
        return super().forward(clips * boundaries_BT1[:, None, :, :, None])


class Deaf(Tiny):
    boundary = False


FRAMES = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (2, 6, 24, 24), dtype=np.uint8))
BATCH = (FRAMES, torch.tensor([0, 2]), torch.tensor([[1, 3], [5, 5]]))
INSIDE = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.float32)[:, :, None]


@pytest.mark.parametrize("teacher", [None, Bounded, Deaf])
@pytest.mark.parametrize("student", [Bounded, Deaf])
def test_networks_that_want_boundaries_are_told(student: type[Tiny], teacher: type[Tiny] | None) -> None:
    models = [student(), *([teacher()] if teacher else [])]
    task = WordTask(models[0], spec=SPEC, schedule=ONE_STEP, num_steps=1, teacher=models[1] if teacher else None)
    task.trainer = type("Trainer", (), {"current_epoch": 0})()  # type: ignore[assignment]
    task.training_step(BATCH, 0)
    task.validation_step(BATCH, 0)
    for model, times in zip(models, (2, 1), strict=False):
        if isinstance(model, Bounded):
            assert len(model.heard) == times
            assert all(torch.equal(heard, INSIDE) for heard in model.heard)
            assert model.heard[0].dtype == torch.float32


@pytest.mark.parametrize("boundary_weight", [0.0, 0.5])
def test_a_published_boundary_network_trains(
    tmp_path: Path, stores: tuple[Store, Store], boundary_weight: float
) -> None:
    sizes = {"trunk_widths": (8, 8, 8, 8), "block_config": (1,), "growth": (6,), "reduced": 8, "excite": False}
    model = build_classifier("lip_tcn", num_words=len(WORDS), options={"boundary": True, **sizes})
    schedule = replace(ONE_STEP, boundary_weight=boundary_weight)
    result = train(stores, tmp_path, schedule, model=model, teacher=None if boundary_weight else model)
    assert largest_difference(result.model, model) > 1e-4


def test_boundaries_move_with_the_clip() -> None:
    frames = FRAMES[:1].repeat(40, 1, 1, 1)
    boundaries = torch.tensor([[1, 3], [4, 5]]).repeat(20, 1)
    got = training_batch(frames, boundaries, SPEC, Augmentation(shift_frames=3), torch.Generator())
    clips, moved = got.clips, got.boundaries_B2
    plain = torch.from_numpy(network_input(FRAMES[:1].numpy(), SPEC))[0, 0]
    offsets = set()
    for clip, (first, last), (new_first, new_last) in zip(
        clips[:, 0], boundaries.tolist(), moved.tolist(), strict=True
    ):
        matching = [
            s for s in range(-3, 4) if torch.allclose(clip, plain[(torch.arange(6) + s).clamp(0, 5)], atol=1e-6)
        ]
        (offset,) = matching
        offsets.add(offset)
        assert (new_first, new_last) == (min(5, max(0, first - offset)), min(5, max(0, last - offset)))
        if 0 <= first - offset <= 5:
            assert torch.allclose(clip[new_first], plain[first], atol=1e-6)
    assert len(offsets) > 3
    assert torch.equal(boundaries[:2], torch.tensor([[1, 3], [4, 5]]))
