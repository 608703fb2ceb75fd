"""`edgelip predict` of signs: a parquet file, the array in it, and what a classifier of video says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Edgelip
from tiny_models import SPEC, WORDS, lively

from edgelip.models.checkpoint import Architecture, checkpoint_from_model, save_checkpoint
from edgelip.models.inputs import options_for
from edgelip.models.zoo import build_classifier
from edgelip.runtime.clip import ClipSpec

SIGNS = ClipSpec(kind="landmarks", timing="span", frames=8, points="holistic118", axes=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = options_for("simple_islr", {}, SIGNS)
    model = lively(build_classifier("simple_islr", num_words=len(WORDS), options=options))
    path = tmp_path_factory.mktemp("signs") / "signs.safetensors"
    entry = {"stage": "train", "config": {}, "record": {}}
    architecture = Architecture("simple_islr", options, WORDS, SIGNS.to_json(), (entry,))
    save_checkpoint(checkpoint_from_model(model, architecture), path)
    return path


@pytest.fixture(scope="module")
def sign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames in the layout of the competition, one of them without its right hand."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    points = np.random.default_rng(0).random((5, 543, 3)).astype(np.float32)
    points[2, 522:] = np.nan
    folder = tmp_path_factory.mktemp("sign")
    columns = {axis: points[..., number].reshape(-1) for number, axis in enumerate("xyz")}
    parquet.write_table(pyarrow.table(columns), folder / "1.parquet")
    np.save(folder / "1.npy", points)
    return folder / "1.parquet"


def test_a_parquet_file_reads_as_the_array_in_it(
    edgelip: Edgelip, checkpoint: Path, sign: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / "parquet.npy", tmp_path / "array.npy"]
    for file, out in zip((sign, sign.with_suffix(".npy")), outs, strict=True):
        done = edgelip("predict", checkpoint, file, "--logits", out)
        assert done.code == 0, done.line
        assert done.out.startswith(f"{file}  ")
    np.testing.assert_array_equal(np.load(outs[0]), np.load(outs[1]))
    assert np.load(outs[0]).shape == (1, len(WORDS))


def test_landmarks_and_video_do_not_mix(edgelip: Edgelip, checkpoint: Path, sign: Path, tmp_path: Path) -> None:
    from tiny_checkpoints import save_tiny

    seeing, _ = save_tiny(tmp_path, "dctcn")
    done = edgelip("predict", seeing, sign)
    assert done.code == 2
    assert f"{sign} holds landmarks; the classifier takes video. Give it what it takes." in done.line
    done = edgelip("predict", checkpoint, tmp_path / "face.mp4")
    assert done.code == 2
    assert "the classifier takes landmarks, not frames; expected float (T, 543, 3)" in done.line
    done = edgelip("predict", checkpoint, sign, "--every", 2)
    assert f"belong to a video; {sign} holds clips already." in done.line
    assert SPEC.kind == "video"
