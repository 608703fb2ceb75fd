"""Which machine this is: Jetson or Raspberry Pi model, release of its system, GPUs; and all facts of it for the record.

Every function takes the root of the file system, so that a test can build a board; None where a machine says nothing.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from edgelip.runtime.sensors import board_state
from edgelip.runtime.sensors.nvml import gpus
from edgelip.runtime.sensors.sysfs import ROOT, read_text

# NVIDIA's release pages; a release between two of one minor version belongs to the earlier.
JETPACK_BY_L4T = {
    (32, 4, 3): "4.4",
    (32, 4, 4): "4.4.1",
    (32, 5, 0): "4.5",
    (32, 5, 1): "4.5.1",
    (32, 6, 1): "4.6",
    (32, 7, 1): "4.6.1",
    (32, 7, 2): "4.6.2",
    (32, 7, 3): "4.6.3",
    (32, 7, 4): "4.6.4",
    (35, 1, 0): "5.0.2",
    (35, 2, 1): "5.1",
    (35, 3, 1): "5.1.1",
    (35, 4, 1): "5.1.2",
    (35, 5, 0): "5.1.3",
    (35, 6, 0): "5.1.4",
    (35, 6, 1): "5.1.5",
    (36, 3, 0): "6.0",
    (36, 4, 0): "6.1",
    (36, 4, 3): "6.2",
    (36, 4, 4): "6.2.1",
    (36, 5, 0): "6.2.2",
    (38, 2, 0): "7.0",
    (38, 4, 0): "7.1",
    (39, 2, 0): "7.2",
}
_RELEASE = re.compile(r"^#?\s*R(\d{1,4})\s*\(release\)\s*,\s*REVISION:\s*(\d{1,4}(?:\.\d{1,4}){0,2})", re.MULTILINE)


def device_tree_model(root: Path = ROOT) -> Optional[str]:
    """The name that the board's firmware gives it; None on a PC."""
    return read_text(root / "proc/device-tree/model", max_bytes=256) or None


def jetson_model(root: Path = ROOT) -> Optional[str]:
    """The name of a Jetson, as 'NVIDIA Jetson Orin Nano Developer Kit'; None on another machine."""
    model = device_tree_model(root)
    if model and re.search(r"jetson|tegra", model, re.IGNORECASE):
        return model
    return model if model and l4t_release(root) else None  # a carrier board may bear its maker's name alone


def raspberry_pi_model(root: Path = ROOT) -> Optional[str]:
    """The name of a Raspberry Pi, as 'Raspberry Pi 5 Model B Rev 1.0'; None on another machine."""
    model = device_tree_model(root)
    return model if model and model.startswith("Raspberry Pi") else None


def l4t_release(root: Path = ROOT) -> Optional[str]:
    """Release of Jetson Linux, as '36.4.3'; None where there is none."""
    return l4t_from_text(read_text(root / "etc/nv_tegra_release", max_bytes=4096) or "")


def l4t_from_text(text: str) -> Optional[str]:
    """'36.4.3' from '# R36 (release), REVISION: 4.3, GCID: ...'; None from another text."""
    found = _RELEASE.search(text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def jetpack_version(root: Path = ROOT) -> Optional[str]:
    """JetPack that brought this release, as '6.2'; None off a Jetson or for a release that the table lacks."""
    return jetpack_from_l4t(l4t_release(root) or "")


def jetpack_from_l4t(release: str) -> Optional[str]:
    """'6.2' from '36.4.3'; None if the table has no release of the same minor version, or none as early."""
    this = _numbers(release)
    earlier = [known for known in JETPACK_BY_L4T if known[:2] == this[:2] and known <= this]
    return JETPACK_BY_L4T[max(earlier)] if earlier else None


def _numbers(release: str) -> Tuple[int, ...]:
    """(36, 4, 3) from '36.4.3' and (38, 2, 0) from '38.2'."""
    numbers = [int(part) for part in release.split(".") if part.isdigit()]
    return tuple(numbers + [0] * (3 - len(numbers)))[:3]


def board_facts(root: Path = ROOT) -> Dict[str, Any]:
    """Everything above and the state that the machine is in, ready for JSON; None for what it does not tell.

    Runs `nvpmodel -q` and `vcgencmd get_throttled` where they are and no file says the same; changes nothing.
    """
    mode = board_state.power_mode(root)
    zones = board_state.thermal_zones(root)
    return {
        "model": device_tree_model(root),
        "jetson_model": jetson_model(root),
        "raspberry_pi_model": raspberry_pi_model(root),
        "l4t": l4t_release(root),
        "jetpack": jetpack_version(root),
        "power_mode": asdict(mode) if mode else None,
        "clocks_locked": board_state.clocks_locked(root),
        "cpu_clocks": [asdict(clock) for clock in board_state.cpu_clocks(root)],
        "gpu_clocks": [asdict(clock) for clock in board_state.gpu_clocks(root)],
        "thermal_zones": [dict(asdict(zone), beyond=list(zone.beyond)) for zone in zones],
        "over_current_events": board_state.over_current_events(root),
        "pi_throttling": board_state.pi_throttling(root),
        "gpus": [dict(asdict(gpu), throttled_by=list(gpu.throttled_by)) for gpu in gpus()] if root == ROOT else [],
    }
