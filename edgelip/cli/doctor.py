"""`edgelip doctor`: what is here, what is missing, and the command that mends it. Looks only, installs nothing."""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgelip.cli.deploy_device import DeployOptions, Placement, placement
from edgelip.errors import DeviceError, EdgelipError, MissingError, UsageError

NEEDED_EXTRAS = ("", "train", "compress", "onnx", "ort", "report")  # `make export` without a device; "": edgelip itself
_REQUIREMENT = re.compile(r"([\w.-]+)([^;]*)(?:;(.*))?")
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)")
_PLATFORM = re.compile(r"sys_platform == ['\"](\w+)")
_TOOLS = {"ssh": "sudo apt-get install openssh-client", "rsync": "sudo apt-get install rsync"}


@dataclass(frozen=True)
class Package:
    """A package that an extra brings. version: None if it is not installed; fits: whether it is new enough."""

    extra: str
    name: str
    wanted: str
    version: str | None
    fits: bool


@dataclass(frozen=True)
class Diagnosis:
    """What `edgelip doctor` prints, and its exit code: 0, 4 if something needed is missing, 5 without the device."""

    text: str
    exit_code: int


def diagnose(*, device: str | None = None, options: DeployOptions | None = None, as_json: bool = False) -> Diagnosis:
    """Look at this machine and, with `device`, at that board over ssh; nothing is left there.

    Raises UsageError for a device that has no description.
    """
    from edgelip.deploy.target import load_device
    from edgelip.runtime.doctor import doctor, lines

    options = options or DeployOptions()
    if device is None and (options.host, options.ssh_config) != (None, None):
        raise UsageError("--host and --ssh-config say how to reach a device; name it with --device.")
    placed = placement(load_device(device), options) if device is not None else None
    report, packages = doctor(), installed_packages()
    tools = {tool: shutil.which(tool) for tool in _TOOLS}
    missing = [_mend_package(package) for package in packages if not package.fits and package.extra in NEEDED_EXTRAS]
    missing += [f"{tool}: {_TOOLS[tool]}" for tool, path in tools.items() if device and not path]
    found: dict[str, Any] = {
        "here": {**report, "packages": [asdict(package) for package in packages], "tools": tools, "missing": missing}
    }
    text = ["here", *_indented([*_host_lines(packages, tools), *lines(report)])]
    code = MissingError.exit_code if missing else 0
    if placed is not None:
        there, told, device_code = _device(placed, options)
        found["device"] = there
        text += ["", f"device {device}", *_indented(told)]
        code = max(code, device_code)
    text += ["", "Missing:", *_indented(missing)] if missing else []
    return Diagnosis(json.dumps(found, indent=1) if as_json else "\n".join(text), code)


def installed_packages() -> list[Package]:
    """Every package that edgelip and its extras ask for, and what is installed of it. None of them is imported."""
    try:
        required = metadata.requires("edgelip") or []
    except metadata.PackageNotFoundError:  # a bare checkout
        return [Package("", "edgelip", "", None, False)]
    packages = []
    for line in required:
        found = _REQUIREMENT.match(line)
        if found and not found.group(1).startswith("edgelip"):
            name, wanted, marker = found.group(1), found.group(2).strip(), found.group(3) or ""
            extra, platform_ = (next(iter(each.findall(marker)), "") for each in (_EXTRA, _PLATFORM))
            if platform_ not in ("", sys.platform):
                continue
            version = _version(name)
            packages.append(Package(extra, name, wanted, version, version is not None and fits(version, wanted)))
    return packages


def fits(version: str, wanted: str) -> bool:
    """Whether a version lies within bounds such as '>=4.10,<5'."""
    tests = {">=": lambda have, bound: have >= bound, "<": lambda have, bound: have < bound}
    bounds = re.findall(r"(>=|<)\s*([0-9][0-9.]*)", wanted)
    return all(tests[sign](_numbers(version), _numbers(bound)) for sign, bound in bounds)


def _device(placed: Placement, options: DeployOptions) -> tuple[dict[str, Any], list[str], int]:
    """Report, lines and exit code of a board."""
    from edgelip.deploy.boards.bounded_process import without_control
    from edgelip.deploy.boards.remote import Board
    from edgelip.deploy.boards.report import board_report, refuse_lacking
    from edgelip.runtime.doctor import lines

    there: dict[str, Any] = {"name": placed.name, "host": placed.host}
    told: list[str] = [f"{'host':20} {placed.host}"]
    try:
        board = Board(placed.host, python=placed.python, ssh_config=options.ssh_config)
        report = board_report(board)
        there["report"] = report
        if "too_old" not in report:
            told += [without_control(line) for line in lines(report)]
        refuse_lacking(board, report, placed.engine)
    except (DeviceError, MissingError) as error:
        there["problem"] = str(error)
        return there, [*told, f"{'problem':20} {error}"], error.exit_code
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, EdgelipError):
            raise
        problem = f"{placed.host} sent a report that cannot be shown ({type(error).__name__}). See what answers there."
        there["problem"] = problem
        return there, [*told, f"{'problem':20} {problem}"], DeviceError.exit_code
    return there, told, 0


def _host_lines(packages: list[Package], tools: Mapping[str, str | None]) -> list[str]:
    told = [f"{'edgelip':20} {_version('edgelip') or 'not installed'}, {platform.system()} {platform.machine()}"]
    for extra in dict.fromkeys(package.extra for package in packages):
        inside = [package for package in packages if package.extra == extra]
        lacking = [package for package in inside if not package.fits]
        have = ", ".join(f"{package.name} {package.version}" for package in inside if package.version)
        line = f"{'extra ' + extra if extra else 'packages':20} {have or 'nothing'}"
        if lacking:
            line += (
                f"; missing {', '.join(package.name + package.wanted for package in lacking)}  ->  {_install(extra)}"
            )
        told.append(line)
    for tool in ("ssh",):  # rsync stands among what a device has too
        told.append(f"{tool:20} {tools[tool] or f'missing, needed for --device  ->  {_TOOLS[tool]}'}")
    return told


def _mend_package(package: Package) -> str:
    state = f"{package.version}, expected {package.wanted}" if package.version else "not installed"
    return f"{package.name} ({state}): {_install(package.extra)}"


def _install(extra: str) -> str:
    return f'{Path(sys.executable)} -m pip install "edgelip{f"[{extra}]" if extra else ""}"'


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in found.group(0).split(".")] if found else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
