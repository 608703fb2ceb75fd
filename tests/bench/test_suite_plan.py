from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_bundles import model_entry, write_bundle, write_model

from edgelip.bench.plan import START_S, Plan, PlanRow, find_bundles, interleaved, plan_of
from edgelip.bench.suite_file import SuiteFile, Tier
from edgelip.errors import UsageError
from edgelip.report.results import Target


def with_fp16(manifest: dict[str, Any]) -> None:
    manifest["models"].append(model_entry("model.fp16.onnx", precision="fp16"))


def write_both(path: Path) -> None:
    write_model(path)
    write_model(path.with_name("model.fp16.onnx"))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bundles, in the order of the table: b, a, c; b has an fp16 file too."""
    folder = tmp_path_factory.mktemp("export")
    for name in "abc":
        both: dict[str, Any] = {"edit": with_fp16, "write_model": write_both} if name == "b" else {}
        write_bundle(folder / name, name=name, **both)
    (folder / "grid").mkdir()
    (folder / "tradeoff.json").write_text(json.dumps({"rows": [{"variant": name} for name in ("b", "b-fp16", "a")]}))
    return folder


def suite_of(**keys: Any) -> SuiteFile:
    return SuiteFile.model_validate({"name": "tiny", **keys})


def planned(suite: SuiteFile, *, tier: Tier = "quick", only: Sequence[str] = ()) -> Plan:
    return plan_of(suite, find_bundles(suite, only=only), tier=tier, device="here")


def test_bundles_stand_in_the_order_of_their_export(export: Path) -> None:
    suite = suite_of(exports=[export])
    assert [bundle.name for bundle in find_bundles(suite)] == ["b", "a", "c"]
    assert [bundle.name for bundle in find_bundles(suite_of(exports=[export], variants=["c", "b"]))] == ["c", "b"]
    assert [bundle.name for bundle in find_bundles(suite, only=["c"])] == ["b", "c"]


@pytest.mark.parametrize("table", ["[1", "[" * 100_000, "[1]", '{"rows": [1]}', '{"rows": [{}]}'])
def test_a_damaged_table_leaves_the_order_of_names(tmp_path: Path, table: str) -> None:
    write_bundle(tmp_path / "z", name="z")
    write_bundle(tmp_path / "y", name="y")
    (tmp_path / "tradeoff.json").write_text(table)
    assert [bundle.name for bundle in find_bundles(suite_of(exports=[tmp_path]))] == ["y", "z"]


def test_rows_are_variants_times_targets_times_scenarios(export: Path) -> None:
    targets = [{"engine": "ort"}, {"engine": "ort", "precision": "fp16", "first_only": True}]
    scenarios = [
        {"name": "SingleStream"},
        {"name": "Streaming", "first_only": True, "hop_frames": 2},
        {"name": "ColdStart", "variants": ["a"], "drop_page_cache": True},
    ]
    plan = planned(suite_of(exports=[export], target=targets, scenario=scenarios, accuracy={}))
    names = {
        scenario: [f"{row.variant} {row.target.precision}" for row in plan.rows_of(scenario)]
        for scenario in ("Static", "SingleStream", "Streaming", "ColdStart", "Accuracy")
    }
    everyone = ["b fp32", "b fp16", "a fp32", "c fp32"]
    assert names == {
        "Static": everyone,
        "SingleStream": everyone,
        "Streaming": ["b fp32"],
        "ColdStart": ["a fp32"],
        "Accuracy": everyone,
    }
    assert plan.first == "b"
    (cold,) = plan.rows_of("ColdStart")
    assert (cold.launches, cold.dropped_launches) == (20, 10)
    assert [cold.is_dropped(number) for number in (1, 10, 11, 20)] == [False, False, True, True]
    assert plan.rows_of("Streaming")[0].effort.hop_frames == 2
    assert plan.rows_of("SingleStream")[0].target == Target("here", "ort", "fp32", 1)


def test_the_tier_gives_what_the_suite_leaves_open(export: Path) -> None:
    suite = suite_of(exports=[export], scenario=[{"name": "SingleStream", "seconds": 1.5}])
    quick, full = (planned(suite, tier=tier).rows_of("SingleStream")[0] for tier in ("quick", "full"))
    assert (quick.launches, quick.effort.seconds, quick.effort.min_count) == (5, 1.5, 64)
    assert (full.launches, full.effort.seconds, full.effort.min_count) == (5, 1.5, 662)
    assert quick.estimate_s == 5 * (1.5 + START_S)


def test_energy_is_measured_in_the_first_launch(export: Path) -> None:
    plan = planned(suite_of(exports=[export], energy_s=30))
    row = plan.rows_of("SingleStream")[0]
    assert [row.effort_of(number).energy_s for number in (1, 2)] == [30, 0]
    assert plan.rows_of("ColdStart")[0].energy_s == 0


def test_launches_visit_rows_in_turn() -> None:
    rows = [
        PlanRow(name, Path(name), "", Target("here", "ort", "fp32", 1), "SingleStream", launches=launches)
        for name, launches in (("a", 3), ("b", 3), ("c", 1))
    ]
    assert [f"{row.variant}{number}" for row, number in interleaved(rows)] == ["a1", "b1", "c1", "b2", "a2", "a3", "b3"]


def test_the_key_changes_with_what_is_measured(export: Path, tmp_path: Path) -> None:
    keys = {
        planned(suite_of(exports=[export])).key,
        planned(suite_of(exports=[export]), tier="full").key,
        planned(suite_of(exports=[export], layers=True)).key,
        planned(suite_of(exports=[export]), only=["a"]).key,
        planned(suite_of(exports=[export], scenario=[{"name": "Offline"}])).key,
    }
    assert len(keys) == 5
    assert planned(suite_of(exports=[export])).key in keys
    assert planned(suite_of(bundles=[export / name for name in "bac"])).key in keys  # wherever they lie


def test_what_a_bundle_does_not_hold_is_left_out(export: Path) -> None:
    plan = planned(suite_of(exports=[export], target=[{"engine": "ort", "precision": "fp16"}]))
    assert {row.variant for row in plan.rows} == {"b"}
    assert plan.left_out == ("a has no fp16 model for engine 'ort'", "c has no fp16 model for engine 'ort'")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bundles": ["gone"]}, r"The suite tiny names the bundle gone, which is not there\. Run: make export"),
        (
            {"exports": ["gone"]},
            r"The export gone is not there; expected folders with manifest.json\. Run: make export",
        ),
        ({"variants": ["d"]}, r"names the variant 'd', which .* do not hold\. Known: b, a, c\. Or run: make export"),
        ({"scenario": [{"name": "Offline", "variants": ["d"]}]}, r"names the variant 'd'"),
        ({"variants": ["a"], "scenario": [{"name": "Offline", "variants": ["b"]}]}, r"names the variant 'b'"),
        ({"target": [{"engine": "tensorrt"}]}, r"leaves nothing to measure: b has no model for engine 'tensorrt'"),
        ({"scenario": [{"name": "Offline"}] * 2}, r"asks twice for the row b, ort fp32 1t, Offline\. Give each row"),
    ],
)
def test_what_cannot_be_planned_is_told(export: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        planned(suite_of(**{"exports": [export], **keys}))
    assert caught.value.exit_code == 2


def test_a_folder_without_bundles_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no bundle; expected folders with manifest.json\. Run: make export"):
        find_bundles(suite_of(exports=[tmp_path]))


def test_two_bundles_of_one_name_are_refused(export: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "other", name="a")
    with pytest.raises(UsageError, match=r"are both named 'a'\. Let the suite name one of them"):
        find_bundles(suite_of(exports=[export], bundles=[tmp_path / "other"]))


def test_only_names_a_variant_that_is_there(export: Path) -> None:
    with pytest.raises(UsageError, match=r"--only d: no such variant\. Known: b, a, c\."):
        find_bundles(suite_of(exports=[export]), only=["d"])
