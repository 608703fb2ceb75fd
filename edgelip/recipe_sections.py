"""The sections of a recipe: their keys, what these mean, and what a section alone can refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from edgelip.registry import nearest
from edgelip.runtime.clip import ClipSpec


class Strict(BaseModel):
    """Base of every recipe section: unknown keys, infinite numbers and nan refused, values frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_Section = TypeVar("_Section", bound=Strict)


def _refuse_repeated(section: _Section, words: tuple[str, ...]) -> _Section:
    repeated = sorted({word for word in words if words.count(word) > 1})
    if repeated:
        raise ValueError(f"the word {repeated[0]!r} is listed twice; words must differ")
    return section


class SyntheticData(Strict):
    """Procedural mouths (edgelip.data.synthetic)."""

    kind: Literal["synthetic"]
    words: tuple[str, ...] = Field(min_length=2)
    generator: int = 1  # version of the generator that this recipe pins
    seed: int = 0
    severity: float = Field(1.0, ge=0, le=3)  # scales every variation of speakers and clips
    train_speakers: int = Field(200, ge=1)
    val_speakers: int = Field(40, ge=1)
    test_speakers: int = Field(100, ge=1)
    train_clips: int = Field(ge=1)
    val_clips: int = Field(ge=1)
    test_clips: int = Field(ge=1)

    @model_validator(mode="after")
    def _words_differ(self) -> SyntheticData:
        return _refuse_repeated(self, self.words)


class SpanData(Strict):
    """Words cut from mouth videos by a CSV of frame spans (edgelip.data.readers.spans)."""

    kind: Literal["spans"]
    root: Path | None = None  # folder of the videos; set it on the command line
    manifest: str = "words.csv"  # relative to root
    category: str | None = None  # keep the rows of one category; none keeps all
    words: tuple[str, ...] | None = None  # keep these words; none keeps all


class PreparedData(Strict):
    """Stores that `edgelip data prepare` made, of video or landmarks; [clip] says what they hold."""

    kind: Literal["prepared"]
    root: Path | None = None  # folder of the stores train, val and test; set it on the command line
    words: tuple[str, ...] | None = Field(None, min_length=2)  # these alone, in label order; none keeps all

    @model_validator(mode="after")
    def _words_differ(self) -> PreparedData:
        return _refuse_repeated(self, self.words or ())


class SigningData(Strict):
    """Procedural signers (edgelip.data.synthetic.signing); takes a [clip] of kind "landmarks"."""

    kind: Literal["synthetic_signs"]
    num_words: int = Field(40, ge=2)  # the first of the generator's vocabulary, minimal pairs first
    generator: int = 1  # version of the generator that this recipe pins
    seed: int = 0
    severity: float = Field(1.0, ge=0, le=3)  # scales every variation of signers and clips but handedness
    train_signers: int = Field(200, ge=1)
    val_signers: int = Field(40, ge=1)
    test_signers: int = Field(100, ge=1)
    train_clips: int = Field(ge=1)
    val_clips: int = Field(ge=1)
    test_clips: int = Field(ge=1)


class ClipSection(Strict):
    """The input contract of video; see edgelip.runtime.clip.ClipSpec."""

    kind: Literal["video"] = "video"
    timing: Literal["window", "span"] = "window"
    frames: int = 29
    fps: float = 25.0
    roi_px: int = 96
    pool: int = 2
    crop_px: int = 88
    mean: float = 0.421
    std: float = 0.165

    def spec(self) -> ClipSpec:
        return ClipSpec(**self.model_dump())


class LandmarkClipSection(Strict):
    """The input contract of signs; see edgelip.runtime.clip.ClipSpec."""

    kind: Literal["landmarks"]
    frames: int = 64  # that a sign is resampled to
    points: str = "holistic118"  # a subset of edgelip.runtime.landmarks.POINTS
    axes: Literal[2, 3] = 2  # x, y; or x, y, z
    normalise: Literal["body", "parts"] = "body"

    def spec(self) -> ClipSpec:
        return ClipSpec(timing="span", **self.model_dump())


