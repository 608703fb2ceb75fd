"""A virtual environment for each peer: made once from its pinned requirements, kept, and made anew when they change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgelip.errors import MissingError

HERE = Path(__file__).resolve().parent
REQUIREMENTS, LOOPS, KEPT = HERE / "requirements", HERE / "loops", HERE / ".envs"
TORCH = "torch==2.13.0"  # before the rest: with it present nothing else pulls the CUDA build
NEEDS_TORCH = ("torch", "olive", "optimum-benchmark")
# Nothing is fetched or reported while something is measured. CI: Olive 0.13.0 reports its start before it reads its own
# variable, but not where this one is set.
OFFLINE = {
    "CI": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_TELEMETRY": "1", "OLIVE_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip
_MADE = "made-from.txt"


def python_of(name: str, *, kept: Path = KEPT, say: Callable[[str], None] = lambda line: None) -> Path:
    """The interpreter of peer `name`'s environment, which is made if it is not there.

    Raises MissingError with pip's last line if its packages cannot be installed.
    """
    wanted = wanted_packages(name)
    folder = kept / name
    python, made = folder / "bin" / "python", folder / _MADE
    if python.is_file() and made.is_file() and made.read_text() == wanted:
        return python
    say(f"making the environment of {name}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], name)
    steps = [[TORCH]] if name in NEEDS_TORCH else []
    for arguments in (*steps, ["-r", str(REQUIREMENTS / f"{name}.txt")]):
        say(f"installing {' '.join(arguments)} for {name}")
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], name)
    made.write_text(wanted)
    return python


def wanted_packages(name: str) -> str:
    """What the environment is made from, as text. Raises MissingError for a peer without requirements."""
    path = REQUIREMENTS / f"{name}.txt"
    if not path.is_file():
        raise MissingError(f"There is no {path}; expected the pinned requirements of {name}.")
    return (f"{TORCH}\n" if name in NEEDS_TORCH else "") + path.read_text()


def settings(threads: int, **more: str) -> Mapping[str, str]:
    """The environment variables of a peer's process: offline, silent, so many threads; nothing of edgelip in sight."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**inherited, **OFFLINE, **counts, **more}


def last_line(text: str) -> str:
    """The last line that says something, without warnings and tracebacks' marks, cut to a cell's width."""
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))
    ]
    return (lines[-1] if lines else "it said nothing")[:300]


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise MissingError(f"The environment of {name} cannot be made: {last_line(done.stderr or done.stdout)}")
