"""What this machine has and lacks for running bundles. Looks, changes nothing, installs nothing.

Runs without numpy and without any engine: it is there to say so.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from edgelip.runtime.engine_states import engine_states, one_line, pip_install
from edgelip.runtime.errors import EdgelipError

Report = Dict[str, Any]

SCHEMA_VERSION = 1
OLDEST_PYTHON = (3, 8)


def doctor() -> Report:
    """Everything that decides whether and how fast bundles run here, ready for JSON; takes a few seconds.

    engines: name to EngineState; null stands for what the machine does not tell.
    """
    from edgelip.runtime.sensors.process import environment

    numpy_version, numpy_problem = _import_version("numpy")
    report: Report = {
        "schema_version": SCHEMA_VERSION,
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "mend": None if sys.version_info >= OLDEST_PYTHON else "Install Python 3.8 or newer.",
        },
        "numpy": {
            "version": numpy_version,
            "why_not": numpy_problem,
            "mend": pip_install("numpy") if numpy_problem else None,
        },
        "engines": {name: asdict(state) for name, state in engine_states(numpy_problem).items()},
        "rsync": shutil.which("rsync"),
        "disk": _disk(Path.home()),
        "memory": _memory(),
        "machine": environment(),
    }
    for name, facts in (("board", _board), ("power_sources", _power_sources)):
        try:
            report[name] = facts()
        except (EdgelipError, OSError, ValueError) as error:  # one odd sensor must not hide the rest
            report[name] = None
            report.setdefault("notes", []).append(f"{name}: {one_line(error)}")
    return report


def lines(report: Report) -> List[str]:
    """The report for a person, a line each."""
    python, numpy, disk, memory = report["python"], report["numpy"], report["disk"], report["memory"]
    told = [
        _line("python", f"{python['version']}  {python['executable']}", python["mend"]),
        _line("numpy", numpy["version"] or f"missing: {numpy['why_not']}", numpy["mend"]),
    ]
    for name, state in report["engines"].items():
        if state["why_not"] is None:
            text = f"{state['package']} {state['version']}, builds for {state['device_key']}"
        else:
            text = f"no: {state['why_not']}"
        told.append(_line(f"engine {name}", text, state["mend"]))
    machine = report["machine"]
    told += [
        _line("disk", f"{disk['free_mib']:,.0f} of {disk['total_mib']:,.0f} MiB free at {disk['path']}"),
        _line("memory", "unknown" if not memory["total_mib"] else _memory_text(memory)),
        _line("processor", f"{machine['cpu'] or machine['machine']}, {machine['num_cpus']} cores, governor "
              f"{machine['governor'] or 'unknown'}, int8 instructions {machine['int8_dot_product'] or 'none'}"),
        _line("rsync", report["rsync"] or "missing", None if report["rsync"] else "sudo apt-get install rsync"),
    ]  # fmt: skip
    board = report.get("board") or {}
    known = [f"{name} {board[name]}" for name in ("model", "l4t", "jetpack") if board.get(name)]
    if board.get("power_mode"):
        known.append(f"power mode {board['power_mode'].get('name')}")
    told += [_line("board", ", ".join(known))] if known else []
    for gpu in board.get("gpus") or []:
        told.append(_line("gpu", f"{gpu['name']}, sm {gpu['compute_capability']}, driver {gpu['driver']}"))
    sources = report.get("power_sources") or []
    told.append(_line("power", "; ".join(source["boundary"] for source in sources) or "no sensor that answers"))
    return told + [_line("note", note) for note in report.get("notes", [])]


def _import_version(package: str) -> Tuple[Optional[str], Optional[str]]:
    """Version and None, or None and why it cannot be imported."""
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        return None, f"{error.name} is not installed"
    except Exception as error:  # a wheel for another processor raises what it likes
        return None, f"{package} cannot be imported ({one_line(error)})"
    return str(getattr(module, "__version__", "unknown")), None


def _disk(folder: Path) -> Dict[str, Any]:
    usage = shutil.disk_usage(str(folder if folder.is_dir() else Path("/")))
    return {"path": str(folder), "free_mib": usage.free / 2**20, "total_mib": usage.total / 2**20}


def _memory() -> Dict[str, Optional[float]]:
    from edgelip.runtime.sensors.sysfs import read_text

    found: Dict[str, Optional[float]] = {"total_mib": None, "available_mib": None}
    for line in (read_text(Path("/proc/meminfo")) or "").splitlines():
        name, _, text = line.partition(":")
        key = {"MemTotal": "total_mib", "MemAvailable": "available_mib"}.get(name)
        if key:
            found[key] = int(text.split()[0]) / 1024
    return found


def _memory_text(memory: Dict[str, float]) -> str:
    return f"{memory['available_mib'] or 0:,.0f} of {memory['total_mib']:,.0f} MiB available"


def _board() -> Dict[str, Any]:
    from edgelip.runtime.sensors.board import board_facts

    return board_facts()


def _power_sources() -> List[Dict[str, str]]:
    from edgelip.runtime.sensors.power import find_power_sources

    return [{"name": source.name, "boundary": source.boundary} for source in find_power_sources()]


def _line(name: str, text: str, mend: Optional[str] = None) -> str:
    return f"{name:20} {text}" + (f"  ->  {mend}" if mend else "")