def _clip_tag(section: Any) -> str:
    kind = section.get("kind", "video") if isinstance(section, dict) else getattr(section, "kind", "video")
    return f"clip of {kind}"


Clip = Annotated[
    Annotated[ClipSection, Tag("clip of video")] | Annotated[LandmarkClipSection, Tag("clip of landmarks")],
    Discriminator(_clip_tag),
]


class ModelSection(Strict):
    """A backbone of edgelip.models.zoo and its options."""

    backbone: str = "small"
    options: dict[str, Any] = {}


class LandmarkVariation(Strict):
    """How signs are varied in training; see edgelip.train.landmark_augment.LandmarkAugmentation.

    Lengths are in units of the network's input, where a body's points have a root mean square of 1.
    """

    scale: float = Field(0.0, ge=0, le=2)  # most change of size; 0.2: by 1/1.2 to 1.2
    rotate_deg: float = Field(0.0, ge=0, le=180)
    shear: float = Field(0.0, ge=0, le=2)
    shift: float = Field(0.0, ge=0, le=10)
    affine_on: Literal["body", "parts"] = "body"  # what the four above move: the body, or each part on its own
    time_warp: float = Field(0.0, ge=0, lt=1)  # most change of speed inside a clip
    shortest_share: float = Field(1.0, gt=0, le=1)  # least share of a clip that a random window keeps; 1 keeps all
    noise: float = Field(0.0, ge=0, le=1)  # standard deviation
    drop_part: float = Field(0.0, ge=0, lt=1)  # chance that a hand, the face or the arms are lost
    drop_joint: float = Field(0.0, ge=0, lt=1)  # chance that a point is lost
    drop_box: float = Field(0.0, ge=0, le=1)  # chance of an obstacle before the body

    @model_validator(mode="after")
    def _has_effect(self) -> LandmarkVariation:
        if self.affine_on == "parts" and not (self.scale or self.rotate_deg or self.shear or self.shift):
            raise ValueError('affine_on = "parts" has no effect without scale, rotate_deg, shear or shift')
        return self


