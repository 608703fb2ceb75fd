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


class UnreachableError(StageError, GoalMissed):
    """A goal or budget of a stage that this model cannot meet; the message names the nearest that it can."""

    exit_code = GoalMissed.exit_code


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
    "UnreachableError",
    "UsageError",
]
