"""A bundle that is called int8 runs in int8, or is not published; and ranges are not set on test clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import SPEC, WORDS, dense_checkpoint, tools_of

from edgelip.bench.graph import int8_coverage
from edgelip.cli.bundling import bundle_from_checkpoint
from edgelip.cli.coverage_gate import check_coverage
from edgelip.cli.disjoint import refuse_test_clips
from edgelip.cli.start import Start
from edgelip.cli.workshop import Workshop
from edgelip.compress import toolkit_quantise
from edgelip.compress.pipeline import apply_stage, stage_from_config, stages_from_configs
from edgelip.data.stores.store import Store, StoreWriter
from edgelip.deploy import export
from edgelip.errors import ClipError, GoalMissed, RecipeError
from edgelip.models.checkpoint import Architecture, Checkpoint, checkpoint_from_model
from edgelip.progress import Progress
from edgelip.recipe import load_recipe
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input

DEBUG = Path(__file__).parents[1] / "recipes" / "debug.toml"
RNG = np.random.default_rng(0)
FRAMES = np.kron(RNG.integers(60, 160, (8, 6, 6, 6)), np.ones((1, 1, 4, 4))).astype(np.uint8)  # (8, 6, 24, 24)
TOOLS = tools_of(torch.from_numpy(network_input(FRAMES, SPEC)))
PHM = {"stage": "phm", "n": 2, "layers": ["trunk.*", "temporal.*"], "tune": {"epochs": 0}}
PTQ: dict[str, Any] = {"stage": "ptq"}


def after(*stages: dict[str, Any]) -> Checkpoint:
    checkpoint = dense_checkpoint()
    for stage in stages:
        checkpoint = apply_stage(checkpoint, stage_from_config(stage), TOOLS)
    return checkpoint


def bundle(folder: Path, *stages: dict[str, Any]) -> Path:
    bundle_from_checkpoint(folder, after(*stages), FRAMES, name="tiny-int8", data="nothing")
    return folder


def test_a_network_in_int8_passes(tmp_path: Path) -> None:
    coverage = check_coverage(bundle(tmp_path / "b", PHM, PTQ), min_int8_pct=100)
    assert (coverage.int8_pct, coverage.float_macs, coverage.self_rounded) == (100.0, {}, ())


def test_a_planted_nncf_failure_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NNCF leaves computed weights in float without a word; ONNX Runtime then rounds some of them by itself."""
    monkeypatch.setattr(toolkit_quantise, "refuse_hypercomplex", lambda model: None)
    # On a network as small as this the comparison with torch sees it too, narrowly.
    monkeypatch.setitem(export.TOLERANCE, "int8", 1.0)  # type: ignore[arg-type]
    folder = bundle(tmp_path / "b", PHM, PTQ | {"backend": "nncf"})
    with pytest.raises(GoalMissed) as caught:
        check_coverage(folder, min_int8_pct=80)
    said = str(caught.value)
    assert said.startswith("Variant 'tiny-int8' is called int8, but ")
    assert "expected 80 % (export.min_int8_pct). In float: trunk.blocks." in said
    assert "float weights that ONNX Runtime rounds by itself" in said
    assert said.endswith("or lower min_int8_pct. Nothing was published.")
    # The kernels alone say nothing: ONNX Runtime runs these in integers too.
    model = Bundle.open(folder).model_for("ort")
    coverage = int8_coverage(model.path, {"clips": TOOLS.probe().clips_B1THW[:1].numpy()})
    in_integer_kernels = sum(macs for kernel, macs in coverage.kernels.items() if kernel.startswith("Q"))
    assert in_integer_kernels > 0.95 * coverage.total_macs
    assert coverage.int8_pct < 70


