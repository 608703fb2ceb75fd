"""Stores made by `edgelip data prepare` as the clips of a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelip.cache import Cache
from edgelip.cli.clip_source import ClipSource
from edgelip.cli.prepared_clips import open_prepared
from edgelip.data.readers.samples import SPLITS
from edgelip.data.stores.store import StoreWriter
from edgelip.errors import ClipError, RecipeError
from edgelip.progress import Progress
from edgelip.recipe import load_recipe
from edgelip.recipe_sections import PreparedData
from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(frames=4, roi_px=16, crop_px=8)
WORDS = ("a", "b", "c")
DEBUG = Path(__file__).parents[1] / "recipes" / "debug.toml"


def write_store(folder: Path, *, words: tuple[str, ...] = WORDS, grey: int = 0, spec: ClipSpec = SPEC) -> None:
    clips = np.full((6, *spec.stored_shape), grey, spec.stored_dtype)
    with StoreWriter(folder, 6, spec, words=words, source_sha256="0" * 64) as writer:
        writer.write(0, clips, labels_B=np.arange(6) % len(words), speakers_B=np.zeros(6))
        writer.finish()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, split in enumerate(SPLITS):
        write_store(tmp_path / "prepared" / split, grey=number)
    return tmp_path / "prepared"


def source(root: Path, *overrides: str) -> ClipSource:
    clip = f"clip={{frames={SPEC.frames}, roi_px={SPEC.roi_px}, crop_px={SPEC.crop_px}, pool=1}}"
    data = f"data={{kind='prepared', root='{root}'}}"
    recipe = load_recipe(DEBUG, overrides=[data, clip, *overrides])
    return ClipSource(recipe, Cache(root.parent / "cache"), Progress(quiet=True))


def test_a_recipe_reads_prepared_stores_and_makes_none(root: Path) -> None:
    clips = source(root)
    assert clips.words == WORDS
    assert [int(clips.store(split).frames[5].max()) for split in SPLITS] == [0, 1, 2]
    assert clips.train_line() == "6 prepared clips of 3 words, prepared"
    assert clips.test_line() == "6 prepared clips of 3 words, prepared"
    assert not (root.parent / "cache").exists()


def test_the_recipes_words_are_labelled_in_its_order(root: Path) -> None:
    clips = source(root, "data.words=['c','a']")
    assert (clips.words, clips.store("val").words) == (("c", "a"), ("c", "a"))
    assert clips.store("val").labels.tolist() == [1, 0, 1, 0]
    assert clips.key("val") != source(root).key("val")


def test_the_key_follows_the_content_not_the_place(root: Path) -> None:
    before = source(root).key("val")
    moved = root.rename(root.with_name("elsewhere"))
    assert source(moved).key("val") == before
    for path in (moved / "val").iterdir():
        path.unlink()
    write_store(moved / "val", grey=9)
    assert source(moved).key("val") != before


def test_what_is_done_with_stored_clips_may_differ_but_not_what_they_are(root: Path) -> None:
    assert source(root, "clip.mean=0.5", "clip.crop_px=16").store("train").spec.mean == 0.5
    for override, message in (
        ("clip.frames=5", "[clip] asks for frames 5. Add --set clip.frames=4, or prepare the clips anew."),
        (
            "clip.timing=span",
            "clips of timing 'window'; [clip] asks for timing 'span'. Add --set clip.timing=window",
        ),
        ("clip.pool=2", "holds clips of pool 1; [clip] asks for pool 2. Add --set clip.pool=1, or prepare"),
    ):
        with pytest.raises(RecipeError) as refused:
            _ = source(root, override).words
        assert message in str(refused.value)
    signs = ClipSpec(kind="landmarks", timing="span", frames=4, points="lips40", axes=2)
    with pytest.raises(RecipeError, match=r"holds clips of kind 'video'; \[clip\] asks for kind 'landmarks'"):
        open_prepared(PreparedData(kind="prepared", root=root), signs)


def test_stores_of_different_words_or_a_missing_one_are_refused(root: Path, tmp_path: Path) -> None:
    for path in (root / "val").iterdir():
        path.unlink()
    with pytest.raises(ClipError, match=r"prepared/val holds no clip store"):
        _ = source(root).words
    (root / "val").rmdir()
    with pytest.raises(ClipError) as refused:
        _ = source(root).words
    assert str(refused.value) == (
        f"{root} has clips prepared for train and test, none for val. Prepare all three at once: "
        "--val-share 0.1 --test-share 0.1 hold clips out where the data set is not split."
    )
    with pytest.raises(ClipError, match=r"holds no prepared clips; expected a folder that `edgelip data prepare` made"):
        _ = source(tmp_path / "elsewhere").words
    write_store(root / "val", words=("a", "c", "b"))
    with pytest.raises(RecipeError, match=r"prepared/val has other words than train\. Prepare all splits at once\."):
        _ = source(root).words
