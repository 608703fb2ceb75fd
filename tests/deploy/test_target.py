from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgelip.deploy import target
from edgelip.deploy.target import (
    DEVICES,
    Device,
    device_names,
    device_rows,
    load_device,
    precisions_of_engine,
    refuse_precision,
)
from edgelip.errors import RecipeError, UsageError
from edgelip.runtime.engines.engine import ENGINES
from edgelip.runtime.sensors.power import TOTAL_RAILS

MINIMAL = """
title = "A board"
kind = "pi"
arch = "aarch64"
engine = "ort"
engines = ["ort"]
precisions = ["fp32", "int8"]
[sensors]
kind = "none"
"""


def _write(folder: Path, text: str, *, name: str = "my-board") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def devices() -> dict[str, Device]:
    return {name: load_device(name) for name in device_names()}


def test_every_description_loads_under_its_name(devices: dict[str, Device]) -> None:
    assert set(devices) == {path.stem for path in DEVICES.iterdir()}
    assert len(devices) == 19
    assert all(device.name == device.host == name for name, device in devices.items())


def test_every_figure_has_a_source(devices: dict[str, Device]) -> None:
    for device in devices.values():
        for figure in [*device.datasheet.ceilings().values(), device.datasheet.memory_gbps]:
            assert figure is None or figure.source


def test_every_device_but_x86_has_a_float_ceiling_and_a_bandwidth(devices: dict[str, Device]) -> None:
    for name, device in devices.items():
        known = device.datasheet.fp32_tflops is not None and device.datasheet.memory_gbps is not None
        assert known == (name != "x86")


def test_half_precision_is_never_slower_and_int8_never_slower_than_half(devices: dict[str, Device]) -> None:
    for device in devices.values():
        values = {name: figure.value for name, figure in device.datasheet.ceilings().items()}
        order = [values[name] for name in ("fp32", "fp16", "int8") if name in values]
        assert order == sorted(order)


def test_a_device_that_builds_for_tensorrt_rtx_has_a_capability_that_it_knows(devices: dict[str, Device]) -> None:
    rtx = {device.sm for device in devices.values() if "tensorrt-rtx" in device.engines}
    assert rtx <= {75, 80, 86, 89, 120, 121}


def test_total_rails_are_those_that_the_sensors_look_for(devices: dict[str, Device]) -> None:
    totals = {device.sensors.total for device in devices.values()} - {None}
    assert totals == set(TOTAL_RAILS)


def test_devices_take_the_precisions_of_the_table(devices: dict[str, Device]) -> None:
    takes = {name: device.precisions for name, device in devices.items()}
    assert takes["jetson-nano"] == takes["jetson-tx2"] == ("fp32", "fp16")
    assert takes["orin-nano-8"] == ("fp32", "fp16", "int8")
    assert takes["agx-thor"] == takes["h200"] == ("fp32", "fp16", "int8", "fp8")
    assert takes["raspberry-pi-4"] == ("fp32", "int8")
    assert devices["agx-thor"].datasheet.int8_tops is None


def test_unverified_figures_say_so(devices: dict[str, Device]) -> None:
    figure = devices["agx-thor"].datasheet.fp8_tflops
    assert figure is not None
    assert figure.label.endswith(", unverified")


def test_a_file_elsewhere_is_a_device_of_its_own_name(tmp_path: Path) -> None:
    device = load_device(_write(tmp_path, MINIMAL + "\n", name="kitchen"))
    assert (device.name, device.host, device.label, device.processor) == ("kitchen", "kitchen", "kitchen", "CPU")
    assert load_device(str(_write(tmp_path, 'host = "pi@attic.local"' + MINIMAL))).host == "pi@attic.local"


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"There is no device 'orin-nano8'. Did you mean 'orin-nano-8'\?"):
        load_device("orin-nano8")


def test_installation_without_descriptions_asks_for_a_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds none; give the path of a TOML file"):
        load_device("orin-nano-8", folder=tmp_path)


