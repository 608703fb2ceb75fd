from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from edgelip.data.synthetic.clips import GENERATOR_VERSIONS, SyntheticBatch, SyntheticSpec, render_clips
from edgelip.data.synthetic.speakers import Spreads
from edgelip.runtime.errors import UsageError

SPEC = SyntheticSpec(("ABOUT", "FAMILY", "THINK"), train_speakers=7, val_speakers=5, test_speakers=6)
PARTS = list(SyntheticBatch.__dataclass_fields__)


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_same(a: SyntheticBatch, b: SyntheticBatch) -> None:
    for part in PARTS:
        assert torch.equal(getattr(a, part), getattr(b, part)), part


def rows(batch: SyntheticBatch, order: list[int]) -> SyntheticBatch:
    return SyntheticBatch(*(getattr(batch, part)[order] for part in PARTS))


def test_batch_has_the_promised_shapes_and_types() -> None:
    batch = render_clips(SPEC, "train", range(5))
    assert batch.frames_BTHW.shape == (5, 29, 96, 96)
    assert batch.frames_BTHW.dtype == torch.uint8
    assert batch.boundary_B2.shape == (5, 2)
    assert batch.visemes_BT.shape == (5, 29)
    assert {getattr(batch, part).dtype for part in PARTS[1:]} == {torch.int64}


def test_label_is_the_index_modulo_the_number_of_words() -> None:
    assert render_clips(SPEC, "val", [0, 4, 11, 3]).labels_B.tolist() == [0, 1, 2, 0]


def test_clip_alone_equals_the_clip_in_any_batch_bit_for_bit() -> None:
    indices = [40, 3, 17, 3, 0, 99, 58]
    together = render_clips(SPEC, "train", indices)
    for place, index in enumerate(indices):
        assert_same(render_clips(SPEC, "train", [index]), rows(together, [place]))


def test_order_of_the_batch_only_orders_the_clips() -> None:
    batch = render_clips(SPEC, "train", range(37))
    backwards = render_clips(SPEC, "train", torch.arange(36, -1, -1))
    assert_same(rows(batch, list(range(36, -1, -1))), backwards)


@pytest.mark.parametrize("num_threads", [2, 3, 5])
def test_thread_count_does_not_change_the_clips(num_threads: int) -> None:
    torch.set_num_threads(1)
    expected = render_clips(SPEC, "test", range(9))
    torch.set_num_threads(num_threads)
    assert_same(render_clips(SPEC, "test", range(9)), expected)
    assert torch.get_num_threads() == num_threads


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = render_clips(SPEC, "train", [5])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same(render_clips(SPEC, "train", [5]), a)


@pytest.mark.parametrize(
    "other",
    [SyntheticSpec(SPEC.words, seed=1, train_speakers=7), SyntheticSpec(SPEC.words, severity=0.5, train_speakers=7)],
)
def test_seed_and_severity_change_the_clips(other: SyntheticSpec) -> None:
    assert not torch.equal(render_clips(SPEC, "train", [0]).frames_BTHW, render_clips(other, "train", [0]).frames_BTHW)


def test_splits_show_different_clips_of_the_same_index() -> None:
    train, val = render_clips(SPEC, "train", [0]), render_clips(SPEC, "val", [0])
    assert not torch.equal(train.frames_BTHW, val.frames_BTHW)


def test_speakers_of_the_splits_are_disjoint_and_all_used() -> None:
    seen = {
        split: set(render_clips(SPEC, split, range(3 * SPEC.speakers(split))).speakers_B.tolist())
        for split in ("train", "val", "test")
    }
    assert seen == {"train": set(range(7)), "val": set(range(7, 12)), "test": set(range(12, 18))}


def test_every_word_meets_every_speaker_equally_often() -> None:
    batch = render_clips(SPEC, "train", range(3 * 7 * 2))
    pairs = Counter(zip(batch.labels_B.tolist(), batch.speakers_B.tolist(), strict=True))
    assert len(pairs) == 21
    assert set(pairs.values()) == {2}


def test_adding_test_speakers_leaves_the_training_clips_alone() -> None:
    more = SyntheticSpec(SPEC.words, train_speakers=7, val_speakers=5, test_speakers=60)
    assert_same(render_clips(SPEC, "train", [2]), render_clips(more, "train", [2]))


def test_boundary_holds_the_word_and_lies_around_the_middle() -> None:
    batch = render_clips(SPEC, "train", range(60))
    first_B, last_B = batch.boundary_B2.unbind(1)
    assert bool((first_B <= last_B).all())
    assert bool((first_B <= 14).all())
    assert bool((last_B >= 14).all())
    assert float(((first_B + last_B).float() / 2 - 14).abs().mean()) < 1.5


