from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from edgelip.data.synthetic.anatomy import SHAPES, face_template, hand_points
from edgelip.data.synthetic.gestures import MAX_FRAMES, ORDERS, PATHS, PLACES
from edgelip.data.synthetic.signers import SignerSpreads
from edgelip.data.synthetic.signing import SignBatch, SigningSpec, make_signs, words_of
from edgelip.errors import UsageError
from edgelip.runtime.clip import ClipSpec, landmarks_from_found, network_input
from edgelip.runtime.landmarks import point_set

SPEC = SigningSpec(num_words=16, train_signers=6, val_signers=3, test_signers=4)
POINTS = point_set("holistic118")
CLIP = ClipSpec(kind="landmarks", timing="span", frames=24, points="holistic118", axes=2)
STILL = SignerSpreads(**dict.fromkeys(SignerSpreads.__dataclass_fields__, 0.0))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num()))


def stored(batch: SignBatch) -> np.ndarray:
    pairs = zip(batch.points_BTPA.numpy(), batch.lengths_B.tolist(), strict=True)
    return np.stack([landmarks_from_found(points[:length], CLIP) for points, length in pairs])


def test_a_clip_is_the_same_alone_and_in_any_batch() -> None:
    together = make_signs(SPEC, "val", range(40), points=POINTS)
    alone = make_signs(SPEC, "val", [33], points=POINTS)
    assert same(alone.points_BTPA[0], together.points_BTPA[33])
    assert alone.lengths_B[0] == together.lengths_B[33]


def test_a_point_is_the_same_in_every_subset() -> None:
    whole = make_signs(SPEC, "train", [3])
    some = make_signs(SPEC, "train", [3], points=POINTS)
    assert same(whole.points_BTPA[:, :, list(POINTS.indices)], some.points_BTPA)


def test_clips_of_this_version_never_change() -> None:
    batch = make_signs(SigningSpec(num_words=12), "train", range(12), points=point_set("holistic130"))
    digest = hashlib.sha256(batch.points_BTPA.nan_to_num(nan=-9.0).numpy().tobytes()).hexdigest()
    assert digest[:16] == "96e3d3db0720c35a"  # of version 1, when it was first made


@pytest.mark.parametrize("changes", [{"seed": 1}, {"severity": 0.5}])
def test_another_seed_or_severity_gives_other_clips(changes: dict[str, float]) -> None:
    other = SigningSpec(num_words=16, train_signers=6, **changes)  # type: ignore[arg-type]
    assert not same(
        make_signs(SPEC, "train", [0], points=POINTS).points_BTPA,
        make_signs(other, "train", [0], points=POINTS).points_BTPA,
    )


def test_splits_share_no_signer_and_every_word_meets_every_signer() -> None:
    signers = {}
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        batch = make_signs(SPEC, split, range(16 * count), points=point_set("lips40"))  # type: ignore[arg-type]
        signers[split] = set(batch.signers_B.tolist())
        assert len(set(zip(batch.labels_B.tolist(), batch.signers_B.tolist(), strict=True))) == 16 * count
    assert sorted(number for found in signers.values() for number in found) == list(range(13))


def test_frames_beyond_the_length_are_lost_and_hands_are_lost_in_part() -> None:
    batch = make_signs(SPEC, "train", range(32), points=POINTS)
    hands = [*POINTS.parts["left_hand"], *POINTS.parts["right_hand"]]
    for points, length in zip(batch.points_BTPA, batch.lengths_B.tolist(), strict=True):
        assert 8 <= length <= MAX_FRAMES
        assert bool(points[length:].isnan().all())
        lost = points[:length, hands].isnan().float().mean()
        assert 0.05 < lost < 0.95
        found = points[:length][~points[:length].isnan()]
        assert bool((found.abs() < 5).all())


