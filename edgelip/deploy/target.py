"""Device descriptions: one TOML file each in export/devices. What a device takes, and what its datasheet says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from edgelip.deploy.forms import forms_of
from edgelip.errors import RecipeError, UsageError
from edgelip.recipe_sections import Strict, explain
from edgelip.registry import nearest
from edgelip.runtime.engines.engine import ENGINES

DEVICES = Path(__file__).resolve().parents[2] / "export" / "devices"
MAX_FILE_BYTES = 64 * 1024

Precision = Literal["fp32", "fp16", "int8", "fp8"]
Positive = Annotated[float, Field(gt=0)]


class Figure(Strict):
    """A number that nobody measured here: where it comes from, and whether that could be checked."""

    value: Positive
    source: str = Field(min_length=1)
    unverified: bool = False

    @property
    def label(self) -> str:
        """The source, and a warning where it could not be checked."""
        return f"{self.source}, unverified" if self.unverified else self.source


class Datasheet(Strict):
    """Dense arithmetic, 1 multiply-add = 2 operations; gbps and gb in 1e9 bytes. None: not known or not there."""

    fp32_tflops: Figure | None = None
    fp16_tflops: Figure | None = None
    int8_tops: Figure | None = None
    fp8_tflops: Figure | None = None
    memory_gbps: Figure | None = None
    memory_gb: Figure | None = None

    def ceilings(self) -> dict[str, Figure]:
        """Tera-operations a second of each precision that has a number."""
        figures = {
            "fp32": self.fp32_tflops,
            "fp16": self.fp16_tflops,
            "int8": self.int8_tops,
            "fp8": self.fp8_tflops,
        }
        return {precision: figure for precision, figure in figures.items() if figure is not None}


class PowerMode(Strict):
    """A mode as nvpmodel names it; watts: its budget, none without a limit."""

    name: str = Field(min_length=1)
    watts: Positive | None = None


class Power(Strict):
    """watts: lowest and highest budget of the module or board."""

    watts: tuple[Positive, Positive]
    modes: tuple[PowerMode, ...] = ()
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _watts_rise(self) -> Power:
        if self.watts[0] > self.watts[1]:
            raise ValueError(f"watts fall from {self.watts[0]:g} to {self.watts[1]:g}; the lowest stands first")
        return self


class Sensors(Strict):
    """Where its power is read. total: rail of the module's input, none where the rails are added."""

    kind: Literal["ina3221", "nvml", "rapl", "none"]
    total: str | None = None
    rails: tuple[str, ...] = ()


class Software(Strict):
    """One system that the device runs, in the maker's words."""

    system: str | None = None
    jetpack: str | None = None
    l4t: str | None = None
    cuda: str | None = None
    tensorrt: str | None = None
    python: str | None = None


class Device(Strict):
    """A device: `name` is its file's; `host` the ssh alias, the name unless the file says another."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    title: str = Field(min_length=1)
    kind: Literal["jetson", "pi", "x86", "gpu"]
    arch: Literal["aarch64", "x86_64"]
    sm: int | None = Field(None, ge=50, le=999)  # compute capability, 87 for 8.7
    host: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,252}$")  # no option of ssh: it begins with no dash
    python: str = Field("python3", min_length=1)  # the interpreter there, a command or a path
    engine: str
    engines: tuple[str, ...] = Field(min_length=1)
    precisions: tuple[Precision, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()
    datasheet: Datasheet = Datasheet()
    power: Power | None = None
    sensors: Sensors
    software: tuple[Software, ...] = ()

    @model_validator(mode="after")
    def _parts_agree(self) -> Device:
        for engine in self.engines:
            if engine not in ENGINES:
                raise ValueError(f"there is no engine {engine!r}. {nearest(engine, ENGINES)}")
        if self.engine not in self.engines:
            raise ValueError(f"engine {self.engine!r} is not among its engines {', '.join(self.engines)}")
        if (self.sm is not None) != (self.kind in ("jetson", "gpu")):
            raise ValueError(f"a device of kind {self.kind!r} has sm = {self.sm}; jetson and gpu have one, others none")
        extra = sorted(set(self.datasheet.ceilings()) - set(self.precisions))
        if extra:
            raise ValueError(f"the datasheet has numbers of {', '.join(extra)}, which precisions does not name")
        return self

    @property
    def processor(self) -> str:
        """What the datasheet's arithmetic is of."""
        return "GPU" if self.sm is not None else "CPU"

    @property
    def label(self) -> str:
        """Such as 'orin-nano-8 (sm87)'."""
        return f"{self.name} (sm{self.sm})" if self.sm is not None else self.name


def device_names(folder: Path = DEVICES) -> list[str]:
    """Every device that has a file."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_device(name_or_path: str | Path, *, folder: Path = DEVICES) -> Device:
    """The device of that name in `folder`, or in the TOML file at that path.

    Raises UsageError naming the nearest if there is none, RecipeError for a file that is no description of one.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml" and len(path.parts) == 1:
        known = device_names(folder)
        if str(path) not in known:
            hint = nearest(str(path), known) if known else f"{folder} holds none; give the path of a TOML file."
            raise UsageError(f"There is no device {str(path)!r}. {hint}")
        path = folder / f"{path}.toml"
    tree = _read(path)
    if "name" in tree:
        raise RecipeError(f"{path}: key 'name' is the file's own name, {path.stem!r}; leave it out.")
    try:
        return Device.model_validate({"host": path.stem, **tree, "name": path.stem})
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, Device)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Devices: {', '.join(device_names())}.") from error
    if len(text) > MAX_FILE_BYTES:
        raise RecipeError(f"{path} is larger than {MAX_FILE_BYTES} bytes; a device is described in a few hundred.")
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}") from error


def precisions_of_engine(engine: str) -> tuple[str, ...]:
    """The precisions in which some file of a bundle is meant for `engine`."""
    forms = [
        *forms_of(quantised=False, built=False, precisions=("fp32", "fp16", "fp8")),
        *forms_of(quantised=True, built=False),
    ]
    return tuple(form.precision for form in forms if engine in form.engines)


def refuse_precision(device: Device, engine: str, precision: str) -> None:
    """Raise UsageError unless `engine` on `device` takes `precision`; the message names those that it takes."""
    if engine not in device.engines:
        raise UsageError(f"{device.label} runs {', '.join(device.engines)}; got engine {engine!r}.")
    by_engine = precisions_of_engine(engine)
    both = [known for known in device.precisions if known in by_engine]
    if precision not in device.precisions:
        raise UsageError(f"{device.label} takes {', '.join(device.precisions)}; got {precision}.")
    if precision not in both:
        raise UsageError(f"{engine} on {device.label} takes {', '.join(both)}; got {precision}.")


def device_rows(folder: Path = DEVICES) -> list[tuple[str, str, str, str, str]]:
    """A row a device for a table: name, title, compute capability, precisions, engines with the default first."""
    rows = []
    for name in device_names(folder):
        device = load_device(name, folder=folder)
        engines = [device.engine, *(engine for engine in device.engines if engine != device.engine)]
        sm = f"sm{device.sm}" if device.sm is not None else ""
        rows.append((name, device.title, sm, ", ".join(device.precisions), ", ".join(engines)))
    return rows
