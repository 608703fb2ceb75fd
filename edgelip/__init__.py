"""Train, compress, export and honestly measure lip-reading word classifiers on edge devices.

The names below are imported when they are first used: `import edgelip` itself loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgelip.runtime.clip import ClipSpec
    from edgelip.task.backbones import available_backbones, backbone_details
    from edgelip.task.classifier import WordClassifier
    from edgelip.task.clips import ClipData
    from edgelip.task.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "ClipData",
    "ClipSpec",
    "Trainer",
    "WordClassifier",
    "__version__",
    "available_backbones",
    "backbone_details",
]

_MODULES = {
    "ClipData": "edgelip.task.clips",
    "ClipSpec": "edgelip.runtime.clip",
    "Trainer": "edgelip.task.trainer",
    "WordClassifier": "edgelip.task.classifier",
    "available_backbones": "edgelip.task.backbones",
    "backbone_details": "edgelip.task.backbones",
}


def __getattr__(name: str) -> Any:
    """A public name, imported now. Raises MissingError where a package that it needs is not installed."""
    if name not in _MODULES:
        raise AttributeError(f"module 'edgelip' has no attribute {name!r}")
    from edgelip.registry import require

    value = getattr(require(_MODULES[name], extra="train"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
