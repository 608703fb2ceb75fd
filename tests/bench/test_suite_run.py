from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_runs import made_run
from tiny_bundles import write_bundle

from edgelip.bench import sitting as sittings
from edgelip.bench.plan import Plan, PlanRow, find_bundles, plan_of
from edgelip.bench.run import Outcome, Parts, run_plan
from edgelip.bench.sitting import OpenSitting, open_sitting, unfinished_sitting
from edgelip.bench.suite_file import SuiteFile
from edgelip.errors import MeasurementError, MissingError
from edgelip.progress import Progress
from edgelip.report.results import ResultRow, read_rows, read_sitting
from edgelip.runtime.measurement import BenchRun, Measurement

QUIET = Progress(quiet=True)


class FakeLauncher:
    """Runs of chosen samples, kept as a process would; `before` may fail instead."""

    def __init__(self, before: Callable[[PlanRow, int], None] = lambda row, number: None) -> None:
        self.asked: list[str] = []
        self._before = before

    def prepare(self, row: PlanRow) -> None:
        self._before(row, 0)

    def launch(self, row: PlanRow, number: int, into: Path) -> BenchRun:
        self.asked.append(f"{row.variant} {row.scenario} {number}")
        self._before(row, number)
        rng = np.random.default_rng([ord(row.variant), number])
        run = made_run(rng.normal(2e6, 1e4, 70), bundle_sha256=row.bundle_sha256, scenario=row.scenario)
        into.parent.mkdir(parents=True, exist_ok=True)
        run.write(into)
        return run


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [write_bundle(folder / name, name=name) for name in "ab"]


@pytest.fixture
def plan(bundles: list[Path]) -> Plan:
    return make_plan(bundles)


def make_plan(bundles: list[Path], **keys: Any) -> Plan:
    suite = SuiteFile.model_validate(
        {"name": "tiny", "bundles": bundles, "scenario": [{"name": "SingleStream", "launches": 3}], **keys}
    )
    return plan_of(suite, find_bundles(suite), tier="quick", device="here")


def measure(
    plan: Plan, root: Path, launcher: FakeLauncher, *, unfinished: Path | None = None, **parts: Any
) -> tuple[Outcome, OpenSitting]:
    chosen = Parts(launcher=launcher, **{"static_graph": False, **parts})
    with open_sitting(root, plan, unfinished=unfinished, command="edgelip bench tiny", environment={}) as sitting:
        outcome = run_plan(plan, sitting, chosen, command="edgelip bench tiny", progress=QUIET)
        sitting.finish(tuple(f"not measured: {label}: {error}" for label, error in outcome.failures.items()))
    return outcome, sitting


def stop_at(variant: str, number: int, error: BaseException) -> Callable[[PlanRow, int], None]:
    def before(row: PlanRow, launch: int) -> None:
        if (row.variant, launch) == (variant, number):
            raise error

    return before


def test_rows_and_every_launch_are_files_of_the_sitting(plan: Plan, tmp_path: Path) -> None:
    launcher = FakeLauncher()
    outcome, sitting = measure(plan, tmp_path, launcher)
    assert [each.split()[0] for each in launcher.asked] == ["a", "b", "b", "a", "a", "b"]
    assert not outcome.failures
    rows = {(row.variant, row.scenario): row for row in read_rows(sitting.folder)}
    assert set(rows) == {(name, scenario) for name in "ab" for scenario in ("Static", "SingleStream")}
    row = rows["b", "SingleStream"]
    kept = [BenchRun.read(sitting.folder / row.stem / f"launch-{number}.json") for number in (1, 2, 3)]
    medians = [np.percentile(run.latency_ns, 50, method="inverted_cdf") / 1e6 for run in kept]
    assert row.value("latency_p50_ms") == pytest.approx(np.mean(medians))
    assert (row.num_launches, row.badge, row.command) == (3, "VALID", "edgelip bench tiny --only b")
    assert [launch["p50_ms"] for launch in row.details["launches"]] == medians
    assert row.value("latency_ratio") == pytest.approx(1, rel=0.01)
    assert rows["a", "SingleStream"].measurements["latency_ratio"].interval == (1.0, 1.0)  # exactly, by itself
    assert rows["a", "SingleStream"].value("latency_ratio") == 1.0
    assert rows["a", "Static"].value("parameters") == 6
    read = read_sitting(sitting.folder)
    assert read.finished_at is not None
    assert (read.suite, read.tier, read.first) == ("tiny", "quick", "a")


