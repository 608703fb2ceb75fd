"""What `edgelip data prepare` is told of clips and mouths, and the maker of clips that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgelip.cli.mouth_options import HAAR, NONE, MouthOptions
from edgelip.errors import ClipError, UsageError
from edgelip.runtime.clip import ClipSpec

if TYPE_CHECKING:
    from edgelip.data.clip_maker import ClipMaker
    from edgelip.data.readers.samples import Listing, Sample
    from edgelip.progress import Progress

_LOOKED_AT = 8
_SIGN_ENDINGS = (".parquet", ".hdf5", ".h5")
_SIGN_POINTS = "holistic118"

Timing = Annotated[
    Optional[str], typer.Option(metavar="window|span", help="Frames around the word, or the word's own, resampled.")
]
Frames = Annotated[Optional[int], typer.Option(help="Frames of a clip; default 29, of signs 64.")]
Fps = Annotated[Optional[float], typer.Option(help="Frames a second of a clip; default 25.")]
RoiPx = Annotated[Optional[int], typer.Option("--roi-px", help="Side of a mouth ROI; default 96.")]
Pool = Annotated[Optional[int], typer.Option(help="Store the mean of so many x so many pixels; default 1.")]
CropPx = Annotated[Optional[int], typer.Option("--crop-px", help="What a network will see of an ROI; default 88.")]
Points = Annotated[Optional[str], typer.Option(help="Signs: which landmarks, such as holistic118.")]
Axes = Annotated[Optional[int], typer.Option(help="Signs: 2 (x, y) or 3 (x, y, z).")]


@dataclass(frozen=True)
class ClipOptions:
    """Fields of the input contract as given; None was not given."""

    timing: str | None = None
    frames: int | None = None
    fps: float | None = None
    roi_px: int | None = None
    pool: int | None = None
    crop_px: int | None = None
    points: str | None = None
    axes: int | None = None

    def spec(self, listing: Listing) -> ClipSpec:
        """The contract; of landmarks where points are given or the files hold signs. Raises ClipError."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        from edgelip.data.clip_files import VIDEOS, ending_of

        is_sign = bool(listing.samples) and listing.samples[0].path.suffix.lower() in _SIGN_ENDINGS
        if not is_sign and "points" not in given:
            if "axes" in given:
                raise UsageError("--axes belongs to signs: --points holistic118, for example. Leave it out.")
            return ClipSpec(**given)
        video = next((sample.path for sample in listing.samples if ending_of(sample.path.name) in VIDEOS), None)
        if video is not None:
            raise UsageError(f"--points belongs to signs; {video} is a video. Leave it out.")
        defaults = {"kind": "landmarks", "timing": "span", "frames": 64, "points": _SIGN_POINTS}
        return ClipSpec(**{**defaults, **given})


def clip_maker(mouth: MouthOptions, spec: ClipSpec, listing: Listing, progress: Progress) -> ClipMaker:
    """What makes a clip of each sample. Raises UsageError where it is not clear who is to find the mouth."""
    if spec.kind == "landmarks":
        from edgelip.data.signs.maker import LandmarkMaker

        if mouth != MouthOptions():
            raise UsageError("signs have no mouth to find: leave --mouth and --landmarks out.")
        return LandmarkMaker(spec)
    mouth.refuse_one_file()
    if mouth.looks_for_rois:
        mouth = MouthOptions(_chosen(listing.samples, spec))
        found = "the files are mouth ROIs" if mouth.mouth == NONE else f"found by {mouth.mouth} (--mouth {mouth.mouth})"
        progress.say(f"mouths: {found}")
    finder = mouth.finder(listing.root)
    if finder is None:
        from edgelip.data.clip_maker import CropMaker

        return CropMaker(spec)
    from edgelip.data.mouth.maker import MouthMaker

    return MouthMaker(spec, finder)


def _chosen(samples: tuple[Sample, ...], spec: ClipSpec) -> str:
    """ "none" or "haar", by the sizes of a few files; those that cannot be read are counted later."""
    from edgelip.data.clip_files import ARRAYS
    from edgelip.data.video import frame_size

    sizes = set()
    step = max(1, len(samples) // _LOOKED_AT)
    for sample in samples[::step]:
        if sample.path.suffix.lower() in ARRAYS:
            sizes.add((spec.roi_px, spec.roi_px))
            continue
        try:
            sizes.add(frame_size(sample.path))
        except ClipError:
            continue
    are_rois = {size == (spec.roi_px, spec.roi_px) for size in sizes}
    if are_rois == {True, False}:
        raise UsageError(
            f"some files are mouth ROIs of {spec.roi_px} px and some are not. Say --mouth none, or who finds the mouth."
        )
    return HAAR if are_rois == {False} else NONE
