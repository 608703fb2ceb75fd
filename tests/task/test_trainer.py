from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clips import OPTIONS, SPEC, WORDS, write_split
from torch import Tensor

from edgelip.errors import UsageError
from edgelip.progress import Progress, Task
from edgelip.runtime.clip import ClipSpec
from edgelip.task.classifier import WordClassifier
from edgelip.task.clips import ClipData
from edgelip.task.trainer import Trainer
from edgelip.train.augment import Augmentation


class Killed(BaseException):
    pass


class Killing(Progress):
    """Dies as soon as the given epoch, counted from 1, reports."""

    def __init__(self, epoch: int) -> None:
        super().__init__(quiet=True)
        self.epoch = epoch

    @contextmanager
    def task(self, name: str, *, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        epoch = self.epoch

        class Dying(Task):
            def advance(self, amount: int, *, note: str | None = None) -> None:
                if f"epoch {epoch}" in (note or ""):
                    raise Killed

        yield Dying(name, total, unit, done)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipData:
    root = tmp_path_factory.mktemp("words")
    return ClipData.from_folders(
        train_folder=write_split(root / "train", 8),
        val_folder=write_split(root / "val", 4, start=20),
        test_folder=write_split(root / "test", 4, start=40),
        batch_size=4,
        clip=SPEC,
        progress=Progress(quiet=True),
    )


def classifier(**more: Any) -> WordClassifier:
    return WordClassifier(**{"words": WORDS, "options": OPTIONS, "clip": SPEC, **more})


def trainer(max_epochs: int = 2, **more: Any) -> Trainer:
    return Trainer(**{"max_epochs": max_epochs, "precision": "32-true", "progress": Progress(quiet=True), **more})


def parts_changed(model: WordClassifier, start: dict[str, Tensor]) -> set[str]:
    weights = model.network.state_dict()
    return {name.split(".")[0] for name in weights if not torch.equal(weights[name], start[name])}


def weights(model: WordClassifier) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def test_three_steps_learn_to_tell_two_words(clips: ClipData) -> None:
    model = classifier(learning_rate=1e-2)
    record = trainer(max_epochs=6).fit(model, clips)
    assert len(record.epochs) == 6
    assert record.val_top1 == max(epoch["val_top1"] for epoch in record.epochs) == 1.0  # BELOW is brighter
    assert trainer().validate(model, clips) == record.val_top1
    assert trainer().test(model, clips) == 1.0
    assert model.predict(clips.store("test").frames) == ["ABOUT"] * 4 + ["BELOW"] * 4


def test_accuracy_counts_the_clips_read_right(clips: ClipData) -> None:
    model = classifier()
    read = model.predict(clips.store("test").frames)
    right = sum(word == expected for word, expected in zip(read, ["ABOUT"] * 4 + ["BELOW"] * 4, strict=True))
    assert trainer().test(model, clips) == right / 8


def test_the_trainer_predicts_what_the_model_predicts(clips: ClipData) -> None:
    model, frames = classifier(), clips.store("test").frames
    np.testing.assert_array_equal(
        trainer().predict(model, frames, output="logits"), model.predict(frames, output="logits")
    )


def test_freeze_leaves_frontend_and_trunk_bit_for_bit(clips: ClipData) -> None:
    model = classifier()
    start = weights(model)
    trainer().finetune(model, clips, strategy="freeze")
    assert parts_changed(model, start) == {"temporal", "head"}
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_freeze_and_fit_train_every_part_alike(clips: ClipData) -> None:
    models = [classifier(), classifier()]
    start = weights(models[0])
    trainer().finetune(models[0], clips, strategy="no_freeze")
    trainer().fit(models[1], clips)
    assert parts_changed(models[0], start) == {"frontend", "trunk", "temporal", "head"}
    assert parts_changed(models[1], weights(models[0])) == set()


def test_freeze_unfreeze_trains_every_part_from_its_epoch_on(clips: ClipData) -> None:
    model = classifier(learning_rate=3e-4, seed=2)  # learns slowly, so that a later epoch is the best
    start = weights(model)
    record = trainer(max_epochs=4).finetune(model, clips, strategy=("freeze_unfreeze", 1))
    best = [epoch["val_top1"] for epoch in record.epochs].index(record.val_top1)
    assert best >= 1, "the kept epoch must be one after the unfreezing for this test to see it"
    assert parts_changed(model, start) == {"frontend", "trunk", "temporal", "head"}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            ("freeze_unfreeze", 2),
            r"^freeze_unfreeze at epoch 2 never unfreezes: max_epochs is 2, so the last epoch is 1 "
            r"\(counted from 0\)\. Raise max_epochs, lower the epoch, or take 'freeze'\.$",
        ),
        (("freeze_unfreeze", 0), r"^freeze_unfreeze at epoch 0 freezes nothing\. Take 'no_freeze', or from 1 on\.$"),
        ("frozen", r"^strategy is 'frozen'; expected 'freeze', 'no_freeze' or \('freeze_unfreeze', EPOCH\)\.$"),
        ("freeze_unfreeze", r"^strategy is 'freeze_unfreeze'; expected "),
        (("freeze_unfreeze", True), r"^strategy is \('freeze_unfreeze', True\); expected "),
        (("freeze_unfreeze", "1"), r"^strategy is \('freeze_unfreeze', '1'\); expected "),
    ],
)
def test_strategies_that_cannot_be_followed_are_refused(clips: ClipData, strategy: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trainer(max_epochs=2).finetune(classifier(), clips, strategy=strategy)


def test_a_killed_run_leaves_the_model_alone_and_goes_on(clips: ClipData, tmp_path: Path) -> None:
    whole = classifier()
    trainer(3).finetune(whole, clips, strategy=("freeze_unfreeze", 1))
    model = classifier()
    start = weights(model)
    with pytest.raises(Killed):
        trainer(3, workspace=tmp_path, progress=Killing(3)).finetune(model, clips, strategy=("freeze_unfreeze", 1))
    assert parts_changed(model, start) == set()
    assert model.training
    with pytest.raises(Killed):  # another run in the same workspace does not pick up its state
        trainer(3, workspace=tmp_path, progress=Killing(1)).fit(model, clips)
    record = trainer(3, workspace=tmp_path).finetune(model, clips, strategy=("freeze_unfreeze", 1))
    assert parts_changed(model, weights(whole)) == set()
    assert len(record.epochs) == 3
    again = classifier()
    # A single epoch more would die.
    known = trainer(3, workspace=tmp_path, progress=Killing(1)).finetune(again, clips, strategy=("freeze_unfreeze", 1))
    assert known == record
    assert parts_changed(again, weights(whole)) == set()


def test_settings_and_clips_that_do_not_fit_are_refused(clips: ClipData) -> None:
    with pytest.raises(UsageError, match=r"^max_epochs is 0; expected a whole number from 1\.$"):
        trainer(0)
    with pytest.raises(UsageError, match=r"^precision is '16'; expected 'auto', '32-true' or 'bf16-mixed'\.$"):
        trainer(precision="16")
    with pytest.raises(
        UsageError,
        match=r"^the model reads 4 words \(A, B, C, \.\.\.\), the clips have 2 \(ABOUT, BELOW\)\. "
        r"Make the model with words=clips\.words\.$",
    ):
        trainer().fit(classifier(words=["A", "B", "C", "D"]), clips)
    with pytest.raises(UsageError, match=r"^the clips have roi_px 24 \(the model takes 26\)\. Make the model with"):
        trainer().test(classifier(clip=ClipSpec(frames=6, roi_px=26, crop_px=20)), clips)
    without = ClipData(WORDS, SPEC, 4, {"train": clips.store("train")}, ())
    with pytest.raises(UsageError, match=r"have no val split, only train\. Add clips of it, or val_folder\.$"):
        trainer().fit(classifier(), without)


def test_the_lineage_tells_each_training(clips: ClipData, tmp_path: Path) -> None:
    model = classifier()
    model.lineage = ({"stage": "import", "config": {"from": "elsewhere"}, "record": {}},)
    record = trainer(1).finetune(model, clips, strategy="freeze")
    trainer(1).fit(model, clips)
    model.save(tmp_path / "model.safetensors")
    lineage = WordClassifier.load(tmp_path / "model.safetensors").lineage
    assert [entry["stage"] for entry in lineage] == ["import", "train", "train"]
    assert lineage[1]["config"]["freezing"] == {"parts": ["frontend", "trunk"], "until_epoch": None}
    assert lineage[1]["record"] == {"val_top1": record.val_top1}
    assert lineage[2]["config"]["freezing"] is None
    assert lineage[2]["config"]["schedule"]["epochs"] == 1


def test_cached_features_train_to_the_same_weights(clips: ClipData, tmp_path: Path) -> None:
    plain = {"augmentation": Augmentation(), "precision": "32-true"}
    pixels, features = classifier(), classifier()
    record = trainer(2, **plain).finetune(pixels, clips, strategy="freeze")
    cached = trainer(2, **plain, feature_cache="fp32", workspace=tmp_path).finetune(features, clips, strategy="freeze")
    there = weights(features)
    assert max(float((tensor - there[name]).abs().max()) for name, tensor in weights(pixels).items()) < 1e-6
    assert cached.val_top1 == record.val_top1
    assert len(list(tmp_path.glob("features-*"))) == 2
    again = classifier()
    trainer(3, **plain, workspace=tmp_path).finetune(again, clips, strategy="freeze")  # shares the frozen parts
    assert {path.stat().st_nlink for path in tmp_path.glob("fit-*/trunk.safetensors")} == {3}
    assert {path.stat().st_nlink for path in tmp_path.glob("fit-*/head.safetensors")} == {2}
    assert features.lineage[-1]["config"]["features"] == {"precision": "fp32", "views": 1}


def test_a_feature_cache_that_cannot_be_is_refused(clips: ClipData) -> None:
    with pytest.raises(UsageError, match=r"^feature_cache is 'fp8'; expected 'fp16', 'fp32' or None\.$"):
        trainer(feature_cache="fp8")
    with pytest.raises(UsageError, match=r"^feature_views is 2; expected 1, or more with feature_cache\.$"):
        trainer(feature_views=2)
    with pytest.raises(UsageError, match=r"^feature_cache keeps what frozen parts make; the strategy is 'no_freeze'\."):
        trainer(feature_cache="fp16").fit(classifier(), clips)
    with pytest.raises(UsageError, match=r"^flip, random_crop vary pixels and cached features have none\. Turn them "):
        trainer(feature_cache="fp16").finetune(classifier(), clips, strategy="freeze")


def test_freezing_fresh_weights_is_told(clips: ClipData) -> None:
    class Recording(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    model = classifier()
    for _ in range(2):  # the second time the weights come from training
        trainer(1, progress=Recording(quiet=True)).finetune(model, clips, strategy="freeze")
    trainer(1, progress=Recording(quiet=True)).fit(classifier(), clips)
    assert said == ["frontend and trunk are frozen with fresh weights: nothing has trained them"]
