"""Procedural signers: landmarks of moving hands, any (seed, split, index) made alone or in any batch, to the same bits.

A word is a hand shape, a place, a path and the order in which the path is travelled. The four orders of one path visit
the same places with the same shapes, so that they differ in nothing but time.
Axes: B clips, T frames, P points, A coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from edgelip.data.readers.samples import SPLITS, Split
from edgelip.data.synthetic.anatomy import SHAPES
from edgelip.data.synthetic.casting import performers
from edgelip.data.synthetic.gestures import MAX_FRAMES, ORDERS, PATHS, PLACES, Base, body_points, motion_of
from edgelip.data.synthetic.hashing import Draws, combine
from edgelip.data.synthetic.side_by_side import side_by_side
from edgelip.data.synthetic.signers import SignerSpreads, draw_signers
from edgelip.data.synthetic.tracker import seen_points
from edgelip.runtime.errors import UsageError
from edgelip.runtime.landmarks import PointSet, point_set

GENERATOR_VERSIONS = (1,)
"""Versions that a recipe may pin. A version's clips never change; a change of looks or difficulty is a new version."""

_SIGNER_KEY, _CLIP_KEY = 11, 12
_CHUNK = 32


def words_of(num_words: int) -> tuple[str, ...]:
    """The first words of the vocabulary, such as "flat-chin-vertical-out": minimal pairs come first.

    Raises UsageError if there are fewer, or less than 2 are asked for.
    """
    most = len(_bases()) * len(ORDERS)
    if not 2 <= num_words <= most:
        raise UsageError(f"num_words is {num_words}; expected 2 to {most}.")
    names = (f"{'-'.join(base)}-{order}" for base in _bases() for order in ORDERS)
    return tuple(name for name, _ in zip(names, range(num_words), strict=False))


def _bases() -> list[Base]:
    """(shape, place, path), sorted so that the first ones differ in few values of each."""
    axes = (tuple(SHAPES), tuple(PLACES), PATHS)
    numbers = sorted(product(*(range(len(axis)) for axis in axes)), key=lambda three: (max(three), sum(three), three))
    return [(axes[0][shape], axes[1][place], axes[2][path]) for shape, place, path in numbers]


@dataclass(frozen=True)
class SigningSpec:
    """Which clips exist. Two equal specs describe the same clips, bit for bit on a CPU."""

    num_words: int = 40
    """The first of the vocabulary, see `words_of`; label = position."""
    seed: int = 0
    generator: int = 1
    """Version of the generator, one of GENERATOR_VERSIONS."""
    train_signers: int = 200
    val_signers: int = 40
    test_signers: int = 100
    severity: float = 1.0
    """Scales every variation of signers, clips and the tracker but handedness."""

    def __post_init__(self) -> None:
        words_of(self.num_words)
        if self.generator not in GENERATOR_VERSIONS:
            known = ", ".join(map(str, GENERATOR_VERSIONS))
            raise UsageError(
                f"generator is {self.generator}; expected one of {known}. Pin a version that this release has."
            )
        for name in ("train_signers", "val_signers", "test_signers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1. Raise it.")
        if not 0.0 <= self.severity <= 3.0:
            raise UsageError(f"severity is {self.severity}; expected 0 to 3. 1 is the tuned difficulty.")

    def signers(self, split: Split) -> int:
        """Number of signers of a split."""
        return {"train": self.train_signers, "val": self.val_signers, "test": self.test_signers}[split]


@dataclass(frozen=True)
class SignBatch:
    """Made clips and all that is known about them."""

    points_BTPA: Tensor
    """float32 (B, MAX_FRAMES, P, 3) as MediaPipe Holistic gives them; NaN: lost, or beyond the clip's length."""
    lengths_B: Tensor
    """int64, frames of each clip."""
    labels_B: Tensor
    """int64, position in `words_of`."""
    signers_B: Tensor
    """int64, unique over the three splits: train first, then val, then test."""


def make_signs(
    spec: SigningSpec,
    split: Split,
    indices: Sequence[int] | Tensor,
    *,
    points: PointSet | None = None,
    spreads: SignerSpreads | None = None,
) -> SignBatch:
    """Make clips `indices` of a split; any index >= 0 exists. Label of index i: i modulo the number of words.

    points: which of the 543; all of them if None. spreads replaces the tuned variation, before severity scales it.
    Raises UsageError for an unknown split or a negative index.
    """
    if split not in SPLITS:
        raise UsageError(f"split is {split!r}; expected one of {', '.join(SPLITS)}. Name one of them.")
    indices_B = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
    if indices_B.numel() and int(indices_B.min()) < 0:
        raise UsageError(f"indices hold {int(indices_B.min())}; expected integers >= 0. Count clips from 0.")
    if not indices_B.numel():
        raise UsageError("indices is empty; expected at least one clip.")
    chosen = points or point_set("all543")
    scaled = (spreads or SignerSpreads()).scaled(spec.severity)
    chunks = side_by_side(
        lambda some_B: _chunk(spec, split, some_B, chosen, scaled),
        torch.split(indices_B, _CHUNK),
        torch.get_num_threads(),
    )
    fields = ((batch.points_BTPA, batch.lengths_B, batch.labels_B, batch.signers_B) for batch in chunks)
    return SignBatch(*(torch.cat(tensors) for tensors in zip(*fields, strict=True)))


def _chunk(spec: SigningSpec, split: Split, indices_B: Tensor, points: PointSet, spreads: SignerSpreads) -> SignBatch:
    split_key = SPLITS.index(split)
    numbers_B = performers(
        indices_B,
        num_words=spec.num_words,
        num_performers=spec.signers(split),
        seed=spec.seed,
        split_key=split_key,
    )
    root_B = torch.full_like(indices_B, spec.seed)
    clip = Draws(combine(root_B, _CLIP_KEY, split_key, indices_B))
    signers = draw_signers(Draws(combine(root_B, _SIGNER_KEY, split_key, numbers_B)), clip, spreads, len(PLACES))
    labels_B = indices_B % spec.num_words
    names = [_bases()[label // len(ORDERS)] for label in labels_B.tolist()]
    motion = motion_of(labels_B % len(ORDERS), signers)
    seen_BTPA = seen_points(body_points(motion, names, signers, clip, points), signers, clip, points)
    frames = torch.arange(MAX_FRAMES)
    inside_BT = frames < motion.lengths_B[:, None]
    seen_BTPA = torch.where(inside_BT[:, :, None, None], seen_BTPA, torch.nan)
    earlier = sum(spec.signers(other) for other in SPLITS[:split_key])
    return SignBatch(seen_BTPA, motion.lengths_B, labels_B, numbers_B + earlier)
