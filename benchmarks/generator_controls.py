"""Are the synthetic clips a benchmark or a toy? Trains a small probe on them and on controls that must stay far below.

    python benchmarks/generator_controls.py [--words FILE] [--json OUT]

Axes: N clip, T frame, H row, W column, V word.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from edgelip.data.synthetic.clips import Split, SyntheticSpec, render_clips

RECIPE = Path(__file__).parent.parent / "export/recipes/quickstart.toml"
LIMITS = {
    "best single frame": "<= half of full",
    "shuffled frames": "<= half of full",
    "duration only": "<= 12 %",
    "background only": "<= 6 %",
}
POOL = 4  # 88x88 crop to 22x22


class Probe(nn.Module):
    """Frame encoder, then dilated convolutions over time (`temporal`) or a separate head for every frame."""

    def __init__(self, num_words: int, frames: int, *, temporal: bool, width: int = 96) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 36, width), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 3, padding=d, dilation=d), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1)
            )
            for d in ((1, 2, 4, 8) if temporal else ())
        )
        self.head = (
            nn.Linear(width, num_words) if temporal else nn.Conv1d(frames * width, frames * num_words, 1, groups=frames)
        )
        self.temporal = temporal

    def forward(self, clips_NTHW: Tensor) -> Tensor:
        """Logits (N, V) of whole clips, or (N, T, V) of each frame on its own."""
        n, t = clips_NTHW.shape[:2]
        x_NCT = self.encoder(clips_NTHW.reshape(n * t, 1, *clips_NTHW.shape[2:])).view(n, t, -1).transpose(1, 2)
        if not self.temporal:
            logits_NTV: Tensor = self.head(x_NCT.transpose(1, 2).reshape(n, -1, 1)).view(n, t, -1)
            return logits_NTV
        for block in self.blocks:
            x_NCT = x_NCT + block(x_NCT)
        logits_NV: Tensor = self.head(x_NCT.mean(2))
        return logits_NV


def clips(spec: SyntheticSpec, split: Split, count: int, *, hidden: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled frames (uint8 N, T, 22, 22), labels and word lengths in frames."""
    parts = []
    for start in range(0, count, 512):
        batch = render_clips(
            spec, split, range(start, min(start + 512, count)), mouth="hidden" if hidden else "speaking"
        )
        pooled = nn.functional.avg_pool2d(batch.frames_BTHW[:, :, 4:92, 4:92].float(), POOL).round().to(torch.uint8)
        parts.append((pooled, batch.labels_B, batch.boundary_B2[:, 1] - batch.boundary_B2[:, 0] + 1))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def shuffle(clips_NTHW: Tensor) -> Tensor:
    """Every clip's frames in an order of its own."""
    order_NT = torch.rand(clips_NTHW.shape[:2]).argsort(1)
    return clips_NTHW.gather(1, order_NT[:, :, None, None].expand_as(clips_NTHW))


def train_and_test(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], num_words: int, epochs: int, *,
    temporal: bool = True, change: Callable[[Tensor], Tensor] = lambda x: x,
) -> float:  # fmt: skip
    """Top-1 in percent on the test clips; the best frame's if the probe sees frames on their own."""
    torch.manual_seed(0)
    probe = Probe(num_words, train[0].shape[1], temporal=temporal)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.02)
    steps = epochs * (len(train[0]) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.2)

    def prepared(clips_NTHW: Tensor) -> Tensor:
        x = clips_NTHW.float()
        mean, sd = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        return change((x - mean) / (sd + 1.0))

    for _ in range(epochs):
        for rows in torch.randperm(len(train[0])).split(64):
            if len(rows) < 64:
                continue
            x_NTHW = prepared(train[0][rows])
            dy, dx = torch.randint(-1, 2, (2,)).tolist()
            logits = probe(torch.roll(x_NTHW, (dy, dx), (2, 3)))
            labels = train[1][rows] if temporal else train[1][rows].repeat_interleave(logits.shape[1])
            loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels, label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    probe.eval()
    with torch.no_grad():
        logits = torch.cat([probe(prepared(part)) for part in test[0].split(256)])
    right = logits.argmax(-1) == (test[1] if temporal else test[1][:, None])
    return 100.0 * float(right.float().mean(0).max())


def duration_only(train_N: tuple[Tensor, Tensor], test_N: tuple[Tensor, Tensor], num_words: int) -> float:
    """Top-1 in percent of the most frequent word of each length (the best that lengths allow)."""
    counts_LV = torch.zeros(int(max(train_N[0].max(), test_N[0].max())) + 1, num_words)
    counts_LV.index_put_((train_N[0], train_N[1]), torch.ones(len(train_N[0])), accumulate=True)
    return 100.0 * float((counts_LV.argmax(1)[test_N[0]] == test_N[1]).float().mean())


def main() -> int:
    """Print the table; 0 if every control holds, else 3."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--words", type=Path, help="file of words, one a line (default: the 25 of the quickstart)")
    parser.add_argument("--train-clips", type=int, default=8000)
    parser.add_argument("--test-clips", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--severity", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-full", action="store_true", help="skip the controls")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    recipe = tomllib.loads(RECIPE.read_text())
    words = args.words.read_text().split() if args.words else recipe["data"]["words"]
    spec = SyntheticSpec(tuple(words), seed=args.seed, severity=args.severity)
    began = time.perf_counter()
    x, y, length = clips(spec, "train", args.train_clips)
    test_x, test_y, test_length = clips(spec, "test", args.test_clips)
    sys.stderr.write(f"{args.train_clips + args.test_clips} clips in {time.perf_counter() - began:.0f} s\n")
    num_words = len(words)
    few = max(2, args.epochs // 2)
    results: dict[str, float] = {}

    def note(name: str, top1_pct: float) -> None:
        results[name] = top1_pct
        sys.stderr.write(f"{time.perf_counter() - began:5.0f} s  {name} {top1_pct:.1f} %\n")

    note("duration only", duration_only((length, y), (test_length, test_y), num_words))
    note("full clip", train_and_test((x, y), (test_x, test_y), num_words, args.epochs))
    if not args.only_full:
        note("best single frame", train_and_test((x, y), (test_x, test_y), num_words, few, temporal=False))
        note("shuffled frames", train_and_test((x, y), (test_x, test_y), num_words, args.epochs, change=shuffle))
        hidden_x = clips(spec, "train", args.train_clips, hidden=True)[0]
        hidden_test_x = clips(spec, "test", args.test_clips, hidden=True)[0]
        note("background only", train_and_test((hidden_x, y), (hidden_test_x, test_y), num_words, few))
    half = 0.5 * results["full clip"]
    limits = {"best single frame": half, "shuffled frames": half, "duration only": 12.0, "background only": 6.0}
    failed = [name for name, limit in limits.items() if results.get(name, 0.0) > limit]
    for name, top1_pct in results.items():
        sys.stdout.write(f"{name:<20}{top1_pct:6.1f} %  {LIMITS.get(name, '')}{'  FAILED' if name in failed else ''}\n")
    if args.json:
        numbers = {
            "top1_pct": results,
            "failed": failed,
            **{k: v for k, v in vars(args).items() if k not in ("json", "words")},
            "words": words,
        }
        args.json.write_text(json.dumps(numbers, indent=2) + "\n")
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
