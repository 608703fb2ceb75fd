"""The training schedule of a recipe."""

from __future__ import annotations

from edgelip.recipe import TrainSection
from edgelip.train.augment import Augmentation
from edgelip.train.fit import fast_precision
from edgelip.train.module import Schedule


def schedule_from(
    section: TrainSection, *, epochs: int, rate: float, train_norms: bool = True, clips_per_epoch: int | None = None
) -> Schedule:
    """The training schedule of a recipe, with the length and rate of one step."""
    precision = fast_precision() if section.precision == "auto" else section.precision
    return Schedule(
        epochs=epochs,
        clips_per_epoch=clips_per_epoch,
        batch_size=section.batch_size,
        learning_rate=rate,
        weight_decay=section.weight_decay,
        warmup_fraction=section.warmup_fraction,
        label_smoothing=section.label_smoothing,
        mixup_alpha=section.mixup_alpha,
        boundary_weight=section.boundary_weight,
        seed=section.seed,
        precision=precision if train_norms else "32-true",  # int8 rounding is trained in full precision
        train_norms=train_norms,
        augmentation=Augmentation(
            flip=section.flip,
            shift_frames=section.shift_frames,
            time_mask_frames=section.time_mask_frames,
            brightness=section.brightness,
            random_crop=True,
        ),
    )
