"""A word classifier as one object: the network, its words and what it expects of a clip.

Axes: B clips, T frames, H rows, W columns, V words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, final, overload

import numpy as np
import torch
from torch import Tensor, nn

from edgelip.data.clip_files import read_clip
from edgelip.data.readers.folders import find_clips
from edgelip.data.stores.stored_frames import StoredFrames
from edgelip.errors import CheckpointError, ClipError, UsageError
from edgelip.models.checkpoint import Architecture, checkpoint_from_model, load_checkpoint, save_checkpoint
from edgelip.models.zoo import build_classifier
from edgelip.registry import nearest
from edgelip.runtime.clip import ClipSpec, network_input, require_video
from edgelip.task.backbones import why_unfit
from edgelip.task.clips import ClipData
from edgelip.words import words_beside, write_words

Output = Literal["labels", "probabilities", "logits"]
Clips = ClipData | np.ndarray | StoredFrames | Tensor | Path | str | Sequence[Path | str]
OUTPUTS: tuple[Output, ...] = ("labels", "probabilities", "logits")
_HEAD = "head."
_PLAIN = ("import", "train")  # entries of a lineage that leave the structure as the backbone has it


@final
class WordClassifier(nn.Module):
    """Reads one of `words` from a clip that fits `spec`. Called on tensors: (B, 1, T, H, W), lengths (B,) -> (B, V).

    network: frontend, trunk, temporal net and head, with fresh weights drawn from `seed`.
    lineage: where the weights come from, oldest first: {"stage": "import" or "train", "config": ..., "record": ...}.
    """

    def __init__(
        self,
        backbone: str = "small",
        *,
        words: Sequence[str],
        options: Mapping[str, Any] | None = None,
        clip: ClipSpec | None = None,
        learning_rate: float = 3e-3,
        seed: int = 0,
    ) -> None:
        """backbone: one of `available_backbones()`, or a family with all of its `options`.

        words: the vocabulary in label order, such as `clips.words`. clip: what goes in, ClipSpec() if None; the same
        as that of the clips. learning_rate: highest rate of training.
        Raises UsageError for words, rates or backbones that cannot be used, RecipeError for options that do not fit.
        """
        super().__init__()
        options = dict(options or {})
        if isinstance(words, str) or len(words) < 2 or len(set(words)) != len(words):
            raise UsageError(f"words is {words!r:.200}; expected two or more different words, such as clips.words.")
        if not learning_rate > 0:
            raise UsageError(f"learning_rate is {learning_rate!r}; expected a number above 0, such as 3e-3.")
        if reason := why_unfit(backbone, options):
            raise UsageError(
                f"backbone {backbone!r} {reason}. Choose one of edgelip.available_backbones(), such as 'small'."
            )
        self.backbone, self.options, self.words = backbone, options, tuple(words)
        self.spec, self.learning_rate = clip or ClipSpec(), learning_rate
        require_video(self.spec)
        self.lineage: tuple[Mapping[str, Any], ...] = ()
        self.network: nn.Module = build_classifier(backbone, num_words=len(self.words), options=options, seed=seed)

    def forward(self, clips_B1THW: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """logits (B, V) of normalised clips. lengths_B: valid leading frames of each clip; none means all."""
        return self.network(clips_B1THW, lengths_B)  # type: ignore[no-any-return]

    @overload
    def predict(self, clips: Clips, *, output: Literal["labels"] = "labels", batch_size: int = 32) -> list[str]: ...

    @overload
    def predict(
        self, clips: Clips, *, output: Literal["probabilities", "logits"], batch_size: int = 32
    ) -> np.ndarray: ...

    def predict(self, clips: Clips, *, output: Output = "labels", batch_size: int = 32) -> list[str] | np.ndarray:
        """What is read from each clip: the words, or float32 (B, V) probabilities or logits in the order of `words`.

        clips: uint8 frames (B, T, roi_px, roi_px) or those of a store, one path or several, a folder (all clips in it,
        sorted by path), or a ClipData with a predict folder (in the order of its `predict_paths`).
        The mode of the network stays as it was. Raises UsageError on another output or none to read, ClipError naming
        the clip that cannot be read or does not fit.
        """
        if output not in OUTPUTS:
            raise UsageError(f"output is {output!r}; expected one of {', '.join(OUTPUTS)}. {nearest(output, OUTPUTS)}")
        logits_BV = np.concatenate([self.logits(frames) for frames in self._batches(clips, batch_size)])
        if output == "logits":
            return logits_BV
        if output == "probabilities":
            return torch.softmax(torch.from_numpy(logits_BV), dim=1).numpy()
        return [self.words[label] for label in logits_BV.argmax(axis=1)]

    @torch.inference_mode()
    def logits(self, frames_BTHW: np.ndarray) -> np.ndarray:
        """float32 (B, V) from uint8 frames of `spec`, in one batch. Raises ClipError if they do not fit."""
        inputs = torch.from_numpy(network_input(frames_BTHW, self.spec))
        modes = {module: module.training for module in self.modules()}
        try:
            self.eval()
            logits_BV: Tensor = self.network(inputs.to(next(self.parameters()).device))
            return logits_BV.float().cpu().numpy()
        finally:
            for module, training in modes.items():
                module.training = training

    def save(self, path: Path | str) -> None:
        """Write one safetensors file that holds everything `load` needs, all or nothing.

        The words stand beside it in label order, one a line, for readers of other programs: `lips.words.txt`.
        """
        save_checkpoint(checkpoint_from_model(self.network, self.architecture()), Path(path))
        write_words(words_beside(Path(path)), self.words)

    @classmethod
    def load(
        cls, path: Path | str, *, words: Sequence[str] | None = None, learning_rate: float = 3e-3, seed: int = 0
    ) -> WordClassifier:
        """The classifier of a checkpoint, in eval mode; nothing in the file is executed.

        words: another vocabulary: the weights of all but the head are taken over, and the head is drawn from `seed`.
        Raises CheckpointError for a file that is damaged, compressed or of other weights than it describes.
        """
        checkpoint = load_checkpoint(Path(path))
        architecture, tensors = checkpoint.architecture, dict(checkpoint.tensors)
        stages = [str(entry["stage"]) for entry in architecture.stages if entry["stage"] not in _PLAIN]
        if stages:
            raise CheckpointError(
                f"{path} is compressed ({', '.join(stages)}); a task takes an uncompressed checkpoint. "
                "Load the one it was made from, or run its bundle: edgelip predict BUNDLE CLIP."
            )
        try:
            model = cls(
                architecture.backbone,
                words=architecture.words if words is None else words,
                options=architecture.options,
                clip=ClipSpec.from_json(architecture.clip),
                learning_rate=learning_rate,
                seed=seed,
            )
        except (LookupError, TypeError) as error:
            raise CheckpointError(f"{path} describes a network that cannot be built: {error!r:.300}") from error
        if model.words != architecture.words:
            own = model.network.state_dict()
            tensors |= {name: tensor for name, tensor in own.items() if name.startswith(_HEAD)}
        try:
            model.network.load_state_dict(tensors)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise CheckpointError(
                f"{path} does not hold the weights of the network it describes: {detail:.300}"
            ) from error
        model.lineage = architecture.stages
        return model.eval()

    def architecture(self) -> Architecture:
        """What a checkpoint says of the network."""
        return Architecture(self.backbone, self.options, self.words, self.spec.to_json(), self.lineage)

    def _batches(self, clips: Clips, batch_size: int) -> Iterator[np.ndarray]:
        """uint8 frames, `batch_size` clips at a time: files are decoded as they are needed."""
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"batch_size is {batch_size!r}; expected a whole number from 1.")
        if isinstance(clips, (np.ndarray, StoredFrames, Tensor)):
            frames_BTHW = np.asarray(clips.cpu()) if isinstance(clips, Tensor) else clips
            if len(frames_BTHW.shape) != 4 or len(frames_BTHW) == 0:
                frames, side = self.spec.frames, self.spec.roi_px
                raise ClipError(
                    f"clips are {frames_BTHW.dtype} {frames_BTHW.shape}; expected uint8 (B, {frames}, {side}, {side})."
                )
            for start in range(0, len(frames_BTHW), batch_size):
                yield frames_BTHW[start : start + batch_size]
            return
        paths = iter(self._paths(clips))
        while batch := list(islice(paths, batch_size)):
            yield np.stack([read_clip(path, self.spec) for path in batch])

    def _paths(self, clips: ClipData | Path | str | Sequence[Path | str]) -> Sequence[Path]:
        if isinstance(clips, ClipData):
            if not clips.predict_paths:
                raise UsageError("these clips have no predict split. Give predict_folder to from_folders.")
            check_spec(self, clips)
            return clips.predict_paths
        if isinstance(clips, (str, Path)):
            return find_clips(Path(clips)) if Path(clips).is_dir() else (Path(clips),)
        paths = tuple(Path(path) for path in clips)
        if not paths:
            raise UsageError("there is no clip to predict: the list is empty. Give at least one path.")
        return paths


def check_spec(model: WordClassifier, clips: ClipData) -> None:
    """Raises UsageError, naming the fields, if the clips are not what the model takes."""
    wanted, got = model.spec.to_json(), clips.spec.to_json()
    if wanted["kind"] != got["kind"]:
        wanted = {"kind": wanted["kind"]}
    other = [f"{name} {got[name]!r} (the model takes {wanted[name]!r})" for name in wanted if got[name] != wanted[name]]
    if other:
        raise UsageError(
            f"the clips have {', '.join(other)}. "
            "Make the model with clip=clips.spec, or the clips with clip=model.spec."
        )
