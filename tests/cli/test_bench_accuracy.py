"""Accuracy rows of tiny bundles; all but one test let numpy answer in the place of a process."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_landmark_clip import write_bundle as write_signs
from tiny_bundles import SPEC, WORDS, expected_logits, make_clips, model_entry, write_bundle, write_model

from edgelip.bench.isolate import Subject
from edgelip.cli import deployed_passes
from edgelip.cli.bench_accuracy import accuracy_rows
from edgelip.cli.disturbed_clips import evenly_spread, pieces
from edgelip.cli.error_sheet import sheet_text, wrong_clips
from edgelip.data.disturbances import disturbed
from edgelip.errors import BundleError, ClipError, MeasurementError, UsageError
from edgelip.report.results import ResultRow, Target, read_rows, write_row
from edgelip.runtime.clip import ClipSpec

NUM_CLIPS = 60
HERE = Target("here", "ort", "fp32", 1)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    frames = make_clips(NUM_CLIPS, seed=5)
    labels = expected_logits(frames).argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 3  # a perfect model is right on 54 of 60
    speakers = np.arange(NUM_CLIPS) // 5
    np.savez(tmp_path / "clips.npz", frames=frames, labels=labels, speakers=speakers)
    return tmp_path / "clips.npz"


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    words = ["BILLION", "MILLION", "CHEESE"]
    return [
        write_bundle(tmp_path / name, name=name, edit=lambda manifest: manifest.update(vocabulary=words))
        for name in ("dense", "small")
    ]


class Answers:
    """In the place of a process: the scores of the formula, of the bundle `small` with a fault; counts its passes."""

    def __init__(self) -> None:
        self.passes: list[tuple[str, str]] = []
        self.stop_after: int | None = None

    def __call__(self, subject: Subject, clips: Path) -> tuple[np.ndarray, dict[str, str]]:
        if len(self.passes) == self.stop_after:
            raise KeyboardInterrupt
        self.passes.append((subject.bundle.name, clips.name))
        loaded = np.load(clips)
        logits_NV = expected_logits(loaded if clips.suffix == ".npy" else loaded["frames"])
        if subject.bundle.name == "small":
            logits_NV[:, 0] += 0.3
        return logits_NV, {"model": "model.fp32.onnx"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    found = Answers()
    monkeypatch.setattr(deployed_passes, "deployed_run", found)
    return found


@pytest.fixture
def measure(bundles: list[Path], clips: Path, tmp_path: Path) -> Callable[..., list[ResultRow]]:
    def rows(paths: list[Path] | None = None, **changes: Any) -> list[ResultRow]:
        options: dict[str, Any] = {
            "clips": clips,
            "robustness": ("gamma_dark",),
            "robustness_clips": 20,
            "threads": 1,
            "scratch": tmp_path / "scratch",
            "command": "edgelip bench quick.toml",
            "say": lambda line: None,
            **changes,
        }
        chosen = bundles if paths is None else paths
        return accuracy_rows(chosen, options.pop("targets", [HERE] * len(chosen)), **options)

    return rows


def test_rows_say_what_the_formula_says(
    measure: Callable[..., list[ResultRow]], answers: Answers, clips: Path, tmp_path: Path
) -> None:
    dense, small = measure()
    loaded = np.load(clips)
    labels, logits = loaded["labels"], expected_logits(loaded["frames"])
    worse = logits + np.array([0.3, 0, 0], np.float32)
    assert dense.value("top1_pct") == 90
    assert small.value("top1_pct") == pytest.approx(100 * (worse.argmax(axis=1) == labels).mean())
    assert small.value("top1_drop_points") == pytest.approx(90 - (small.value("top1_pct") or 0))
    assert (dense.value("top1_drop_points"), dense.value("mcnemar_p"), dense.value("agreement_pct")) == (0, 1, 100)
    assert small.value("agreement_pct") == pytest.approx(100 * (worse.argmax(1) == logits.argmax(1)).mean())
    assert small.value("max_logit_difference") == pytest.approx(0.3, abs=1e-5)
    assert (small.value("kl_nats") or 0) > 0
    hard = labels < 2  # BILLION and MILLION
    assert dense.value("hard_top1_pct") == pytest.approx(100 * (logits.argmax(1) == labels)[hard].mean())
    assert dense.measurements["hard_top1_pct"].num_samples == hard.sum()
    assert dense.measurements["top1_pct"].num_samples == NUM_CLIPS

    numbers = np.unique(np.linspace(0, NUM_CLIPS - 1, 20).round().astype(int))
    dark = expected_logits(disturbed(loaded["frames"][numbers], "gamma_dark", SPEC, numbers=numbers.tolist()))
    share = (dark.argmax(axis=1) == labels[numbers]).mean()
    clean = (logits.argmax(axis=1) == labels)[numbers].mean()
    assert dense.value("robust_gamma_dark_pct") == pytest.approx(100 * share)
    assert dense.value("robust_gamma_dark_drop_points") == pytest.approx(100 * (clean - share))
    assert share < clean
    assert dense.details["robustness"] == {
        "num_clips": 20,
        "clean_top1_pct": pytest.approx(100 * clean),
        "does": {"gamma_dark": "gamma 1.7: middle greys darker"},
    }
    assert [row["word"] for row in dense.details["words"]] == ["BILLION", "MILLION", "CHEESE"]
    assert dense.details["look_alikes"] == {"BILLION": ["MILLION"], "MILLION": ["BILLION"]}
    assert (small.details["base"], small.details["speakers"]) == ("dense ort fp32 1t", 12)

    for row in (dense, small):
        write_row(tmp_path / "sitting", row)
    assert {row.variant for row in read_rows(tmp_path / "sitting")} == {"dense", "small"}


def test_the_sheet_shows_what_only_the_first_has_right(
    measure: Callable[..., list[ResultRow]], answers: Answers
) -> None:
    _, small = measure(robustness=())
    content = base64.b64decode(small.details["sheet_png"])
    sheet = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert sheet is not None
    lost = min(10, round((small.value("top1_drop_points") or 0) * NUM_CLIPS / 100))
    assert sheet.shape[0] == 2 + lost * (SPEC.stored_px + 2)


def test_a_killed_call_goes_on_where_it_stopped(
    measure: Callable[..., list[ResultRow]], answers: Answers, tmp_path: Path
) -> None:
    answers.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        measure()
    assert not (tmp_path / "scratch" / "disturbed").exists()
    assert len(list((tmp_path / "scratch" / "cache").glob("*.part"))) == 1
    answers.stop_after, lines = None, []
    rows = measure(say=lines.append)
    assert answers.passes == [
        ("dense", "clips.npz"), ("small", "clips.npz"), ("dense", "gamma_dark.npy"), ("small", "gamma_dark.npy")
    ]  # fmt: skip
    assert lines[0] == ("accuracy: 1 pass over 20 clips in all, 3 kept from before; the first tells how long they take")
    again = measure()
    assert len(answers.passes) == 4
    assert [row.measurements for row in again] == [row.measurements for row in rows]
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["cache"]
    assert not list((tmp_path / "scratch" / "cache").glob("*.part"))


def test_a_damaged_pass_is_made_again(
    measure: Callable[..., list[ResultRow]], answers: Answers, tmp_path: Path
) -> None:
    rows = measure()
    damaged = sorted((tmp_path / "scratch" / "cache").glob("*/logits.npy"))
    for path in damaged:
        path.write_bytes(path.read_bytes()[:50])
    assert [row.measurements for row in measure()] == [row.measurements for row in rows]
    assert len(answers.passes) == 2 * len(damaged)


def test_a_file_of_more_precisions_is_compared_with_its_fp32_one(
    tmp_path: Path, measure: Callable[..., list[ResultRow]], answers: Answers
) -> None:
    def two_files(path: Path) -> None:
        write_model(path)
        write_model(path.with_name("model.fp16.onnx"))

    half = model_entry("model.fp16.onnx", precision="fp16")
    both = write_bundle(
        tmp_path / "both", name="both", write_model=two_files, edit=lambda manifest: manifest["models"].append(half)
    )
    (row,) = measure([both], targets=[Target("here", "ort", "fp16", 1)], robustness=())
    assert row.details["reference"] == "both ort fp32 1t"
    assert len(answers.passes) == 2


def test_without_an_fp32_file_there_is_no_agreement(
    tmp_path: Path, measure: Callable[..., list[ResultRow]], answers: Answers
) -> None:
    half = write_bundle(tmp_path / "half", name="half", edit=lambda m: m["models"][0].update(precision="fp16"))
    lines: list[str] = []
    (row,) = measure([half], targets=[Target("here", "ort", "", 1)], robustness=(), say=lines.append)
    assert row.target.precision == "fp16"
    assert "agreement_pct" not in row.measurements
    assert lines[0] == "half has no fp32 file: agreement with float32 is left out"


def test_a_process_of_the_runtime_answers_alike(
    bundles: list[Path], measure: Callable[..., list[ResultRow]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (real,) = measure(bundles[:1])
    monkeypatch.setattr(deployed_passes, "deployed_run", Answers())
    (formula,) = measure(bundles[:1], scratch=tmp_path / "other")
    assert real.environment["engine_settings"]["model"].startswith("model.fp32.onnx")
    for name, figure in formula.measurements.items():
        assert real.value(name) == pytest.approx(figure.value, abs=1e-4), name


def test_infinite_scores_are_refused(
    measure: Callable[..., list[ResultRow]], monkeypatch: pytest.MonkeyPatch, clips: Path
) -> None:
    broken = np.full((NUM_CLIPS, 3), np.inf, np.float32)
    monkeypatch.setattr(deployed_passes, "deployed_run", lambda *_: (broken, {}))
    with pytest.raises(MeasurementError, match=r"^dense ort fp32 1t, clean gave infinite or undefined scores for 60"):
        measure()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"robustness": ["lowlight"]}, UsageError, "no robustness condition 'lowlight'. Did you mean 'low_light'?"),
        ({"robustness_clips": 0}, UsageError, "robustness_clips is 0; expected 1 or more."),
        ({"clips": None}, UsageError, "No accuracy.json in dense or small says which test clips are theirs. Give them: "
                                      'clips = "CLIPS.npz" with frames, labels, in the section [accuracy]'),
        ({"targets": [HERE, Target("here", "ort", "int8", 1)]}, BundleError, "small has no int8 model for engine"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_before_anything_runs(
    measure: Callable[..., list[ResultRow]], answers: Answers, changes: dict[str, Any], kind: type, message: str
) -> None:
    with pytest.raises(kind) as raised:
        measure(**changes)
    assert message in str(raised.value)
    assert not answers.passes


def test_clips_of_another_size_and_bundles_of_other_words_are_refused(
    tmp_path: Path, bundles: list[Path], measure: Callable[..., list[ResultRow]], answers: Answers
) -> None:
    np.savez(tmp_path / "other.npz", frames=np.zeros((3, 4, 9, 9), np.uint8), labels=[0, 1, 2])
    with pytest.raises(ClipError, match=r"other\.npz: clips have shape \(1, 4, 9, 9\).* They are not clips of dense\."):
        measure(clips=tmp_path / "other.npz")
    stranger = write_bundle(tmp_path / "stranger", name="stranger", edit=lambda m: m.update(vocabulary=list(WORDS)))
    with pytest.raises(UsageError, match="dense knows 3 words and stranger 3, 'ABOUT' is not among the former's"):
        measure([bundles[0], stranger])
    assert not answers.passes


def test_evenly_spread_clips_reach_both_ends() -> None:
    assert evenly_spread(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_spread(3, 500).tolist() == [0, 1, 2]
    assert len(evenly_spread(2500, 500)) == 500


def test_pieces_hold_the_clips_asked_for(tmp_path: Path) -> None:
    frames = np.arange(200, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    np.savez(tmp_path / "a.npz", frames=frames)
    wanted = [0, 63, 64, 130, 199]
    found = [pair for chosen, clips in pieces(tmp_path / "a.npz", wanted) for pair in zip(chosen, clips, strict=True)]
    assert [number for number, _ in found] == wanted
    assert all(np.array_equal(clip, frames[number]) for number, clip in found)


def test_a_sheet_of_large_noisy_clips_stays_small(tmp_path: Path) -> None:
    from edgelip.bench.suite import TestClips

    noise = np.random.default_rng(0).integers(0, 256, (12, 29, 96, 96)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", frames=noise, labels=np.arange(12) % 3)
    test = TestClips.open(tmp_path / "noise.npz")
    logits = -np.eye(3, dtype=np.float32)[test.labels_N]
    shown = wrong_clips(logits, None, test.labels_N, WORDS)
    text = sheet_text(test, ClipSpec(), shown)
    assert len(shown) == 10
    assert text is not None
    assert 100_000 < len(text) <= 300_000
    assert sheet_text(test, ClipSpec(), []) is None


def test_bundles_of_signs_know_conditions_in_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).random((12, 4, 40, 2)).astype(np.float32)
    np.savez(tmp_path / "signs.npz", frames=points, labels=np.arange(12) % 2)
    bundle = write_signs(tmp_path / "signs")
    seen: list[np.ndarray] = []

    def answer(subject: Subject, clips: Path) -> tuple[np.ndarray, dict[str, str]]:
        loaded = np.load(clips)
        seen.append(loaded if clips.suffix == ".npy" else loaded["frames"])
        return np.eye(2, dtype=np.float32)[np.arange(len(seen[-1])) % 2], {}

    monkeypatch.setattr(deployed_passes, "deployed_run", answer)
    options: dict[str, Any] = {"clips": tmp_path / "signs.npz", "threads": 1, "scratch": tmp_path / "scratch"}
    options.update(robustness_clips=12, command="edgelip bench", say=lambda line: None)
    with pytest.raises(UsageError, match="'blur' needs frames; these bundles take landmarks"):
        accuracy_rows([bundle], [HERE], robustness=["blur"], **options)
    (row,) = accuracy_rows([bundle], [HERE], robustness=["dropped_20"], **options)
    assert row.value("robust_dropped_20_pct") == 100
    assert "hard_top1_pct" not in row.measurements
    assert [each.shape for each in seen] == [points.shape] * 2
    assert not np.array_equal(*seen)
