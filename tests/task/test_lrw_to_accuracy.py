"""A made-up LRW tree, real mp4 files and annotation texts, from the folder to a tested classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_clips import OPTIONS, SPEC
from written_videos import write_video

from edgelip.progress import Progress
from edgelip.task.classifier import WordClassifier
from edgelip.task.clips import ClipData
from edgelip.task.trainer import Trainer
from edgelip.words import read_words

LRW_WORDS = ("ABOUT", "BELOW", "CHEESE", "DINNER", "EVENING")
ANNOTATION = "Disk reference: 1\nChannel: 3\nProgram start: 2013\nClip start: 121.86 seconds\nDuration: 0.12 seconds\n"


def made_up_lrw(root: Path) -> Path:
    """5 words x 3 splits; a word is a grey level, so that a network of any size reads it."""
    rng = np.random.default_rng(3)
    for place, word in enumerate(LRW_WORDS):
        for split, numbers in (("train", range(1, 9)), ("val", range(9, 11)), ("test", range(11, 13))):
            for number in numbers:
                stem = root / word / split / f"{word}_{number:05d}"
                noise = rng.integers(0, 20, (6, 24, 24))
                write_video(stem.with_suffix(".mp4"), (noise + 45 * place).astype(np.uint8))
                stem.with_suffix(".txt").write_text(ANNOTATION)
    return root


def test_a_made_up_lrw_tree_is_prepared_trained_and_tested(tmp_path: Path) -> None:
    quiet = Progress(quiet=True)
    root = made_up_lrw(tmp_path / "lrw")
    (root / "ABOUT/train/ABOUT_00001.mp4").write_bytes(b"")
    (root / "BELOW/train/BELOW_00001.txt").write_text("gone")
    clips = ClipData.from_lrw(root, unusable="skip", batch_size=8, clip=SPEC, progress=quiet)
    assert clips.words == LRW_WORDS
    assert [len(clips.store(split)) for split in ("train", "val", "test")] == [38, 10, 10]
    assert [failure.reason for failure in clips.failures["train"]] == ["damaged"]
    model = WordClassifier("small", words=clips.words, options=OPTIONS, clip=SPEC)
    trainer = Trainer(max_epochs=4, precision="32-true", workspace=tmp_path / "runs", progress=quiet)
    trainer.fit(model, clips)
    assert trainer.test(model, clips) >= 0.6  # chance is 0.2
    assert [read_words(path) for path in (tmp_path / "runs").rglob("words.txt")] == [LRW_WORDS]
