"""`edgelip predict`: a checkpoint and a bundle alike, frames and normalised arrays, and what each refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Edgelip
from tiny_checkpoints import save_tiny
from tiny_models import SPEC, WORDS, clips

from edgelip.cli.export_checkpoint import export_checkpoint
from edgelip.models.checkpoint import load_checkpoint, save_checkpoint
from edgelip.runtime.clip import network_input


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: save_tiny(folder, kind) for kind in ("dctcn", "dctcn_boundary", "eflip_batch")}


@pytest.fixture(scope="module")
def bundle(made: dict[str, tuple[Path, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export_checkpoint(made["dctcn"][0], out=folder, name=None, as_json=True)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine frames of a moving square, 24 x 24 px at 25 fps, stored without loss."""
    import av

    path = tmp_path_factory.mktemp("video") / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 24, "gray"
        for t in range(9):
            pixels = np.full((24, 24), 90, np.uint8)
            pixels[8:16, 2 * t : 2 * t + 6] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode())
    return path


def saved(folder: Path, name: str, array: np.ndarray) -> Path:
    path = folder / f"{name}.npy"
    np.save(path, array)
    return path


def inputs(folder: Path, num_clips: int = 3) -> tuple[Path, torch.Tensor]:
    values = clips(num_clips)
    return saved(folder, f"clips{num_clips}", values.numpy()), values


def scores(path: Path) -> torch.Tensor:
    logits = np.load(path)
    assert logits.dtype == np.float32
    return torch.from_numpy(logits)


def uint8_frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SPEC.frames, SPEC.roi_px, SPEC.roi_px), dtype=np.uint8)


def test_normalised_clips_through_a_checkpoint_give_the_models_own_logits(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    (checkpoint, model), (path, values) = made["dctcn"], inputs(tmp_path)
    out = tmp_path / "new" / "logits.npy"
    done = edgelip("predict", checkpoint, path, "--normalised", "--logits", out, "--json")
    assert done.code == 0, done.line
    with torch.no_grad():
        wanted = model(values)
    torch.testing.assert_close(scores(out), wanted, rtol=0, atol=1e-6)
    rows = json.loads(done.out)
    shares = torch.softmax(wanted, dim=1)
    assert [row["ranking"][0][0] for row in rows] == [WORDS[i] for i in wanted.argmax(dim=1)]
    assert rows[0]["ranking"][0][1] == pytest.approx(float(shares[0].max()), abs=1e-6)


def test_a_bundle_gives_its_checkpoints_logits(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], bundle: Path, tmp_path: Path
) -> None:
    path, values = inputs(tmp_path, 17)  # more than one batch
    out = tmp_path / "logits.npy"
    assert edgelip("predict", bundle, path, "--normalised", "--logits", out).code == 0
    with torch.no_grad():
        torch.testing.assert_close(scores(out), made["dctcn"][1](values), rtol=1e-4, atol=1e-4)


