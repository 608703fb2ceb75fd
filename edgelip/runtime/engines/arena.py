"""What ONNX Runtime's profile of one run says of the memory between the layers; since 1.31."""

from __future__ import annotations

import json
from typing import Optional

_PEAK = "mem_in_use_peak"  # of the session's arena, in which weights do not lie


def activation_bytes_in_profile(profile: str) -> Optional[int]:
    """The most that was in use between the layers at one time; None from a version that does not tell."""
    peaks = [
        int(event["args"][_PEAK])
        for event in json.loads(profile)
        if event.get("cat") == "Node" and _PEAK in event.get("args", {})
    ]
    return max(peaks) if peaks else None
