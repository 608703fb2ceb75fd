"""`edgelip compare`: the verdicts it prints, the gates it ends with, what it keeps and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Edgelip
from tiny_bundles import WORDS, expected_logits, file_entry, make_clips, write_bundle

from edgelip.bench.compare import Block, Comparison, Effort, PairRun, Side, effects_of
from edgelip.bench.isolate import Subject

FACTS = {
    "warm_up": {"stable": True},
    "evidence": {"badge": "VALID", "reasons": [], "watch": {}},
    "fallback": None,
    "least_cpu_share": 1.0,
}
RATIOS = {"dense": 1.0, "same": 1.0, "slow": 1.05, "fast": 0.9, "tiny": 1.0}


def timed(base: Side, others: Sequence[Side], effort: Effort, **_: object) -> list[Comparison]:
    """Comparisons whose latencies are those of RATIOS, a per mille apart from launch to launch."""
    found = []
    for other in others:
        ratio = RATIOS[other.name]
        pairs = []
        for number in range(effort.pairs):
            ns = {"A": 1_000_000, "B": round(1_000_000 * ratio * (1 + 0.001 * ((number + effort.seed) % 3 - 1)))}
            block = Block("ABBA", tuple(np.full(40, ns[letter]) for letter in "ABBA"))
            pairs.append(PairRun((block,) * effort.blocks, {"A": FACTS, "B": FACTS}, "A", 0))
        found.append(Comparison(base.name, other.name, tuple(pairs), effects_of(pairs)))
    return found


def lame(base: Side, others: Sequence[Side], effort: Effort, **_: object) -> list[Comparison]:
    """The same, its second side throttled."""
    slowed = {**FACTS, "evidence": {"badge": "THROTTLED", "reasons": ["slowed down: heat"], "watch": {}}}
    return [
        replace(each, pairs=tuple(replace(pair, facts={"A": FACTS, "B": slowed}) for pair in each.pairs))
        for each in timed(base, others, effort)
    ]


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgelip.cli.compare.compare_sides", timed)
    monkeypatch.setattr("edgelip.cli.compare_control.compare_sides", timed)
    monkeypatch.chdir(tmp_path)  # where benchmarks/runs is made


@pytest.fixture
def bundles(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, **options: Any) -> Path:
        return write_bundle(tmp_path / name, name=name, **options)

    return make


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """200 clips; `slow` is wrong on 20 of those that the others have right, `fast` on 1."""
    frames_NTHW = make_clips(200)
    logits_NV = expected_logits(frames_NTHW)
    labels_N = logits_NV.argmax(axis=1)
    path = tmp_path / "clips.npz"
    np.savez(path, frames=frames_NTHW, labels=labels_N, speakers=np.arange(200) // 4)

    def deployed(subject: Subject, clips: Path) -> np.ndarray:
        given_NV = logits_NV.copy()
        wrong = {"slow": 20, "fast": 1}.get(subject.bundle.name, 0)
        given_NV[:wrong] = np.roll(given_NV[:wrong], 1, axis=1)
        return given_NV

    monkeypatch.setattr("edgelip.cli.compare_accuracy.deployed_logits", deployed)
    return path


def test_each_variant_gets_a_verdict_and_everything_is_kept(
    edgelip: Edgelip, bundles: Callable[..., Path], clips: Path
) -> None:
    paths = [bundles(name) for name in ("dense", "slow", "fast")]
    done = edgelip("compare", *paths, "--clips", clips, "--pairs", 5)
    assert done.code == 0, done.line
    lines = done.out.splitlines()
    assert lines[0].startswith(
        "slow, fast against dense: ort, 1 threads, batch 1, 5 pairs of launches, 10 blocks ABBA "
    )
    (slow,) = [line for line in lines if line.startswith("slow ") and "1.05" in line]
    assert slow.endswith("slower")
    assert any(line.startswith("p50 of fast: faster than dense. The data exclude a gain under 9.9 %") for line in lines)
    assert "Accuracy of the deployed files on 200 clips, the same for all; drops resampled by 50 speakers:" in lines
    assert any(line.split()[:2] == ["slow", "90.00"] and line.split()[-3:-1] == ["20", "0"] for line in lines)
    folder = Path(lines[-1])
    assert folder.parent == Path("benchmarks/runs")
    assert sorted(file.name for file in folder.iterdir()) == ["compare.json", "samples.npz"]
    kept = json.loads((folder / "compare.json").read_text())
    assert kept["command"].startswith(f"edgelip compare {paths[0]} {paths[1]} {paths[2]} --engine ort --threads 1")
    assert kept["command"].endswith(f"--pairs 5 --blocks 10 --window-ms 20 --least 2 --seed 0 --clips {clips}")
    assert [each["verdict"]["p50"] for each in kept["comparisons"]] == ["slower", "faster"]
    assert kept["environment"]["machine"]
    with np.load(folder / "samples.npz") as arrays:
        assert len(arrays["samples_ns"]) == 2 * 5 * 10 * 4 * 40


def test_a_larger_least_effect_asks_for_more(edgelip: Edgelip, bundles: Callable[..., Path]) -> None:
    paths = bundles("dense"), bundles("slow")
    done = edgelip("compare", *paths, "--no-accuracy", "--least", 10)
    said = (
        "p50 of slow: no evidence of 10 % or more; it differs, by less. The data exclude a slowdown under 4.9 % or over"
    )
    assert any(line.startswith(said) for line in done.out.splitlines()), done.out
    told = json.loads(edgelip("compare", *paths, "--no-accuracy", "--json", "-o", "out").out)
    assert told == json.loads(Path("out/compare.json").read_text())
    assert told["comparisons"][0]["effects"]["p50"]["ratio"] == pytest.approx(1.05, rel=1e-3)


def test_the_upper_bound_of_the_drop_decides_the_gate(
    edgelip: Edgelip, bundles: Callable[..., Path], clips: Path
) -> None:
    dense, slow, fast = (bundles(name) for name in ("dense", "slow", "fast"))
    done = edgelip("compare", dense, fast, "--clips", clips, "--budget", 2)
    assert done.code == 0, done.line
    done = edgelip("compare", dense, fast, "--clips", clips, "--budget", 1)  # it lost 0.5, and may lose 1.5
    assert done.code == 3
    assert done.line.startswith(
        "edgelip: fast loses 0.50 points and may lose 1.50 (95 % [0.00, 1.50], 200 clips); the b"
    )
    assert "p50 of fast: faster" in done.out  # the result is printed all the same
    done = edgelip("compare", dense, slow, fast, "--clips", clips, "--budget", 5)
    assert done.code == 3
    assert "slow loses 10.00 points" in done.line
    assert "fast loses" not in done.line


def test_a_bundle_against_itself_is_called_a_control(
    edgelip: Edgelip, bundles: Callable[..., Path], clips: Path
) -> None:
    dense = bundles("dense")
    done = edgelip("compare", dense, dense, "--clips", clips)
    assert done.code == 0, done.line
    assert "A/A control: the bundles are the same, so every verdict but 'no evidence' is a false alarm." in done.out
    assert "p50 of dense: no evidence of 2 % or more. The data exclude a slowdown over 0." in done.out


def test_evidence_that_is_not_valid_is_said_and_ends_a_strict_run(
    edgelip: Edgelip, bundles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelip.cli.compare.compare_sides", lame)
    paths = bundles("dense"), bundles("slow")
    done = edgelip("compare", *paths, "--no-accuracy")
    reason = "This comparison is not valid because slow is THROTTLED (slowed down: heat)."
    assert (done.code, reason in done.out.splitlines()) == (0, True)
    done = edgelip("compare", *paths, "--no-accuracy", "--strict")
    assert (done.code, done.line) == (6, f"edgelip: {reason}")


def test_other_words_or_clips_leave_the_latency_only(
    edgelip: Edgelip, bundles: Callable[..., Path], clips: Path
) -> None:
    dense = bundles("dense")
    words = bundles("slow", edit=lambda manifest: manifest.update(vocabulary=[*WORDS[:2], "ZEBRA"]))
    done = edgelip("compare", dense, words)
    reason = "dense knows 3 words and slow 3, 'ZEBRA' is not among the former's; expected the same words."
    assert (done.code, f"Accuracy was not compared: {reason}" in done.out) == (0, True)
    assert "p50 of slow: slower" in done.out
    done = edgelip("compare", dense, words, "--clips", clips)
    assert (done.code, reason in done.line) == (2, True)
    done = edgelip("compare", dense, words, "--budget", 1)
    assert (done.code, reason in done.line) == (2, True)
    spec = bundles("fast", edit=lambda manifest: manifest["clip"].update(fps=30.0))
    done = edgelip("compare", dense, spec)
    assert "Accuracy was not compared: dense and fast take different clips (fps); expected the same." in done.out


def test_clips_of_another_kind_are_refused(edgelip: Edgelip, bundles: Callable[..., Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", frames=np.zeros((2, 4, 3, 3), np.uint8), labels=np.zeros(2, int))
    np.savez(tmp_path / "words.npz", frames=make_clips(2), labels=np.array([0, 3]))
    dense, slow = bundles("dense"), bundles("slow")
    for name, message in (("small", "They are not clips of dense."), ("words", "reach from 0 to 3; dense has 3 words")):
        done = edgelip("compare", dense, slow, "--clips", tmp_path / f"{name}.npz")
        assert (done.code, message in done.line) == (2, True), done.line


def test_the_test_clips_of_the_export_are_taken(
    edgelip: Edgelip, bundles: Callable[..., Path], clips: Path, tmp_path: Path
) -> None:
    dense, slow = bundles("dense"), bundles("slow")
    done = edgelip("compare", dense, slow)
    assert "Accuracy was not compared: No accuracy.json in dense or slow says which test clips are theirs." in done.out
    (slow / "accuracy.json").write_text(json.dumps({"clips_sha256": file_entry(clips)["sha256"]}))
    (tmp_path / ".cache" / "data-test-0").mkdir(parents=True)
    clips.rename(tmp_path / ".cache" / "data-test-0" / "clips.npz")
    assert "Accuracy of the deployed files on 200 clips" in edgelip("compare", dense, slow).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pairs", "4"], "4 pairs of 10 blocks; expected 5 to 1000 pairs"),
        (["--least", "-1"], "least is -1 %; expected 0 to 100."),
        (["--budget", "0"], "budget is 0 points; expected more than 0, at most 100."),
        (["--no-accuracy", "--budget", "1"], "--no-accuracy measures no accuracy; leave --clips and --budget out."),
        (["--precision", "fp8"], "dense has no fp8 model for engine 'ort'. It has: fp32 for ort, openvino."),
        (["--engine", "ors"], "There is no engine 'ors'. Known: ort,"),
        (["--control", "2"], "--control takes one BUNDLE; got 2."),
    ],
)
def test_options_that_cannot_be_obeyed_are_refused(
    edgelip: Edgelip, bundles: Callable[..., Path], options: list[str], message: str
) -> None:
    done = edgelip("compare", bundles("dense"), bundles("slow"), *options)
    assert (done.code, message in done.line) == (2, True), done.line
    assert not Path("benchmarks").exists()


def test_one_bundle_or_a_folder_of_results_is_refused(
    edgelip: Edgelip, bundles: Callable[..., Path], tmp_path: Path
) -> None:
    dense = bundles("dense")
    done = edgelip("compare", dense)
    assert (done.code, done.line) == (
        2,
        "edgelip: compare takes two BUNDLES or more, the first is A; or one and --control N.",
    )
    (tmp_path / "sitting").mkdir()
    (tmp_path / "sitting" / "sitting.json").write_text("{}")
    done = edgelip("compare", dense, tmp_path / "sitting")
    assert done.code == 2
    assert "holds results, not a bundle: figures of two sittings or devices are not compared. Give bundles" in done.line
    done = edgelip("compare", dense, dense, "--no-accuracy", "-o", tmp_path / "sitting")
    assert done.code == 2
    assert "exists and holds no compare.json, so it is not replaced" in done.line


def test_a_control_counts_false_alarms(
    edgelip: Edgelip, bundles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = bundles("tiny")
    done = edgelip("compare", tiny, "--control", 4, "-o", "quiet", "--strict")
    assert done.code == 0, done.line
    assert "p50: 0 false alarms of 4, 0.0 % (95 % 0.0 to 49.0 %; expected 5 %)" in done.out.splitlines()
    kept = json.loads(Path("quiet/compare.json").read_text())
    assert (kept["control"], len(kept["comparisons"])) == (True, 4)
    assert kept["command"].endswith("--no-accuracy --control 4")
    monkeypatch.setitem(RATIOS, "tiny", 1.05)
    done = edgelip("compare", tiny, "--control", 4, "-o", "restless")
    assert (done.code, "p50: 4 false alarms of 4, 100.0 % (95 % 51.0 to 100.0 %; expected 5 %)" in done.out) == (
        0,
        True,
    )
    assert "p50: this machine is not fit for the claim: it alarms too often for nothing." in done.out
    assert edgelip("compare", tiny, "--control", 4, "-o", "restless", "--strict").code == 6


@pytest.mark.slow
def test_two_real_bundles_are_compared(edgelip: Edgelip, bundles: Callable[..., Path]) -> None:
    from edgelip.bench.compare import compare_sides

    base, other = (Side(path.name, Subject(path)) for path in (bundles("dense"), bundles("slow")))
    (found,) = compare_sides(base, [other], Effort(pairs=5, window_ms=1))
    assert set(found.effects) == {50, 90}
    assert found.effects[50].num_pairs == 5
    facts = [pair.facts[letter] for pair in found.pairs for letter in "AB"]
    assert len({each["pid"] for each in facts}) == 10
    assert all(len(each["affinity"]) == 1 for each in facts)