def test_the_four_orders_of_a_path_visit_the_same_places_in_another_order() -> None:
    quiet = SigningSpec(num_words=4, train_signers=1, val_signers=1, test_signers=1)
    batch = make_signs(quiet, "train", range(4), points=POINTS, spreads=STILL)
    knuckle = POINTS.parts["right_hand"][9]
    tracks = [
        points[:length, knuckle, 1][~points[:length, knuckle, 1].isnan()]
        for points, length in zip(batch.points_BTPA, batch.lengths_B.tolist(), strict=True)
    ]
    for track in tracks[1:]:
        assert float(track.min()) == pytest.approx(float(tracks[0].min()), abs=0.02)
    out, back = tracks[0].numpy(), tracks[1].numpy()
    middle = slice(len(out) // 3, -len(out) // 3)
    assert np.corrcoef(np.arange(len(out))[middle], out[middle])[0, 1] > 0.9
    assert np.corrcoef(np.arange(len(back))[middle], back[middle])[0, 1] < -0.9


def test_a_mean_over_time_cannot_tell_the_orders_of_a_path_but_can_tell_the_paths() -> None:
    spec = SigningSpec(num_words=16, train_signers=40, test_signers=20)
    train, test = (
        make_signs(spec, split, range(count), points=POINTS) for split, count in (("train", 320), ("test", 96))
    )  # type: ignore[arg-type]
    x, y = (
        network_input(stored(batch), CLIP)[:, 0].mean(axis=1).reshape(len(batch.labels_B), -1)
        for batch in (train, test)
    )
    labels = np.eye(16)[train.labels_B.numpy()]
    x, y = np.hstack([x, np.ones((len(x), 1))]), np.hstack([y, np.ones((len(y), 1))])
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ labels)
    said, truth = (y @ weights).argmax(axis=1), test.labels_B.numpy()
    path = said // 4 == truth // 4
    assert path.mean() > 0.55  # chance 0.25
    assert (said == truth)[path].mean() < 0.5  # chance 0.25


def test_words_are_named_and_ordered_so_that_minimal_pairs_come_first() -> None:
    words = words_of(40)
    assert words[:5] == (
        "flat-chin-vertical-out",
        "flat-chin-vertical-back",
        "flat-chin-vertical-out-back",
        "flat-chin-vertical-back-out",
        "flat-chin-circle-out",
    )
    assert words_of(12) == words[:12]
    most = len(SHAPES) * len(PLACES) * len(PATHS) * len(ORDERS)
    assert len(set(words_of(most))) == most


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SigningSpec(num_words=1), r"num_words is 1; expected 2 to 1344\."),
        (lambda: SigningSpec(num_words=2000), r"num_words is 2000; expected 2 to 1344\."),
        (lambda: SigningSpec(generator=9), r"generator is 9; expected one of 1\. Pin a version"),
        (lambda: SigningSpec(test_signers=0), r"test_signers is 0; expected at least 1\. Raise it\."),
        (lambda: SigningSpec(severity=4), r"severity is 4; expected 0 to 3\."),
        (lambda: make_signs(SPEC, "dev", [0]), r"split is 'dev'; expected one of train, val, test\."),  # type: ignore[arg-type]
        (lambda: make_signs(SPEC, "train", [-1]), r"indices hold -1; expected integers >= 0\."),
        (lambda: make_signs(SPEC, "train", []), r"indices is empty; expected at least one clip\."),
    ],
)
def test_what_cannot_be_made_is_refused(make: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()  # type: ignore[operator]


def test_mirrored_points_of_the_face_lie_on_both_sides() -> None:
    face, points = face_template(), point_set("holistic118")
    assert points.mirror is not None
    for position, index in enumerate(points.indices):
        other = points.indices[points.mirror[position]]
        if index < 468:
            assert face[index, 0] == pytest.approx(-float(face[other, 0]), abs=1e-3)
            assert face[index, 1] == pytest.approx(float(face[other, 1]), abs=1e-3)


def test_straight_fingers_reach_further_than_closed_ones() -> None:
    hands = {name: hand_points(torch.tensor(curls), torch.tensor(spread)) for name, (curls, spread) in SHAPES.items()}
    reach = {name: points.norm(dim=-1)[[8, 12, 16, 20]] for name, points in hands.items()}
    assert bool((reach["flat"] > 0.75).all())
    assert bool((reach["fist"] < 0.6).all())
    assert reach["point"][0] > 0.75 > reach["point"][1]
    for points in hands.values():  # no finger is longer or shorter than it is
        steps = (points[6:9] - points[5:8]).norm(dim=-1)
        torch.testing.assert_close(steps, torch.tensor([0.21, 0.125, 0.095]), atol=2e-3, rtol=0)
