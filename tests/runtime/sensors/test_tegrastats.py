from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.runtime.errors import UsageError
from edgelip.runtime.sensors.tegrastats import Core, Rail, TegrastatsSample, Unit, sample_from_line

# As the boards print them.
AGX_XAVIER = (
    "RAM 1545/31919MB (lfb 7400x4MB) SWAP 2/15959MB (cached 1MB) CPU [0%@1190,1%@1190] EMC_FREQ 1%@408 "
    "GR3D_FREQ 12%@318 AO@38C GPU@39.5C CPU@40C thermal@38.8C GPU 120/100 CPU 468/450 SOC 937/900 CV 0/0 "
    "VDDRQ 312/234 SYS5V 1458/1400"
)
ORIN_NANO = (
    "06-18-2025 11:25:24 RAM 3452/7620MB (lfb 25x4MB) SWAP 1518/16384MB (cached 174MB) CPU [1%@1420,2%@1420,0%@1420,"
    "2%@1420,2%@729,1%@729] GR3D_FREQ 0% cpu@50.031C soc2@49.031C soc0@50C gpu@49.031C tj@50.25C soc1@50.25C "
    "VDD_IN 4824mW/4824mW VDD_CPU_GPU_CV 518mW/518mW VDD_SOC 1475mW/1475mW"
)
THOR = (
    "08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,75%@2601,off,7%@2601] EMC_FREQ 34%@4266 "
    "GR3D_FREQ 87%@[1574,1574,1574] NVENC0_FREQ @1691 VIC off cpu@58.25C/61.75C tj@66.625C/66.625C "
    "VDD_GPU 37939mW/8660mW/37939mW VDD_CPU_SOC_MSS 30059mW/12281mW/30059mW VIN_SYS_5V0 15486mW/7424mW/15486mW "
    "VIN 124486mW/36487mW/124486mW"
)


def test_line_of_an_agx_xavier() -> None:
    assert sample_from_line(AGX_XAVIER) == TegrastatsSample(
        ram_used_mb=1545,
        ram_total_mb=31919,
        swap_used_mb=2,
        swap_total_mb=15959,
        cores=(Core(0, 1190), Core(1, 1190)),
        emc=Unit(1, (408,)),
        gr3d=Unit(12, (318,)),
        temperatures_c={"AO": 38, "GPU": 39.5, "CPU": 40, "thermal": 38.8},
        rails={
            "GPU": Rail(120, 100),
            "CPU": Rail(468, 450),
            "SOC": Rail(937, 900),
            "CV": Rail(0, 0),
            "VDDRQ": Rail(312, 234),
            "SYS5V": Rail(1458, 1400),
        },
    )


def test_line_of_an_orin_nano() -> None:
    sample = sample_from_line(ORIN_NANO + "\n")
    assert sample.time == "06-18-2025 11:25:24"
    assert [core.clock_mhz for core in sample.cores if core] == [1420] * 4 + [729] * 2
    assert (sample.gr3d, sample.emc) == (Unit(0), None)
    assert sample.temperatures_c["tj"] == 50.25
    assert sample.rails == {"VDD_IN": Rail(4824, 4824), "VDD_CPU_GPU_CV": Rail(518, 518), "VDD_SOC": Rail(1475, 1475)}
    assert sample.unread == ()


def test_line_of_a_thor() -> None:
    sample = sample_from_line(THOR)
    assert (sample.swap_used_mb, sample.swap_total_mb) == (None, None)
    assert sample.cores == (Core(90, 2601), Core(75, 2601), None, Core(7, 2601))
    assert sample.gr3d == Unit(87, (1574, 1574, 1574))
    assert sample.temperatures_c == {"cpu": 58.25, "tj": 66.625}
    assert sample.rails["VIN"] == Rail(124486, 36487, 124486)
    assert sample.unread == ("NVENC0_FREQ", "@1691", "VIC", "off")


RAM = "RAM 1/2MB"


@pytest.mark.parametrize(
    ("text", "rail"),
    [
        ("VDD_GPU -392mW", Rail(-392)),
        ("VDD_GPU -392mW/12mW/-1mW", Rail(-392, 12, -1)),
        ("VDD_GPU 120/100", Rail(120, 100)),
        ("VDD_GPU 120/-100/130", Rail(120, -100, 130)),
        ("VDD_GPU 4824mW/4824mW", Rail(4824, 4824)),
    ],
)
def test_rail_has_one_to_three_fields_with_or_without_unit(text: str, rail: Rail) -> None:
    assert sample_from_line(f"{RAM} {text}").rails == {"VDD_GPU": rail}


@pytest.mark.parametrize("text", ["APE 150", "VDD_GPU 4824mW/48", "VDD_GPU 1/2/3/4", "VDD_GPU mW", "VDD_GPU 1mWh"])
def test_a_clock_or_a_rail_cut_short_is_no_rail(text: str) -> None:
    sample = sample_from_line(f"{RAM} {text}")
    assert sample.rails == {}
    assert sample.unread == tuple(text.split())


@pytest.mark.parametrize(
    ("text", "gr3d"),
    [
        ("GR3D_FREQ 63%@[621]", Unit(63, (621,))),
        ("GR3D_FREQ 63%@621", Unit(63, (621,))),
        ("GR3D_FREQ 63%", Unit(63)),
        ("GR3D_FREQ @921", Unit(None, (921,))),
        ("", None),
    ],
)
def test_gpu_has_a_load_clocks_both_or_is_absent(text: str, gr3d: Unit | None) -> None:
    assert sample_from_line(f"{RAM} {text}").gr3d == gr3d


