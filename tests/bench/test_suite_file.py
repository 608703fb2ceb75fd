from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.bench.suite_file import TIERS, load_suite_file
from edgelip.errors import RecipeError
from edgelip.runtime.measurement import COLD_START, SCENARIOS, SINGLE_STREAM

SUITES = Path(__file__).parents[2] / "benchmarks" / "suites"


def write(folder: Path, text: str) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    suite = load_suite_file(
        write(
            tmp_path,
            'exports = ["../export"]\nbundles = ["b"]\n[accuracy]\nclips = "c.npz"\n[end_to_end]\nvideo = "v.mp4"',
        )
    )
    assert suite.name == "tiny"
    assert suite.exports == (tmp_path.parent / "export",)
    assert suite.bundles == (tmp_path / "b",)
    assert suite.accuracy is not None
    assert suite.accuracy.clips == tmp_path / "c.npz"
    assert suite.end_to_end is not None
    assert suite.end_to_end.video == tmp_path / "v.mp4"


def test_a_suite_without_scenarios_has_latency_and_cold_start(tmp_path: Path) -> None:
    suite = load_suite_file(write(tmp_path, 'bundles = ["b"]'))
    assert [scenario.name for scenario in suite.scenario] == [SINGLE_STREAM, COLD_START]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('bundle = ["b"]', "unknown key 'bundle'. Did you mean 'bundles'?"),
        (
            'bundles = ["b"]\n[[scenario]]\nname = "SingleStream"\nlaunch = 3',
            "unknown key 'launch' in [scenario.0]. Did",
        ),
        ('bundles = ["b"]\n[[target]]\nengine = "otr"', "there is no engine 'otr'. Did you mean 'ort'?"),
        ("", "it names no bundle; set exports ="),
        (
            'bundles = ["b"]\n[[scenario]]\nname = "Offline"\nfps = 25',
            "fps has no effect on Offline; it belongs to Str",
        ),
        ('bundles = ["b"]\n[[scenario]]\nname = "ColdStart"\nseconds = 3', "seconds has no effect on ColdStart"),
        (
            'bundles = ["b"]\n[[scenario]]\nname = "Offline"\ndrop_page_cache = true',
            "drop_page_cache has no effect on Offline; it belongs to ColdStart",
        ),
        (
            'bundles = ["b"]\n[[scenario]]\nname = "Offline"\nfirst_only = true\nvariants = ["b"]',
            "first_only and variants both say which",
        ),
        ('bundles = ["b"]\nvariants = ["b", "b"]', "variants names one twice"),
        ('bundles = ["b"]\nscenario = []', "it measures nothing; give [[scenario]] or [accuracy]"),
        (
            'bundles = ["b"]\nenergy_s = 30\n[[scenario]]\nname = "Offline"',
            "energy_s has no effect without [[scenario]]",
        ),
        ("bundles = [", "cannot be read as TOML"),
        ("#" * 70_000, "is larger than 65536 bytes"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        load_suite_file(write(tmp_path, text))
    assert str(tmp_path / "tiny.toml") in str(caught.value)
    assert "?." not in str(caught.value)


def test_a_missing_suite_names_those_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(RecipeError, match=r"There is no suite .*x86\.toml\. Suites there: .*tiny\.toml\."):
        load_suite_file(tmp_path / "x86.toml")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_suite_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "s.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):  # none of these names a bundle
        load_suite_file(path)


@given(
    st.dictionaries(
        st.sampled_from(["name", "launches", "seconds", "min_count", "fps", "hop_frames", "batch", "first_only"]),
        st.one_of(st.integers(-2, 10**6), st.floats(0, 1e6), st.booleans(), st.sampled_from(SCENARIOS)),
        max_size=4,
    )
)
def test_what_is_read_can_be_asked_for(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, object]) -> None:
    lines = [
        f"{name} = {str(value).lower() if not isinstance(value, str) else repr(value)}" for name, value in keys.items()
    ]
    path = write(tmp_path_factory.mktemp("keys"), "\n".join(['bundles = ["b"]', "[[scenario]]", *lines]))
    try:
        suite = load_suite_file(path)
    except RecipeError:
        return
    for section in suite.scenario:
        asked = section.effort(TIERS["quick"][section.name], warm_up_cap_s=10).options(section.name)
        assert "--seconds" in asked


def test_every_tier_has_every_scenario_and_the_least_launches() -> None:
    for shares in TIERS.values():
        assert set(shares) == set(SCENARIOS)
        assert shares[SINGLE_STREAM].launches >= 5
        assert shares[COLD_START].launches >= 10


@pytest.mark.parametrize("name", ["x86", "gpu", "orin-nano-8", "orin-nano-8-super", "raspberry-pi-5"])
def test_the_suites_of_devices_are_read(name: str) -> None:
    suite = load_suite_file(SUITES / f"{name}.toml")
    assert suite.exports == (SUITES.parents[1] / "export" / "dist",)
    assert suite.device == {"gpu": "h200"}.get(name, name)