def test_lips_shut_for_bilabials_show_no_dark_mouth() -> None:
    """The middle of the mouth is darker with AA (viseme 2) than with P B M (viseme 21), in the same calm clips."""
    spec = SyntheticSpec(("FOLLOWING", "PROBLEM", "MOMENT"), severity=0.0)
    batch = render_clips(spec, "train", range(12))
    darkest_BT = batch.frames_BTHW[:, :, 44:64, 40:56].float().amin(3).amin(2)
    open_grey = float(darkest_BT[batch.visemes_BT == 2].mean())
    shut_grey = float(darkest_BT[batch.visemes_BT == 21].mean())
    assert shut_grey > open_grey + 20


def test_hidden_mouth_leaves_the_rest_of_the_clip_but_takes_the_speech() -> None:
    calm = Spreads(tracker_jitter_px=0.0, drift_px=0.0, noise_grey=0.0, motion_blur=0.0)
    seen = render_clips(SPEC, "train", [1], spreads=calm).frames_BTHW.float()
    hidden = render_clips(SPEC, "train", [1], mouth="hidden", spreads=calm).frames_BTHW.float()
    assert float(hidden.std(1).max()) <= 0.5
    assert float(seen.std(1).max()) > 10
    assert float((seen - hidden)[:, :, :30].abs().mean()) < 2.0


def test_without_severity_all_speakers_look_alike() -> None:
    spec = SyntheticSpec(("ABOUT",), severity=0.0)
    frames = render_clips(spec, "train", range(6), mouth="hidden").frames_BTHW.float()
    assert float(frames.std(0).mean()) < 12.0


def test_empty_request_gives_an_empty_batch() -> None:
    assert render_clips(SPEC, "train", []).frames_BTHW.shape == (0, 29, 96, 96)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"words": ()}, r"^words is empty; expected at least one word\. Name words of the 500-word lexicon\.$"),
        (
            {"words": ("ABOT",)},
            r"^Word 'ABOT' is not among the 500 words of the synthetic lexicon\. Nearest: 'ABOUT'\.$",
        ),
        ({"generator": 99}, r"^generator is 99; expected one of 1\. Pin a version that this release has\.$"),
        ({"val_speakers": 0}, r"^val_speakers is 0; expected at least 1\. Raise it\.$"),
        ({"severity": -1.0}, r"^severity is -1\.0; expected 0 to 3\. 1 is the tuned difficulty\.$"),
        ({"severity": float("nan")}, r"^severity is nan; expected 0 to 3\. 1 is the tuned difficulty\.$"),
    ],
)
def test_spec_that_cannot_be_rendered_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SyntheticSpec(**{"words": ("ABOUT",), **wrong})  # type: ignore[arg-type]


def test_unknown_split_and_negative_index_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^split is 'dev'; expected one of train, val, test\. Name one of them\.$"):
        render_clips(SPEC, "dev", [0])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^indices hold -1; expected integers >= 0\. Count clips from 0\.$"):
        render_clips(SPEC, "train", [3, -1])
    with pytest.raises(UsageError, match=r"^mouth is 'gone'; expected 'speaking' or 'hidden'\. Name one of them\.$"):
        render_clips(SPEC, "train", [0], mouth="gone")  # type: ignore[arg-type]


def test_version_1_is_known() -> None:
    assert GENERATOR_VERSIONS == (1,)


@pytest.mark.gpu
def test_gpu_agrees_with_the_cpu_within_one_grey_level() -> None:
    cpu, gpu = (render_clips(SPEC, "train", range(64), device=device) for device in ("cpu", "cuda"))
    difference = cpu.frames_BTHW.int() - gpu.frames_BTHW.cpu().int()
    assert int(difference.abs().max()) <= 1
    for part in PARTS[1:]:
        assert torch.equal(getattr(cpu, part), getattr(gpu, part).cpu())


def test_version_1_never_changes() -> None:
    # Recorded when version 1 was released. Clips that differ are a new version, not a new hash here.
    clips = render_clips(SyntheticSpec(("ABOUT", "BILLION", "MILLION", "SPEND")), "train", [0, 1, 2, 3])
    digest = hashlib.sha256(clips.frames_BTHW.numpy().tobytes()).hexdigest()
    assert digest == "6b8b0c99607d853038f31fbfdc245f706ffa9b25768dbd043baa74c5552962b4"
    assert clips.boundary_B2.tolist() == [[10, 18], [6, 22], [4, 22], [6, 21]]
