"""Errors for the host side: the tree is drawn in edgelip.runtime.errors."""

from edgelip.runtime.errors import (
    BundleError,
    ClipError,
    DeviceError,
    EdgelipError,
    GoalMissed,
    MeasurementError,
    MissingError,
    ShapeError,
    UsageError,
)


class RecipeError(UsageError):
    """A recipe that cannot be read or obeyed."""


class CheckpointError(UsageError):
    """A checkpoint that is damaged or describes a model this version cannot build."""


class StageError(UsageError):
    """A compression stage that does not fit the model or its place in the order."""


__all__ = [
    "BundleError",
    "CheckpointError",
    "ClipError",
    "DeviceError",
    "EdgelipError",
    "GoalMissed",
    "MeasurementError",
    "MissingError",
    "RecipeError",
    "ShapeError",
    "StageError",
    "UsageError",
]
