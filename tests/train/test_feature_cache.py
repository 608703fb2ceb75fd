"""Training on cached features: the weights of training on pixels, what is refused, a killed cache goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import WORDS, classifier

from edgelip.cache import Cache
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.errors import UsageError
from edgelip.models.checkpoint import OptimiserState
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec
from edgelip.train import feature_cache
from edgelip.train.augment import Augmentation
from edgelip.train.feature_cache import FeatureCaching, fit_on_features
from edgelip.train.fit import FitResult, fit
from edgelip.train.freezing import Freezing
from edgelip.train.landmark_augment import LandmarkAugmentation
from edgelip.train.module import Schedule

SPEC = ClipSpec(frames=6, roi_px=24, pool=1, crop_px=20)
SCHEDULE = Schedule(epochs=3, batch_size=6, learning_rate=3e-3, mixup_alpha=0.0)
FROZEN = Freezing(("frontend", "trunk"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(3)
    labels = np.arange(18) % len(WORDS)
    clips = rng.integers(0, 60, (18, 6, 24, 24)) + 35 * labels[:, None, None, None]
    boundaries = np.stack([labels % 3, 3 + labels % 3], axis=1)
    folder = tmp_path_factory.mktemp("stores") / "train"
    with StoreWriter(folder, 18, SPEC, words=WORDS, source_sha256="0" * 64) as writer:
        writer.write(0, clips.astype(np.uint8), labels_B=labels, speakers_B=labels * 0, boundaries_B2=boundaries)
        return writer.finish()


def on_pixels(store: Store, folder: Path, schedule: Schedule = SCHEDULE, **more: Any) -> FitResult:
    folder.mkdir(parents=True, exist_ok=True)
    return fit(
        classifier(), train=store, val=store, spec=SPEC, schedule=schedule, workspace=folder,
        progress=Progress(quiet=True), name="t", **{"freezing": FROZEN, **more},
    )  # fmt: skip


def on_features(
    store: Store, folder: Path, schedule: Schedule = SCHEDULE, *, precision: Any = "fp32", views: int = 1, **more: Any
) -> FitResult:
    folder.mkdir(parents=True, exist_ok=True)
    more = {"freezing": FROZEN, "progress": Progress(quiet=True), "model": classifier(), **more}
    return fit_on_features(
        more.pop("model"), caching=FeatureCaching(Cache(folder / "cache"), precision, views), train=store, val=store,
        spec=SPEC, schedule=schedule, workspace=folder, name="t", **more,
    )  # fmt: skip


def largest_difference(one: FitResult, other: FitResult) -> float:
    there = other.model.state_dict()
    return max(float((tensor - there[name]).abs().max()) for name, tensor in one.model.state_dict().items())


@pytest.mark.parametrize("changes", [{}, {"boundary_weight": 0.3}, {"augmentation": Augmentation(shift_frames=0)}])
def test_without_variation_of_pixels_the_weights_are_the_same(
    tmp_path: Path, store: Store, changes: dict[str, Any]
) -> None:
    schedule = replace(SCHEDULE, **changes)
    pixels, features = on_pixels(store, tmp_path / "a", schedule), on_features(store, tmp_path / "b", schedule)
    start = classifier().state_dict()
    assert largest_difference(pixels, features) < 1e-6
    moved = {name for name, tensor in features.model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert {name.partition(".")[0] for name in moved} == {"temporal", "head"}
    assert [epoch["val_top1"] for epoch in pixels.history] == [epoch["val_top1"] for epoch in features.history]
    assert not features.model.training


def test_half_precision_is_near(tmp_path: Path, store: Store) -> None:
    whole, half = (on_features(store, tmp_path / name, precision=name) for name in ("fp32", "fp16"))
    assert 0 < largest_difference(whole, half) < 2e-2  # AdamW moves by the sign of a gradient: 3e-3 a step


def test_an_optimiser_state_goes_on_above_the_trunk(tmp_path: Path, store: Store) -> None:
    parameters = dict(classifier().named_parameters())
    first = {name: torch.full_like(p.detach(), 0.05) for name, p in parameters.items()}
    second = {name: torch.full_like(p.detach(), 0.01) for name, p in parameters.items()}
    settings = {"lr": 1e-3, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    state = OptimiserState(10, first, second, settings)
    pixels = on_pixels(store, tmp_path / "a", optimiser=state)
    assert largest_difference(pixels, on_features(store, tmp_path / "b", optimiser=state)) < 1e-6
    assert largest_difference(pixels, on_features(store, tmp_path / "c")) > 1e-4


def test_a_second_training_computes_no_features(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    on_features(store, tmp_path)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(feature_cache, "_compute", never)
    (tmp_path / "training.ckpt").unlink()
    on_features(store, tmp_path, replace(SCHEDULE, learning_rate=1e-3, epochs=1))
    other = classifier()
    with torch.no_grad():
        other.trunk.blocks[0].conv1.conv.weight.add_(0.1) if hasattr(other.trunk, "blocks") else next(
            other.trunk.parameters()
        ).add_(0.1)
    with pytest.raises(AssertionError, match="computed again"):
        on_features(store, tmp_path, model=other)
    with pytest.raises(AssertionError, match="computed again"):
        on_features(store, tmp_path, precision="fp16")
    with pytest.raises(AssertionError, match="computed again"):  # other clips
        on_features(replace(store, sha256="1" * 64), tmp_path)


def test_time_is_varied_on_features(tmp_path: Path, store: Store) -> None:
    varied = Augmentation(shift_frames=1, time_mask_frames=3, variable_length=True)
    schedule = replace(SCHEDULE, augmentation=varied, mixup_alpha=0.4, cutmix_alpha=1.0, cutmix_cut="span")
    plain, other = on_features(store, tmp_path / "a"), on_features(store, tmp_path / "b", schedule)
    assert largest_difference(plain, other) > 1e-3
    assert largest_difference(other, on_features(store, tmp_path / "c", schedule)) == 0


@pytest.mark.parametrize(
    ("augmentation", "views"),
    [(Augmentation(flip=True), 2), (Augmentation(flip=True, random_crop=True, brightness=0.2), 3)],
)
def test_views_hold_what_varies_pixels(tmp_path: Path, store: Store, augmentation: Augmentation, views: int) -> None:
    schedule = replace(SCHEDULE, augmentation=augmentation)
    one = on_features(store, tmp_path / "a", schedule, views=views)
    assert largest_difference(one, on_features(store, tmp_path / "b", schedule, views=views)) == 0
    assert largest_difference(one, on_features(store, tmp_path / "c")) > 1e-3
    (folder,) = [path for path in (tmp_path / "a" / "cache").iterdir() if f"{views}," in _index(path)]
    made = feature_cache.open_features(folder)
    assert made.shape == (18, views, 6, 32)
    every = made[np.arange(18)]
    assert np.abs(every[:, 0] - every[:, 1]).max() > 1e-3
    mirrored = torch.from_numpy(store.frames[np.arange(18)][..., ::-1].copy())
    if views == 2:
        model = classifier()
        clips = (mirrored[:, None, :, 2:22, 2:22].float() / 255 - SPEC.mean) / SPEC.std
        with torch.no_grad():
            np.testing.assert_allclose(every[:, 1], model.features(clips).numpy(), atol=1e-5)


def _index(folder: Path) -> str:
    return (folder / "features.json").read_text()


def test_a_killed_cache_goes_on_after_its_last_whole_shard(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgelip.train import feature_store

    monkeypatch.setattr(feature_store, "SHARD_BYTES", 5 * 6 * 32 * 4)  # 5 clips
    whole = on_features(store, tmp_path / "whole")
    write, written = feature_store.FeatureWriter.write, []

    def dying(self: Any, features: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write(self, features)
        written.append(len(features))

    monkeypatch.setattr(feature_store.FeatureWriter, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        on_features(store, tmp_path / "killed")
    assert written == [5, 5]
    (part,) = (tmp_path / "killed" / "cache").glob("features-*.part")
    damaged = part / "features-00001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(feature_store.FeatureWriter, "write", lambda self, f: (write(self, f), written.append(len(f))))
    resumed = on_features(store, tmp_path / "killed")
    assert written == [5, 5, 5, 5, 3]  # the damaged one again; train and val are the same clips
    assert largest_difference(whole, resumed) == 0


@pytest.mark.parametrize(
    ("changes", "views", "message"),
    [
        (
            {"augmentation": Augmentation(flip=True, random_crop=True)},
            1,
            r"^flip, random_crop vary pixels and cached features have none\. Turn them off, or keep several variants",
        ),
        ({}, 2, r"^feature_views is 2 and nothing varies pixels: all would be equal\. Leave it out\.$"),
        ({"augmentation": Augmentation(flip=True)}, 3, r"^feature_views is 3; with flip alone a clip has 2 variants\."),
        ({"cutmix_alpha": 1.0}, 1, r"^cutmix_cut is 'tube', which cuts pixels; cached features have none\. Take span"),
        ({"augmentation": LandmarkAugmentation()}, 1, r"^feature_cache is for video; these clips are landmarks\. Le"),
    ],
)
def test_what_a_cache_cannot_hold_is_refused(
    tmp_path: Path, store: Store, changes: dict[str, Any], views: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        on_features(store, tmp_path, replace(SCHEDULE, **changes), views=views)


@pytest.mark.parametrize("freezing", [Freezing(("trunk",)), Freezing(("frontend", "trunk"), until_epoch=1)])
def test_parts_that_are_trained_cannot_be_cached(tmp_path: Path, store: Store, freezing: Freezing) -> None:
    with pytest.raises(UsageError, match=r"^feature_cache needs frontend and trunk frozen to the end of the run; they"):
        on_features(store, tmp_path, freezing=freezing)
    with pytest.raises(UsageError, match=r"^feature_cache needs a network of frontend and trunk; this one has none\."):
        on_features(store, tmp_path, model=torch.nn.Linear(2, 2))


def test_other_parts_stay_frozen_too(tmp_path: Path, store: Store) -> None:
    result = on_features(store, tmp_path, freezing=Freezing(("frontend", "trunk", "temporal")))
    start = classifier().state_dict()
    moved = {name for name, tensor in result.model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert {name.partition(".")[0] for name in moved} == {"head"}


def test_features_beyond_half_precision_are_refused(tmp_path: Path, store: Store) -> None:
    model = classifier()
    with torch.no_grad():
        for parameter in model.trunk.parameters():
            parameter.mul_(30.0)
    with pytest.raises(
        UsageError, match=r"^features reach .*, which fp16 does not hold\. Set feature_cache = \"fp32\"\.$"
    ):
        on_features(store, tmp_path, precision="fp16", model=model)
