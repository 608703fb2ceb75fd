from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine
from tiny_bundles import WORDS, expected_logits, make_clips, write_bundle, write_model

from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines.engine import ENGINES
from edgelip.runtime.errors import BundleError, ClipError
from edgelip.runtime.recogniser import Recogniser


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "tiny"))


@pytest.fixture
def fake_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setitem(ENGINES, "fake", "fake_engine:FakeEngine")
    folder = write_bundle(tmp_path / "fake", edit=lambda manifest: manifest["models"][0].update(engines=["fake"]))
    return Bundle.open(folder)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_logits_do_not_depend_on_the_batch(bundle: Bundle, batch: int) -> None:
    frames_BTHW = make_clips(7)
    with Recogniser(bundle) as recogniser:
        np.testing.assert_allclose(recogniser.logits(frames_BTHW, batch), expected_logits(frames_BTHW), atol=1e-5)


def test_prediction_ranks_words_by_their_softmax(bundle: Bundle) -> None:
    frames_BTHW = make_clips(3)
    with Recogniser(bundle) as recogniser:
        predictions = recogniser.predict(frames_BTHW, top=2)
    exponents_BV = np.exp(expected_logits(frames_BTHW))
    probabilities_BV = exponents_BV / exponents_BV.sum(axis=1, keepdims=True)
    assert [prediction.word for prediction in predictions] == [WORDS[row.argmax()] for row in probabilities_BV]
    assert predictions[0].probability == pytest.approx(probabilities_BV[0].max(), abs=1e-5)
    assert [len(prediction.ranking) for prediction in predictions] == [2, 2, 2]
    assert predictions[0].to_json()["ranking"][0] == {"word": "ABOUT", "probability": predictions[0].probability}


def test_huge_logits_still_give_probabilities(fake_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "logits_1V", np.array([[-1e30, 1e30, 0]], np.float32))
    with Recogniser(fake_bundle, engine="fake") as recogniser:
        (prediction,) = recogniser.predict(make_clips(1))
    assert (prediction.word, prediction.probability) == ("BELOW", 1.0)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.full((1, 3), np.nan, np.float32), r"gives scores that are not finite; expected finite \(2, 3\)"),
        (np.zeros((1, 4), np.float32), r"gives shape \(2, 4\); expected finite \(2, 3\)"),
    ],
)
def test_scores_that_make_no_sense_are_refused(
    fake_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, logits: np.ndarray, message: str
) -> None:
    monkeypatch.setattr(FakeEngine, "logits_1V", logits)
    with Recogniser(fake_bundle, engine="fake") as recogniser, pytest.raises(BundleError, match=message):
        recogniser.logits(make_clips(2))


@pytest.mark.parametrize(
    "frames", [make_clips(2).astype(np.float32), make_clips(2)[:, :3], make_clips(0)[:, :, :5], make_clips(2)[0]]
)
def test_clips_that_do_not_fit_the_contract_are_refused(bundle: Bundle, frames: np.ndarray) -> None:
    with Recogniser(bundle) as recogniser, pytest.raises(ClipError, match=r"expected uint8 \(B, 4, 16, 16\) or"):
        recogniser.logits(frames)


def test_no_clips_give_no_predictions(bundle: Bundle) -> None:
    with Recogniser(bundle) as recogniser:
        assert recogniser.predict(make_clips(0)) == []


def test_model_must_take_the_clips_of_the_manifest(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny", write_model=lambda path: write_model(path, clip=("B", 1, 29, 6, 6)))
    with pytest.raises(BundleError, match=r"^tiny: model\.fp32\.onnx takes float32 .*29.*; expected .*1, 4, 6, 6"):
        Bundle.open(folder)


def test_engine_must_take_the_clips_of_the_manifest(fake_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "input_axes", (None, 1, 29, 6, 6))  # a build of another model, say
    with pytest.raises(BundleError) as caught:
        Recogniser(fake_bundle, engine="fake")
    assert str(caught.value) == "tiny: model.fp32.onnx takes clips (1, 29, 6, 6), manifest says (1, 4, 6, 6)."
