"""Every error that edgelip raises on purpose.

EdgelipError                     exit code
|-- UsageError (ValueError)        2   a command line, recipe or argument that cannot be obeyed
|   |-- ClipError                  2   a clip that does not fit the input contract, or cannot be read
|   |-- BundleError                2   a bundle that is damaged, hostile or newer than this program
|   `-- ShapeError                 2   arrays or layers whose shapes do not fit each other
|-- GoalMissed                     3   a goal or budget that was not met
|-- MissingError (RuntimeError)    4   something this machine lacks: a package, space, permission
|-- DeviceError (RuntimeError)     5   a device that cannot be reached
`-- MeasurementError (RuntimeError) 6  a measurement that is not valid

Messages say what, got, expected and remedy, in one line.
"""


class EdgelipError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(EdgelipError, ValueError):
    """The caller asked for something that cannot be obeyed."""

    exit_code = 2


class ClipError(UsageError):
    """A clip cannot be read or does not fit the input contract."""


class BundleError(UsageError):
    """A bundle is damaged, hostile or newer than this program."""


class ShapeError(UsageError):
    """Shapes do not fit each other."""


class GoalMissed(EdgelipError):
    """A goal or budget was not met."""

    exit_code = 3


class MissingError(EdgelipError, RuntimeError):
    """This machine lacks a package, disk space or a permission."""

    exit_code = 4


class DeviceError(EdgelipError, RuntimeError):
    """A device cannot be reached."""

    exit_code = 5


class MeasurementError(EdgelipError, RuntimeError):
    """A measurement is not valid."""

    exit_code = 6