def test_what_was_cut_short_goes_on_where_it_stopped(plan: Plan, tmp_path: Path) -> None:
    whole, _ = measure(plan, tmp_path / "whole", FakeLauncher())
    first = FakeLauncher(stop_at("a", 2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        measure(plan, tmp_path / "cut", first)
    folder = unfinished_sitting(tmp_path / "cut", plan)
    assert folder is not None
    cut = next(folder.glob("b--*SingleStream/launch-2.npz"))
    cut.write_bytes(cut.read_bytes()[:100])  # as a kill in the middle of writing would leave it
    second = FakeLauncher()
    outcome, sitting = measure(plan, tmp_path / "cut", second, unfinished=folder)
    assert second.asked == ["b SingleStream 2", "a SingleStream 2", "a SingleStream 3", "b SingleStream 3"]
    assert sitting.folder == folder
    assert unfinished_sitting(tmp_path / "cut", plan) is None
    assert "gone on with at " in read_sitting(folder).notes[0]
    for ours, theirs in zip(outcome.rows, whole.rows, strict=True):
        assert replace(ours, measured_at="", environment={}) == replace(theirs, measured_at="", environment={})


def test_rows_that_stand_are_not_measured_again(plan: Plan, tmp_path: Path) -> None:
    _, done = measure(plan, tmp_path, FakeLauncher())
    again = FakeLauncher(stop_at("a", 0, KeyboardInterrupt()))
    outcome, _ = measure(plan, tmp_path, again, unfinished=done.folder)
    assert again.asked == []
    assert len(outcome.rows) == 4


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import test_suite_run as tests
from pathlib import Path
def before(row, number):
    if (row.variant, number) == ("b", 2):
        os.kill(os.getpid(), signal.SIGKILL)
tests.measure(tests.make_plan([Path(each) for each in {bundles!r}]), Path({root!r}), tests.FakeLauncher(before))
"""


def test_a_killed_sitting_goes_on(plan: Plan, bundles: list[Path], tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "runtime"), *sys.path]
    code = KILLED.format(paths=paths, bundles=[str(each) for each in bundles], root=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    folder = unfinished_sitting(tmp_path, plan)
    assert folder is not None
    launcher = FakeLauncher()
    outcome, _ = measure(plan, tmp_path, launcher, unfinished=folder)
    assert launcher.asked == ["b SingleStream 2", "a SingleStream 2", "a SingleStream 3", "b SingleStream 3"]
    assert len(outcome.rows) == 4


def test_an_unfinished_sitting_of_another_plan_is_not_taken(plan: Plan, bundles: list[Path], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(plan, tmp_path, FakeLauncher(stop_at("a", 1, KeyboardInterrupt())))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitting.json").write_text("{")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "sitting.json").write_text("{}")
    (tmp_path / "deep" / "plan.json").write_text("[" * 100_000)
    assert unfinished_sitting(tmp_path, plan) is not None
    assert unfinished_sitting(tmp_path, make_plan(bundles, layers=True)) is None
    assert unfinished_sitting(tmp_path / "nowhere", plan) is None


def test_two_processes_do_not_share_a_sitting(plan: Plan, tmp_path: Path) -> None:
    with open_sitting(tmp_path, plan, unfinished=None, command="", environment={}) as held:
        with (
            pytest.raises(MissingError, match="another process is writing it"),
            open_sitting(tmp_path, plan, unfinished=held.folder, command="", environment={}),
        ):
            pass
        with open_sitting(tmp_path, plan, unfinished=None, command="", environment={}) as other:
            assert other.folder != held.folder  # in the same second


def test_a_row_that_fails_leaves_its_reason_and_the_rest_goes_on(plan: Plan, tmp_path: Path) -> None:
    launcher = FakeLauncher(stop_at("a", 2, MissingError("no onnxruntime here")))
    outcome, sitting = measure(plan, tmp_path, launcher)
    assert {label: str(error) for label, error in outcome.failures.items()} == {
        "a, ort fp32 1t, SingleStream": "no onnxruntime here"
    }
    assert "a SingleStream 3" not in launcher.asked
    rows = {(row.variant, row.scenario): row for row in outcome.rows}
    assert ("a", "SingleStream") not in rows
    assert "latency_p50_ms" in rows["b", "SingleStream"].measurements
    assert "latency_ratio" not in rows["b", "SingleStream"].measurements  # there is nothing to compare with
    assert read_sitting(sitting.folder).notes == ("not measured: a, ort fp32 1t, SingleStream: no onnxruntime here",)


def test_what_cannot_be_prepared_is_given_up_in_every_scenario(bundles: list[Path], tmp_path: Path) -> None:
    plan = make_plan(bundles, scenario=[{"name": "SingleStream"}, {"name": "ColdStart"}])
    launcher = FakeLauncher(stop_at("b", 0, MeasurementError("no such engine there")))
    outcome, _ = measure(plan, tmp_path, launcher)
    assert list(outcome.failures) == ["b, ort fp32 1t, SingleStream", "b, ort fp32 1t, ColdStart"]
    assert not any(each.startswith("b") for each in launcher.asked)


def test_accuracy_is_asked_once_for_what_ran(bundles: list[Path], tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def accuracy(rows: list[PlanRow], folder: Path) -> list[ResultRow]:
        asked.append([row.variant for row in rows])
        found = Measurement("top1_pct", 50.0, "%", 10)
        shared = {"measured_at": "now", "command": "", "badge": "VALID", "reasons": (), "num_launches": 1}
        return [
            ResultRow(
                row.variant, row.bundle_sha256, row.target, "Accuracy", measurements={"top1_pct": found}, **shared
            )
            for row in rows
        ]

    plan = make_plan(bundles, accuracy={})
    outcome, done = measure(plan, tmp_path / "1", FakeLauncher(), accuracy=accuracy)
    assert asked == [["a", "b"]]
    assert len(outcome.rows) == 6
    measure(plan, tmp_path / "1", FakeLauncher(), accuracy=accuracy, unfinished=done.folder)
    assert asked == [["a", "b"]]
    measure(plan, tmp_path / "2", FakeLauncher(stop_at("b", 1, MeasurementError("x"))), accuracy=accuracy)
    assert asked[1:] == [["a"]]
    outcome, _ = measure(plan, tmp_path / "3", FakeLauncher(stop_at("a", 1, MeasurementError("x"))), accuracy=accuracy)
    assert str(outcome.failures["Accuracy"]) == "drops are to a, which did not run"
    assert len(asked) == 2


def test_layers_and_video_that_fail_leave_the_rows(bundles: list[Path], tmp_path: Path) -> None:
    def refuse(row: PlanRow) -> Any:
        raise MeasurementError("no face")

    plan = make_plan(bundles, layers=True)
    outcome, _ = measure(plan, tmp_path / "1", FakeLauncher(), layers=refuse, video=refuse)
    assert list(outcome.failures) == [
        "layers of a, ort fp32 1t",
        "layers of b, ort fp32 1t",
        "the video of [end_to_end]",
    ]
    assert len(outcome.rows) == 4
    decode = Measurement("decode_p50_ms", 7.0, "ms", 11)
    outcome, _ = measure(
        plan,
        tmp_path / "2",
        FakeLauncher(),
        layers=lambda row: [{"name": "stem", "ms": 1.0}],
        video=lambda row: {"decode_p50_ms": decode},
    )
    rows = {(row.variant, row.scenario): row for row in outcome.rows}
    assert rows["a", "Static"].details["layers"] == [{"name": "stem", "ms": 1.0}]
    assert rows["b", "SingleStream"].value("decode_p50_ms") == 7.0


def test_a_full_disk_ends_the_sitting_with_the_remedy(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = [10**9]

    def fill(row: PlanRow, number: int) -> None:
        if number == 2:
            free_bytes[0] = 10**6
            raise MissingError("launch-2.json cannot be written (No space left on device).")

    usage = SimpleNamespace(disk_usage=lambda path: shutil._ntuple_diskusage(10**9, 0, free_bytes[0]))
    monkeypatch.setattr(sittings, "shutil", usage)
    with pytest.raises(
        MissingError, match=r"1\.0 MB are free, .* Free space, then give the same command with --resume"
    ):
        measure(plan, tmp_path, FakeLauncher(fill))
    assert unfinished_sitting(tmp_path, plan) is not None


def test_energy_names_its_boundary_and_badges_their_reasons(bundles: list[Path], tmp_path: Path) -> None:
    class Metered(FakeLauncher):
        def launch(self, row: PlanRow, number: int, into: Path) -> BenchRun:
            run = super().launch(row, number, into)
            energy = {"gross_j_per_clip": 0.1, "above_idle_j_per_clip": 0.05, "boundary": "VDD_IN", "num_clips": 9}
            changed = replace(run, energy=energy) if row.effort_of(number).energy_s else run
            changed = replace(changed, badge="NOISY", reasons=("clock 5 %",)) if number > 1 else changed
            changed.write(into)
            return changed

    outcome, sitting = measure(make_plan(bundles, energy_s=30), tmp_path, Metered())
    row = next(row for row in outcome.rows if row.scenario == "SingleStream")
    assert row.environment["energy_boundary"] == "VDD_IN"
    assert row.value("energy_gross_j") == 0.1
    assert (row.badge, row.reasons) == ("NOISY", ("clock 5 % (2 of 3 launches)",))
    key = json.loads((sitting.folder / "plan.json").read_text())["key"]
    assert key == make_plan(bundles, energy_s=30).key
    assert list(tmp_path.iterdir()) == [sitting.folder]
