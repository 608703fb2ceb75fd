"""The study of a suspect: the spoilt layer comes first, time limits hold, a killed study goes on where it stopped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_suspects import BAD_LAYER, Suspects

from edgelip.bench.suite import TestClips
from edgelip.cache import Cache
from edgelip.deploy.blame import scoring
from edgelip.deploy.blame import study as study_module
from edgelip.deploy.blame.layered_graph import LayeredGraph
from edgelip.deploy.blame.noise import Noise
from edgelip.deploy.blame.places import Places
from edgelip.deploy.blame.scoring import Clips, Deadline, Scorer
from edgelip.deploy.blame.study import Ratio, Study, study_layers
from edgelip.errors import MeasurementError
from edgelip.progress import Progress
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.engines.engine import open_engine


class Passes:
    """Counts the clips that files are run on; ends the process, as it were, after `limit` batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int | None = None) -> None:
        self.clips, self.batches, self.limit = 0, 0, limit
        whole = scoring._in_batches

        def counted(engine: Any, clips_B1THW: np.ndarray) -> np.ndarray:
            if self.batches == self.limit:
                raise KeyboardInterrupt
            self.batches += 1
            self.clips += len(clips_B1THW)
            return whole(engine, clips_B1THW)

        monkeypatch.setattr(scoring, "_in_batches", counted)


def scorer(suspects: Suspects, folder: Path) -> Scorer:
    test = TestClips.open(suspects.clips)
    manifest = Bundle.open(suspects["dense"]).manifest
    clips = Clips(test.path, len(test.labels_N), test.sha256, manifest.clip)
    num_words = len(manifest.vocabulary)
    return Scorer(Cache(folder), clips, num_words=num_words, threads=1, progress=Progress(quiet=True))


def study(suspects: Suspects, folder: Path, *, deadline: Deadline | None = None, ratio: Ratio = None) -> Study:
    bundles = [Bundle.open(suspects[name]) for name in ("dense", "bad")]
    graphs = [LayeredGraph(bundle, bundle.model_for("ort")) for bundle in bundles]
    made = scorer(suspects, folder)
    return study_layers(*graphs, made, deadline=deadline or Deadline(None), ratio=ratio, together=2)


def test_the_spoilt_layer_comes_first_and_everything_is_measured(suspects: Suspects, tmp_path: Path) -> None:
    measured = []

    def ratio(model: Path, base: Path) -> tuple[float, float, float]:
        measured.append((model.stat().st_size, base))
        return 1.5, 1.25, 1.75

    found = study(suspects, tmp_path, ratio=ratio)
    assert found.trials[0].layers == (BAD_LAYER,)
    assert found.trials[0].regained_db > 5
    assert found.undone == ()
    assert found.apart == {}
    assert not found.trained_on
    assert [trial.layers for trial in found.together] == [(BAD_LAYER, found.trials[1].layers[0])]
    assert found.everything is not None
    assert found.everything.logits_db >= found.trials[0].logits_db
    for trial in (*found.trials, *found.together, found.everything):
        assert trial.said_N is not None
        assert trial.latency_ratio == (1.5, 1.25, 1.75)
    assert len(measured) == len(found.trials) + 2
    assert all(base == suspects["bad"] / "model.int8-u8.onnx" for _, base in measured)

    again = study(suspects, tmp_path, ratio=ratio)  # all of it kept
    assert len(measured) == len(found.trials) + 2
    assert [trial.layers for trial in again.trials] == [trial.layers for trial in found.trials]
    assert again.noise == found.noise


def test_a_killed_study_does_only_the_rest(suspects: Suspects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Passes(monkeypatch)
    wanted = study(suspects, tmp_path / "whole")
    monkeypatch.undo()
    first = Passes(monkeypatch, limit=18)  # between the two parts of the first layer
    with pytest.raises(KeyboardInterrupt):
        study(suspects, tmp_path / "killed")
    monkeypatch.undo()
    second = Passes(monkeypatch)
    found = study(suspects, tmp_path / "killed")
    assert first.batches == 18
    assert first.clips + second.clips == whole.clips
    for trial, other in zip(found.trials, wanted.trials, strict=True):
        assert trial.layers == other.layers
        assert np.array_equal(trial.said_N, other.said_N)  # type: ignore[arg-type]


def test_without_time_the_noisiest_layers_wait_first(suspects: Suspects, tmp_path: Path) -> None:
    found = study(suspects, tmp_path, deadline=Deadline(0))
    assert (found.trials, found.together, found.everything) == ((), (), None)
    assert found.undone[0] == BAD_LAYER
    assert len(found.undone) == len(found.noise)


class Countdown(Deadline):
    """Passes when it has been asked so many times."""

    def __init__(self, asks: int) -> None:
        super().__init__(None)
        self.asks = asks

    def half(self) -> Deadline:
        return Deadline(None)

    @property
    def passed(self) -> bool:
        self.asks -= 1
        return self.asks < 0


def test_time_that_ends_in_the_middle_leaves_whole_layers_and_names_the_rest(
    suspects: Suspects, tmp_path: Path
) -> None:
    # 80 clips are two parts, each pass asks before it and before each part: everything, then the first layer.
    found = study(suspects, tmp_path, deadline=Countdown(7))
    assert found.everything is not None
    assert found.everything.said_N is not None
    assert [trial.said_N is not None for trial in found.trials] == [True] + [False] * (len(found.trials) - 1)
    assert found.trials[0].layers == (BAD_LAYER,)
    assert found.undone == tuple(trial.layers[0] for trial in found.trials[1:])


def test_layers_of_other_shapes_are_named_and_nothing_is_run(
    suspects: Suspects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "match_layers", lambda *_: Places((), {"head": "pruned"}))
    found = study(suspects, tmp_path)
    assert (found.noise, found.trials, found.everything, found.undone) == ({}, (), None, ())
    assert found.apart == {"head": "pruned"}


def test_layers_that_are_the_same_in_both_are_not_tried(
    suspects: Suspects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = study_module.layer_noise

    def but_one(*arguments: Any) -> dict[str, Noise]:
        return {**known(*arguments), "head": Noise(20.0, math.inf)}

    monkeypatch.setattr(study_module, "layer_noise", but_one)
    found = study(suspects, tmp_path, deadline=Deadline(0))
    assert found.apart == {"head": "it computes the same in both"}
    assert "head" not in found.undone
    assert found.undone[0] == BAD_LAYER


def test_half_of_a_time_limit_ends_before_it() -> None:
    assert Deadline(None).half().passed is False
    assert Deadline(0).half().passed is True
    assert Deadline(60).half().passed is False


def test_scores_that_are_not_finite_are_refused(
    suspects: Suspects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (suspects["dense"] / "model.fp32.onnx").read_bytes()

    class Broken:
        def infer(self, clips_B1THW: np.ndarray) -> np.ndarray:
            return np.full((len(clips_B1THW), 6), np.nan, np.float32)

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *exception: object) -> None: ...

    assert open_engine is scoring.open_engine
    monkeypatch.setattr(scoring, "open_engine", lambda *args, **settings: Broken())
    with pytest.raises(MeasurementError, match="scores that are not finite on these clips"):
        scorer(suspects, tmp_path).logits(content, name="dense")


def test_clips_are_given_in_the_order_of_their_numbers(suspects: Suspects, tmp_path: Path) -> None:
    clips = scorer(suspects, tmp_path).clips
    with np.load(suspects.clips) as archive:
        assert np.array_equal(clips.frames([70, 3, 65]), archive["frames"][[3, 65, 70]])