def test_zone_that_is_powered_down_is_below_zero() -> None:
    assert sample_from_line(f"{RAM} cv0@-256C").temperatures_c == {"cv0": -256}


def test_core_without_a_clock_and_fields_of_later_systems_are_taken() -> None:
    sample = sample_from_line(f"{RAM} CPU [5%,off] HBM_FREQ 3%@999 (new stuff) IRAM 0/252kB(lfb 252kB)")
    assert sample.cores == (Core(5, None), None)
    assert sample.unread == ("HBM_FREQ", "3%@999", "(new", "stuff)", "IRAM", "0/252kB(lfb", "252kB)")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "'' is no line of tegrastats; expected 'RAM 3452/7620MB ...'"),
        ("tegrastats: command not found", "'tegrastats: command not found' is no line of tegrastats; expected 'RAM"),
        ("RAM 3452/76", "'RAM 3452/76' is no line of tegrastats"),
        (f"{RAM} {RAM}", "ram stands twice in 'RAM 1/2MB RAM 1/2MB'; expected one line at a time"),
        (f"{RAM} CPU [1%@2] CPU [1%@2]", "cpu stands twice"),
        (f"{RAM} CPU [x,off]", "tegrastats says 'x' of a CPU core; expected LOAD%, LOAD%@MHZ or off"),
        (f"{RAM} CPU []", "tegrastats says '' of a CPU core"),
        (RAM + " x" * 3000, "a line of 6009 characters is none of tegrastats; expected 4096 at most"),
    ],
)
def test_line_that_is_none_is_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        sample_from_line(line)
    assert message in str(raised.value)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    for line in (text, f"{RAM} {text}", text + THOR):
        with suppress(UsageError):
            assert isinstance(sample_from_line(line), TegrastatsSample)


@given(st.data())
def test_line_cut_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    whole = sample_from_line(THOR)
    try:
        cut = sample_from_line(THOR[: data.draw(st.integers(0, len(THOR)))])
    except UsageError:
        return
    assert cut.ram_total_mb == whole.ram_total_mb
    read = {name: rail for name, rail in cut.rails.items() if name in whole.rails}
    assert read == cut.rails  # no rail is invented


NUMBERS = st.integers(0, 999_999) | st.integers(0, 9_999_999).map(lambda thousandths: thousandths / 1000)
POWERS = st.integers(-99_999, 999_999)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,12}", fullmatch=True).filter(
    lambda name: name not in {"RAM", "SWAP", "CPU", "EMC_FREQ", "GR3D_FREQ"}
)
UNITS = st.builds(Unit, NUMBERS | st.none(), st.lists(NUMBERS, max_size=4).map(tuple)).filter(
    lambda unit: unit.load_pct is not None or unit.clocks_mhz
)
RAILS = st.builds(Rail, POWERS, POWERS) | st.builds(Rail, POWERS, POWERS, POWERS) | st.builds(Rail, POWERS)
SAMPLES = st.builds(
    TegrastatsSample,
    ram_used_mb=NUMBERS,
    ram_total_mb=NUMBERS,
    cores=st.lists(st.none() | st.builds(Core, NUMBERS, NUMBERS | st.none()), min_size=1, max_size=12).map(tuple),
    emc=st.none() | UNITS,
    gr3d=st.none() | UNITS,
    temperatures_c=st.dictionaries(NAMES, st.integers(-256, 120) | st.sampled_from([49.031, 50.25]), max_size=6),
    rails=st.dictionaries(NAMES, RAILS, max_size=6),
    time=st.none() | st.just("08-08-2026 21:00:39"),
).flatmap(
    lambda sample: (
        st.tuples(NUMBERS, NUMBERS).map(lambda swap: replace(sample, swap_used_mb=swap[0], swap_total_mb=swap[1]))
        | st.just(sample)
    )
)


def _line(sample: TegrastatsSample, *, unit: str) -> str:
    """What tegrastats prints for a sample."""

    def of_unit(name: str, found: Unit | None) -> list[str]:
        if found is None:
            return []
        load = "" if found.load_pct is None else f"{found.load_pct}%"
        clocks = ",".join(map(str, found.clocks_mhz))
        return [f"{name} {load}" + (f"@[{clocks}]" if len(found.clocks_mhz) > 1 else f"@{clocks}" if clocks else "")]

    def of_core(core: Core | None) -> str:
        if core is None:
            return "off"
        return f"{core.load_pct}%" + ("" if core.clock_mhz is None else f"@{core.clock_mhz}")

    def of_rail(name: str, rail: Rail) -> str:
        fields = [each for each in (rail.now_mw, rail.mean_mw, rail.max_mw) if each is not None]
        ending = unit if len(fields) > 1 else "mW"
        return f"{name} " + "/".join(f"{each}{ending}" for each in fields)

    return " ".join(
        [
            *([sample.time] if sample.time else []),
            f"RAM {sample.ram_used_mb}/{sample.ram_total_mb}MB (lfb 25x4MB)",
            *(
                [f"SWAP {sample.swap_used_mb}/{sample.swap_total_mb}MB (cached 1MB)"]
                if sample.swap_used_mb is not None
                else []
            ),
            f"CPU [{','.join(map(of_core, sample.cores))}]",
            *of_unit("EMC_FREQ", sample.emc),
            *of_unit("GR3D_FREQ", sample.gr3d),
            *(f"{name}@{celsius}C" for name, celsius in sample.temperatures_c.items()),
            *(of_rail(name, rail) for name, rail in sample.rails.items()),
        ]
    )


@given(SAMPLES, st.sampled_from(["mW", ""]))
def test_printed_sample_is_read_back(sample: TegrastatsSample, unit: str) -> None:
    assert sample_from_line(_line(sample, unit=unit)) == sample
