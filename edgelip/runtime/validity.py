"""Whether a measurement can be believed: its badge, every reason, and what a comparison must say of bad ones.

| badge | what was measured | condition |
|---|---|---|
| FALLBACK | another thing | a product ran on another provider or in another precision than claimed |
| TOO-FEW | too little | fewer samples than the percentile needs |
| THROTTLED | a slowed device | a limit acted, now or by its counter: see sensors/slowing.py, and NVML's reasons |
| UNCONTROLLED | more than this program | swap, other processes on the GPU, or nobody tells those |
| NOISY | a restless machine | below |
| VALID | what it says | nothing of the above |

This order, gravest first, decides which badge a row with several reasons bears; all reasons are kept.

NOISY is: warm-up that never became stable; a coefficient of variation (CoV) of device compute above 2.5 %; clocks more
than 5 % apart; or processors taken by others. No engine hands out a GPU's events yet, and a CPU has no such
clock: a single sample there holds whatever the scheduler did, so that its CoV is large on any shared machine. In its
place stand the medians of up to ten windows of the run in order, whose CoV shows a level that moves (a clock, a
neighbour on the other half of a core) and no single preemption; and, for these, the share of its time that a single
thread really computed (at least 95 %) or, with several threads, that nothing on the machine waited for a processor
(at most 5 %). A neighbour that leaves this process its core still shares caches, memory and boost: more than a tenth
of the processors in use by others is noise too.

Not every machine tells everything: a virtual machine has no governor, clocks or temperatures to read. Were that
UNCONTROLLED, no row of a cloud machine could be valid, although a moving clock shows in the windows' medians. So these
two are notes. What nothing else would show makes the row UNCONTROLLED if it is not told: swap of this process, times of
the processors, processes on the GPU. Whether clocks are locked or float is always noted.

That a file called int8 has integer kernels is asked here (engines/executed.py); which share of its arithmetic they do,
the coverage gate of the export counts.
"""

from __future__ import annotations

from statistics import mean, median, pstdev
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Tuple

from edgelip.runtime.watch import CLOCKS, TEMPERATURES, Evidence

GRAVITY = ("FALLBACK", "TOO-FEW", "THROTTLED", "UNCONTROLLED", "NOISY", "VALID")  # gravest first

MOST_VARIATION = 0.025  # CoV of device compute, and of the medians of windows
MOST_CLOCK_SPREAD = 1.05
LEAST_CPU_SHARE = 0.95  # of one thread's time
MOST_WAITING = 0.05  # of the time in which something waited for a processor; several threads
MOST_OTHERS = 0.10  # of the processors that this process may use
MOST_SWAP_TRAFFIC_MIB = 1.0  # of the whole machine: less is a page of somebody who had slept
_WINDOWS, _WINDOW_SAMPLES = 10, 16  # at most, and at least
_LEAST_S = 0.2  # counters of processor time move in steps of 10 ms: no judgement on less

Finding = Tuple[str, str]


def judge(
    evidence: Evidence,
    *,
    warm_up: Mapping[str, Any],
    latency_ns: Sequence[int],
    cpu_share: Optional[float],
    fallback: Optional[str],
    needed: int,
) -> Tuple[str, Tuple[str, ...]]:
    """The gravest badge and every reason, gravest first.

    warm_up: `stable` and `duration_ms`; empty where there is none. latency_ns: in the order of measuring. cpu_share:
    processor time of this process per wall time, None where it sleeps or waits for a device by design. fallback: as
    Engine.fallback gives it. needed: fewest samples of the percentile that is reported.
    """
    found: List[Finding] = []  # in the order of GRAVITY
    if fallback:
        found.append(("FALLBACK", fallback))
    if len(latency_ns) < needed:
        found.append(("TOO-FEW", f"{len(latency_ns)} samples; the percentile needs {needed}"))
    found += [("THROTTLED", f"slowed down: {cause}") for cause in evidence.throttled_by]
    found += [("UNCONTROLLED", reason) for reason in _uncontrolled(evidence)]
    if warm_up and not warm_up["stable"]:
        found.append(("NOISY", f"latency was not steady after {warm_up['duration_ms'] / 1000:.1f} s of warm-up"))
    found += [("NOISY", reason) for reason in _moving(evidence, latency_ns)]
    found += [("NOISY", reason) for reason in _taken(evidence, cpu_share)]
    return (found[0][0] if found else "VALID"), tuple(reason for _, reason in found)


