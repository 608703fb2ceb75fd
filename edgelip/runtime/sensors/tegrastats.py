"""Lines of tegrastats, a Jetson's own monitor, as JetPack 5 to 7 print them.

A field that this reader does not know is kept as a word in `unread`, so that a newer JetPack still gives the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, List, Match, Optional, Tuple

from edgelip.runtime.errors import UsageError

MAX_LINE_CHARS = 4096


@dataclass(frozen=True)
class Core:
    """One CPU core that is on."""

    load_pct: float
    clock_mhz: Optional[float]


@dataclass(frozen=True)
class Unit:
    """The GPU or the memory controller: load, and a clock for each of its parts."""

    load_pct: Optional[float]
    clocks_mhz: Tuple[float, ...] = ()


@dataclass(frozen=True)
class Rail:
    """Power of a rail in milliwatts: now, mean and maximum since tegrastats started; negative on an idle rail."""

    now_mw: float
    mean_mw: Optional[float] = None
    max_mw: Optional[float] = None


@dataclass(frozen=True)
class TegrastatsSample:
    """One line; None or empty for what it does not say. Megabytes are those of tegrastats, 2^20 bytes.

    cores: None for a core that is off. temperatures_c: the first of a pair. rails_mw: by name, such as 'VDD_IN'.
    """

    ram_used_mb: float
    ram_total_mb: float
    swap_used_mb: Optional[float] = None
    swap_total_mb: Optional[float] = None
    cores: Tuple[Optional[Core], ...] = ()
    emc: Optional[Unit] = None
    gr3d: Optional[Unit] = None
    temperatures_c: Dict[str, float] = field(default_factory=dict)
    rails: Dict[str, Rail] = field(default_factory=dict)
    time: Optional[str] = None
    unread: Tuple[str, ...] = ()


_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_SIGNED = "-?" + _NUMBER
_NAME = r"[A-Za-z][A-Za-z0-9_]{0,63}"
_FIELDS = {  # tried in this order at each place of the line
    "time": r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d",
    "ram": rf"RAM (?P<ram_used>{_NUMBER})/(?P<ram_total>{_NUMBER})MB",
    "swap": rf"SWAP (?P<swap_used>{_NUMBER})/(?P<swap_total>{_NUMBER})MB",
    "note": r"\((?:lfb|cached) [^()]{1,40}\)",
    "cpu": r"CPU \[(?P<cores>[^\[\]]{0,2000})\]",
    "unit": rf"(?P<unit_name>EMC_FREQ|GR3D_FREQ) (?=[\d@])(?:(?P<load>{_NUMBER})%)?"
    rf"(?:@(?P<clocks>{_NUMBER}|\[{_NUMBER}(?:,{_NUMBER}){{0,31}}\]))?",
    "temperature": rf"(?P<zone>{_NAME})@(?P<celsius>{_SIGNED})C(?:/{_SIGNED}C)?",
    "rail": rf"(?P<rail_name>{_NAME}) "
    rf"(?P<power>{_SIGNED}mW(?:/{_SIGNED}mW){{0,2}}|{_SIGNED}(?:/{_SIGNED}){{1,2}})",  # one bare number is a clock
}
_FIELD = re.compile(
    "(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in _FIELDS.items()) + r")(?=\s|$)", re.ASCII
)
_WORD = re.compile(r"\S+")
_CORE = re.compile(rf"(?P<load>{_NUMBER})%(?:@(?P<clock>{_NUMBER}))?$")


def sample_from_line(line: str) -> TegrastatsSample:
    """Read one line. Raises UsageError if it is none of tegrastats: too long, without RAM, or a field said twice."""
    if len(line) > MAX_LINE_CHARS:
        raise UsageError(f"a line of {len(line)} characters is none of tegrastats; expected {MAX_LINE_CHARS} at most.")
    found: Dict[str, Match[str]] = {}
    units: Dict[str, Unit] = {}
    temperatures_c: Dict[str, float] = {}
    rails: Dict[str, Rail] = {}
    unread: List[str] = []
    word = _WORD.search(line)
    while word:
        match = _FIELD.match(line, word.start())
        kind = match.lastgroup if match else None
        if match is None or kind is None:
            unread.append(word.group())
        elif kind == "unit":
            units[match.group("unit_name")] = _unit(match)
        elif kind == "temperature":
            temperatures_c[match.group("zone")] = float(match.group("celsius"))
        elif kind == "rail":
            milliwatts = (float(text.replace("mW", "")) for text in match.group("power").split("/"))
            rails[match.group("rail_name")] = Rail(*milliwatts)
        elif kind in found and kind != "note":
            raise UsageError(f"{kind} stands twice in {line.strip()[:60]!r}; expected one line at a time.")
        else:
            found[kind] = match
        word = _WORD.search(line, (match or word).end())
    if "ram" not in found:
        raise UsageError(f"{line.strip()[:60]!r} is no line of tegrastats; expected 'RAM 3452/7620MB ...'.")
    return TegrastatsSample(
        ram_used_mb=float(found["ram"].group("ram_used")),
        ram_total_mb=float(found["ram"].group("ram_total")),
        swap_used_mb=float(found["swap"].group("swap_used")) if "swap" in found else None,
        swap_total_mb=float(found["swap"].group("swap_total")) if "swap" in found else None,
        cores=_cores(found["cpu"].group("cores")) if "cpu" in found else (),
        emc=units.get("EMC_FREQ"),
        gr3d=units.get("GR3D_FREQ"),
        temperatures_c=temperatures_c,
        rails=rails,
        time=found["time"].group() if "time" in found else None,
        unread=tuple(unread),
    )


def _unit(match: Match[str]) -> Unit:
    load, clocks = match.group("load"), match.group("clocks")
    return Unit(
        load_pct=None if load is None else float(load),
        clocks_mhz=tuple(float(text) for text in clocks.strip("[]").split(",")) if clocks else (),
    )


def _cores(text: str) -> Tuple[Optional[Core], ...]:
    """Cores of '90%@2601,off'. Raises UsageError at one that is neither."""
    cores: List[Optional[Core]] = []
    for part in text.split(","):
        match = _CORE.match(part.strip())
        if match:
            clock = match.group("clock")
            cores.append(Core(float(match.group("load")), None if clock is None else float(clock)))
        elif part.strip() == "off":
            cores.append(None)
        else:
            raise UsageError(f"tegrastats says {part[:40]!r} of a CPU core; expected LOAD%, LOAD%@MHZ or off.")
    return tuple(cores)
