"""The training schedule of a recipe."""

from __future__ import annotations

from edgelip.recipe_sections import TrainSection
from edgelip.train.augment import Augmentation, Variation
from edgelip.train.fit import fast_precision
from edgelip.train.landmark_augment import LandmarkAugmentation
from edgelip.train.module import Schedule


def schedule_from(
    section: TrainSection,
    *,
    kind: str,
    epochs: int,
    rate: float,
    train_norms: bool = True,
    clips_per_epoch: int | None = None,
) -> Schedule:
    """The training schedule of a recipe, with the length and rate of one step, for clips of a kind."""
    precision = fast_precision() if section.precision == "auto" else section.precision
    return Schedule(
        epochs=epochs,
        clips_per_epoch=clips_per_epoch,
        batch_size=section.batch_size,
        learning_rate=rate,
        weight_decay=section.weight_decay,
        rate_schedule=section.rate_schedule,
        warmup_fraction=section.warmup_fraction,
        label_smoothing=section.label_smoothing,
        mixup_alpha=section.mixup_alpha,
        cutmix_alpha=section.cutmix_alpha,
        cutmix_cut=section.cutmix_cut,
        boundary_weight=section.boundary_weight,
        seed=section.seed,
        precision=precision if train_norms else "32-true",  # int8 rounding is trained in full precision
        train_norms=train_norms,
        augmentation=_variation(section, kind),
    )


def _variation(section: TrainSection, kind: str) -> Variation:
    if kind == "landmarks":
        varied = {} if section.landmarks is None else section.landmarks.model_dump()
        return LandmarkAugmentation(flip=section.flip, drop_frames=section.time_mask_frames, **varied)
    return Augmentation(
        flip=section.flip,
        shift_frames=section.shift_frames,
        time_mask_frames=section.time_mask_frames,
        brightness=section.brightness,
        random_crop=section.random_crop,
        time_mask_draw=section.time_mask_draw,
        variable_length=section.variable_length,
    )