def notes(evidence: Evidence) -> Tuple[str, ...]:
    """What a reader should know of a row whatever its badge is."""
    locked = {True: "clocks are locked", False: "clocks float", None: "it is not known whether clocks are locked"}
    found = [locked[evidence.clocks_locked]]
    unknown = [name for name in (CLOCKS, TEMPERATURES) if name in evidence.missing]
    if unknown:
        found.append(f"this machine does not tell its {' and '.join(unknown)}")
    if evidence.others_cpu_s is not None and evidence.duration_s >= _LEAST_S:
        share_pct = 100 * evidence.others_cpu_s / (evidence.duration_s * evidence.num_cpus)
        found.append(f"others used {share_pct:.1f} % of {evidence.num_cpus} processors")
    return tuple(found)


def gravest(badges: Iterable[str]) -> str:
    """The badge of a row that stands for several runs."""
    return min(badges, key=GRAVITY.index, default="VALID")


def badge_words(name: str, badge: str, *reasons: str) -> str:
    """'phm4 is THROTTLED (slowed down: heat)'."""
    return f"{name} is {badge}" + (f" ({'; '.join(reasons)})" if reasons else "")


def not_valid(because: Sequence[str], *, what: str = "comparison") -> Optional[str]:
    """What a comparison must say where something spoils it, as `badge_words` tells it; None where nothing does."""
    return f"This {what} is not valid because {'; '.join(because)}." if because else None


def variation(samples: Sequence[float]) -> float:
    """Coefficient of variation, standard deviation by mean; 0 with fewer than two samples."""
    return pstdev(samples) / mean(samples) if len(samples) > 1 and any(samples) else 0.0


def window_medians(samples: Sequence[int]) -> List[float]:
    """Medians of equal windows in order: ten, or as many as hold 16 samples each."""
    num = min(_WINDOWS, len(samples) // _WINDOW_SAMPLES)
    bounds = [index * len(samples) // num for index in range(num + 1)] if num else [0]
    return [float(median(samples[low:high])) for low, high in zip(bounds, bounds[1:])]


def _uncontrolled(evidence: Evidence) -> List[str]:
    found = [
        f"this machine does not tell its {name}" for name in evidence.missing if name not in (CLOCKS, TEMPERATURES)
    ]
    if evidence.swapped_mib:
        found.append(f"{evidence.swapped_mib:.1f} MiB of this process were swapped out")
    if (evidence.swap_traffic_mib or 0.0) > MOST_SWAP_TRAFFIC_MIB:
        found.append(f"this machine moved {evidence.swap_traffic_mib:.1f} MiB to swap or back")
    if evidence.gpu_processes:
        numbers = ", ".join(map(str, evidence.gpu_processes[:5]))
        found.append(f"other processes on the GPU: {len(evidence.gpu_processes)} (number {numbers})")
    return found


def _moving(evidence: Evidence, latency_ns: Sequence[int]) -> List[str]:
    found = []
    spread = variation(window_medians(latency_ns))
    if spread > MOST_VARIATION:
        what = f"the medians of windows of this run varied by {100 * spread:.1f} % (CoV)"
        found.append(f"{what}; expected {100 * MOST_VARIATION:g} % at most")
    for name, rates in evidence.clocks_mhz.items():
        if max(rates) > MOST_CLOCK_SPREAD * min(rates):
            found.append(f"the clock of {name} moved between {min(rates):.0f} and {max(rates):.0f} MHz")
    return found


def _taken(evidence: Evidence, cpu_share: Optional[float]) -> List[str]:
    """Processor time that others had, and this process' own threads wanted."""
    found = []
    often = ""
    if evidence.involuntary_switches is not None and evidence.duration_s >= _LEAST_S:
        often = f", {evidence.involuntary_switches / evidence.duration_s:.0f} involuntary switches a second"
    if evidence.threads == 1 and not evidence.gpu and cpu_share is not None and cpu_share < LEAST_CPU_SHARE:
        found.append(f"for {100 * (1 - cpu_share):.0f} % of the time the processor was taken by others{often}")
    if evidence.duration_s < _LEAST_S:
        return found
    if evidence.threads > 1 and (evidence.waited_share or 0.0) > MOST_WAITING:
        waited_pct = 100 * min(1.0, evidence.waited_share or 0.0)
        found.append(f"for {waited_pct:.0f} % of the time something waited for a processor{often}")
    room_s = evidence.duration_s * evidence.num_cpus
    if (evidence.others_cpu_s or 0.0) > MOST_OTHERS * room_s:
        others_pct = 100 * (evidence.others_cpu_s or 0.0) / room_s
        found.append(f"others used {others_pct:.0f} % of {evidence.num_cpus} processors{often}")
    wanted_s = evidence.duration_s * min(evidence.threads, evidence.num_cpus)
    for what, lost_s in (
        ("the hypervisor gave away", evidence.stolen_s),
        ("a quota held back", evidence.held_by_quota_s),
    ):
        if (lost_s or 0.0) > (1 - LEAST_CPU_SHARE) * wanted_s:
            found.append(f"{what} {100 * (lost_s or 0.0) / wanted_s:.0f} % of the processor time")
    return found
