"""A board as a pack meets it: Python, numpy and perhaps ONNX Runtime, no pip, no edgelip, a home of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class Board:
    """Runs programs with nothing but `packages` beside the standard library, in another folder and home."""

    def __init__(self, folder: Path, *packages: str) -> None:
        self.home, self.site = folder / "home", folder / "site"
        for made in (self.home, self.site, folder / "elsewhere"):
            made.mkdir(parents=True)
        for package in packages:
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            installed = Path(spec.origin).parent
            for part in (installed, installed.with_name(f"{package}.libs")):
                if part.exists():
                    (self.site / part.name).symlink_to(part)
        self.cwd = folder / "elsewhere"

    def environment(self, **changes: object) -> Mapping[str, str]:
        settings = {"HOME": self.home, "PYTHONPATH": self.site, "OMP_NUM_THREADS": 1, **changes}
        return {name: str(value) for name, value in settings.items()}

    def start(self, *arguments: object, **changes: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-S", "-s", *map(str, arguments)],
            cwd=self.cwd,
            env=self.environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, **changes: object) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        started = self.start(*arguments, **changes)
        out, err = started.communicate(timeout=120)
        return started.returncode, out, err

    def unpacked(self) -> list[Path]:
        """Everything below the cache of the packs, hidden files too."""
        return sorted((self.home / ".cache" / "edgelip").glob("*"))