def test_a_clip_with_a_length_gives_the_logits_of_the_clip_cut_to_it(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    (checkpoint, model), (path, values) = made["dctcn"], inputs(tmp_path, 2)
    out = tmp_path / "logits.npy"
    assert edgelip("predict", checkpoint, path, "--normalised", "--lengths", "6,4", "--logits", out).code == 0
    with torch.no_grad():
        torch.testing.assert_close(scores(out)[1:], model(values[1:, :, :4]), rtol=0, atol=1e-5)
        assert (scores(out)[1:] - model(values[1:])).abs().max() > 1e-3


def test_a_checkpoint_takes_clips_of_other_lengths_than_its_own(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    (checkpoint, model), (_, values) = made["dctcn"], inputs(tmp_path, 2)
    short, out = saved(tmp_path, "short", values[:, :, :5].numpy()), tmp_path / "logits.npy"
    assert edgelip("predict", checkpoint, short, "--normalised", "--logits", out).code == 0
    with torch.no_grad():
        torch.testing.assert_close(scores(out), model(values[:, :, :5]), rtol=0, atol=1e-6)


def test_full_lengths_may_be_said_to_a_network_that_knows_no_others(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    path, _ = inputs(tmp_path)
    done = edgelip("predict", made["eflip_batch"][0], path, "--normalised", "--lengths", "6,6,6")
    assert done.code == 0


def test_a_network_that_mixes_clips_sees_the_file_as_one_batch(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    (checkpoint, model), (path, values) = made["eflip_batch"], inputs(tmp_path, 18)
    out = tmp_path / "logits.npy"
    assert edgelip("predict", checkpoint, path, "--normalised", "--logits", out).code == 0
    with torch.no_grad():
        torch.testing.assert_close(scores(out), model(values), rtol=0, atol=1e-5)
        assert (scores(out)[:16] - model(values[:16])).abs().max() > 1e-2


def test_boundaries_reach_a_checkpoint_that_asks_for_them(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    (checkpoint, model), (path, values) = made["dctcn_boundary"], inputs(tmp_path, 2)
    indicator = np.zeros((2, SPEC.frames, 1), np.float32)
    indicator[0, 1:4], indicator[1, 2:] = 1, 1
    file, out = saved(tmp_path, "boundaries", indicator), tmp_path / "logits.npy"
    done = edgelip("predict", checkpoint, path, "--normalised", "--boundaries", file, "--logits", out)
    assert done.code == 0, done.line
    with torch.no_grad():
        wanted = model(values, None, torch.from_numpy(indicator))
        assert (wanted - model(values, None, torch.zeros(2, SPEC.frames, 1))).abs().max() > 1e-4
    torch.testing.assert_close(scores(out), wanted, rtol=0, atol=1e-6)


def test_waveforms_go_through_an_audio_checkpoint(edgelip: Edgelip, tmp_path: Path) -> None:
    checkpoint, model = save_tiny(tmp_path, "audio")
    values = torch.randn(2, 1, 6 * 640, generator=torch.Generator().manual_seed(0))
    path, out = saved(tmp_path, "waveforms", values.numpy()), tmp_path / "logits.npy"
    done = edgelip("predict", checkpoint, path, "--normalised", "--lengths", "3840,2000", "--logits", out)
    assert done.code == 0, done.line
    with torch.no_grad():
        torch.testing.assert_close(scores(out), model(values, torch.tensor([3840, 2000])), rtol=0, atol=1e-6)
    done = edgelip("predict", checkpoint, path, "--normalised", "--lengths", "3840,639")
    assert "--lengths gives clip 1 639 samples; expected 640 to 3840." in done.line
    done = edgelip("predict", checkpoint, saved(tmp_path, "frames", uint8_frames()))
    assert done.code == 2
    assert "the classifier takes audio, not frames; expected normalised waveforms, float32 (B, 1, samples)" in done.line
    assert "--normalised" in done.line


def test_frames_give_a_checkpoint_and_its_bundle_the_same_lines(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], bundle: Path, tmp_path: Path
) -> None:
    checkpoint, model = made["dctcn"]
    frames = uint8_frames()
    path, out = saved(tmp_path, "frames", frames), tmp_path / "logits.npy"
    seen, run = edgelip("predict", checkpoint, path, "--logits", out), edgelip("predict", bundle, path)
    assert seen.code == run.code == 0
    assert seen.out == run.out
    assert len(seen.out.splitlines()) == 2
    with torch.no_grad():
        wanted = model(torch.from_numpy(network_input(frames, SPEC)))
    torch.testing.assert_close(scores(out), wanted, rtol=0, atol=1e-6)


def test_spans_of_a_video_give_a_checkpoint_the_words_own_frames(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], video: Path, tmp_path: Path
) -> None:
    checkpoint, model = made["dctcn_boundary"]
    csv, out, single = tmp_path / "words.csv", tmp_path / "logits.npy", tmp_path / "single.npy"
    csv.write_text(
        f"clip_id,word,video,first,last,split\na,ABOUT,{video.name},3,6,test\nb,BELOW,{video.name},4,5,test\n"
    )
    done = edgelip("predict", checkpoint, "--spans", csv, "--root", video.parent, "--logits", out)
    assert done.code == 0, done.line
    assert done.out.splitlines()[0].startswith("a  (ABOUT)  ")
    assert "of 2 agree with the CSV" in done.out
    assert edgelip("predict", checkpoint, video, "--frames", "3:6", "--logits", single).code == 0
    torch.testing.assert_close(scores(out)[:1], scores(single), rtol=0, atol=1e-6)
    pixels = np.full((9, 24, 24), 90, np.uint8)
    for t in range(9):
        pixels[t, 8:16, 2 * t : 2 * t + 6] = 200
    window = pixels[2:8]  # six frames around the middle of frames 3 to 6, which are 1 to 4 of the window
    indicator = torch.tensor([0.0, 1, 1, 1, 1, 0]).reshape(1, 6, 1)
    with torch.no_grad():
        wanted = model(torch.from_numpy(network_input(window[None], SPEC)), None, indicator)
    torch.testing.assert_close(scores(single), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("dctcn", ["--lengths", "6,6,6"], "--lengths belongs to --normalised"),
        ("dctcn", ["--normalised", "--lengths", "6,6"], "--lengths has 2 numbers; there are 3 clips. Give one a clip."),
        ("dctcn", ["--normalised", "--lengths", "6,7,6"], "--lengths gives clip 1 7 frames; expected 1 to 6."),
        ("dctcn", ["--normalised", "--lengths", "6,0,6"], "--lengths gives clip 1 0 frames; expected 1 to 6."),
        ("dctcn", ["--normalised", "--lengths", "6;6"], "--lengths is '6;6'; expected frames, one number a clip"),
        ("dctcn", ["--normalised", "--frames", "1:2"], "--frames cuts a video;"),
        ("dctcn", ["--normalised", "--boundaries", "CLIPS"], "takes no word boundaries. Leave it out."),
        ("dctcn", ["--normalised", "--engine", "ort"], "--engine ort belongs to a bundle; the checkpoint"),
        ("dctcn", ["--normalised", "--logits", "CLIPS"], "would overwrite what is read. Choose another file."),
        ("dctcn", ["--normalised", "--root", "."], "--root, --split and --category belong to --spans CSV"),
        ("dctcn", ["--normalised", "--spans", "x.csv"], "predict needs either a CLIP or --spans CSV, and not both."),
        ("dctcn", [], "holds float32 (3, 1, 6, 20, 20); expected uint8 (B, T, H, W). Are these network inputs?"),
        ("dctcn_boundary", ["--normalised"], "needs word boundaries: add --boundaries FILE.npy, float32 (3, 6, 1)"),
        ("dctcn_boundary", ["--normalised", "--boundaries", "CLIPS"], "expected float32 (3, 6, 1), one number a fr"),
        ("eflip_batch", ["--normalised", "--lengths", "6,5,6"], "knows clips of full length only; it takes no len"),
        ("bundle", ["--normalised", "--lengths", "6,6,6"], "takes clips of full length only. Leave it out, or use the"),
        ("bundle", ["--normalised", "--boundaries", "CLIPS"], "takes no word boundaries. Leave it out."),
        (
            "bundle",
            ["--normalised", "--engine", "tensorflow"],
            "There is no engine 'tensorflow'. Known: ort, ort-cuda",
        ),
    ],
)
def test_options_without_effect_are_errors(
    edgelip: Edgelip,
    made: dict[str, tuple[Path, Any]],
    bundle: Path,
    tmp_path: Path,
    kind: str,
    options: list[str],
    message: str,
) -> None:
    path, _ = inputs(tmp_path)
    model = bundle if kind == "bundle" else made[kind][0]
    done = edgelip("predict", model, path, *(path if option == "CLIPS" else option for option in options))
    assert done.code == 2
    assert message in done.line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 1, 6, 20, 20)), "holds float64 (2, 1, 6, 20, 20); expected float32 (B, 1, T, 20, 20), T from 1"),
        (np.zeros((2, 6, 20, 20), np.float32), "holds float32 (2, 6, 20, 20); expected float32 (B, 1, T, 20, 20)"),
        (
            np.zeros((2, 1, 6, 24, 24), np.float32),
            "holds float32 (2, 1, 6, 24, 24); expected float32 (B, 1, T, 20, 20)",
        ),
        (np.zeros((0, 1, 6, 20, 20), np.float32), "holds float32 (0, 1, 6, 20, 20); expected"),
        (np.full((1, 1, 6, 20, 20), np.nan, np.float32), "holds nan or infinite numbers; expected finite ones."),
        (np.array([{"a": 1}]), "holds Python objects; expected plain numbers"),
    ],
)
def test_arrays_that_are_no_network_inputs_are_refused(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path, values: np.ndarray, message: str
) -> None:
    path = tmp_path / "clips.npy"
    np.save(path, values, allow_pickle=True)
    done = edgelip("predict", made["dctcn"][0], path, "--normalised")
    assert done.code == 2
    assert f"{path}: {message}" in done.line