def test_layers_left_in_float_count_against_the_share(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", PTQ | {"float_layers": ["trunk.blocks.0.*.conv"]})
    share = check_coverage(folder, min_int8_pct=0).int8_pct
    assert 10 < share < 90
    assert check_coverage(folder, min_int8_pct=share - 0.1).int8_pct == share
    with pytest.raises(GoalMissed, match=r"In float: frontend\.stem\.conv 6\d\.\d %, trunk\.blocks\.0\.conv"):
        check_coverage(folder, min_int8_pct=share + 0.1)


def untrained(*stages: dict[str, Any]) -> Checkpoint:
    """What the debug recipe would give for these stages, had it been trained."""
    recipe = load_recipe(DEBUG)
    workshop = Workshop(recipe, Path("unused"), Progress(quiet=True))
    entry = {"stage": "train", "config": {}, "record": {}}
    model = tiny_models.lively(workshop._untrained())
    fresh = Architecture("small", recipe.model.options, tuple(workshop.clips.words), workshop.spec.to_json(), (entry,))
    checkpoint, side = checkpoint_from_model(model, fresh), workshop.spec.input_px
    inputs = torch.randn(4, 1, workshop.spec.frames, side, side, generator=torch.Generator().manual_seed(0))
    for stage in stages:
        checkpoint = apply_stage(checkpoint, stage_from_config(stage), tools_of(inputs))
    return checkpoint


def test_a_bundle_below_the_share_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = '{ stage = "ptq", float_layers = ["trunk.*"] }'
    overrides = [f'variant=[{{ name = "halves", stages = [{stage}] }}]']
    checkpoint = untrained(PTQ | {"float_layers": ["trunk.*"]})
    monkeypatch.setattr(Workshop, "checkpoint", lambda self, stages: checkpoint)
    workshop = Workshop(load_recipe(DEBUG, overrides=overrides), tmp_path, Progress(quiet=True))
    with pytest.raises(GoalMissed, match=r"Variant 'halves' is called int8, but") as caught:
        workshop.bundle("halves")
    assert caught.value.exit_code == 3
    assert workshop.cache.finished(workshop.bundle_key("halves")) is None
    allowed = load_recipe(DEBUG, overrides=[*overrides, "export.min_int8_pct=0"])
    workshop = Workshop(allowed, tmp_path, Progress(quiet=True))
    entry = Bundle.open(workshop.bundle("halves")).manifest.lineage[-1]
    assert entry["float_layers"] == checkpoint.architecture.stages[-1]["record"]["float_layers"]
    assert entry["calibration"] == {"sha256": "0" * 64, "drawn": 4, "clips": 4, "words": 2}
    card = (workshop.bundle("halves") / "MODEL_CARD.md").read_text()
    assert "| ranges set on | 4 training clips of 2 words, evenly taken from 4 of sha256 000000000000 |" in card


def store(folder: Path, frames_NTHW: np.ndarray) -> Store:
    numbers = np.arange(len(frames_NTHW))
    with StoreWriter(folder, len(frames_NTHW), SPEC, words=WORDS, source_sha256="0" * 64) as writer:
        writer.write(0, frames_NTHW, labels_B=numbers % len(WORDS), speakers_B=numbers)
        return writer.finish()


def test_calibrating_on_a_test_clip_is_refused(tmp_path: Path) -> None:
    test_frames = FRAMES[::-1].copy()
    test_frames[:6, 0, 0, 0] ^= 1  # one pixel makes another clip: only the last two are those of training
    train, test = store(tmp_path / "train", FRAMES), store(tmp_path / "test", test_frames)
    refuse_test_clips(train, [2, 3, 7], test)
    with pytest.raises(ClipError) as caught:
        refuse_test_clips(train, [0, 2, 3], test)
    assert str(caught.value) == (
        "Training clip 0 (ABOUT), which calibrates int8, is test clip 7: accuracy on it would prove nothing. Take it "
        "out of one of the two splits."
    )


def test_a_quantising_stage_looks_for_test_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ['variant=[{ name = "int8", stages = [{ stage = "ptq" }] }]']
    workshop = Workshop(load_recipe(DEBUG, overrides=overrides), tmp_path, Progress(quiet=True))
    same = workshop.clips.store("val")
    monkeypatch.setattr(type(workshop.clips), "store", lambda self, split: same)
    checkpoint = untrained()
    monkeypatch.setattr(workshop, "_train", lambda work: checkpoint)
    with pytest.raises(ClipError, match=r"^Training clip 0 \(ABOUT\), which calibrates int8, is test clip 0"):
        workshop.checkpoint(workshop.variants["int8"])


@pytest.mark.parametrize(
    ("stage", "reason"), [(PTQ, "'qat' and 'ptq' both quantise"), (tiny_models.PRUNE, "'prune' .* comes after 'qat'")]
)
def test_a_quantised_start_is_not_quantised_again_nor_pruned(stage: dict[str, Any], reason: str) -> None:
    start = Start(Path("int8.safetensors"), dense_checkpoint(), stages_from_configs([{"stage": "qat"}]))
    with pytest.raises(RecipeError, match=rf"^variant 'again' cannot follow train.start, .* qat: .*{reason}"):
        start.check_follows("again", stages_from_configs([stage]))
