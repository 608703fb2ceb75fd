"""Comparisons of workers whose latencies are written down."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgelip.bench import compare
from edgelip.bench.compare import Block, Comparison, Effort, Side, compare_sides, samples_of
from edgelip.bench.isolate import Subject
from edgelip.runtime.errors import MeasurementError, UsageError

# Speaks as edgelip.runtime.windows does: argv is ns a clip, the badge, the fallback, the log of its lines, its cpu.
WORKER = """
import json, os, sys
ns, badge, fallback, log, cpu = sys.argv[1:]
def tell(**answer): print(json.dumps(answer), flush=True)
def note(text):
    with open(log, "a") as file: file.write(text + "\\n")
tell(protocol=1, bundle="b", affinity=cpu, pid=os.getpid())
for line in sys.stdin:
    verb = line.split()[0]
    note(f"{ns} {verb}")
    if verb == "warm-up": tell(stable=badge != "NOISY", num_runs=1, duration_ms=1.0)
    elif verb == "window": tell(latency_ns=[int(ns)] * 4, cpu_share=1.0)
    elif verb == "evidence": tell(badge=badge, reasons=[] if badge == "VALID" else ["hot"], watch={})
    elif verb == "fallback": tell(fallback=fallback or None)
"""


@pytest.fixture
def side(tmp_path: Path) -> Callable[..., Side]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def make(name: str, ns: int, *, badge: str = "VALID", fallback: str = "", threads: int = 1) -> Side:
        def command(subject: Subject, cpu: int | None) -> list[str]:
            return [sys.executable, "-S", str(script), str(ns), badge, fallback, str(tmp_path / "log"), str(cpu)]

        return Side(name, Subject(Path(name), threads=threads), command)

    return make


def test_a_known_slowdown_is_found_and_an_equal_is_not(side: Callable[..., Side], tmp_path: Path) -> None:
    said: list[str] = []
    slower, equal = compare_sides(
        side("base", 1_000_000), [side("slow", 1_050_000), side("same", 1_000_000)], Effort(pairs=5), say=said.append
    )
    assert (slower.base, slower.other, equal.other) == ("base", "slow", "same")
    for percent in (50, 90):
        assert slower.effects[percent].ratio == pytest.approx(1.05)
        assert slower.effects[percent].verdict(2) == "slower"
        assert equal.effects[percent].ratio == 1.0
        assert equal.effects[percent].verdict(2) == "no evidence"
    assert (slower.invalid, slower.notes) == ((), ())
    assert len(said) == 10
    assert {line.split(": ")[1] for line in said[:2]} == {"base, slow", "base, same"}
    for comparison in (slower, equal):
        assert sorted(pair.started for pair in comparison.pairs) in (list("AAABB"), list("AABBB"))
        for pair in comparison.pairs:
            assert sorted(block.order for block in pair.blocks) == ["ABBA"] * 5 + ["BAAB"] * 5
    log = (tmp_path / "log").read_text().split("\n")
    assert log.count("1050000 window") == 5 * 10 * 2
    assert log.count("1050000 fallback") == 1

    arrays = samples_of([slower, equal])
    assert arrays["windows"].shape == (2 * 5 * 10 * 4, 6)
    assert arrays["windows"][:, 5].sum() == len(arrays["samples_ns"])
    first, last = arrays["windows"][0], arrays["windows"][-1]
    assert (first[:4].tolist(), last[:4].tolist()) == ([0, 0, 0, 0], [1, 4, 9, 3])
    counts = np.repeat(np.arange(len(arrays["windows"])), arrays["windows"][:, 5])
    of_slow = (arrays["windows"][counts, 0] == 0) & (arrays["windows"][counts, 4] == 1)
    assert set(arrays["samples_ns"][of_slow]) == {1_050_000}
    assert set(arrays["samples_ns"][~of_slow]) == {1_000_000}


def test_orders_are_drawn_from_the_seed(side: Callable[..., Side]) -> None:
    def orders(seed: int) -> list[str]:
        (found,) = compare_sides(side("a", 1000), [side("b", 1000)], Effort(pairs=5, seed=seed))
        return [block.order for pair in found.pairs for block in pair.blocks]

    assert orders(3) == orders(3) != orders(4)


def test_both_of_a_pair_share_a_processor_if_they_have_one_thread(
    side: Callable[..., Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_cpus", lambda: [3, 8])
    (found,) = compare_sides(side("a", 1000), [side("b", 1000)], Effort(pairs=5))
    assert [pair.cpu for pair in found.pairs] == [3, 8, 3, 8, 3]
    assert {facts["affinity"] for facts in found.pairs[1].facts.values()} == {"8"}
    (found,) = compare_sides(side("a", 1000, threads=2), [side("b", 1000, threads=2)], Effort(pairs=5))
    assert [pair.cpu for pair in found.pairs] == [None] * 5


def test_evidence_that_is_not_valid_is_told(side: Callable[..., Side]) -> None:
    base, hot = side("base", 1000), side("hot", 1000, badge="THROTTLED")
    other = side("int8", 1000, fallback="Conv runs in fp32")
    slowed, fallen = compare_sides(base, [hot, other], Effort(pairs=5))
    assert slowed.invalid == ("hot is THROTTLED (hot)",)
    assert fallen.invalid == ("int8 is FALLBACK (Conv runs in fp32)",)
    (noisy,) = compare_sides(base, [side("noisy", 1000, badge="NOISY")], Effort(pairs=5))
    assert noisy.invalid == ()
    assert noisy.notes == ("5 of 10 processes were not steady after warm-up", "hot")


def test_too_few_samples_give_no_effect() -> None:
    block = Block("ABBA", tuple(np.array([1000]) for _ in range(4)))
    pair = compare.PairRun((block,) * 10, {}, "A", None)
    assert pair.log_ratio(50) == 0.0  # 20 of each: one group
    assert pair.log_ratio(90) is None
    assert set(compare.effects_of([pair] * 5)) == {50}


def test_the_median_of_blocks_forgets_a_burst() -> None:
    def block(factor: float) -> Block:
        return Block("ABBA", tuple(np.full(6, round(1000 * each)) for each in (1, factor, factor, 1)))

    pair = compare.PairRun((*[block(1.05)] * 7, *[block(9.0)] * 3), {}, "A", None)
    assert pair.log_ratio(50) == pytest.approx(math.log(1.05))


def test_several_variants_are_corrected_together() -> None:
    ratios = ([0.05, 0.06, 0.04, 0.05, 0.06], [0.02, 0.05, 0.01, 0.03, 0.0])
    effects = [compare.mean_effect(each) for each in ratios]
    comparisons = [Comparison("a", name, (), {50: each}) for name, each in zip("bc", effects, strict=True)]
    first, second = (each.effects[50] for each in compare._corrected(comparisons))
    assert first.p_family == pytest.approx(2 * effects[0].p)
    assert second.p_family == effects[1].p


def test_a_worker_that_dies_ends_the_comparison(side: Callable[..., Side]) -> None:
    dead = Side("dead", Subject(Path("dead")), lambda subject, cpu: [sys.executable, "-c", "import os; os.abort()"])
    with pytest.raises(MeasurementError, match=r"^the process of dead was ended by signal 6"):
        compare_sides(side("a", 1000), [dead], Effort(pairs=5))


@pytest.mark.parametrize(
    ("effort", "message"),
    [
        ({"pairs": 4}, r"^4 pairs of 10 blocks; expected 5 to 1000 pairs of 10 to 1000 blocks: fewer cannot tell a l"),
        ({"blocks": 9}, r"^7 pairs of 9 blocks; expected"),
        ({"window_ms": 0.5}, r"^window-ms is 0\.5; expected 1 to 10000\.$"),
        ({"window_ms": math.nan}, r"^window-ms is nan; expected"),
    ],
)
def test_less_than_the_method_needs_is_refused(effort: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Effort(**effort)  # type: ignore[arg-type]
