"""Training on what a frozen frontend and trunk made of the clips, computed once instead of once an epoch.

What varies pixels (flip, random_crop, brightness) happens before the trunk: it is refused, or fixed beforehand in so
many views of each clip, of which each epoch draws one. What varies time acts on the features (feature_augment).
Without variation the trained weights are those of training on pixels, to rounding.
Axes: B clips, K views, T frames, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.cache import Cache, step_key
from edgelip.data.stores.store import Store
from edgelip.errors import UsageError
from edgelip.models.checkpoint import OptimiserState, weights_sha256
from edgelip.models.classifier import ClipNetwork
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec
from edgelip.train.augment import Augmentation, drawn
from edgelip.train.feature_augment import FeatureVariation
from edgelip.train.feature_store import DTYPES, FeatureStore, FeatureWriter, Precision, open_features
from edgelip.train.fit import FitResult, channels_last, fit
from edgelip.train.frame_draws import FrameDraws
from edgelip.train.freezing import Freezing
from edgelip.train.module import Schedule
from edgelip.train.pixels import PixelDraws, clips_from_frames

CACHED_PARTS = ("frontend", "trunk")
_BATCH = 64
_SOURCES = ("models", "train/feature_cache.py", "train/feature_store.py", "train/augment.py", "train/frame_draws.py",
            "train/pixels.py", "runtime/clip.py")  # fmt: skip


@final
@dataclass(frozen=True)
class FeatureCaching:
    """steps: where features are kept; precision: of a number on disk; views: variants of each training clip."""

    steps: Cache
    precision: Precision = "fp16"
    views: int = 1


def fit_on_features(
    model: nn.Module,
    *,
    caching: FeatureCaching,
    freezing: Freezing,
    train: Store,
    val: Store,
    spec: ClipSpec,
    schedule: Schedule,
    workspace: Path,
    progress: Progress,
    name: str,
    optimiser: OptimiserState | None = None,
) -> FitResult:
    """`fit` of a copy of `model` whose frontend and trunk are frozen, run once over every clip.

    Raises UsageError for a network without such parts, parts that are thawed later, or a variation of pixels that so
    many views cannot hold.
    """
    network = _cacheable(model, freezing)
    pixels = _pixels(schedule, caching.views)
    trunk = nn.Sequential(network.frontend, network.trunk)
    stores = {}
    for split, store, views in (("train", train, caching.views), ("val", val, 1)):
        stores[split] = _features_of(
            trunk, store, spec, replace(caching, views=views), pixels, schedule, progress, name=f"features {split}"
        )
    rest = tuple(part for part in freezing.parts if part not in CACHED_PARTS)
    upper = _upper(network)
    result = fit(
        upper,
        train=stores["train"],
        val=stores["val"],
        spec=spec,
        schedule=replace(schedule, augmentation=_times(schedule, caching.views)),
        workspace=workspace,
        progress=progress,
        name=name,
        freezing=Freezing(rest) if rest else None,
        optimiser=None if optimiser is None else _state_of(optimiser, upper),
    )
    trained = deepcopy(network)
    trained.load_state_dict({**network.state_dict(), **result.model.state_dict()})
    return replace(result, model=trained.cpu().eval())


def check_caching(model: nn.Module, freezing: Freezing, schedule: Schedule, views: int) -> None:
    """Raises UsageError where `fit_on_features` would, before clips are prepared."""
    _cacheable(model, freezing)
    _pixels(schedule, views)


def _cacheable(model: nn.Module, freezing: Freezing) -> ClipNetwork:
    if not isinstance(model, ClipNetwork):
        raise UsageError("feature_cache needs a network of frontend and trunk; this one has none. Leave it out.")
    if freezing.until_epoch is not None or not set(CACHED_PARTS) <= set(freezing.parts):
        raise UsageError(
            "feature_cache needs frontend and trunk frozen to the end of the run; they are to be trained. Leave it out."
        )
    return model


def _pixels(schedule: Schedule, views: int) -> Augmentation:
    """What of the schedule happens to pixels. Raises UsageError if it does not fit the number of views."""
    given = schedule.augmentation
    if not isinstance(given, Augmentation):
        raise UsageError("feature_cache is for video; these clips are landmarks. Leave it out.")
    pixels = Augmentation(flip=given.flip, random_crop=given.random_crop, brightness=given.brightness)
    on = [key for key in ("flip", "random_crop", "brightness") if getattr(pixels, key)]
    if schedule.cutmix_alpha and schedule.cutmix_cut != "span":
        raise UsageError(
            f"cutmix_cut is {schedule.cutmix_cut!r}, which cuts pixels; cached features have none. Take span."
        )
    if on and views == 1:
        raise UsageError(
            f"{', '.join(on)} vary pixels and cached features have none. Turn them off, or keep several variants of "
            "each clip: feature_views = 2 for plain and mirrored, more for other variation."
        )
    if not on and views > 1:
        raise UsageError(f"feature_views is {views} and nothing varies pixels: all would be equal. Leave it out.")
    if on == ["flip"] and views > 2:
        raise UsageError(f"feature_views is {views}; with flip alone a clip has 2 variants. Set it to 2.")
    return pixels


def _times(schedule: Schedule, views: int) -> FeatureVariation:
    given = schedule.augmentation
    assert isinstance(given, Augmentation)
    return FeatureVariation(
        given.shift_frames, given.time_mask_frames, given.time_mask_draw, given.variable_length, views > 1
    )


def _features_of(
    trunk: nn.Sequential,
    store: Store,
    spec: ClipSpec,
    caching: FeatureCaching,
    pixels: Augmentation,
    schedule: Schedule,
    progress: Progress,
    *,
    name: str,
) -> FeatureStore:
    """The features of a store, from the cache or computed into it; goes on where a killed run stood."""
    config: dict[str, Any] = {
        "clip": spec.to_json(),
        "precision": caching.precision,
        "arithmetic": schedule.precision,
        "structure": hashlib.sha256(repr(trunk).encode()).hexdigest(),
        "views": [caching.views, asdict(pixels), schedule.seed] if caching.views > 1 else [1],
    }
    inputs = [weights_sha256(trunk.state_dict()), store.sha256]
    key = step_key("features", config, sources=_SOURCES, inputs=inputs, packages=("torch", "numpy"))
    if caching.steps.finished(key) is None:
        with caching.steps.making(key) as work:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            run = channels_last(deepcopy(trunk)).eval().to(device)
            views = _Views(store, spec, pixels, schedule.seed, caching.views, device)
            bf16 = schedule.precision == "bf16-mixed"
            _compute(run, views, work, store, caching, progress, name=name, device=device, bf16=bf16)
    return FeatureStore(open_features(caching.steps.folder / key), store.labels, store.boundaries)


class _Views:
    """Network inputs (B, 1, T, H, W) of one view of the clips `start` to `end`: view 0 plain, the others drawn."""

    def __init__(
        self, store: Store, spec: ClipSpec, pixels: Augmentation, seed: int, num_views: int, device: torch.device
    ) -> None:
        self._store, self._spec, self._pixels, self._seed = store, spec, pixels, seed
        self.num_views, self._device = num_views, device

    def __call__(self, start: int, end: int, view: int) -> Tensor:
        stored = torch.from_numpy(np.asarray(self._store.frames[start:end])).to(self._device)
        return clips_from_frames(stored, self._spec, self._draws(start, end, view), FrameDraws())

    def _draws(self, start: int, end: int, view: int) -> PixelDraws:
        if view == 0:
            return PixelDraws()
        if not self._pixels.random_crop and not self._pixels.brightness:
            return PixelDraws(flips_B=torch.ones(end - start, dtype=torch.bool))
        seed = int.from_bytes(hashlib.sha256(f"{self._seed} {view} {start}".encode()).digest()[:7], "little")
        boundaries = torch.zeros(end - start, 2, dtype=torch.long)
        generator = torch.Generator().manual_seed(seed)
        return drawn(self._spec.frames, boundaries, self._spec, self._pixels, generator)[0]


@torch.inference_mode()
def _compute(
    trunk: nn.Module,
    views: _Views,
    work: Path,
    store: Store,
    caching: FeatureCaching,
    progress: Progress,
    *,
    name: str,
    device: torch.device,
    bf16: bool,
) -> None:
    def features(start: int, end: int, view: int) -> np.ndarray:
        clips = views(start, end, view)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            made: Tensor = trunk(clips)
        return made.float().reshape(end - start, clips.shape[2], -1).cpu().numpy()

    num_clips = len(store)
    first = features(0, 1, 0)
    shape = (num_clips, views.num_views, first.shape[1], first.shape[2])
    writer = FeatureWriter(work, shape, caching.precision)
    progress.say(
        f"{name}: {num_clips} clips x {views.num_views}, {writer.num_bytes / 1e6:.1f} MB in {caching.precision}"
    )
    with progress.task(name, total=num_clips, unit="clips", done=writer.num_done) as task:
        while writer.num_done < num_clips:
            shard_end = min(num_clips, writer.num_done + writer.shard_clips)
            parts = []
            for start, end in _batches(writer.num_done, shard_end):
                parts.append(np.stack([features(start, end, view) for view in range(views.num_views)], axis=1))
                task.advance(end - start)
            writer.write(_finite(np.concatenate(parts), caching.precision))


def _finite(features_NKTF: np.ndarray, precision: Precision) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = features_NKTF.astype(DTYPES[precision])
    if not np.isfinite(stored).all():
        largest = float(np.abs(features_NKTF).max())
        remedy = (
            'Set feature_cache = "fp32".' if np.isfinite(largest) else "The frozen weights are no use; train again."
        )
        raise UsageError(f"features reach {largest:g}, which {precision} does not hold. {remedy}")
    return stored


def _batches(start: int, end: int) -> Iterator[tuple[int, int]]:
    for first in range(start, end, _BATCH):
        yield first, min(end, first + _BATCH)


class _AsFeatures(nn.Module):
    """Cached features in the place of a frontend: (B, 1, T, F, 1) -> (B*T, F)."""

    def forward(self, clips_B1TF1: Tensor) -> Tensor:
        return clips_B1TF1.flatten(3).flatten(0, 2)


def _upper(network: ClipNetwork) -> ClipNetwork:
    """The network above its trunk; its parts are those of `network`."""
    return ClipNetwork(
        frontend=_AsFeatures(),
        trunk=nn.Identity(),
        temporal=network.temporal,
        head=network.head,
        output=network.output,
        boundary=network.boundary,
        as_published=network.as_published,
        takes_lengths=network.takes_lengths,
    )


def _state_of(optimiser: OptimiserState, upper: nn.Module) -> OptimiserState:
    """The optimiser's state of the parameters that are still there."""
    names = {name for name, _ in upper.named_parameters()}
    first, second = (
        {name: moment for name, moment in moments.items() if name in names}
        for moments in (optimiser.first_moments, optimiser.second_moments)
    )
    return replace(optimiser, first_moments=first, second_moments=second)
