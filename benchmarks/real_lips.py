"""Word accuracy of deployed bundles on real lips (GRID spans), over seeds, beside the controls.

    python benchmarks/real_lips.py FOLDER --category digit --seeds 0 1 2 --out runs/real
    python benchmarks/real_lips.py FOLDER --seeds 0 --out runs/real

FOLDER holds words.csv and the videos that it names. Each seed is one export of export/recipes/grid.toml; accuracy is
that of the deployed file on the test split. Controls: the most frequent word; the word by the length of its span alone;
the deployed classifier on the silence before each sentence, where nothing is said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgelip.bench.statistics import wilson_interval
from edgelip.data.controls import duration_accuracy_pct, lead_in_spans, majority_accuracy_pct
from edgelip.data.readers.samples import Sample, group_by_file, select
from edgelip.data.readers.spans import load_span_clips, read_spans
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.recogniser import Recogniser

ROOT = Path(__file__).parent.parent


def export(data: Path, out: Path, *, category: str | None, seed: int, overrides: list[str]) -> list[dict[str, Any]]:
    """Rows of the trade-off table of one seed."""
    settings = [f"data.root={json.dumps(str(data))}", f"train.seed={seed}", *overrides]
    settings += [f"data.category={category}"] if category else []
    command = [sys.executable, "-m", "edgelip", "export", str(ROOT / "export/recipes/grid.toml"), "--json"]
    command += [part for setting in settings for part in ("--set", setting)] + ["--out", str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def lead_in_pct(bundle: Path, test: list[Sample], every: list[Sample]) -> tuple[float, int]:
    """Accuracy on the frames before speech starts, and the number of spans that have some."""
    opened = Bundle.open(bundle)
    moved = group_by_file(lead_in_spans(test, every))
    frames = np.stack([clip for _, clip in load_span_clips(moved, opened.manifest.clip)])
    with Recogniser(opened) as recogniser:
        answers = [prediction.word for prediction in recogniser.predict(frames)]
    return 100 * float(np.mean([a == span.word for a, span in zip(answers, moved, strict=True)])), len(moved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--category")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/real_lips"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()

    every = read_spans(options.data / "words.csv")
    spans = select(every, category=options.category)
    train = [span for span in spans if span.split == "train"]
    test = [span for span in spans if span.split == "test"]
    name = options.category or "all"
    runs = []
    for seed in options.seeds:
        out = options.out / f"{name}-seed{seed}"
        rows = export(options.data, out, category=options.category, seed=seed, overrides=options.overrides)
        silence, num_silent = lead_in_pct(out / rows[0]["variant"], test, every)
        runs.append({"seed": seed, "rows": rows, "lead_in_pct": silence, "num_lead_in": num_silent})
    variants = [row["variant"] for row in runs[0]["rows"]]
    result = {
        "command": f"python benchmarks/real_lips.py FOLDER --category {options.category} --seeds {options.seeds}",
        "words": len({span.word for span in spans}),
        "train_spans": len(train),
        "test_spans": len(test),
        "majority_pct": majority_accuracy_pct(train, test),
        "duration_only_pct": duration_accuracy_pct(train, test),
        "runs": runs,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['words']} words, {len(train)} train and {len(test)} test spans, one talker")
    print(f"most frequent word {result['majority_pct']:.1f} %, duration only {result['duration_only_pct']:.1f} %")
    for variant in variants:
        scores = [row["top1_pct"] for run in runs for row in run["rows"] if row["variant"] == variant]
        hits = round(sum(scores) / 100 * len(test))
        pooled = wilson_interval(hits, len(test) * len(scores))
        print(
            f"{variant}: mean {np.mean(scores):.1f} % of seeds {', '.join(f'{score:.1f}' for score in scores)} "
            f"(Wilson over all seeds {100 * pooled.low:.1f}..{100 * pooled.high:.1f})"
        )
    silence = np.mean([run["lead_in_pct"] for run in runs])
    print(f"silence before the sentence ({variants[0]}): {silence:.1f} % on {runs[0]['num_lead_in']} spans")


if __name__ == "__main__":
    main()
