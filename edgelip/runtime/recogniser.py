"""From mouth frames or landmarks to words with a bundle and one engine.

Axes: B clips, T frames, H rows (or points), W columns (or coordinates), V words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgelip.runtime.artefact import find_artefact
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import Engine, Options, check_options, open_engine
from edgelip.runtime.errors import BundleError


@dataclass(frozen=True)
class Prediction:
    """The likeliest word of a clip; `ranking` holds the best words with their probabilities, best first."""

    word: str
    probability: float
    ranking: Tuple[Tuple[str, float], ...]

    def to_json(self) -> Dict[str, Any]:
        ranking = [{"word": word, "probability": probability} for word, probability in self.ranking]
        return {"word": self.word, "probability": self.probability, "ranking": ranking}


class Recogniser:
    """A bundle loaded into an engine: `with Recogniser(bundle) as recogniser: recogniser.predict(frames)`."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str = "ort",
        threads: int = 1,
        precision: Optional[str] = None,
        options: Optional[Options] = None,
    ) -> None:
        """What `build` made for this machine runs, if it is there; else the ONNX file, where the engine takes one.

        Raises BundleError if the bundle has no model for the engine, or one that does not fit its own manifest, or a
        build for other devices only. Raises UsageError for an unknown engine, MissingError if its package or its build
        is not there.
        """
        options = check_options(engine, options or {})
        self.bundle = bundle
        self.model = bundle.model_for(engine, precision)
        self.artefact = find_artefact(bundle, self.model, engine, options=options)
        spec = bundle.manifest.clip
        self.engine: Engine = open_engine(
            engine,
            self.artefact.main if self.artefact else self.model.path,
            threads=threads,
            num_words=len(bundle.manifest.vocabulary),
            options=options,
        )
        takes, clip = self.engine.input_axes[1:], spec.input_shape
        if len(takes) != len(clip) or any(got not in (None, wanted) for got, wanted in zip(takes, clip)):
            self.engine.close()
            raise BundleError(f"{bundle.name}: {self.model.path.name} takes clips {takes}, manifest says {clip}.")

    @property
    def settings(self) -> Dict[str, str]:
        """The engine's settings, and what it runs: an ONNX file, or a build for a kind of device."""
        built = f"built for {self.artefact.device_key}" if self.artefact else "not built"
        return {**self.engine.settings, "model": f"{self.model.path.name}, {built}"}

    def logits(self, frames_BTHW: np.ndarray, batch: int = 16) -> np.ndarray:
        """Scores float32 (B, V) of uint8 frames or stored landmarks, `batch` clips at a time.

        Raises ClipError if the clips do not fit the contract, BundleError if the model gives no finite scores.
        """
        num_words = len(self.bundle.manifest.vocabulary)
        scores_BV = np.empty((len(frames_BTHW), num_words), np.float32)
        spec = self.bundle.manifest.clip
        for start in range(0, max(1, len(frames_BTHW)), batch):  # at least once, so that no clips are checked too
            clips_B1THW = network_input(frames_BTHW[start : start + batch], spec)
            if len(clips_B1THW):
                scores_BV[start : start + batch] = self.scores(clips_B1THW)
        return scores_BV

    def scores(self, clips_B1THW: np.ndarray) -> np.ndarray:
        """Scores float32 (B, V) of network inputs. Raises BundleError if the model gives no finite scores."""
        scores_BV = self.engine.infer(clips_B1THW)
        wanted = (len(clips_B1THW), len(self.bundle.manifest.vocabulary))
        if scores_BV.shape != wanted or not np.isfinite(scores_BV).all():
            got = f"shape {scores_BV.shape}" if scores_BV.shape != wanted else "scores that are not finite"
            raise BundleError(f"{self.bundle.name}: {self.model.path.name} gives {got}; expected finite {wanted}.")
        return scores_BV

    def predict(self, frames_BTHW: np.ndarray, batch: int = 16, *, top: int = 3) -> List[Prediction]:
        """One Prediction a clip, its ranking `top` words long."""
        return [self.prediction_from_logits(row_V, top=top) for row_V in self.logits(frames_BTHW, batch)]

    def prediction_from_logits(self, logits_V: np.ndarray, *, top: int = 3) -> Prediction:
        """The words of one clip's scores."""
        return prediction_from_logits(logits_V, self.bundle.manifest.vocabulary, top=top)

    def fallback(self) -> Optional[str]:
        """What did not run where and as the bundle says; see Engine.fallback, which takes time."""
        return self.engine.fallback(self.model.precision)

    def close(self) -> None:
        self.engine.close()

    def __enter__(self) -> Recogniser:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def prediction_from_logits(logits_V: np.ndarray, words: Sequence[str], *, top: int = 3) -> Prediction:
    """Softmax of one clip's scores; words of equal score stand in the order of `words`."""
    exponents_V = np.exp(logits_V.astype(np.float64) - float(logits_V.max()))
    probabilities_V = exponents_V / exponents_V.sum()
    order = np.argsort(-probabilities_V, kind="stable")[: max(1, top)]
    ranking = tuple((words[index], float(probabilities_V[index])) for index in order)
    return Prediction(ranking[0][0], ranking[0][1], ranking)