class TrainSection(Strict):
    """Training of the dense classifier. Distances are in pixels and frames of the network's input."""

    start: Path | None = None  # checkpoint to go on from, with its model, words and optimiser state; none starts afresh
    freeze: tuple[str, ...] = ()  # parts that stay as they are, such as "frontend" and "trunk"; none trains all
    feature_cache: Literal["fp16", "fp32"] | None = (
        None  # of frozen frontend and trunk: run them once, keep the results
    )
    feature_views: int = Field(1, ge=1, le=64)  # variants of each clip in that cache, drawn by what varies pixels
    seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"  # auto: bf16 where the processor multiplies in it
    epochs: int = Field(ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    rate_schedule: Literal["warmup_cosine", "epoch_cosine"] = "warmup_cosine"  # epoch_cosine: the published LRW recipe
    warmup_fraction: float = Field(0.1, ge=0, lt=1)  # of the steps of warmup_cosine
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    mixup_alpha: float = Field(0.0, ge=0)  # 0 mixes nothing; 0.4 published for LRW
    cutmix_alpha: float = Field(0.0, ge=0)  # 0 cuts nothing; beside mixup_alpha each batch takes one of both
    cutmix_cut: Literal["tube", "span", "box"] = "tube"  # part of the partner: pixels of all frames, frames, or both
    boundary_weight: float = Field(0.0, ge=0, lt=1)  # share of the loss on the word's own frames alone
    time_mask_frames: int = Field(0, ge=0)  # longest masked stretch; 15 published for LRW
    time_mask_draw: Literal["own", "published"] = "own"  # published: as the LRW recipe draws it, see train.frame_draws
    variable_length: bool = False  # a random window in time that holds the word; not for networks with boundary
    shift_frames: int = Field(0, ge=0)  # random shift in time
    random_crop: bool = True  # any window of the stored frames; the middle one if false
    flip: bool = True
    brightness: float = Field(0.0, ge=0, le=1)  # random gain and offset of the grey level
    landmarks: LandmarkVariation | None = None  # of signs, beside flip and time_mask_frames

    @model_validator(mode="after")
    def _has_effect(self) -> TrainSection:
        if self.time_mask_draw == "published" and self.time_mask_frames < 2:
            raise ValueError('time_mask_draw = "published" masks nothing below time_mask_frames = 2; 15 is published')
        if self.cutmix_cut != "tube" and not self.cutmix_alpha:
            raise ValueError("cutmix_cut has no effect without cutmix_alpha, such as 1.0")
        if self.rate_schedule == "epoch_cosine" and self.warmup_fraction != 0.1:
            raise ValueError('warmup_fraction has no effect on rate_schedule = "epoch_cosine"; leave it out')
        return self

    @model_validator(mode="after")
    def _freezes_what_it_caches(self) -> TrainSection:
        if self.feature_cache is not None and not {"frontend", "trunk"} <= set(self.freeze):
            raise ValueError('feature_cache keeps what frozen parts make: set freeze = ["frontend", "trunk"] too')
        if self.feature_cache is None and self.feature_views != 1:
            raise ValueError("feature_views has no effect without feature_cache")
        if len(set(self.freeze)) < len(self.freeze):
            raise ValueError("freeze names a part twice; parts must differ")
        return self


class VariantSection(Strict):
    """One thing to deploy: a name and the stages that lead to it, in order."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    stages: tuple[dict[str, Any], ...] = ()


class ExportSection(Strict):
    """Which files the bundles hold beside fp32, for float variants; one with stage ptq or qat holds int8 alone."""

    precisions: tuple[Literal["fp16", "fp8"], ...] = ("fp16",)
    min_int8_pct: float = Field(80.0, ge=0, le=100)  # least share of an int8 variant's multiply-adds that run in int8


class BuildSection(Strict):
    """An engine to build of every variant on this machine: engines that run it are elsewhere, or load faster so."""

    engine: str
    options: dict[str, str] = {}


class BenchSection(Strict):
    """How each bundle is measured."""

    engine: str = "ort"
    threads: int = Field(1, ge=1)
    launches: int = Field(5, ge=1)  # fresh processes a bundle
    seconds: float = Field(1.5, gt=0)  # of steady running in each launch
    check_clips: int = Field(8, ge=1)  # clips in expected.npz


_TAGGED: dict[str, type[BaseModel]] = {  # what pydantic puts into a location beside the keys
    "synthetic": SyntheticData,
    "spans": SpanData,
    "prepared": PreparedData,
    "synthetic_signs": SigningData,
    "clip of video": ClipSection,
    "clip of landmarks": LandmarkClipSection,
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first thing that is wrong: where, what, and the remedy."""
    # A mistyped key is the cause of the missing one beside it.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"] if part not in _TAGGED)
    if first["type"] == "extra_forbidden":
        section, _, key = where.rpartition(".")
        return (
            f"unknown key {key!r}{f' in [{section}]' if section else ''}. {nearest(key, _keys_at(model, first['loc']))}"
        )
    if first["type"] == "missing":
        return f"key {where!r} is missing; it has no default."
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        *kinds, last = (f'"{kind}"' for kind in _TAGGED if kind.startswith("clip of") == (where == "clip"))
        known = f"{', '.join(kinds)} or {last}".replace("clip of ", "")
        return f"[{where}] needs kind = {known}; got {first['input'].get('kind')!r}."
    value = f" (got {first['input']!r})" if not isinstance(first["input"], dict) else ""
    said = first["msg"].removeprefix("Value error, ")
    for python_word, word in (("valid tuple", "list"), ("valid dictionary", "table {key = value}")):
        if said.endswith(python_word):
            said = said.removesuffix(python_word) + word
    end = "" if said.endswith("?") and not value else "."
    return f"{where + ': ' if where else ''}{said.removesuffix('.')}{value}{end}"


def _keys_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields beside the one at `location`."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        options = _models_in(model.model_fields[part].annotation) if part in model.model_fields else []
        if part in _TAGGED:
            options = [_TAGGED[part]]
        if not options:
            return list(model.model_fields)
        model = options[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
