"""Which engines can run here, each asked in a process of its own: a driver that does not fit ends that one only.

Standard library only until numpy is known to be there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import site
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from edgelip.runtime.errors import EdgelipError

_PROBE_TIMEOUT_S = 60.0
# A process of its own for the engines of each package: a driver that does not fit ends it, not the doctor.
_PROBE = """
import json, sys
from edgelip.runtime.engine_states import probe
sys.stdout.write("\\n" + json.dumps(probe(sys.argv[1:])))
"""
_FOUND_AT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class EngineState:
    """Whether an engine can run here: why_not is None where it can, mend also where why_not names the remedy."""

    package: Optional[str]
    version: Optional[str]
    device_key: Optional[str]
    why_not: Optional[str]
    mend: Optional[str]


def engine_states(numpy_problem: Optional[str] = None) -> Dict[str, EngineState]:
    """Every engine of the table, in its order. numpy_problem: why numpy cannot be imported; no engine runs then."""
    if numpy_problem:
        return {"ort": EngineState("onnxruntime", None, None, "numpy is needed first", pip_install("onnxruntime"))}
    from edgelip.runtime.engines.engine import ENGINES

    by_package: Dict[Optional[str], List[str]] = {}
    states: Dict[str, EngineState] = {}
    for name in ENGINES:
        package = _package_of(name)
        if package is None or importlib.util.find_spec(package) is None:
            why = f"{package} is not installed" if package else "this edgelip lacks its module"
            states[name] = EngineState(package, None, None, why, remedy(name))
        else:
            by_package.setdefault(package, []).append(name)
    for names in by_package.values():
        states.update(_probe_apart(names))
    return {name: states[name] for name in ENGINES}


def probe(names: Sequence[str]) -> Dict[str, Any]:
    """States of engines of one package, asked in this process, as JSON."""
    states = {}
    for name in names:
        package = _package_of(name)
        version: Optional[str] = None
        try:
            from edgelip.runtime.engines.engine import engine_class, require_package

            kind = engine_class(name)
            module: Any = require_package(kind.package, engine=name)
            version = str(getattr(module, "__version__", "unknown"))
            provider = getattr(kind, "provider", None)
            if provider and provider not in module.get_available_providers():
                states[name] = EngineState(package, version, None, f"this {package} has no {provider}", remedy(name))
                continue
            states[name] = EngineState(package, version, kind.device_key({}), None, None)
        except EdgelipError as error:  # its text names the remedy
            states[name] = EngineState(package, version, None, one_line(error), None)
        except Exception as error:  # whatever a half-installed engine raises, it is the answer
            states[name] = EngineState(package, version, None, one_line(error), remedy(name))
    return {name: asdict(state) for name, state in states.items()}


def pip_install(package: str) -> str:
    """The command that installs a package for the Python that runs this."""
    return f"{shlex.quote(sys.executable)} -m pip install {package}"


def remedy(engine: str) -> str:
    """The command or the step that brings an engine to this machine."""
    on_jetson = Path("/etc/nv_tegra_release").exists()
    commands = {
        "ort": pip_install("onnxruntime"),
        "openvino": pip_install("openvino"),
        "ort-qnn": pip_install("onnxruntime-qnn"),
        "tensorrt-rtx": pip_install("tensorrt-rtx"),
        "ort-coreml": "Runs on Apple's devices: " + pip_install("onnxruntime"),
        "ort-xnnpack": "Build ONNX Runtime with --use_xnnpack; the usual wheel for Linux has none.",
    }
    if engine in commands:
        return commands[engine]
    if on_jetson:
        if engine == "tensorrt":
            return "sudo apt-get install python3-libnvinfer  (and a Python that sees the system's packages)"
        return "Install NVIDIA's own onnxruntime-gpu wheel for this JetPack; the registry's does not know its GPU."
    if engine == "tensorrt":
        return pip_install("tensorrt")
    return pip_install("onnxruntime-gpu") + "  (in place of onnxruntime)"


def _probe_apart(names: Sequence[str]) -> Dict[str, EngineState]:
    package = _package_of(names[0])
    try:
        # Some engines leave files in the home folder when imported: this one goes again.
        with tempfile.TemporaryDirectory(prefix="edgelip-doctor-") as home:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, *names],
                env=_environment(home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=_PROBE_TIMEOUT_S,
                check=False,
            )
        if done.returncode == 0:
            found = json.loads(done.stdout.decode(errors="replace").splitlines()[-1])
            return {name: EngineState(**found[name]) for name in names}
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = f"importing {package} ends with code {done.returncode} ({said[-1][:200] if said else 'no message'})"
    except subprocess.TimeoutExpired:
        why = f"importing {package} takes longer than {_PROBE_TIMEOUT_S:.0f} s"
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        why = f"importing {package} cannot be tried ({one_line(error)})"
    return {name: EngineState(package, None, None, why, f"Reinstall it: {remedy(name)}") for name in names}


def _environment(home: str) -> Dict[str, str]:
    """That of this process with another home folder, yet with the packages of the user's own."""
    path = [str(_FOUND_AT)] + [entry for entry in [os.environ.get("PYTHONPATH")] if entry]
    return dict(
        os.environ,
        HOME=home,
        XDG_CACHE_HOME=home,
        XDG_CONFIG_HOME=home,
        XDG_DATA_HOME=home,
        PYTHONUSERBASE=site.getuserbase(),
        PYTHONPATH=os.pathsep.join(path),
        PYTHONDONTWRITEBYTECODE="1",
    )


def _package_of(name: str) -> Optional[str]:
    """The package that an engine needs, from its class; None if the module of the engine cannot be imported."""
    from importlib import import_module

    from edgelip.runtime.engines.engine import ENGINES

    module, _, attribute = ENGINES[name].partition(":")
    try:
        package: str = getattr(import_module(module), attribute).package
    except (ImportError, AttributeError):
        return None
    return package


def one_line(error: BaseException) -> str:
    """An error's message in one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
