"""Which EfLipReading model a checkpoint holds: the size by its stem and the number of its blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgelip.errors import CheckpointError, UsageError
from edgelip.models.efficientnet import SIZES
from edgelip.models.published.configuration import ROW_COLUMNS, EfLipJson, checked
from edgelip.models.published.recognise import Recognition, Shapes

_DROPOUT = 0.4
_BLOCK = re.compile(r"frontend_3d\.efnet\.blocks\.(\d\d?)\.block\.", re.ASCII)
_STEM = "frontend_3d.conv3d.conv3d.weight"


def recognise_eflip(
    shapes: Shapes, fields: dict[str, Any], stored: Mapping[str, Any], *, source: str
) -> tuple[Recognition, EfLipJson]:
    """The options of family "eflip", and the JSON. stored: hyper_parameters of the file, for what the JSON leaves out.

    Raises CheckpointError for a network of no known size, UsageError where the JSON contradicts the tensors.
    """
    told = checked(EfLipJson, fields, source=source)
    if not shapes.get(_STEM):
        raise CheckpointError(f"the file has no tensor {_STEM}; the model cannot be recognised.")
    stem_width = shapes[_STEM][0]
    num_blocks = len({match[1] for name in shapes if (match := _BLOCK.match(name))})
    size = next(
        (
            name
            for name, rows in SIZES.items()
            if rows[0].in_channels == stem_width and sum(row.repeats for row in rows) == num_blocks
        ),
        None,
    )
    if size is None:
        raise CheckpointError(
            f"the stem has {stem_width} channels and the trunk {num_blocks} blocks; expected "
            + ", ".join(
                f"{name}: {rows[0].in_channels} and {sum(row.repeats for row in rows)}" for name, rows in SIZES.items()
            )
            + "."
        )
    num_words = (shapes["fc_layer.weight"] or (0,))[0]
    _compare(told, size=size, num_words=num_words, source=source)
    dropout = told.dropout
    if dropout is None:
        held = stored.get("dropout")
        dropout = float(held) if isinstance(held, (int, float)) and 0 <= held < 1 else _DROPOUT
    return Recognition("eflip", "eflip", {"size": size, "dropout": dropout}, num_words), told


def _compare(told: EfLipJson, *, size: str, num_words: int, source: str) -> None:
    pairs: list[tuple[str, object, object]] = [
        ("efficientnet_size", told.efficientnet_size, size),
        ("words", told.words, num_words),
        ("in_channels", told.in_channels, 1),
    ]
    if told.rows is not None:
        pairs.append(("row_columns", told.row_columns or ROW_COLUMNS, ROW_COLUMNS))
        pairs.append(("rows", told.rows, tuple(_published_row(row) for row in SIZES[size])))
    for key, said, held in pairs:
        if said is not None and said != held:
            what = f"other than those of size {size}" if key == "rows" else repr(said)
            raise UsageError(
                f"{source} says {key} {what}; the tensors show {'size ' + size if key == 'rows' else repr(held)}. "
                "Give the configuration of this checkpoint."
            )


def _published_row(row: Sequence[Any]) -> tuple[Any, ...]:
    is_fused = row[-1] in ("F", "fused")
    return (*row[:-1], not is_fused, is_fused)
