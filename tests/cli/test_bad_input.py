"""What a user gets for a mistake: one line that names it and the exit code of its kind, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
DEBUG = ROOT / "tests" / "recipes" / "debug.toml"


def run(*arguments: object, module: str = "edgelip", prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    command = [*prefix, sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""


def recipe(tmp_path: Path, old: str, new: str) -> Path:
    text = DEBUG.read_text()
    assert old in text
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_an_unknown_recipe_key_names_the_nearest(tmp_path: Path) -> None:
    code, line = run("export", recipe(tmp_path, "batch_size = 8", "batch_sise = 8"))
    assert code == 2
    assert "unknown key 'batch_sise' in [train]. Did you mean 'batch_size'?" in line


def test_an_unknown_stage_key_names_the_nearest(tmp_path: Path) -> None:
    code, line = run("export", recipe(tmp_path, "pruning_ratio = 0.5", "prunning_ratio = 0.5"))
    assert code == 2
    assert "Stage 'prune': unknown key 'prunning_ratio'. Did you mean 'pruning_ratio'?" in line


def test_stages_out_of_order_print_the_right_order(tmp_path: Path) -> None:
    tables = 'variant=[{name="x",stages=[{stage="qat"},{stage="phm"},{stage="prune"}]}]'
    code, line = run("export", DEBUG, "--set", tables)
    assert code == 2
    assert "Stage 'phm' (structure) comes after 'qat' (numerics). Order them: prune, phm, qat." in line


def test_an_n_that_does_not_divide_is_refused_before_training(tmp_path: Path) -> None:
    tables = 'variant=[{name="x",stages=[{stage="phm",n=5,layers=["trunk.*"]}]}]'
    code, line = run("export", DEBUG, "--set", tables, "--out", tmp_path / "dist")
    assert code == 2
    assert "PHM n=5 does not divide the 32 output and 16 input channels of trunk.blocks.0.conv1.conv" in line
    assert "Choose n from [2, 4, 8, 16]." in line
    assert not list((tmp_path / "dist" / ".cache").glob("data-*"))


def test_an_engine_that_cannot_measure_the_variants_is_refused_before_training(tmp_path: Path) -> None:
    code, line = run("export", DEBUG, "--set", "bench.engine=tensorflow", "--out", tmp_path / "dist")
    assert code == 2
    assert "There is no engine 'tensorflow'. Known: ort, " in line
    code, line = run("export", DEBUG, "--set", "bench.engine=ort-cuda", "--out", tmp_path / "dist")
    assert code == 2
    assert "bench.engine 'ort-cuda' takes no file of variant 'phm4-int8'; those that do are ort, ort-xnnpack, " in line


def test_a_network_that_no_bundle_holds_is_refused_before_training(tmp_path: Path) -> None:
    code, line = run("export", DEBUG, "--set", 'model={backbone="dctcn_boundary"}', "--out", tmp_path / "dist")
    assert code == 2
    assert "model 'dctcn_boundary' takes word boundaries; a bundle takes clips only" in line


def test_a_missing_recipe_lists_those_that_are_there() -> None:
    code, line = run("export", "export/recipes/quickstar.toml")
    assert code == 2
    assert "There is no recipe export/recipes/quickstar.toml." in line
    assert "export/recipes/quickstart.toml" in line


def test_a_recipe_on_spans_without_a_root_says_how_to_set_it() -> None:
    code, line = run("export", "export/recipes/grid.toml")
    assert code == 2
    assert "--set data.root=FOLDER" in line


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of an untrained model."""
    import torch

    from edgelip.deploy.bundle_writer import write_bundle
    from edgelip.deploy.export import export_model
    from edgelip.models.checkpoint import Architecture, checkpoint_from_model
    from edgelip.models.zoo import build_classifier
    from edgelip.runtime.clip import ClipSpec, network_input

    options = {"stem_width": 8, "trunk_widths": [8], "temporal_width": 8, "temporal_blocks": 1}
    spec = ClipSpec(timing="span", frames=5, pool=2)
    words = ("RED", "BLUE", "GREEN")
    model = build_classifier("small", num_words=3, options=options).eval()
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, 48, 48), dtype=np.uint8)
    clips = torch.from_numpy(network_input(frames, spec))
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    return write_bundle(
        folder,
        name="tiny",
        exported=export_model(model, clips, metadata={}),
        checkpoint=checkpoint_from_model(model, Architecture("small", options, words, spec.to_json())),
        frames_BTHW=frames,
        ledger={"parameters": 1, "macs": 1, "method": "dense fp32", "data": "noise"},
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of a moving square, 96 x 96 at 25 fps."""
    import av

    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for t in range(12):
            pixels = np.full((96, 96, 3), 90, np.uint8)
            pixels[30:60, 20 + 3 * t : 40 + 3 * t] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_predict_prints_words_with_probabilities(bundle: Path, video: Path) -> None:
    command = [sys.executable, "-m", "edgelip", "predict", bundle, video, "--frames", "2:9", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    ranking = json.loads(done.stdout)[0]["ranking"]
    assert {word for word, _ in ranking} == {"RED", "BLUE", "GREEN"}
    assert sum(probability for _, probability in ranking) == pytest.approx(1, abs=1e-5)


def test_predict_reads_one_row_a_span(bundle: Path, video: Path, tmp_path: Path) -> None:
    csv = tmp_path / "words.csv"
    csv.write_text(f"clip_id,word,video,first,last,split\na,RED,{video.name},0,5,test\nb,BLUE,{video.name},4,9,test\n")
    command = [sys.executable, "-m", "edgelip", "predict", bundle, "--spans", csv, "--root", video.parent]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("a  (RED)  ")
    assert lines[1].startswith("b  (BLUE)  ")
    assert "of 2 agree with the CSV" in lines[2]


def test_a_truncated_video_is_an_error(bundle: Path, video: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    code, line = run("predict", bundle, cut)
    assert code == 2
    assert str(cut) in line


def test_frames_outside_the_video_are_refused(bundle: Path, video: Path) -> None:
    code, line = run("predict", bundle, video, "--frames", "3:40")
    assert code == 2
    assert f"--frames 3:40 lies outside {video}, which has frames 0 to 11." in line
    code, line = run("predict", bundle, video, "--frames", "3-4")
    assert code == 2
    assert "--frames is '3-4'; expected FIRST:LAST" in line


def test_an_empty_folder_is_no_bundle(video: Path, tmp_path: Path) -> None:
    code, line = run("predict", tmp_path, video)
    assert code == 2
    assert f"{tmp_path} is empty; expected a bundle." in line


def changed_bundle(bundle: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    return copy


@pytest.mark.parametrize("name", ["model.fp32.onnx", "expected.npz", "MODEL_CARD.md"])
def test_a_bundle_with_one_byte_changed_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = changed_bundle(bundle, tmp_path)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    code, line = run("check", copy, module="edgelip.runtime")
    assert code == 2
    assert name in line
    assert "sha256" in line


def test_a_bundle_of_a_newer_schema_says_upgrade(bundle: Path, tmp_path: Path) -> None:
    copy = changed_bundle(bundle, tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 3}))
    code, line = run("check", copy, module="edgelip.runtime")
    assert code == 2
    assert "schema 3" in line
    assert "Upgrade edgelip" in line


def test_a_device_without_an_engine_says_what_to_install(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError(name='onnxruntime')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "edgelip.runtime", "check", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 4
    assert "onnxruntime" in done.stderr
    assert "pip install onnxruntime" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verb_without_its_packages_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "edgelip", "export", str(DEBUG), "--out", str(tmp_path / "dist")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 4
    assert done.stderr.strip() == (
        'edgelip: torch is not installed here; this verb needs it. Install it: pip install "edgelip[train]"'
    )
    helped = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, check=False, env=environment)
    assert helped.returncode == 0


def needs_root_and_mounts() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a mount of our own needs root and unshare")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounts are not allowed here")


def export_on(tmp_path: Path, mount: str) -> tuple[int, str]:
    """Export into a file system of our own at tmp_path/place; `mount` is shell that sets it up at $PLACE."""
    needs_root_and_mounts()
    (tmp_path / "place").mkdir()
    environment = {**os.environ, "PLACE": str(tmp_path / "place"), "PYTHON": sys.executable, "RECIPE": str(DEBUG)}
    script = f"{mount} && $PYTHON -m edgelip export $RECIPE --out $PLACE/dist; code=$?"
    script += "; find $PLACE -name '*.partial' -o -name '*.tmp'; exit $code"
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert "Traceback" not in done.stderr
    assert done.stdout == "", "half-written files"
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    code, line = export_on(tmp_path, "mount -t tmpfs -o size=2m none $PLACE")
    assert code == 4
    assert "no space left on device" in line


def test_a_read_only_output_folder_is_one_line(tmp_path: Path) -> None:
    code, line = export_on(tmp_path, "mount -t tmpfs none $PLACE && mount -o remount,ro $PLACE")
    assert code == 4
    assert "the file system is read-only" in line


def test_an_unknown_table_names_those_there_are() -> None:
    code, line = run("list", "backbone")
    assert code == 2
    assert "Did you mean 'backbones'?" in line


def test_a_report_without_an_export_says_what_writes_one(tmp_path: Path) -> None:
    code, line = run("report", tmp_path)
    assert code == 2
    assert "edgelip export RECIPE" in line
