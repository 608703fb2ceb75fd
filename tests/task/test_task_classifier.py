from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clips import OPTIONS, SPEC, WORDS, frames, write_npz
from written_videos import write_video

from edgelip.errors import CheckpointError, ClipError, RecipeError, UsageError
from edgelip.models.checkpoint import Architecture, Checkpoint, checkpoint_from_model, load_checkpoint, save_checkpoint
from edgelip.progress import Progress
from edgelip.runtime.clip import ClipSpec, network_input
from edgelip.task.classifier import WordClassifier
from edgelip.task.clips import ClipData


def classifier(**more: Any) -> WordClassifier:
    return WordClassifier(**{"words": WORDS, "options": OPTIONS, "clip": SPEC, **more})


CLIPS = np.stack([frames(WORDS[i % 2], i) for i in range(5)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, clip in enumerate(CLIPS):
        write_npz(tmp_path / "clips" / f"{number}.npz", clip)
    return tmp_path / "clips"


def test_it_maps_clips_and_lengths_to_logits() -> None:
    model = classifier().eval()
    clips = torch.from_numpy(network_input(CLIPS, SPEC))
    assert model(clips).shape == (5, 2)
    lengths = torch.tensor([6, 3, 6, 6, 1])
    torch.testing.assert_close(model(clips, lengths), model.network(clips, lengths), rtol=0, atol=0)
    assert (model.words, model.spec, model.backbone) == (WORDS, SPEC, "small")


def test_the_seed_decides_the_weights() -> None:
    a, b, c = (classifier(seed=seed).network.head.weight for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"words": "ABOUT"}, UsageError, r"words is 'ABOUT'; expected two or more different words, such as clips\."),
        ({"words": ["A"]}, UsageError, r"words is \['A'\]; expected two or more different words"),
        ({"words": ["A", "A"]}, UsageError, r"words is \['A', 'A'\]; expected two or more different words"),
        ({"learning_rate": 0}, UsageError, r"learning_rate is 0; expected a number above 0, such as 3e-3\."),
        ({"options": {"width": 3}}, RecipeError, r"unknown key 'width'"),
        ({"backbone": "smal"}, UsageError, r"[Tt]here is no backbone 'smal'"),
        (
            {"backbone": "audio_dctcn_dense", "options": {}},
            UsageError,
            r"backbone 'audio_dctcn_dense' reads sound, not video\. Choose one of edgelip\.available_backbones\(\)",
        ),
        ({"backbone": "lip_tcn", "options": {"modality": "audio"}}, UsageError, r"'lip_tcn' reads sound, not video\."),
        (
            {"backbone": "dctcn_boundary", "options": {}},
            UsageError,
            r"'dctcn_boundary' needs the frames of the word in each clip, which folders of videos do not tell\.",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        classifier(**arguments)


def test_predictions_of_arrays_are_what_the_network_gives() -> None:
    model = classifier().train()
    logits = model.predict(CLIPS, output="logits")
    assert (logits.shape, logits.dtype) == ((5, 2), np.float32)
    assert model.training
    with torch.no_grad():
        expected = model.eval().network(torch.from_numpy(network_input(CLIPS, SPEC)))
    np.testing.assert_array_equal(logits, expected.numpy())
    probabilities = model.predict(CLIPS, output="probabilities")
    powers = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    assert probabilities.dtype == np.float32
    assert model.predict(CLIPS) == [WORDS[label] for label in logits.argmax(axis=1)]
    assert not model.training
    np.testing.assert_allclose(model.predict(CLIPS, output="logits", batch_size=2), logits, atol=1e-5)
    np.testing.assert_array_equal(model.predict(torch.from_numpy(CLIPS), output="logits"), logits)


def test_files_folders_and_the_predict_split_give_the_same(folder: Path) -> None:
    model = classifier()
    expected = model.predict(CLIPS, output="logits")
    paths = [folder / f"{number}.npz" for number in range(5)]
    data = ClipData.from_folders(predict_folder=folder, clip=SPEC, progress=Progress(quiet=True))
    for clips in (folder, str(folder), paths, [str(path) for path in paths], data):
        np.testing.assert_array_equal(model.predict(clips, output="logits"), expected)
    np.testing.assert_allclose(model.predict(paths[3], output="logits"), expected[3:4], atol=1e-5)
    write_video(folder / "5.mp4", CLIPS[0])
    assert len(model.predict(folder)) == 6


def test_predictions_that_cannot_be_made_are_refused(folder: Path) -> None:
    model = classifier()
    with pytest.raises(
        UsageError,
        match=r"^output is 'label'; expected one of labels, probabilities, logits\. Did you mean 'labels'\?$",
    ):
        model.predict(CLIPS, output="label")  # type: ignore[call-overload]
    with pytest.raises(ClipError, match=r"^clips are uint8 \(6, 24, 24\); expected uint8 \(B, 6, 24, 24\)\.$"):
        model.predict(CLIPS[0])
    with pytest.raises(ClipError, match=r"^clips are float64 .*; expected uint8 \(B, 6, 24, 24\)\.$"):
        model.predict(CLIPS / 255)
    with pytest.raises(UsageError, match=r"^there is no clip to predict: the list is empty\."):
        model.predict([])
    with pytest.raises(UsageError, match=r"^batch_size is 0; expected a whole number from 1\.$"):
        model.predict(CLIPS, batch_size=0)
    with pytest.raises(ClipError, match=r"absent\.mp4 does not exist"):
        model.predict(folder / "absent.mp4")
    trained = ClipData(WORDS, SPEC, 4, {}, ())
    with pytest.raises(UsageError, match=r"have no predict split\. Give predict_folder to from_folders\.$"):
        model.predict(trained)
    other = ClipData((), ClipSpec(frames=7, roi_px=24, crop_px=20), 4, {}, (folder / "0.npz",))
    with pytest.raises(
        UsageError, match=r"^the clips have frames 7 \(the model takes 6\)\. Make the model with clip=clips\.spec, or"
    ):
        model.predict(other)


def test_a_saved_classifier_loads_to_the_same_bits(tmp_path: Path) -> None:
    model = classifier(seed=3)
    model.save(tmp_path / "model.safetensors")
    loaded = WordClassifier.load(tmp_path / "model.safetensors", learning_rate=1e-4)
    assert (loaded.words, loaded.spec, loaded.options, loaded.learning_rate) == (WORDS, SPEC, OPTIONS, 1e-4)
    assert not loaded.training
    np.testing.assert_array_equal(loaded.predict(CLIPS, output="logits"), model.predict(CLIPS, output="logits"))


def test_loading_for_other_words_draws_a_new_head_only(tmp_path: Path) -> None:
    model = classifier(seed=3)
    model.save(tmp_path / "model.safetensors")
    loaded = WordClassifier.load(tmp_path / "model.safetensors", words=["A", "B", "C"], seed=8)
    assert loaded.words == ("A", "B", "C")
    new, old, drawn = loaded.network.state_dict(), model.network.state_dict(), classifier(words=list("ABC"), seed=8)
    for name, tensor in new.items():
        if name.startswith("head."):
            assert tensor.shape[0] == 3
        else:
            assert torch.equal(tensor, old[name]), name
    assert torch.equal(new["head.weight"], drawn.network.head.weight)
    swapped = WordClassifier.load(tmp_path / "model.safetensors", words=WORDS[::-1], seed=8)
    assert not torch.equal(swapped.network.head.weight, model.network.head.weight)


def test_checkpoints_that_are_no_plain_classifier_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = classifier()
    stages = ({"stage": "train", "config": {}, "record": {}}, {"stage": "phm", "config": {}, "record": {}})
    compressed = Architecture("small", OPTIONS, WORDS, SPEC.to_json(), stages)
    save_checkpoint(checkpoint_from_model(model.network, compressed), path)
    with pytest.raises(CheckpointError, match=r"is compressed \(phm\); a task takes an uncompressed checkpoint\."):
        WordClassifier.load(path)
    wrong = Architecture("small", {**OPTIONS, "temporal_width": 8}, WORDS, SPEC.to_json())
    save_checkpoint(checkpoint_from_model(model.network, wrong), path)
    with pytest.raises(CheckpointError, match=r"does not hold the weights of the network it describes: .*temporal\."):
        WordClassifier.load(path)
    model.save(path)
    kept = load_checkpoint(path)
    tensors = {name: tensor for name, tensor in kept.tensors.items() if name != "head.bias"}
    save_checkpoint(Checkpoint(kept.architecture, tensors), path)
    with pytest.raises(CheckpointError, match=r"does not hold the weights .*head\.bias"):
        WordClassifier.load(path)
