"""How the mouth is found in a video: the options that several verbs take, and the finder that they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgelip.errors import UsageError
from edgelip.registry import lookup, nearest

if TYPE_CHECKING:
    from edgelip.data.mouth.finder import MouthFinder

AUTO, NONE, HAAR, LANDMARKS, LEGACY, MEDIAPIPE = "auto", "none", "haar", "landmarks", "landmarks-legacy", "mediapipe"
CHOICES = (AUTO, NONE, HAAR, LANDMARKS, LEGACY, MEDIAPIPE)
_BY_LANDMARKS = (LANDMARKS, LEGACY)

MouthChoice = Annotated[
    str,
    typer.Option(
        "--mouth", metavar="|".join(CHOICES), help="Who finds the mouth; auto: haar, nobody where the ROI is cut."
    ),
]
Landmarks = Annotated[
    Optional[Path],
    typer.Option("--landmarks", help="68-point landmarks: a .pkl, .npz or .npy, or a folder that mirrors the videos'."),
]
MeanFace = Annotated[
    Optional[Path], typer.Option("--mean-face", help="With --landmarks: face to align to, .npy (68, 2).")
]
Persons = Annotated[
    Optional[Path], typer.Option("--persons", help="With --landmarks: CSV of path,person_id; whose face to take.")
]
MouthModel = Annotated[
    Optional[Path], typer.Option("--mouth-model", help="With --mouth mediapipe: its model, a .task file.")
]


@dataclass(frozen=True)
class MouthOptions:
    """What was asked for. Raises UsageError for options that do not go together."""

    mouth: str = AUTO
    landmarks: Path | None = None
    mean_face: Path | None = None
    model: Path | None = None
    persons: Path | None = None

    def __post_init__(self) -> None:
        if self.mouth not in CHOICES:
            raise UsageError(
                f"--mouth is {self.mouth!r}; expected {', '.join(CHOICES)}. {nearest(self.mouth, CHOICES)}"
            )
        if self.landmarks is not None and self.mouth not in (AUTO, *_BY_LANDMARKS):
            raise UsageError(f"--landmarks belongs to --mouth landmarks, not to --mouth {self.mouth}.")
        if self.mouth in _BY_LANDMARKS and self.landmarks is None:
            raise UsageError(f"--mouth {self.mouth} needs --landmarks FILE or FOLDER, 68 points of each frame.")
        for name, given in (("--mean-face", self.mean_face), ("--persons", self.persons)):
            if given is not None and self.landmarks is None:
                raise UsageError(f"{name} belongs to --landmarks. Leave it out.")
        if (self.model is None) == (self.mouth == MEDIAPIPE):
            raise UsageError(
                "--mouth mediapipe and --mouth-model FILE belong together: its model is not part of the package."
            )

    @property
    def looks_for_rois(self) -> bool:
        """Whether frames of the size of an ROI are taken as ROIs."""
        return self.mouth == AUTO and self.landmarks is None

    def refuse_one_file(self) -> None:
        """Raises UsageError for landmarks that are not a folder: a data set has a file for each clip."""
        if self.landmarks is not None and not self.landmarks.is_dir():
            raise UsageError(f"--landmarks {self.landmarks} is no folder; expected one of a file for each clip.")

    def finder(self, root: Path) -> MouthFinder | None:
        """Who finds it in the videos below `root`; None: nobody, frames are ROIs. Of "auto": who finds it in faces."""
        from edgelip.data.mouth.finder import FINDERS

        if self.mouth == NONE:
            return None
        name, options = self.mouth, {}
        if self.landmarks is not None:
            name = LANDMARKS if name == AUTO else name
            options = {"folder": self.landmarks, "root": root, "mean_face": self.mean_face, "persons": self.persons}
        elif name == MEDIAPIPE:
            options = {"model": self.model}
        found: MouthFinder = lookup(FINDERS, HAAR if name == AUTO else name, kind="mouth finder")(**options)
        return found
