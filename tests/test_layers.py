"""Who may import whom: the floors of ARCHITECTURE.md, read from the sources, imports inside functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgelip"
SHARED = {
    "errors",
    "registry",
    "recipe",
    "recipe_sections",
    "files",
    "progress",
    "cache",
    "words",
    "linked",
    "toml_text",
}  # floor 1: usable by every folder but runtime
ALLOWED: dict[str, set[str]] = {
    "runtime": set(),
    "report": {"runtime"},
    "data": {"runtime"},
    "bench": {"runtime", "report"},
    "models": {"runtime"},
    "compress": {"models", "runtime"},
    "train": {"models", "data", "runtime"},
    "deploy": {"models", "compress", "runtime"},
    "task": {"models", "data", "train", "runtime"},
    "cli": {"runtime", "report", "data", "bench", "models", "compress", "train", "deploy", "task"},
}
# A shared module may import the runtime and these.
SHARED_ALLOWED = {
    "errors": set(),
    "registry": {"errors"},
    "recipe": {"errors", "recipe_sections"},
    "recipe_sections": {"registry"},
    "files": set(),
    "progress": set(),
    "cache": {"files"},
    "words": {"errors", "files", "registry"},
    "linked": {"files"},
    "toml_text": set(),
}


def imported_rooms(source: str) -> set[str]:
    """First parts below `edgelip` of every import in a source text."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [node.module or ""]
            if node.module == "edgelip":
                names = [f"edgelip.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("edgelip.")}
    return rooms


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_a_folder_imports_only_from_below(folder: str) -> None:
    allowed = ALLOWED[folder] | {folder} | (SHARED if folder != "runtime" else set())
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files
    for file in files:
        wrong = imported_rooms(file.read_text()) - allowed
        assert not wrong, f"{file.relative_to(PACKAGE)} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", sorted(SHARED_ALLOWED))
def test_a_shared_module_stays_low(module: str) -> None:
    wrong = imported_rooms((PACKAGE / f"{module}.py").read_text()) - SHARED_ALLOWED[module] - {"runtime"}
    assert not wrong


def test_every_folder_has_a_rule() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ALLOWED)


def test_the_reader_of_imports_sees_those_inside_functions() -> None:
    assert imported_rooms("def f():\n    from edgelip.train.fit import fit\n    import edgelip.cli") == {"train", "cli"}


RUNTIME_BLOCKED = "torch lightning nncf tensorrt onnx onnxruntime openvino pydantic typer rich scipy cv2 av safetensors"
HOST_BLOCKED = "torch lightning nncf tensorrt"
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}.split():
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
import importlib, pkgutil
for folder in {folders!r}.split():
    package = importlib.import_module("edgelip." + folder)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""


@pytest.mark.parametrize(("folders", "blocked"), [("runtime", RUNTIME_BLOCKED), ("runtime bench report", HOST_BLOCKED)])
def test_device_side_imports_without_the_heavy_packages(folders: str, blocked: str) -> None:
    code = BLOCK.format(blocked=blocked, folders=folders)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_nothing() -> None:
    code = (
        "import sys, edgelip; print(sorted(m for m in sys.modules if m.split('.')[0] in ('numpy', 'torch', 'typer')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", sorted((PACKAGE / "runtime").rglob("*.py")), ids=lambda path: path.name)
def test_the_runtime_is_valid_python_3_8(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 8))