@pytest.mark.parametrize("name", ["../secrets.toml", "missing.toml"])
def test_file_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(No such file or directory\). Devices: a100, agx-orin-32,"):
        load_device(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('engin = "ort"', "unknown key 'engin'. Did you mean 'engine'?"),
        (
            "[datasheet]\nfp32_tflop = {value = 1, source = 's'}",
            "unknown key 'fp32_tflop' in [datasheet]. Did you mean ",
        ),
        ("[datasheet]\nfp32_tflops = {value = 1}", "key 'datasheet.fp32_tflops.source' is missing; it has no default."),
        (
            "[datasheet]\nfp32_tflops = {value = 0, source = 's'}",
            "datasheet.fp32_tflops.value: Input should be greater",
        ),
        (
            "[datasheet]\nfp16_tflops = {value = 1, source = 's'}",
            "the datasheet has numbers of fp16, which precisions does",
        ),
        ("sm = 87", "a device of kind 'pi' has sm = 87; jetson and gpu have one, others none"),
        ('name = "other"', "key 'name' is the file's own name, 'my-board'; leave it out."),
        ('host = "-oProxyCommand=sh"', "host: String should match pattern"),
        ("[power]\nwatts = [9, 7]\nsource = 's'", "power: watts fall from 9 to 7; the lowest stands first"),
        (
            "[power]\nwatts = [7, 9]\nmodes = [{nam = 'x'}]\nsource = 's'",
            "unknown key 'nam' in [power.modes.0]. Did you",
        ),
        ("= 3", "cannot be read as TOML"),
    ],
)
def test_wrong_description_is_explained(tmp_path: Path, change: str, message: str) -> None:
    tables = "\n" + MINIMAL if not change.startswith("[") else ""
    path = _write(tmp_path, change + tables if tables else MINIMAL + change)
    with pytest.raises(RecipeError, match=re.escape(message)) as raised:
        load_device(path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('engines = ["ort"]', 'engines = ["ort", "openvin"]', "there is no engine 'openvin'. Did you mean 'openvino'?"),
        ('engine = "ort"', 'engine = "openvino"', "engine 'openvino' is not among its engines ort"),
        ('kind = "pi"', 'kind = "gpu"', "a device of kind 'gpu' has sm = None; jetson and gpu have one, others none"),
        ('"fp32", "int8"', '"fp64"', "precisions.0: Input should be 'fp32', 'fp16', 'int8' or 'fp8' (got 'fp64')"),
    ],
)
def test_description_that_contradicts_itself_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_device(_write(tmp_path, MINIMAL.replace(old, new, 1)))


def test_file_name_that_is_no_device_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="name: String should match pattern"):
        load_device(_write(tmp_path, 'host = "x"' + MINIMAL, name="My Board"))


def test_giant_file_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "#" * (target.MAX_FILE_BYTES + 1))
    with pytest.raises(RecipeError, match="is larger than 65536 bytes"):
        load_device(path)


def test_precision_that_the_device_lacks_is_refused_with_those_it_takes() -> None:
    with pytest.raises(UsageError, match=r"^orin-nano-8 \(sm87\) takes fp32, fp16, int8; got fp8\.$"):
        refuse_precision(load_device("orin-nano-8"), "tensorrt", "fp8")


def test_precision_that_the_engine_lacks_is_refused_with_those_it_takes() -> None:
    with pytest.raises(UsageError, match=r"^ort-cuda on h200 \(sm90\) takes fp32, fp16; got int8\.$"):
        refuse_precision(load_device("h200"), "ort-cuda", "int8")


def test_engine_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^raspberry-pi-4 runs ort, ort-xnnpack; got engine 'tensorrt'\.$"):
        refuse_precision(load_device("raspberry-pi-4"), "tensorrt", "fp32")


def test_every_engine_takes_a_precision_of_every_device_that_names_it(devices: dict[str, Device]) -> None:
    for device in devices.values():
        for engine in device.engines:
            both = set(precisions_of_engine(engine)) & set(device.precisions)
            assert both
            for precision in both:
                refuse_precision(device, engine, precision)


def test_engines_take_what_the_forms_say() -> None:
    assert precisions_of_engine("tensorrt") == ("fp32", "fp16", "fp8", "int8")
    assert precisions_of_engine("ort-qnn") == ("int8",)
    assert all(precisions_of_engine(engine) for engine in ENGINES)


def test_rows_of_the_table_begin_with_the_default_engine() -> None:
    rows = {row[0]: row for row in device_rows()}
    assert rows["xavier-nx"][1:] == (
        "NVIDIA Jetson Xavier NX",
        "sm72",
        "fp32, fp16, int8",
        "ort-tensorrt, ort-cuda, ort",
    )
    assert rows["x86"][2] == ""