def test_a_bundle_takes_its_own_number_of_frames_only(edgelip: Edgelip, bundle: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, "long", np.zeros((2, 1, 7, 20, 20), np.float32))
    done = edgelip("predict", bundle, path, "--normalised")
    assert done.code == 2
    assert "holds float32 (2, 1, 7, 20, 20); expected float32 (B, 1, 6, 20, 20)." in done.line


def test_a_huge_array_is_refused_before_it_is_read(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "huge.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 1, 6, 20, 20)}
        )
    done = edgelip("predict", made["dctcn"][0], path, "--normalised")
    assert done.code == 2
    assert f"{path}: unpacks to 9600000000 bytes; the limit is {1 << 30}" in done.line


def test_boundaries_are_zeros_and_ones(edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    (path, _), half = inputs(tmp_path), saved(tmp_path, "half", np.full((3, 6, 1), 0.5, np.float32))
    done = edgelip("predict", made["dctcn_boundary"][0], path, "--normalised", "--boundaries", half)
    assert done.code == 2
    assert f"{half}: holds other numbers than 0 and 1" in done.line


def test_boundaries_of_a_video_follow_from_its_frames(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], video: Path, tmp_path: Path
) -> None:
    done = edgelip("predict", made["dctcn_boundary"][0], video, "--boundaries", tmp_path / "b.npy")
    assert done.code == 2
    assert f"--boundaries belongs to arrays; those of the video {video} follow from --frames." in done.line


