"""What slows a machine down: states that hold now, counters of what has happened, limits that somebody lowered.

Every function takes the root of the file system, so that a test can build a machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple

from edgelip.runtime.sensors import board_state
from edgelip.runtime.sensors.processors import slow_down_counts
from edgelip.runtime.sensors.sysfs import ROOT


def slowed_by(root: Path = ROOT) -> Tuple[str, ...]:
    """What holds the machine back now: thermal zones at a trip, and a Raspberry Pi's own flags."""
    zones = [
        f"{zone.name} at its {' and '.join(zone.beyond)} temperature"
        for zone in board_state.thermal_zones(root)
        if zone.beyond
    ]
    return (*zones, *(board_state.pi_throttling(root) or {}).get("now", ()))


def slowing_counts(root: Path = ROOT) -> Dict[str, float]:
    """How often it was slowed since its start, by cause; a Raspberry Pi tells only whether."""
    counts = {f"thermal slow-downs of a {kind}": float(count) for kind, count in slow_down_counts(root).items()}
    over_current = board_state.over_current_events(root)
    if over_current is not None:
        counts["over-current events"] = float(over_current)
    pi = board_state.pi_throttling(root)
    if pi is not None:
        counts.update((f"spells of {flag}", 1.0) for flag in pi["since_boot"])
    return counts


def limits_mhz(root: Path = ROOT) -> Dict[str, float]:
    """The highest clock that each policy of CPU and GPU allows now."""
    clocks = (*board_state.cpu_clocks(root), *board_state.gpu_clocks(root))
    return {clock.name: clock.highest_mhz for clock in clocks if clock.highest_mhz is not None}
