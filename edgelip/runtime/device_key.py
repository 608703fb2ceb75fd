"""The kind of device that this machine is, as part of the key that a built engine carries.

x86-avx512vnni-ort1.31.1    processor and its int8 instructions, engine and version
sm87-trt10.3.0-jp6.2        compute capability, TensorRT version, JetPack on a Jetson
"""

from __future__ import annotations

import platform
from typing import Dict, Tuple

from edgelip.runtime.sensors.process import cpu_features

_FAMILIES: Dict[str, str] = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm64", "arm64": "arm64", "armv7l": "arm32"}
# The widest first: it decides which kernels and layouts an engine picks.
_INSTRUCTIONS: Tuple[Tuple[str, str], ...] = (
    ("amx_int8", "amx"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512f", "avx512"),
    ("avx_vnni", "avxvnni"),
    ("avx2", "avx2"),
    ("avx", "avx"),
    ("i8mm", "i8mm"),
    ("asimddp", "dotprod"),
    ("asimd", "neon"),
)


def processor_key() -> str:
    """Family and int8 instructions of this machine's processor, such as 'x86-avx512vnni' or 'arm64-dotprod'."""
    features = cpu_features()
    family = _FAMILIES.get(platform.machine(), platform.machine().lower() or "unknown")
    widest = next((word for flag, word in _INSTRUCTIONS if flag in features), "plain")
    return f"{family}-{widest}"
