"""The named configurations: what each is built from, and what was published about it.

Accuracies are top-1 on the LRW test set (500 words) as their authors give them; edgelip has not repeated them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Options of each family, checked: edgelip.models.zoo.
FAMILIES: dict[str, str] = {
    "small": "edgelip.models.zoo:Small",
    "lip_tcn": "edgelip.models.zoo:LipTcn",
    "eflip": "edgelip.models.zoo:EfLip",
    "simple_islr": "edgelip.models.zoo:SimpleIslr",
    "sign_conv_transformer": "edgelip.models.zoo:SignConvTransformer",
}
LANDMARK_FAMILIES = ("simple_islr", "sign_conv_transformer")  # the others read video, or sound

MA_2021 = "Ma et al., ICASSP 2021, arXiv 2007.06504"
MA_2022 = "Ma et al., ICASSP 2022, arXiv 2209.01383"
ZOO = "model zoo of mpc001/Lipreading_using_Temporal_Convolutional_Networks"  # released weights
PHM = "Panagos et al., Pattern Recognition Letters 2024, doi 10.1016/j.patrec.2024.09.002"
EFLIP = "sadevans/EfLipReading, after Koumparoulis and Potamianos, ICASSP 2022"
ISLR = "baseline of the SLR tutorial on GISLR (linear, mean over frames)"
GISLR_WINNER = "after the winner of Google's isolated sign language recognition competition, 2023"


@dataclass(frozen=True)
class Backbone:
    """A family and the options that make a named configuration of it.

    published_gmac: 1e9 multiply-adds of the published code for one clip of LRW, measured on it. edgelip runs fewer: the
    published temporal nets also compute positions that they cut off, their PHM stem channels that are empty.
    """

    family: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published_top1_pct: float | None = None
    source: str = ""
    published_gmac: float | None = None


def _phm(n: int, *parts: str, channels: str = "exact") -> dict[str, Any]:
    return {"n": n, "parts": parts or ("trunk", "temporal"), "channels": channels}


def _dctcn(**options: Any) -> dict[str, Any]:
    return {"temporal": "dctcn", "activation": "swish", **options}


def _mstcn(**options: Any) -> dict[str, Any]:
    return {"temporal": "mstcn", "activation": "swish", **options}


def _shuffle(width: float, temporal: str, activation: str, **options: Any) -> dict[str, Any]:
    fields = {"trunk": "shufflenet", "trunk_width": width, "temporal": temporal, "activation": activation}
    return {**fields, **options}


def _tcn(width: float, tcn_width: int) -> dict[str, Any]:
    return _shuffle(width, "tcn", "prelu", kernels=(3,), tcn_width_mult=tcn_width)


BACKBONES: dict[str, Backbone] = {
    "small": Backbone("small", source="edgelip: sized for training on two CPU cores"),
    "dctcn_dense": Backbone("lip_tcn", _dctcn(), 89.6, MA_2022, 10.640),
    "dctcn_boundary": Backbone("lip_tcn", _dctcn(boundary=True), 92.1, MA_2022, 10.640),
    "dctcn_phm2": Backbone("lip_tcn", _dctcn(phm=_phm(2)), 89.1, PHM, 10.640),
    "dctcn_phm4": Backbone("lip_tcn", _dctcn(phm=_phm(4)), 88.4, PHM, 10.640),
    "dctcn_phm8": Backbone("lip_tcn", _dctcn(phm=_phm(8)), 87.4, PHM, 10.640),
    "dctcn_phm16": Backbone("lip_tcn", _dctcn(phm=_phm(16, channels="floor")), 86.5, PHM, 10.640),
    "dctcn_phm2_f": Backbone("lip_tcn", _dctcn(phm=_phm(2, "frontend", "trunk", "temporal")), None, PHM, 11.521),
    "dctcn_phm4_f": Backbone("lip_tcn", _dctcn(phm=_phm(4, "frontend", "trunk", "temporal")), None, PHM, 13.281),
    "dctcn_phm4_ablate_b": Backbone("lip_tcn", _dctcn(phm=_phm(4, "temporal")), None, PHM, 10.640),
    "dctcn_phm4_ablate_t": Backbone("lip_tcn", _dctcn(phm=_phm(4, "trunk")), None, PHM, 10.640),
    "dctcn_boundary_phm2": Backbone("lip_tcn", _dctcn(boundary=True, phm=_phm(2)), None, PHM, 10.640),
    "dctcn_boundary_phm4": Backbone("lip_tcn", _dctcn(boundary=True, phm=_phm(4)), None, PHM, 10.640),
    "dctcn_boundary_phm8": Backbone("lip_tcn", _dctcn(boundary=True, phm=_phm(8)), None, PHM, 10.640),
    "dctcn_boundary_phm16": Backbone(
        "lip_tcn", _dctcn(boundary=True, phm=_phm(16, channels="floor")), None, PHM, 10.640
    ),
    "mstcn_resnet18": Backbone("lip_tcn", _mstcn(), 88.9, MA_2022, 10.284),
    "mstcn_resnet18_phm4": Backbone("lip_tcn", _mstcn(phm=_phm(4)), None, PHM, 10.284),
    "snv1x_mstcn": Backbone("lip_tcn", _shuffle(1.0, "mstcn", "relu"), None, MA_2021, 2.215),
    "snv1x_dsmstcn3x": Backbone("lip_tcn", _shuffle(1.0, "dsmstcn", "relu"), 85.3, MA_2021, 1.244),
    "snv1x_tcn2x": Backbone("lip_tcn", _tcn(1.0, 2), 84.6, MA_2021, 1.292),
    "snv1x_tcn1x": Backbone("lip_tcn", _tcn(1.0, 1), 82.7, MA_2021, 1.106),
    "snv05x_tcn2x": Backbone("lip_tcn", _tcn(0.5, 2), 82.5, MA_2021, 0.760),
    "snv05x_tcn1x": Backbone("lip_tcn", _tcn(0.5, 1), 79.9, MA_2021, 0.574),
    "eflip_T": Backbone("eflip", {"size": "T"}, 81.6, EFLIP, 1.309),
    "eflip_S": Backbone("eflip", {"size": "S"}, 83.6, EFLIP, 14.201),
    "eflip_B": Backbone("eflip", {"size": "B"}, None, EFLIP, 3.988),
    "audio_dctcn_dense": Backbone("lip_tcn", _dctcn(modality="audio"), None, ZOO),
    "audio_dctcn_phm4": Backbone("lip_tcn", _dctcn(modality="audio", phm=_phm(4, "temporal")), None, PHM),
    "simple_islr": Backbone("simple_islr", source=ISLR),
    "sign_conv_transformer": Backbone("sign_conv_transformer", source=GISLR_WINNER),
}
