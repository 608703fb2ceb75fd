"""false_alarms.py plants what it says, counts what it finds, and goes on after a kill."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelip.bench.compare import Block, Comparison, Effort, PairRun, Side, effects_of
from edgelip.bench.suite import TestClips
from edgelip.errors import UsageError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(Path(__file__).parents[1] / "runtime"))
FACTS = {
    "warm_up": {"stable": True},
    "evidence": {"badge": "VALID", "reasons": []},
    "fallback": None,
    "least_cpu_share": 1.0,
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("false_alarms")


@pytest.fixture
def no_drop(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy half takes a second, and is tested on its own."""
    counts = {"called": 200, "interval_above_0": 200, "unpaired_called": 0, "no_drop_called": 0, "of": 200}
    part = {"num_clips": 1, "top1_pct": 1.0, "drop_points": 1.0, "rows": [{"discordance_beside_pct": 0.0, **counts}]}
    monkeypatch.setattr(script, "planted_drop", lambda *_: part)
    monkeypatch.setattr(script, "deployed_logits", lambda *_: None)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny bundle and 400 clips for it."""
    from tiny_bundles import expected_logits, make_clips, write_bundle

    frames_NTHW = make_clips(400)
    labels_N = expected_logits(frames_NTHW).argmax(axis=1)
    labels_N[::10] = (labels_N[::10] + 1) % 3
    np.savez(tmp_path / "clips.npz", frames=frames_NTHW, labels=labels_N)
    return write_bundle(tmp_path / "tiny"), tmp_path / "clips.npz"


class Machine:
    """Stands for compare_sides: a planted worker is 5 % slower, a control equal, or 1 % off in one of three."""

    def __init__(self, *, kill_after: int = 10**6, alarm: bool = False, blind: bool = False) -> None:
        self.seeds: list[int] = []
        self._kill_after, self._alarm, self._blind = kill_after, alarm, blind

    def __call__(self, base: Side, others: Sequence[Side], effort: Effort) -> list[Comparison]:
        if len(self.seeds) >= self._kill_after:
            raise KeyboardInterrupt
        self.seeds.append(effort.seed)
        (other,) = others
        planted = "--slowdown" in other.command(other.subject, 1)
        ratio = 1.05 if planted and not self._blind else 1.1 if self._alarm and not planted else 1.0
        pairs = []
        for number in range(effort.pairs):
            ns = {"A": 1_000_000, "B": round(1_000_000 * ratio * (1 + 0.001 * (number % 3 - 1)))}
            block = Block("ABBA", tuple(np.full(40, ns[letter]) for letter in "ABBA"))
            pairs.append(PairRun((block,) * 10, {"A": FACTS, "B": FACTS}, "A", 0))
        return [Comparison(base.name, other.name, tuple(pairs), effects_of(pairs))]


def options(prepared: tuple[Path, Path], out: Path) -> list[str]:
    bundle, clips = prepared
    return ["--bundle", str(bundle), "--clips", str(clips), "--out", str(out), "--comparisons", "6", "--planted", "3"]


@pytest.mark.usefixtures("no_drop")
def test_a_run_counts_alarms_and_finds_and_goes_on_after_a_kill(
    script: Any, prepared: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, rest = Machine(kill_after=4), Machine()
    monkeypatch.setattr(script, "compare_sides", first)
    with pytest.raises(KeyboardInterrupt):
        script.run(options(prepared, tmp_path / "out"))
    assert len((tmp_path / "out" / "comparisons.jsonl").read_text().splitlines()) == 1 + 4
    monkeypatch.setattr(script, "compare_sides", rest)
    script.run(options(prepared, tmp_path / "out"))
    assert (first.seeds, rest.seeds) == ([0, 1, 2, 3], [4, 5, 6, 7, 8])
    result = json.loads((tmp_path / "out" / "false_alarms.json").read_text())
    assert [row["slowdown_pct"] for row in result["comparisons"]] == [0, 0, 5] * 3
    p50 = result["summary"]["p50"]
    assert (p50["controls"], p50["false_alarms"], p50["planted"], p50["found"]) == (6, 0, 3, 3)
    assert p50["planted_ratio"] == pytest.approx(1.05, rel=1e-3)
    assert "| p90 | 0 of 6 (0 [0.0, 39.0] %) | 0 | 3 of 3 (100 [43.9, 100.0] %) | 1.0500 |" in (
        tmp_path / "out" / "false_alarms.md"
    ).read_text().replace("1.0498", "1.0500").replace("1.0499", "1.0500")
    with pytest.raises(
        UsageError, match=r"comparisons\.jsonl holds comparisons of another bundle or effort\. Choose an"
    ):
        script.run([*options(prepared, tmp_path / "out"), "--blocks", "11"])
    (tmp_path / "out" / "comparisons.jsonl").write_text('{"cut')
    with pytest.raises(UsageError, match=r"comparisons\.jsonl is damaged \(.*\)\. Move it away and run again\."):
        script.run(options(prepared, tmp_path / "out"))


@pytest.mark.usefixtures("no_drop")
@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(alarm=True), "6 false alarms of 6; at most 9 % allowed"),
        (Machine(blind=True), "0 of 3 slowdowns found; at least 90 % expected"),
    ],
)
def test_a_missed_limit_exits_with_three(
    script: Any,
    prepared: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    machine: Machine,
    message: str,
) -> None:
    monkeypatch.setattr(script, "compare_sides", machine)
    code = script.exit_code_of(script.run, options(prepared, tmp_path / "out"), name="false_alarms")
    assert code == 3
    assert message in capsys.readouterr().err


def test_a_drop_that_is_not_called_misses_the_limit(
    script: Any,
    prepared: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "compare_sides", Machine())
    assert script.exit_code_of(script.run, options(prepared, tmp_path / "out"), name="false_alarms") == 3
    missed = "a drop of 1 point with 1 % of the clips discordant called 0 of 200 times; 90 % expected"
    assert missed in capsys.readouterr().err  # 400 clips are too few


def test_planted_ones_are_spread_among_the_controls(script: Any) -> None:
    plan = script.planned(100, 20, 5.0)
    assert (len(plan), sum(each > 0 for each in plan)) == (120, 20)
    assert [index % 6 for index, each in enumerate(plan) if each] == [5] * 20
    assert script.planned(3, 0, 5.0) == [0, 0, 0]
    assert script.planned(0, 2, 5.0) == [5, 5]


def test_a_drop_of_a_point_is_called_on_2500_clips(script: Any) -> None:
    module = importlib.import_module("planted_drop")
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 25, 2500)
    said_N = np.where(rng.random(2500) < 0.9, labels_N, (labels_N + 1) % 25)
    found = module.planted_drop(np.eye(25, dtype=np.float32)[said_N], TestClips(Path("c"), labels_N, None, ""))
    alone, beside_1, beside_2 = found["rows"]
    assert (alone["called"], alone["no_drop_called"], alone["of"]) == (200, 0, 200)  # 25 lost, none gained
    assert beside_1["called"] >= 190
    assert beside_1["called"] > beside_2["called"] > 140  # power of 25 net of 75: 80 %
    assert max(beside_1["no_drop_called"], beside_2["no_drop_called"]) <= 20  # 5 % of 200, and luck
    assert beside_2["unpaired_called"] < 20


def test_a_slowed_engine_says_the_same_later(script: Any) -> None:
    from fake_engine import FakeEngine

    module = importlib.import_module("slowed_worker")
    engine = module.SlowedEngine(FakeEngine(Path("x")), slowdown_pct=5)
    clips_B1THW = np.zeros((2, 1, 4, 6, 6), np.float32)
    assert engine.infer(clips_B1THW).tolist() == np.zeros((2, 3)).tolist()
    assert engine.settings == {"slowed_pct": "5"}
    assert (engine.input_axes, engine.output_axes) == ((None, 1, 4, 6, 6), (None, None))


@pytest.mark.slow
def test_students_t_keeps_its_level_where_a_bootstrap_does_not(script: Any) -> None:
    module = importlib.import_module("launch_simulation")
    for levels in module.simulated_levels(num_pairs=5, num_draws=250).values():
        assert levels["Student's t"] <= 9  # 5 % of 250, and luck
        assert levels["bootstrap, plain"] > 9
    finds = module.simulated_levels(num_pairs=7, num_draws=100, effect=math.log(1.05))
    assert finds["normal, sd 2 %"]["Student's t"] > 90
