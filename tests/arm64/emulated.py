"""Bundles in an emulated aarch64 root, beside this machine: are the words equal, and how far apart are the logits?

    python tests/arm64/emulated.py                     # every bundle in export/dist
    python tests/arm64/emulated.py BUNDLE.. --cpu cortex-a57 --clips 4

Needs Linux, root (for chroot), Debian's apt with arm64 packages behind its sources, a package index for pip, and
qemu-aarch64-static: apt-get install qemu-user-static. The first run fetches 20 MB of Debian packages and 40 MB of
wheels and keeps them, unpacked, in the cache folder; later runs need no network. Nothing is installed on this machine,
no architecture is added to dpkg, nothing is mounted, and no maintainer script runs: packages are only unpacked.

Each bundle is packed twice by edgelip.deploy.pack: with the aarch64 wheels as a folder that runs in the root, and as a
zip application that runs here. Both answer `check` and `predict --logits` on the bundle's own clips, for every
precision that ONNX Runtime takes. Emulation is 100 times slower than this machine, so it says nothing about latency.
Exit code 3: a word or a logit beyond its limit; 4: something missing, with the command that brings it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edgelip.deploy.pack import write_pack
from edgelip.errors import EdgelipError, GoalMissed, MissingError, UsageError
from edgelip.files import replace_folder
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import scaled_difference

EMULATOR = "qemu-aarch64-static"
ENGINE = "ort"
PACKAGES = ("base-files", "python3", "libgomp1", "libstdc++6", "zlib1g")  # zlib1g: what numpy's wheel links to
WHEELS = ("numpy", "onnxruntime")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
FLOAT_LIMIT = 1e-3  # of fp32 logits; other precisions may differ by what their manifest allows


@dataclass(frozen=True)
class Row:
    """One model of one bundle on both machines."""

    bundle: str
    model: str
    num_clips: int
    checked: bool  # `check` found on aarch64 what the exporter saw
    num_equal_words: int
    max_difference: float  # |arm64 - here| / max(1, |here|)
    limit: float

    @property
    def passed(self) -> bool:
        return self.checked and self.num_equal_words == self.num_clips and self.max_difference <= self.limit

    def cells(self) -> list[str]:
        words = f"{self.num_equal_words} of {self.num_clips}"
        verdict = "pass" if self.passed else "MISS"
        check = "OK" if self.checked else "refused"
        return [self.bundle, self.model, check, words, f"{self.max_difference:.1e}", f"{self.limit:g}", verdict]


def table(rows: Sequence[Row]) -> str:
    head = ["bundle", "model", "check", "words equal", "max scaled difference of logits", "limit", "verdict"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def require_tools() -> None:
    """Raises MissingError naming what this machine lacks and how to get it."""
    if sys.platform != "linux" or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise MissingError("the emulated root is made of Debian packages; this needs Debian or Ubuntu with apt-get.")
    if shutil.which(EMULATOR) is None:
        raise MissingError(f"{EMULATOR} is not installed. apt-get install qemu-user-static")
    if os.geteuid() != 0:
        raise MissingError("chroot into the emulated root needs root; run this as root, in a container for example.")


def make_root(cache: Path) -> Path:
    """A folder with an aarch64 Python and the emulator; made once."""
    root = cache / "root"
    if root.is_dir():
        return root
    say("fetching Debian's arm64 packages")
    with replace_folder(root) as partial, tempfile.TemporaryDirectory() as scratch:
        options = _own_apt(Path(scratch))
        run(["apt-get", *options, "update"], lacking="apt-get cannot fetch its lists; check its sources.")
        fetch = ["apt-get", *options, "--yes", "--download-only", "install", *PACKAGES]
        run(fetch, lacking="apt-get finds no arm64 packages; give it a source that has them.")
        for package in sorted((Path(scratch) / "cache/archives").glob("*.deb")):
            run(["dpkg-deb", "--extract", str(package), str(partial)])
        emulator = shutil.which(EMULATOR)
        assert emulator is not None
        shutil.copy2(emulator, partial / "usr/bin")
    return root


def _own_apt(folder: Path) -> list[str]:
    """Options that keep apt off this machine's own lists, cache and package database; its sources stay."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",  # its own user may not write to our folder
    }
    return [option for key, value in settings.items() for option in ("-o", f"{key}={value}")]


