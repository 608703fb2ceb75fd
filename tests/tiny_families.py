"""Every published family at a size that tests can afford, by name: (family, options)."""

from __future__ import annotations

from typing import Any

DENSE: dict[str, Any] = {
    "temporal": "dctcn",
    "trunk_widths": (8, 8, 16, 16),
    "reduced": 32,
    "block_config": (2, 1),
    "growth": (12, 12),
}
MULTI: dict[str, Any] = {"temporal": "mstcn", "trunk_widths": (8, 8, 16, 16), "branch_width": 4, "tcn_blocks": 2}
SHUFFLE: dict[str, Any] = {"trunk": "shufflenet", "trunk_width": 0.5, "branch_width": 4, "tcn_blocks": 2}
EFFICIENT: dict[str, Any] = {
    "rows": ((1, 3, 1, 4, 4, 1, "F"), (4, 3, 2, 4, 8, 2, "F"), (4, 3, 2, 8, 8, 2, "M")),
    "last_width": 16,
    "num_heads": 2,
    "feedforward": 8,
    "tcn_width": 10,
    "tcn_blocks": 2,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dctcn": ("lip_tcn", DENSE),
    "dctcn_phm2": ("lip_tcn", DENSE | {"phm": {"n": 2}}),
    "dctcn_phm2_f": ("lip_tcn", DENSE | {"phm": {"n": 2, "parts": ("frontend", "trunk", "temporal")}}),
    "dctcn_boundary": ("lip_tcn", DENSE | {"boundary": True}),
    "dctcn_boundary_phm2": ("lip_tcn", DENSE | {"boundary": True, "phm": {"n": 2}}),
    "mstcn_prelu": ("lip_tcn", MULTI | {"activation": "prelu"}),
    "mstcn_phm2": ("lip_tcn", MULTI | {"phm": {"n": 2}}),
    "snv_dsmstcn": ("lip_tcn", SHUFFLE | {"temporal": "dsmstcn", "activation": "relu"}),
    "snv_tcn_prelu": ("lip_tcn", SHUFFLE | {"temporal": "tcn", "kernels": (3,), "activation": "prelu"}),
    "snv_tcn_phm2": ("lip_tcn", SHUFFLE | {"temporal": "tcn", "kernels": (3,), "phm": {"n": 2}}),
    "eflip_time": ("eflip", EFFICIENT | {"attention": "time"}),
    "eflip_token": ("eflip", EFFICIENT | {"attention": "token"}),
    "audio": ("lip_tcn", DENSE | {"modality": "audio"}),
    "audio_phm2": ("lip_tcn", DENSE | {"modality": "audio", "phm": {"n": 2, "parts": ("temporal",)}}),
}
