from __future__ import annotations

import pytest

from edgelip.errors import RecipeError
from edgelip.models.inputs import kind_of, options_for
from edgelip.runtime.clip import ClipSpec

VIDEO = ClipSpec()
SIGNS = ClipSpec(kind="landmarks", timing="span", frames=8, points="lips40", axes=3)


def test_a_backbone_reads_one_kind_of_clip() -> None:
    assert kind_of("small", {}) == kind_of("lip_tcn", {}) == "video"
    assert kind_of("audio_dctcn_dense", {}) == kind_of("lip_tcn", {"modality": "audio"}) == "audio"
    assert kind_of("simple_islr", {}) == kind_of("sign_conv_transformer", {}) == "landmarks"


def test_clips_decide_the_landmarks_of_a_network() -> None:
    assert options_for("simple_islr", {"width": 8}, SIGNS) == {"width": 8, "points": 40, "axes": 3}
    assert options_for("simple_islr", {"points": 40}, SIGNS) == {"points": 40, "axes": 3}
    assert options_for("small", {"dropout": 0.2}, VIDEO) == {"dropout": 0.2}


def test_other_landmarks_than_those_of_the_clips_are_refused() -> None:
    with pytest.raises(RecipeError) as refused:
        options_for("simple_islr", {"axes": 2}, SIGNS)
    assert str(refused.value) == (
        "model.options.axes of backbone 'simple_islr' is 2; the clips have 3. Leave it out: the clips decide it."
    )


@pytest.mark.parametrize(
    ("backbone", "spec", "message"),
    [
        (
            "small",
            SIGNS,
            "model.backbone 'small' reads video; the clips are landmarks. Choose a backbone for landmarks, such as "
            "'sign_conv_transformer' (`edgelip list backbones` names all), or other data.",
        ),
        (
            "simple_islr",
            VIDEO,
            "model.backbone 'simple_islr' reads landmarks; the clips are video. Choose a backbone for video, such as "
            "'small' (`edgelip list backbones` names all), or other data.",
        ),
        (
            "audio_dctcn_dense",
            VIDEO,
            "model.backbone 'audio_dctcn_dense' reads audio; the clips are video. Choose a backbone for video, such as "
            "'small' (`edgelip list backbones` names all), or other data.",
        ),
    ],
)
def test_another_kind_of_clip_is_refused(backbone: str, spec: ClipSpec, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        options_for(backbone, {}, spec)
    assert str(refused.value) == message
