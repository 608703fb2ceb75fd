"""The JSON files that come with published checkpoints, checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from edgelip.errors import UsageError
from edgelip.recipe_sections import Strict, explain

_MAX_BYTES = 1 << 20
Schema = TypeVar("Schema", bound=Strict)
_Width = Annotated[int, Field(ge=1, le=4096)]


class TcnJson(Strict):
    """Hyperparameters of the mpc001 and vsr_phm models; a key that is absent says nothing about the checkpoint."""

    backbone_type: Literal["resnet", "shufflenet"] | None = None
    relu_type: Literal["relu", "prelu", "swish"] | None = None
    width_mult: float | None = None  # of ShuffleNetV2; ResNet ignores it
    use_boundary: bool | None = None
    tcn_num_layers: int | None = None
    tcn_kernel_size: tuple[int, ...] | None = None
    tcn_dropout: float | None = Field(None, ge=0, lt=1)
    tcn_dwpw: bool | None = None
    tcn_width_mult: float | None = None
    densetcn_block_config: tuple[int, ...] | None = None
    densetcn_growth_rate_set: tuple[int, ...] | None = None
    densetcn_kernel_size_set: tuple[int, ...] | None = None
    densetcn_dilation_size_set: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = Field(None, min_length=1)
    densetcn_reduced_size: int | None = None
    densetcn_se: bool | None = None
    densetcn_dropout: float | None = Field(None, ge=0, lt=1)


class EfLipJson(Strict):
    """Hyperparameters of EfLipReading. Those of its training are known and say nothing about the network."""

    family: Literal["eflip"] | None = None
    efficientnet_size: Literal["T", "S", "B"] | None = None
    words: int | None = None
    words_list: tuple[str, ...] | None = None
    in_channels: int | None = None
    dropout: float | None = Field(None, ge=0, lt=1)
    row_columns: tuple[str, ...] | None = None
    rows: tuple[tuple[_Width, _Width, _Width, _Width, _Width, _Width, bool, bool], ...] | None = Field(
        None, max_length=16
    )
    lr: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    weight_decay: float | None = None
    warmup_epochs: float | None = None
    use_ema: bool | None = None
    ema_decay: float | None = None
    seed: int | None = None


ROW_COLUMNS = ("expand", "kernel", "stride", "in", "out", "repeats", "se", "fused")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UsageError if there is none."""
    if not path.is_file():
        raise UsageError(f"There is no configuration {path}; expected the JSON file that came with the checkpoint.")
    if path.stat().st_size > _MAX_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size} bytes; a configuration has at most {_MAX_BYTES}.")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error!s:.80}); expected the configuration of the model.") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{path} holds a JSON {type(fields).__name__}; expected an object of hyperparameters.")
    return fields


def checked(schema: type[Schema], fields: dict[str, Any], *, source: str) -> Schema:
    """Raises UsageError naming the key that is unknown, with the nearest, or out of range."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"{source}: {explain(error, schema)}") from error