def test_array_options_do_not_go_with_spans(edgelip: Edgelip, made: dict[str, tuple[Path, Any]]) -> None:
    done = edgelip("predict", made["dctcn"][0], "--spans", "x.csv", "--normalised")
    assert done.code == 2
    assert "--normalised, --lengths and --boundaries belong to a CLIP of arrays, not to --spans." in done.line


def test_what_is_neither_checkpoint_nor_bundle_says_what_is(edgelip: Edgelip, tmp_path: Path) -> None:
    path, _ = inputs(tmp_path)
    done = edgelip("predict", tmp_path / "none", path, "--normalised")
    assert done.code == 2
    assert "none does not exist; expected a checkpoint (file) or a bundle (folder with" in done.line
    (tmp_path / "model.pth").write_bytes(b"x")
    done = edgelip("predict", tmp_path / "model.pth", path, "--normalised")
    assert done.code == 2
    assert "model.pth is a file, but no checkpoint of edgelip; expected one, or a bundle" in done.line
    assert "`edgelip import` makes checkpoints of published files." in done.line


def test_clips_that_are_not_there_are_one_line(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    for options in (["--normalised"], []):
        done = edgelip("predict", made["dctcn"][0], tmp_path / "none.npy", *options)
        assert done.code == 2
        assert "none.npy: No such file or directory" in done.line


def test_a_checkpoint_of_broken_weights_says_so(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(made["dctcn"][0])
    broken = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    broken["head.bias"][0] = float("nan")
    path = tmp_path / "broken.safetensors"
    save_checkpoint(type(checkpoint)(checkpoint.architecture, broken), path)
    done = edgelip("predict", path, inputs(tmp_path)[0], "--normalised", "--logits", tmp_path / "logits.npy")
    assert done.code == 2
    assert "The checkpoint gives scores that are not finite." in done.line
    assert not (tmp_path / "logits.npy").exists()


def test_logits_that_cannot_be_written_are_one_line(
    edgelip: Edgelip, made: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    path, _ = inputs(tmp_path)
    done = edgelip("predict", made["dctcn"][0], path, "--normalised", "--logits", tmp_path)
    assert done.code == 4
    assert f"cannot write {tmp_path}: a folder stands in its place" in done.line
