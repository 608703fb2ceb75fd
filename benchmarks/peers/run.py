"""Our runner beside other tools: the same ONNX files and clips, each tool in its own environment, all in turns.

    python benchmarks/peers/run.py                                   # every peer on three models, about 15 minutes
    python benchmarks/peers/run.py --check                           # 3 % agreement with the engines' tools, 6 minutes
    python benchmarks/peers/run.py --only "Olive evaluator" --models export/dist/dense

The environments are made under benchmarks/peers/.envs at the first run and kept. A reading is one fresh process; a
round takes one of every peer on every model, each round beginning with another. Ratios are taken within a round. A peer
that fails has a row with the reason. Clips are those that the bundle keeps of its test split.
--check: ONNX Runtime against a plain loop in a process without edgelip, OpenVINO against its benchmark_app; exit 3
where the ratio of the p50s lies more than 3 % from 1.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from interleaved import Median, environment, interleave, markdown_table, median_interval, ratio
from result_files import exit_code_of, machine_lines, save

from edgelip.errors import EdgelipError, GoalMissed, MeasurementError, UsageError
from peers.abilities import ABILITIES, told_rows
from peers.environments import python_of
from peers.subjects import Subject, prepare
from peers.tools import OURS, PEERS, Peer, Reading

MODELS = ("export/dist/dense", "export/dist/phm4-int8", "export/dist/pruned-phm4-int8")
LIMIT = 0.03
CHECKED = {OURS["ort"]: "ONNX Runtime, plain loop", OURS["openvino"]: "OpenVINO benchmark_app"}
Say = Callable[[str], None]
Key = tuple[str, str]  # model, peer


@dataclass(frozen=True)
class Row:
    """One peer on one model. ratio: its latency over ours on the same engine, by round. reason: why there is none."""

    model: str
    precision: str
    peer: str
    engine: str
    version: str = "-"
    latency_ms: Median | None = None
    ratio: Median | None = None
    num_samples: int = 0
    badges: tuple[str, ...] = ()
    reason: str = ""
    readings: tuple[Reading, ...] = field(default=(), repr=False)

    def cells(self) -> list[str]:
        if self.latency_ms is None:
            return [self.model, self.peer, "-", "-", "-", "-", self.reason]
        beside = self.ratio.text() if self.ratio else "1"
        notes = ", ".join(f"{self.badges.count(badge)} {badge}" for badge in dict.fromkeys(self.badges))
        firsts_ms = [reading.first_ms for reading in self.readings if reading.first_ms is not None]
        walls_ms = [reading.wall_ms for reading in self.readings if reading.wall_ms is not None]
        notes += f"mean with its binding {median(walls_ms):.3f} ms" if walls_ms else ""
        notes += f"first run {median(firsts_ms):.0f} ms" if firsts_ms else ""
        return [
            f"{self.model} ({self.precision})", self.peer, self.version, self.latency_ms.text(), beside,
            str(self.num_samples), notes,
        ]  # fmt: skip


def measure(
    subjects: Sequence[Subject], peers: Sequence[Peer], *, seconds: float, rounds: int, minutes: float, say: Say
) -> list[Row]:
    """A row for each peer on each subject, from `rounds` rounds or as many as `minutes` allow."""
    end = time.monotonic() + 60 * minutes
    reasons = _environments(peers, say)
    trial: dict[Key, Reading] = {}
    begun = time.monotonic()
    for subject in subjects:
        for peer in peers:
            key = (subject.name, peer.name)
            if peer.name in reasons:
                continue
            say(f"trying {peer.name} on {subject.name}")
            try:
                trial[key] = peer.measure(subject, 1.0, _run_ms(trial, subject))
            except EdgelipError as error:
                reasons[key] = str(error)
                say(f"{peer.name} on {subject.name}: {error}")
    round_s = time.monotonic() - begun
    named = {subject.name: subject for subject in subjects}
    runs = {
        key: _reader(peer, named[key[0]], seconds, _run_ms(trial, named[key[0]]), say)
        for key in trial
        for peer in peers
        if peer.name == key[1]
    }
    say(f"up to {rounds} rounds, {round_s:.0f} s each")
    until = max(end - round_s, time.monotonic() + 1)  # one round at least
    readings = interleave(runs, rounds=rounds, until=until) if runs else {}
    return [_row(subject, peer, peers, readings, reasons) for subject in subjects for peer in peers]


def _environments(peers: Sequence[Peer], say: Say) -> dict[Any, str]:
    reasons: dict[Any, str] = {}
    for peer in peers:
        if peer.environment is not None:
            try:
                python_of(peer.environment, say=say)
            except EdgelipError as error:
                reasons[peer.name] = str(error)
                say(str(error))
    return reasons


def _run_ms(trial: dict[Key, Reading], subject: Subject) -> float:
    """How long one run lasts, from what was seen of this subject; 5 ms before anything was."""
    seen = [reading.latency_ms for (model, _), reading in trial.items() if model == subject.name]
    return min(seen) if seen else 5.0


def _reader(peer: Peer, subject: Subject, seconds: float, run_ms: float, say: Say) -> Callable[[], Reading]:
    def read() -> Reading:
        try:
            reading = peer.measure(subject, seconds, run_ms)
        except EdgelipError as error:  # it ran before: a row of gaps is better than a lost hour
            say(f"{peer.name} on {subject.name}: {error}")
            return Reading(math.nan, 0, "-")
        say(f"{subject.name}, {peer.name}: {reading.latency_ms:.3f} ms")
        return reading

    return read


def _row(
    subject: Subject,
    peer: Peer,
    peers: Sequence[Peer],
    readings: dict[Key, list[Reading]],
    reasons: dict[Any, str],
) -> Row:
    try:
        precision = subject.model(peer.engine)[1]
    except EdgelipError as error:
        return Row(subject.name, "-", peer.name, peer.engine, reason=str(error))
    mine = readings.get((subject.name, peer.name), [])
    known = [reading for reading in mine if not math.isnan(reading.latency_ms)]
    if not known:
        why = (
            reasons.get((subject.name, peer.name))
            or reasons.get(peer.name)
            or "no round was finished in the time given"
        )
        return Row(subject.name, precision, peer.name, peer.engine, reason=why)
    ours = readings.get((subject.name, OURS[peer.engine]), [])
    pairs = [
        (a.latency_ms, b.latency_ms)
        for a, b in zip(mine, ours, strict=False)
        if not math.isnan(a.latency_ms + b.latency_ms)
    ]
    beside = None
    if peer.name != OURS[peer.engine] and pairs:
        beside = ratio([above for above, _ in pairs], [below for _, below in pairs])
    return Row(
        model=subject.name,
        precision=precision,
        peer=peer.name,
        engine=peer.engine,
        version=known[0].version,
        latency_ms=median_interval([reading.latency_ms for reading in known]),
        ratio=beside,
        num_samples=sum(reading.num_samples for reading in known),
        badges=tuple(reading.badge for reading in known if reading.badge),
        readings=tuple(known),
    )


def agreement(rows: Sequence[Row], *, limit: float = LIMIT) -> list[list[str]]:
    """Model, ours, theirs, their ratio with its interval, verdict; of each pair that was measured.

    Raises MeasurementError where the two ran different versions of an engine: that is no comparison of runners.
    """
    found = {(row.model, row.peer): row for row in rows}
    cells = []
    for (model, peer), mine in found.items():
        theirs = found.get((model, CHECKED.get(peer, "")))
        if theirs is None:
            continue
        if mine.latency_ms is None or theirs.latency_ms is None or theirs.ratio is None:
            cells.append([model, peer, theirs.peer, "-", f"MISS: {mine.reason or theirs.reason}"])
            continue
        if _release(mine.version) != _release(theirs.version):
            raise MeasurementError(
                f"{peer} ran version {mine.version}, {theirs.peer} {theirs.version}; expected one version. Pin ours in "
                "benchmarks/peers/requirements."
            )
        turned = Median(
            1 / theirs.ratio.value,
            None if theirs.ratio.high is None else 1 / theirs.ratio.high,
            None if theirs.ratio.low is None else 1 / theirs.ratio.low,
        )
        verdict = "pass" if abs(turned.value - 1) <= limit else "MISS"
        cells.append([model, peer, theirs.peer, turned.text(4), verdict])
    return cells


def _release(version: str) -> tuple[str, ...]:
    """2026.4.1 of '2026.4.1-22068-abc'."""
    return tuple(version.split("-")[0].split("+")[0].split(".")[:3])


def sections_of(rows: Sequence[Row], machine: dict[str, object], command: str) -> list[str]:
    """The page: results, what each peer timed, what each tool can tell, the machine."""
    head = ["model", "peer", "version", "p50 ms, over rounds", "over ours", "samples", "note"]
    timed = [[peer.name, peer.timed, peer.percentiles] for peer in PEERS]
    verdicts = agreement(rows)
    sections = [
        "# Peers on the same files and clips",
        markdown_table(head, [row.cells() for row in rows]),
        "An interval is that of the median over rounds, a fresh process each; `over ours` within a round. A p50 of a "
        "peer is what it reports by its own definition; where it has none, its mean.",
    ]
    if verdicts:
        agree_head = ["model", "ours", "their tool", "ours / theirs", f"within {LIMIT:.0%}"]
        sections += ["## Agreement with the engine's own tool", markdown_table(agree_head, verdicts)]
    return [
        *sections,
        "## What is timed", markdown_table(["peer", "between two looks at the clock", "percentiles"], timed),
        "## What each can tell", markdown_table(["tool", *ABILITIES], told_rows()),
        "## Machine", machine_lines(machine), f"`{command}`",
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    peers = _chosen_peers(options.only, check=options.check)
    missing = next((model for model in options.models if not (Path(model) / "manifest.json").is_file()), None)
    if missing is not None:
        raise UsageError(f"{missing} is no bundle: it has no manifest.json. `make export` makes {', '.join(MODELS)}.")
    rounds = (11 if options.check else 7) if options.rounds is None else options.rounds
    minutes = (6.0 if options.check else 15.0) if options.minutes is None else options.minutes
    seconds = (1.0 if options.check else 2.0) if options.seconds is None else options.seconds
    if not (rounds >= 1 and minutes > 0 and seconds > 0):
        raise UsageError(f"rounds {rounds}, minutes {minutes}, seconds {seconds}; expected more than 0 of each.")
    command = shlex.join(["python", "benchmarks/peers/run.py", *(argv if argv is not None else sys.argv[1:])])
    candidates = [path for folder in _caches(options) for path in sorted(folder.resolve().glob("*/model.safetensors"))]
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        subjects = [
            prepare(Path(model), Path(folder), checkpoints=candidates, threads=options.threads)
            for model in options.models
        ]
        machine = environment({"threads": str(options.threads), "moment": _now()})
        rows = measure(subjects, peers, seconds=seconds, rounds=rounds, minutes=minutes, say=_say)
    sections = sections_of(rows, machine, command)
    print("\n\n".join(sections))
    if options.out is not None:
        numbers = {"command": command, "environment": machine, "rows": [asdict(row) for row in rows]}
        save(options.out, "agreement" if options.check else "peers", numbers=numbers, sections=sections)
    missed = [cells for cells in agreement(rows) if not cells[-1].startswith("pass")]
    if options.check and missed:
        raise GoalMissed("; ".join(f"{cells[0]}: {cells[1]} / {cells[2]} is {cells[3]}" for cells in missed))


def _chosen_peers(only: Sequence[str], *, check: bool) -> list[Peer]:
    names = [peer.name for peer in PEERS]
    unknown = next((name for name in only if name not in names), None)
    if unknown is not None:
        raise UsageError(f"There is no peer {unknown!r}; expected one of {', '.join(names)}.")
    if check:
        return [peer for peer in PEERS if peer.name in (*CHECKED, *CHECKED.values())]
    engines = {peer.engine for peer in PEERS if peer.name in only}
    ours = {OURS[engine] for engine in engines}
    return [peer for peer in PEERS if not only or peer.name in only or peer.name in ours]


def _caches(options: argparse.Namespace) -> list[Path]:
    folders = options.checkpoints or [Path(model).parent / ".cache" for model in options.models]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="peers/run.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="BUNDLE")
    parser.add_argument("--only", nargs="+", default=[], metavar="PEER", help="and ours beside it")
    parser.add_argument(
        "--checkpoints", nargs="+", type=Path, default=[], metavar="FOLDER", help="of the export's cache"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="at most (default 7; 11 with --check)")
    parser.add_argument("--minutes", type=float, help="at most, environments included (default 15; 6 with --check)")
    parser.add_argument("--seconds", type=float, help="a reading (default 2; 1 with --check)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the numbers and the page go")
    parser.add_argument("--check", action="store_true", help="agreement with the engines' own tools within 3 %%")
    return parser


def _say(line: str) -> None:
    print(f"peers: {line}", file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(exit_code_of(main, None, name="peers"))