def fetch_wheels(cache: Path, root: Path) -> list[Path]:
    """The aarch64 wheels of what runs here, in the versions that run here; fetched once."""
    (python,) = (path.name[len("python") :] for path in (root / "usr/bin").glob("python3.*[0-9]"))
    wanted = {name: version(name) for name in WHEELS}
    folder = cache / ("-".join(f"{name}{number}" for name, number in wanted.items()) + f"-python{python}")
    if not folder.is_dir():
        say("fetching aarch64 wheels")
        platforms = [option for name in PLATFORMS for option in ("--platform", name)]
        pins = [f"{name}=={number}" for name, number in wanted.items()]
        with replace_folder(folder) as partial:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += [*platforms, "--python-version", python, "--dest", str(partial), *pins]
            run(command, lacking=f"pip finds no aarch64 wheels of {', '.join(pins)} for Python {python}.")
    return sorted(folder.glob("*.whl"))


def compare(path: Path, root: Path, wheels: Sequence[Path], *, cpu: str, num_clips: int) -> list[Row]:
    """A row for every precision of the bundle that ONNX Runtime takes."""
    bundle = Bundle.open(path)
    with tempfile.TemporaryDirectory(dir=root) as inside, tempfile.TemporaryDirectory() as outside:
        place = f"/{Path(inside).name}"
        write_pack(path, Path(inside) / "pack", wheels=wheels)
        archive = write_pack(path, Path(outside) / "pack.pyz")
        for folder in (inside, outside):
            np.savez(Path(folder) / "clips.npz", frames=bundle.expected().frames_NTHW[:num_clips])
        there = ["chroot", str(root), f"/usr/bin/{EMULATOR}", "-cpu", cpu, "/usr/bin/python3", "-I"]
        there.append(f"{place}/pack/run.py")
        here = [sys.executable, "-I", str(archive), "--unpack-to", f"{outside}/unpacked"]
        rows = []
        for precision in bundle.precisions_for(ENGINE):
            model, chosen = bundle.model_for(ENGINE, precision), ["--engine", ENGINE, "--precision", precision]
            check = subprocess.run([*there, "check", *chosen], capture_output=True, text=True, check=False)
            say((check.stdout or check.stderr).strip().splitlines()[-1])
            scores_BV = []
            for command, folder, seen_as in ((there, inside, place), (here, outside, outside)):
                predict = ["predict", f"{seen_as}/clips.npz", "--logits", f"{seen_as}/logits.npy"]
                run([*command, *predict, *chosen])
                scores_BV.append(np.load(Path(folder) / "logits.npy"))
            arm64_BV, here_BV = scores_BV
            equal = int((arm64_BV.argmax(axis=1) == here_BV.argmax(axis=1)).sum())
            difference = float(scaled_difference(arm64_BV, here_BV).max())
            limit = FLOAT_LIMIT if precision == "fp32" else model.entry.tolerance
            checked = check.returncode == 0
            rows.append(Row(bundle.name, model.path.name, len(here_BV), checked, equal, difference, limit))
    return rows


def run(command: Sequence[str], *, lacking: str | None = None) -> str:
    """Output of a command. Raises MissingError beginning with `lacking`, or UsageError, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
    if lacking is not None:
        raise MissingError(f"{lacking} ({last})")
    raise UsageError(f"`{' '.join(command[:8])} ..` failed with exit code {done.returncode}: {last}")


def say(line: str) -> None:
    print(f"arm64: {line}", file=sys.stderr, flush=True)


def main() -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgelip-arm64"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="default: every one in export/dist")
    parser.add_argument("--cache", type=Path, default=cache, help="where the root and the wheels are kept")
    parser.add_argument("--cpu", default="cortex-a76", help="processor that is emulated: qemu-aarch64-static -cpu help")
    parser.add_argument("--clips", type=int, default=8, help="of each bundle, at most (default: 8)")
    arguments = parser.parse_args()
    try:
        bundles = arguments.bundles or sorted(path.parent for path in Path("export/dist").glob("*/manifest.json"))
        if not bundles:
            raise MissingError("there is no bundle in export/dist. Make some: make export")
        require_tools()
        root = make_root(arguments.cache)
        wheels = fetch_wheels(arguments.cache, root)
        rows = []
        for bundle in bundles:
            rows += compare(bundle, root, wheels, cpu=arguments.cpu, num_clips=arguments.clips)
        print(table(rows))
        missed = [f"{row.bundle} ({row.model})" for row in rows if not row.passed]
        if missed:
            raise GoalMissed(f"{', '.join(missed)} computes differently on aarch64.")
    except EdgelipError as error:
        print(f"arm64: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
