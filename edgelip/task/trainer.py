"""Training and testing a word classifier on clips from folders."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from edgelip.cache import Cache, step_key
from edgelip.data.readers.samples import Split
from edgelip.errors import UsageError
from edgelip.files import write_atomic
from edgelip.linked import Blobs
from edgelip.models.checkpoint import checkpoint_from_model, weights_sha256
from edgelip.models.kept import BLOBS, keep_checkpoint, read_kept
from edgelip.progress import Progress
from edgelip.task.classifier import Clips, Output, WordClassifier, check_spec
from edgelip.task.clips import ClipData
from edgelip.train.augment import Augmentation
from edgelip.train.feature_cache import FeatureCaching, fit_on_features
from edgelip.train.fit import STATE_FILE, fast_precision, fit
from edgelip.train.freezing import Freezing
from edgelip.train.module import Schedule
from edgelip.words import WORDS_FILE, write_words

Strategy = Literal["freeze", "no_freeze"] | tuple[Literal["freeze_unfreeze"], int]
FROZEN_PARTS = ("frontend", "trunk")
_STRATEGIES = "'freeze', 'no_freeze' or ('freeze_unfreeze', EPOCH)"
_RECORD = "record.json"
_TEST_BATCH = 64


@final
@dataclass(frozen=True)
class TrainingRecord:
    """Validation accuracy (0..1) of the weights that were kept, and loss, val_top1 and seconds of each epoch."""

    val_top1: float
    epochs: tuple[Mapping[str, float], ...]


@final
class Trainer:
    """Trains for `max_epochs` and keeps the weights of the epoch that reads most validation clips.

    workspace: folder where each run keeps its state, under a key over weights, clips and settings: a run that was
    killed goes on from its last epoch, a finished one is not repeated. None: a temporary folder, gone afterwards.
    augmentation: how training clips are varied; mirrored and cropped at random if None.
    precision: "auto" takes bf16 where the processor multiplies in it.
    feature_cache: with the strategy "freeze", run the frozen parts once and train on what they made, kept in the
    workspace in this precision. feature_views: variants of each clip in it, for an augmentation that varies pixels.
    The same seed, clips and machine give the same weights.
    """

    def __init__(
        self,
        *,
        max_epochs: int,
        seed: int = 0,
        workspace: Path | str | None = None,
        augmentation: Augmentation | None = None,
        precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
        feature_cache: Literal["fp16", "fp32"] | None = None,
        feature_views: int = 1,
        progress: Progress | None = None,
    ) -> None:
        if not isinstance(max_epochs, int) or max_epochs < 1:
            raise UsageError(f"max_epochs is {max_epochs!r}; expected a whole number from 1.")
        if precision not in ("auto", "32-true", "bf16-mixed"):
            raise UsageError(f"precision is {precision!r}; expected 'auto', '32-true' or 'bf16-mixed'.")
        if feature_cache not in (None, "fp16", "fp32"):
            raise UsageError(f"feature_cache is {feature_cache!r}; expected 'fp16', 'fp32' or None.")
        if not isinstance(feature_views, int) or feature_views < 1 or (feature_views > 1 and feature_cache is None):
            raise UsageError(f"feature_views is {feature_views!r}; expected 1, or more with feature_cache.")
        self.feature_cache, self.feature_views = feature_cache, feature_views
        self.max_epochs, self.seed = max_epochs, seed
        self.workspace = None if workspace is None else Path(workspace)
        self.augmentation = augmentation or Augmentation(flip=True, random_crop=True)
        self.precision = fast_precision() if precision == "auto" else precision
        self.progress = progress or Progress()

    def fit(self, model: WordClassifier, clips: ClipData) -> TrainingRecord:
        """Train every part of `model`: `finetune` with the strategy "no_freeze"."""
        return self.finetune(model, clips, strategy="no_freeze")

    def finetune(self, model: WordClassifier, clips: ClipData, *, strategy: Strategy) -> TrainingRecord:
        """Train `model` in place on the train split of `clips`; the best epoch on the val split is kept.

        strategy: "no_freeze" trains every part. "freeze" leaves frontend and trunk as they are, bit for bit, and
        trains temporal net and head: for a model whose weights come from `WordClassifier.load`.
        ("freeze_unfreeze", epoch) trains all from that epoch on, counted from 0; a better epoch before it is kept all
        the same. After an error or Ctrl-C `model` is as it was.
        Raises UsageError for another strategy, an epoch that never comes, or clips of another vocabulary or size.
        """
        freezing = _freezing(strategy, self.max_epochs)
        if self.feature_cache is not None and strategy != "freeze":
            raise UsageError(
                f"feature_cache keeps what frozen parts make; the strategy is {strategy!r}. Take 'freeze', or no cache."
            )
        _check_fit(model, clips)
        train, val = clips.store("train"), clips.store("val")
        schedule = Schedule(
            epochs=self.max_epochs,
            batch_size=clips.batch_size,
            learning_rate=model.learning_rate,
            label_smoothing=0.05,
            seed=self.seed,
            precision=self.precision,
            augmentation=self.augmentation,
        )
        architecture = model.architecture()
        config = {"schedule": asdict(schedule), "freezing": None if freezing is None else asdict(freezing)}
        if self.feature_cache is not None:
            config["features"] = {"precision": self.feature_cache, "views": self.feature_views}
        weights = weights_sha256(model.network.state_dict())
        key = step_key(
            "fit",
            {**config, "model": architecture.to_json()},
            sources=["train", "models", "runtime/clip.py", "runtime/landmarks.py"],
            inputs=[weights, train.sha256, val.sha256],
            packages=("torch", "numpy", "lightning"),
        )
        if freezing is not None and not model.lineage:
            self.progress.say(f"{' and '.join(freezing.parts)} are frozen with fresh weights: nothing has trained them")
        with _folder(self.workspace) as folder:
            steps = Cache(folder)
            if steps.finished(key) is None:
                with steps.making(key) as work:
                    shared: dict[str, Any] = {
                        "train": train, "val": val, "spec": model.spec, "schedule": schedule, "workspace": work,
                        "progress": self.progress, "name": f"train {model.backbone}",
                    }  # fmt: skip
                    if self.feature_cache is not None and freezing is not None:
                        caching = FeatureCaching(steps, self.feature_cache, self.feature_views)
                        result = fit_on_features(model.network, caching=caching, freezing=freezing, **shared)
                    else:
                        result = fit(model.network, freezing=freezing, **shared)
                    entry = {"stage": "train", "config": config, "record": {"val_top1": result.val_top1}}
                    grown = replace(architecture, stages=(*architecture.stages, entry))
                    made = checkpoint_from_model(result.model, grown)
                    keep_checkpoint(made, work, Blobs(folder / BLOBS), by_parts=freezing is not None)
                    write_words(work / WORDS_FILE, model.words)
                    record = {"val_top1": result.val_top1, "epochs": result.history}
                    write_atomic(work / _RECORD, json.dumps(record, indent=1) + "\n")
                    (work / STATE_FILE).unlink(missing_ok=True)
            trained = read_kept(folder / key)
            record = json.loads((folder / key / _RECORD).read_bytes())
        model.network.load_state_dict(dict(trained.tensors))
        model.lineage = trained.architecture.stages
        model.eval()
        return TrainingRecord(record["val_top1"], tuple(record["epochs"]))

    def validate(self, model: WordClassifier, clips: ClipData) -> float:
        """Share of the val split that `model` reads right in float32, 0..1. Raises UsageError like `test`."""
        return _top1(model, clips, "val")

    def test(self, model: WordClassifier, clips: ClipData) -> float:
        """Share of the test split that `model` reads right in float32, 0..1.

        Raises UsageError without a test split, or for clips of another vocabulary or size.
        """
        return _top1(model, clips, "test")

    def predict(self, model: WordClassifier, clips: Clips, *, output: Output = "labels") -> list[str] | np.ndarray:
        """`model.predict(clips, output=output)`, under the name that Lightning Flash has for it."""
        return model.predict(clips, output=output)


def _freezing(strategy: Strategy, max_epochs: int) -> Freezing | None:
    if strategy == "no_freeze":
        return None
    if strategy == "freeze":
        return Freezing(FROZEN_PARTS)
    match strategy:
        case ("freeze_unfreeze", int(epoch)) if not isinstance(epoch, bool):
            if epoch < 1:
                raise UsageError(f"freeze_unfreeze at epoch {epoch} freezes nothing. Take 'no_freeze', or from 1 on.")
            if epoch >= max_epochs:
                raise UsageError(
                    f"freeze_unfreeze at epoch {epoch} never unfreezes: max_epochs is {max_epochs}, so the last epoch "
                    f"is {max_epochs - 1} (counted from 0). Raise max_epochs, lower the epoch, or take 'freeze'."
                )
            return Freezing(FROZEN_PARTS, until_epoch=epoch)
    raise UsageError(f"strategy is {strategy!r}; expected {_STRATEGIES}.")


def _check_fit(model: WordClassifier, clips: ClipData) -> None:
    if model.words != clips.words:
        raise UsageError(
            f"the model reads {len(model.words)} words ({_some(model.words)}), the clips have {len(clips.words)} "
            f"({_some(clips.words)}). Make the model with words=clips.words."
        )
    check_spec(model, clips)


def _some(words: tuple[str, ...]) -> str:
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")


def _top1(model: WordClassifier, clips: ClipData, split: Split) -> float:
    _check_fit(model, clips)
    store = clips.store(split)
    num_right = 0
    for start in range(0, len(store), _TEST_BATCH):
        some = slice(start, start + _TEST_BATCH)
        num_right += int((model.logits(np.asarray(store.frames[some])).argmax(axis=1) == store.labels[some]).sum())
    return num_right / len(store)


@contextmanager
def _folder(workspace: Path | None) -> Iterator[Path]:
    if workspace is not None:
        yield workspace
    else:
        with tempfile.TemporaryDirectory(prefix="edgelip-") as folder:
            yield Path(folder)
