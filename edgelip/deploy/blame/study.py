"""Which layers a suspect file loses by: noise of each, then each put back on a few clips, then the worst on all clips.

Axes: N clips, B probe clips, V words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgelip.deploy.blame.layered_graph import LayeredGraph
from edgelip.deploy.blame.noise import Noise, layer_noise, sqnr_db
from edgelip.deploy.blame.places import Place, Places, match_layers
from edgelip.deploy.blame.putting_back import Change, Weights, put_back
from edgelip.deploy.blame.scoring import Deadline, Scorer
from edgelip.runtime.clip import network_input
from edgelip.runtime.device_key import processor_key

NOISE_CLIPS, PROBE_CLIPS = 16, 64
# Of two files: latency of the first over that of the second, with its interval; None if nothing is to be measured.
Ratio = Callable[[Path, Path], tuple[float, float, float]] | None


@dataclass(frozen=True)
class Trial:
    """Layers put back together. weights: those that did better of the reference's and the layer's own.

    logits_db: signal to noise of the logits against the reference's on the probe clips; regained_db: what that is more
    than without. said_N, the words of all clips, and latency_ratio to the suspect, an interval: None if time was up.
    """

    layers: tuple[str, ...]
    weights: tuple[Weights, ...]
    logits_db: float
    regained_db: float
    said_N: np.ndarray | None = None
    latency_ratio: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Study:
    """noise, trials: of each layer that can be compared; trials by what they regain, the most first.

    everything: all layers back at once, the most that exclusions can regain. together: the first 2, 3, .. layers.
    undone: layers whose trial did not come to pass, or not on all clips, in the order in which they would have.
    """

    noise: Mapping[str, Noise]
    moved: Mapping[str, float | None]
    apart: Mapping[str, str]
    trials: tuple[Trial, ...]
    everything: Trial | None
    together: tuple[Trial, ...]
    undone: tuple[str, ...]
    logits_db: float
    trained_on: bool


class _Bench:
    """What every trial needs."""

    def __init__(self, reference: LayeredGraph, suspect: LayeredGraph, scorer: Scorer, ratio: Ratio) -> None:
        self.suspect, self.scorer, self.ratio = suspect, scorer, ratio
        self.reference = reference
        total = scorer.clips.num_clips
        chosen = np.unique(np.linspace(0, total - 1, min(total, PROBE_CLIPS)).astype(int))
        self.probe_B1THW = network_input(scorer.clips.frames(chosen.tolist()), scorer.clips.spec)
        self.reference_BV = scorer.probe(reference.file.path.read_bytes(), self.probe_B1THW)
        self.content = suspect.file.path.read_bytes()
        self.logits_db = sqnr_db(scorer.probe(self.content, self.probe_B1THW), self.reference_BV)

    def probed(self, changes: Sequence[Change]) -> Trial:
        content = put_back(self.suspect, changes)
        logits_db = sqnr_db(self.scorer.probe(content, self.probe_B1THW), self.reference_BV)
        return Trial(
            tuple(change.place.name for change in changes),
            tuple(change.weights for change in changes),
            logits_db,
            difference_db(logits_db, self.logits_db),
        )

    def full(self, trial: Trial, places: Mapping[str, Place], *, name: str, deadline: Deadline) -> Trial:
        """The same on all clips and on the clock, as far as time allows."""
        changes = [Change(places[layer], weights) for layer, weights in zip(trial.layers, trial.weights, strict=True)]
        content = put_back(self.suspect, changes)
        said_N = self.scorer.said(content, name=name, deadline=deadline)
        if said_N is None:
            return trial
        return replace(trial, said_N=said_N, latency_ratio=self._latency(content, name))

    def _latency(self, content: bytes, name: str) -> tuple[float, float, float] | None:
        ratio = self.ratio
        if ratio is None:
            return None

        def measured() -> list[float]:
            with TemporaryDirectory(prefix="edgelip-blame-") as folder:
                path = Path(folder) / "model.onnx"
                path.write_bytes(content)
                return list(ratio(path, self.suspect.file.path))

        config = {"threads": self.scorer.threads, "machine": processor_key()}
        value, low, high = self.scorer.value("latency", [content, self.content], config, measured)
        return value, low, high


def study_layers(
    reference: LayeredGraph, suspect: LayeredGraph, scorer: Scorer, *, deadline: Deadline, ratio: Ratio, together: int
) -> Study:
    """Blame the layers of `suspect`. ratio: measures latency; together: the largest number of layers put back at once.

    Cost: one pass over PROBE_CLIPS a layer, then one over all clips for each layer, the worst first, until `deadline`;
    trials on the probe clips take at most half of it.
    """
    matched = match_layers(reference, suspect)
    bench = _Bench(reference, suspect, scorer, ratio)
    noise = _noise(bench, matched)
    places = {place.name: place for place in matched.found}
    same = {name: "it computes the same in both" for name, each in noise.items() if each.alone_db == math.inf}
    order = sorted((name for name in places if name not in same), key=lambda name: _worst_first(noise[name]))
    trials: list[Trial] = []
    undone: list[str] = []
    probing = deadline.half()
    with scorer.progress.task("put back on probe clips", total=len(order), unit="layers") as task:
        for name in order:
            if probing.passed:
                undone.append(name)
                continue
            trials.append(max((bench.probed([change]) for change in _changes(matched, places[name])), key=_gain))
            task.advance(1, note=name)
    trials.sort(key=_gain, reverse=True)
    everything = None
    if trials and not undone:
        everything = bench.probed([Change(places[each.layers[0]], each.weights[0]) for each in trials])
        everything = bench.full(everything, places, name="all layers back", deadline=deadline)
    best = trials[:together]
    sets = [best[:count] for count in range(2, len(best) + 1)]
    done: list[Trial] = []
    combined: list[Trial] = []
    for number, trial in enumerate(trials):
        name = f"{number + 1}/{len(trials)} {trial.layers[0]} back"
        done.append(bench.full(trial, places, name=name, deadline=deadline))
        if number + 1 == len(best):  # before the many that regain little
            for members in sets if not deadline.passed else []:
                changes = [Change(places[each.layers[0]], each.weights[0]) for each in members]
                joint = bench.full(bench.probed(changes), places, name=f"first {len(members)} back", deadline=deadline)
                combined.append(joint)
    waiting = [trial.layers[0] for trial in done if trial.said_N is None]
    return Study(
        noise=noise,
        moved={place.name: place.moved for place in matched.found},
        apart={**matched.apart, **same},
        trials=tuple(done),
        everything=everything,
        together=tuple(combined),
        undone=(*waiting, *undone),
        logits_db=bench.logits_db,
        trained_on=matched.trained_on,
    )


def difference_db(after: float, before: float) -> float:
    """after - before, where both infinite is no difference."""
    return 0.0 if after == before else after - before


def _changes(matched: Places, place: Place) -> list[Change]:
    """What putting a layer back may mean; where training moved its weights the reference's may fit no longer."""
    changes = [Change(place)]
    if matched.trained_on and place.rounded and place.first is place.last:
        changes.append(Change(place, "own"))
    return changes


def _noise(bench: _Bench, matched: Places) -> dict[str, Noise]:
    if not matched.found:
        return {}

    def measured() -> dict[str, dict[str, float | None]]:
        bench.scorer.progress.say(f"noise of {len(matched.found)} layers")
        clips = bench.probe_B1THW[:: max(1, len(bench.probe_B1THW) // NOISE_CLIPS)]
        found = layer_noise(bench.reference, bench.suspect, matched.found, clips)
        return {name: asdict(each) for name, each in found.items()}

    contents = [bench.reference.file.path.read_bytes(), bench.content]
    kept = bench.scorer.value("noise", contents, {"layers": [place.name for place in matched.found]}, measured)
    return {name: Noise(**each) for name, each in kept.items()}


def _worst_first(noise: Noise) -> float:
    return noise.inside_db if noise.alone_db is None else noise.alone_db


def _gain(trial: Trial) -> float:
    return -math.inf if math.isnan(trial.regained_db) else trial.regained_db
