"""Which model a checkpoint of mpc001 or vsr_phm holds: names and shapes of its tensors, checked against its JSON.

What tensors cannot show is taken from the JSON, or is as published: dilations, dropout; relu or swish must be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from edgelip.errors import CheckpointError, UsageError
from edgelip.models.published.configuration import TcnJson, checked
from edgelip.models.published.recognise import Published, Recognition, Shapes

_BRANCH_WIDTH = 256
_SHUFFLE_WIDTHS = {48: 0.5, 116: 1.0, 176: 1.5, 244: 2.0}  # first stage: width multiplier
_FEATURES = "tcn.tcn_trunk.features."
_DILATIONS = (1, 2, 5)
_DROPOUT = 0.2


def recognise_tcn(shapes: Shapes, fields: dict[str, Any], *, source: str, published: Published) -> Recognition:
    """The options of family "lip_tcn". source: how messages call the JSON; empty if none was given.

    Raises CheckpointError where tensors contradict each other, UsageError where the JSON contradicts them or is needed.
    """
    told = checked(TcnJson, fields, source=source)
    options: dict[str, Any] = {}
    if "trunk.conv1.weight" in shapes:
        options["modality"] = "audio"
    trunk_width = _recognise_trunk(shapes, options)
    _recognise_temporal(shapes, options)
    if options["temporal"] == "dctcn":
        options["boundary"] = _has_boundary(shapes, trunk_width)
        options["dilations"] = told.densetcn_dilation_size_set or _DILATIONS
        told_dropout = told.densetcn_dropout
    else:
        told_dropout = told.tcn_dropout
    options["dropout"] = _DROPOUT if told_dropout is None else told_dropout
    slopes = {"frontend3D.2.weight", "trunk.relu.weight"} & shapes.keys()
    _compare(told, options, has_slopes=bool(slopes), source=source)
    options["activation"] = "prelu" if slopes else _told_activation(told, source)
    phm_n = _phm_terms(shapes)
    if phm_n is not None:
        parts = tuple(part for part, prefix in _PARTS if any(_is_factor(name, prefix) for name in shapes))
        floors = any(width % phm_n for width in _widths(options, parts, trunk_width))
        options["phm"] = {"n": phm_n, "parts": parts, "channels": "floor" if floors else "exact"}
    return Recognition(published, "lip_tcn", options, _size(shapes, "tcn.tcn_output.weight"), phm_n)


_PARTS = (("frontend", "frontend3D."), ("trunk", "trunk."), ("temporal", "tcn."))


def _is_factor(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.endswith(".A")


def _recognise_trunk(shapes: Shapes, options: dict[str, Any]) -> int:
    """Fill in the trunk; returns how many features it gives."""
    if "trunk.layer1.0.bn1.weight" in shapes:
        options["trunk"] = "resnet18"
        widths = tuple(_size(shapes, f"trunk.layer{stage}.0.bn1.weight") for stage in (1, 2, 3, 4))
        options["trunk_widths"] = widths
        return widths[-1]
    if "trunk.0.0.banch2.5.weight" not in shapes:
        raise CheckpointError(
            "the trunk is none that import knows: expected trunk.layer1.0.* (ResNet-18) or trunk.0.0.* (ShuffleNetV2)."
        )
    width = 2 * _size(shapes, "trunk.0.0.banch2.5.weight")
    if width not in _SHUFFLE_WIDTHS:
        known = ", ".join(str(width) for width in _SHUFFLE_WIDTHS)
        raise CheckpointError(f"the first ShuffleNetV2 stage has {width} channels; expected one of {known}.")
    options.update(trunk="shufflenet", trunk_width=_SHUFFLE_WIDTHS[width])
    return _size(shapes, "trunk.1.0.weight")


def _recognise_temporal(shapes: Shapes, options: dict[str, Any]) -> None:
    if f"{_FEATURES}norm5.weight" in shapes:
        _recognise_dense(shapes, options)
    elif any(name.startswith("tcn.mb_ms_tcn.network.") for name in shapes):
        _recognise_multiscale(shapes, options)
    elif any(name.startswith("tcn.tcn_trunk.network.") for name in shapes):
        _recognise_single(shapes, options)
    else:
        raise CheckpointError(
            "the temporal net is none that import knows: expected tcn.tcn_trunk.features.* (DC-TCN), "
            "tcn.mb_ms_tcn.* (MS-TCN) or tcn.tcn_trunk.network.* (TCN)."
        )


def _recognise_dense(shapes: Shapes, options: dict[str, Any]) -> None:
    blocks = _count(shapes, rf"{re.escape(_FEATURES)}denseblock(\d\d?)\.", first=1)
    layers = tuple(
        _count(shapes, rf"{re.escape(_FEATURES)}denseblock{b}\.denselayer(\d\d?)\.", first=1)
        for b in range(1, blocks + 1)
    )
    kernels = _kernels(shapes, f"{_FEATURES}denseblock1.denselayer1.cbcr0_{{k}}.net.0")
    options.update(
        temporal="dctcn",
        block_config=layers,
        growth=tuple(
            _size(shapes, f"{_FEATURES}denseblock{b}.denselayer1.downsample.bias") for b in range(1, blocks + 1)
        ),
        kernels=kernels,
        reduced=_size(shapes, f"{_FEATURES}transition0.norm.weight"),
        excite=any(".cbcr0_se_" in name for name in shapes),
    )


def _recognise_multiscale(shapes: Shapes, options: dict[str, Any]) -> None:
    start = "tcn.mb_ms_tcn.network."
    separable = f"{start}0.cbcr0_0.conv.0.weight" in shapes
    kernels = _kernels(shapes, f"{start}0.cbcr0_{{k}}.conv" + (".0" if separable else ""))
    width = _size(shapes, f"{start}0.downsample.bias")
    options.update(
        temporal="dsmstcn" if separable else "mstcn",
        kernels=kernels,
        tcn_blocks=_count(shapes, rf"{re.escape(start)}(\d\d?)\.", first=0),
        tcn_width_mult=_multiple(width, len(kernels)),
    )


def _recognise_single(shapes: Shapes, options: dict[str, Any]) -> None:
    start = "tcn.tcn_trunk.network."
    spelling = "conv1" if f"{start}0.conv1.bias" in shapes else "net.0"
    options.update(
        temporal="tcn",
        kernels=(_kernel(shapes, f"{start}0.{spelling}"),),
        tcn_blocks=_count(shapes, rf"{re.escape(start)}(\d\d?)\.", first=0),
        tcn_width_mult=_multiple(_size(shapes, f"{start}0.{spelling}.bias"), 1),
    )


def _has_boundary(shapes: Shapes, trunk_width: int) -> bool:
    dense = shapes.get(f"{_FEATURES}transition0.conv.weight", ())
    return f"{_FEATURES}transition0.conv.bnd" in shapes or (len(dense) > 1 and dense[1] == trunk_width + 1)


def _phm_terms(shapes: Shapes) -> int | None:
    """n, from every factor. Raises CheckpointError where factors differ or do not pair up with their blocks."""
    first: tuple[str, int] | None = None
    for name, shape in shapes.items():
        if not any(_is_factor(name, prefix) for _, prefix in _PARTS):
            continue
        layer = name.removesuffix("A")
        if len(shape) != 3 or len(set(shape)) != 1 or not shape[0]:
            raise CheckpointError(f"{name} has shape {shape}; expected (n, n, n).")
        blocks = next((layer + key for key in ("F", "S") if layer + key in shapes), None)
        if blocks is None:
            raise CheckpointError(f"{name} has no {layer}F beside it; a PHM layer has both.")
        if shapes[blocks][:1] != shape[:1]:
            raise CheckpointError(
                f"{name} has shape {shape}, n={shape[0]}, but {blocks} has shape {shapes[blocks]}; "
                "the first size of both must be n."
            )
        first = first or (name, shape[0])
        if shape[0] != first[1]:
            raise CheckpointError(f"{first[0]} has n={first[1]}, but {name} has n={shape[0]}; expected one n in all.")
    return None if first is None else first[1]


def _widths(options: Mapping[str, Any], parts: Iterable[str], trunk_width: int) -> set[int]:
    """Channel counts that n must divide for a PHM net without loss of channels."""
    widths: set[int] = set()
    if "frontend" in parts:
        widths.update(options.get("trunk_widths", ())[:1])
    if "trunk" in parts:
        widths.update(options.get("trunk_widths", ()))
    if "temporal" not in parts:
        return widths
    widths.add(trunk_width)
    if options["temporal"] != "dctcn":
        width = round(_BRANCH_WIDTH * options["tcn_width_mult"])
        return widths | {width, width * len(options["kernels"])}
    width = options["reduced"]
    for layers, growth in zip(options["block_config"], options["growth"], strict=True):
        inputs = [options["reduced"] + growth * layer for layer in range(layers + 1)]
        widths.update(inputs, (growth, growth // len(options["kernels"])))
        if options["excite"]:
            widths.update(width // 16 for width in inputs[:-1])
    return widths


def _told_activation(told: TcnJson, source: str) -> str:
    if told.relu_type is None:
        remedy = f"and {source} has no relu_type. Add it." if source else "and no JSON is given. Name it with --config."
        raise UsageError(f"the tensors do not show whether the activation is relu or swish, {remedy}")
    return told.relu_type


def _compare(told: TcnJson, options: Mapping[str, Any], *, has_slopes: bool, source: str) -> None:
    """Raises UsageError at the first thing that the JSON says and the tensors contradict."""
    if (told.relu_type == "prelu") is not has_slopes and told.relu_type is not None:
        held = "slopes of prelu" if has_slopes else "no slopes of prelu"
        raise UsageError(f"{source} says relu_type {told.relu_type!r}; the tensors hold {held}. Give the right JSON.")
    trunk = {"resnet18": "resnet", "shufflenet": "shufflenet"}[options["trunk"]]
    pairs: list[tuple[str, object, object]] = [("backbone_type", told.backbone_type, trunk)]
    if trunk == "shufflenet":
        pairs.append(("width_mult", told.width_mult, options["trunk_width"]))
    pairs.append(("use_boundary", told.use_boundary, options.get("boundary", False)))
    if options["temporal"] == "dctcn":
        pairs.append(("tcn_num_layers", told.tcn_num_layers, None))
        pairs += [
            ("densetcn_block_config", told.densetcn_block_config, options["block_config"]),
            ("densetcn_growth_rate_set", told.densetcn_growth_rate_set, options["growth"]),
            ("densetcn_kernel_size_set", told.densetcn_kernel_size_set, options["kernels"]),
            ("densetcn_reduced_size", told.densetcn_reduced_size, options["reduced"]),
            ("densetcn_se", told.densetcn_se, options["excite"]),
        ]
    else:
        if told.tcn_num_layers is None:
            pairs.append(("densetcn_block_config", told.densetcn_block_config, None))
        pairs += [
            ("tcn_num_layers", told.tcn_num_layers, options["tcn_blocks"]),
            ("tcn_kernel_size", told.tcn_kernel_size, options["kernels"]),
            ("tcn_dwpw", told.tcn_dwpw, options["temporal"] == "dsmstcn"),
            ("tcn_width_mult", told.tcn_width_mult, options["tcn_width_mult"]),
        ]
    for key, said, shown in pairs:
        if said is not None and said != shown:
            what = f"show {_listed(shown)}" if shown is not None else f"hold a {options['temporal']}"
            raise UsageError(
                f"{source} says {key} {_listed(said)}; the tensors {what}. Give the JSON of this checkpoint."
            )


def _listed(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def _size(shapes: Shapes, name: str) -> int:
    """First size of a tensor that must be there."""
    if not shapes.get(name):
        raise CheckpointError(f"the file has no tensor {name}, or an empty one; the model cannot be recognised.")
    return shapes[name][0]


def _count(shapes: Shapes, pattern: str, *, first: int) -> int:
    """How many consecutive numbers, from `first`, the names show at the group of `pattern`."""
    matches = (re.match(pattern, name, re.ASCII) for name in shapes)
    found = sorted({int(match[1]) for match in matches if match})
    if not found or found != list(range(first, first + len(found))):
        raise CheckpointError(f"{pattern} is numbered {found}; expected {first}, {first + 1}, ... without a gap.")
    return len(found)


def _kernels(shapes: Shapes, layer: str) -> tuple[int, ...]:
    kernels: list[int] = []
    while any(f"{layer.format(k=len(kernels))}.{key}" in shapes for key in ("weight", "F")):
        kernels.append(_kernel(shapes, layer.format(k=len(kernels))))
    if not kernels:
        raise CheckpointError(f"the file has no tensor {layer.format(k=0)}.weight or .F; the model is not complete.")
    return tuple(kernels)


def _kernel(shapes: Shapes, layer: str) -> int:
    shape = shapes.get(f"{layer}.weight") or shapes.get(f"{layer}.F") or ()
    if len(shape) < 3:
        raise CheckpointError(f"{layer} has a weight of shape {shape}; expected a 1-D convolution (out, in, kernel).")
    return shape[-1]


def _multiple(width: int, branches: int) -> float:
    multiple, rest = divmod(width, _BRANCH_WIDTH * branches)
    if rest or not multiple:
        raise CheckpointError(
            f"the temporal net is {width} channels wide; expected a multiple of {_BRANCH_WIDTH} x {branches} branches."
        )
    return multiple
