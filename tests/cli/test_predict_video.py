"""`edgelip predict` of videos: windows and their times, other rates, who finds the mouth, folders, what is refused."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import av
import cv2
import numpy as np
import pytest
import torch
from command_line import Edgelip
from tiny_models import WORDS, lively

from edgelip.cli.export_checkpoint import export_checkpoint
from edgelip.data.mouth.finder import FINDERS, MouthFinder
from edgelip.data.mouth.mouth_video import MouthVideo
from edgelip.data.mouth.reference_face import own_face
from edgelip.data.mouth.track import MouthTrack, matrices_from_boxes
from edgelip.data.video import Video
from edgelip.models.checkpoint import Architecture, checkpoint_from_model, save_checkpoint
from edgelip.models.zoo import build_classifier
from edgelip.runtime.clip import ClipSpec, fit_span, network_input, pool_frames

SHARED = Path(__file__).parents[3] / "shared" / "data"
OPTIONS = {"stem_width": 8, "trunk_widths": [16], "temporal_width": 16, "temporal_blocks": 1}
WINDOW = ClipSpec(frames=6, pool=4, crop_px=80)
SPAN = ClipSpec(timing="span", frames=4, pool=4, crop_px=80)
needs_faces = pytest.mark.skipif(not SHARED.is_dir(), reason="the faces of ../shared/data are not here")


class SquareFinder(MouthFinder):
    """The mouth is the middle of the picture; not seen in the first frame."""

    name: ClassVar[str] = "square"

    def track(self, frames_THW: np.ndarray, *, source: str) -> MouthTrack:
        num_frames, height, width = frames_THW.shape
        matrices = matrices_from_boxes(np.tile([width / 2, height / 2, 96.0, 0.0], (num_frames, 1)))
        matrices[0] = np.nan
        return MouthTrack(
            matrices, np.arange(num_frames) > 0, ("2 faces in 3 of the frames: the largest was followed",)
        )


def saved(folder: Path, name: str, spec: ClipSpec) -> tuple[Path, Any]:
    model = lively(build_classifier("small", num_words=len(WORDS), options=OPTIONS))
    entry = {"stage": "train", "config": {}, "record": {}}
    path = folder / f"{name}.safetensors"
    architecture = Architecture("small", OPTIONS, WORDS, spec.to_json(), (entry,))
    save_checkpoint(checkpoint_from_model(model, architecture), path)
    return path, model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    folder = tmp_path_factory.mktemp("models")
    return {name: saved(folder, name, spec) for name, spec in (("window", WINDOW), ("span", SPAN))}


def pictures(num_frames: int, *, height: int = 96, width: int = 96) -> np.ndarray:
    frames = np.full((num_frames, height, width), 90, np.uint8)
    for t in range(num_frames):
        frames[t, height // 3 : height // 2, (5 * t) % 60 : (5 * t) % 60 + 30] = 200 - t
    return frames


def write(path: Path, frames_THW: np.ndarray, *, fps: int = 25) -> Path:
    """Stored without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = frames_THW.shape[1:]
        stream.pix_fmt = "gray"
        for pixels in frames_THW:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def roi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("video") / "roi.mkv", pictures(17))


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for faces finds the middle of the picture."""
    monkeypatch.setitem(sys.modules, "square_finder", sys.modules[__name__])
    monkeypatch.setitem(FINDERS, "haar", "square_finder:SquareFinder")


@torch.no_grad()
def logits(model: Any, clip_TSS: np.ndarray, spec: ClipSpec) -> np.ndarray:
    result: np.ndarray = model(torch.from_numpy(network_input(pool_frames(clip_TSS[None], spec.pool), spec)))[0].numpy()
    return result


def test_windows_slide_over_a_video_with_their_times(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], roi: Path, tmp_path: Path
) -> None:
    checkpoint, model = models["window"]
    out = tmp_path / "scores.npy"
    done = edgelip("predict", checkpoint, roi, "--every", 4, "--json", "--logits", out)
    assert done.code == 0, done.line
    rows, frames = json.loads(done.out), pictures(17)
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0.0, 0.24), (0.16, 0.4), (0.32, 0.56), (0.44, 0.68)]
    wanted = np.stack([logits(model, frames[start : start + 6], WINDOW) for start in (0, 4, 8, 11)])
    np.testing.assert_allclose(np.load(out), wanted, atol=1e-5)
    assert [row["ranking"][0][0] for row in rows] == [WORDS[label] for label in wanted.argmax(axis=1)]
    assert done.line == f"{roi}: 4 windows of 6 frames, every 4"
    text = edgelip("predict", checkpoint, roi, "--every", 4, "--top", 1).out.splitlines()
    assert text[1].startswith(f"{roi}  0.16-0.40 s  {rows[1]['ranking'][0][0]} 0.")
    assert len(edgelip("predict", checkpoint, roi).out.splitlines()) == 4  # every 5 frames, 0.2 s


def test_a_bundle_reads_a_video_as_its_checkpoint_does(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], roi: Path, tmp_path: Path
) -> None:
    export_checkpoint(models["window"][0], out=tmp_path / "bundle", name=None, as_json=True)
    assert edgelip("predict", tmp_path / "bundle", roi).out == edgelip("predict", models["window"][0], roi).out


def test_a_word_of_unknown_length_is_sought_at_several(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], roi: Path
) -> None:
    checkpoint, model = models["span"]
    done = edgelip("predict", checkpoint, roi, "--json", "--top", 1)
    assert done.line == f"{roi}: 2 windows of 6, 9, 13 frames, every 5"
    frames, rows = pictures(17), json.loads(done.out)
    for row, longest in zip(rows, (0, 4), strict=True):
        tried = []
        for length in (6, 9, 13):
            first = longest + (13 - length) // 2
            clip = logits(model, fit_span(frames[first : first + length], 4), SPAN)
            shares = np.exp(clip - clip.max()) / np.exp(clip - clip.max()).sum()
            tried.append((float(shares.max()), WORDS[int(shares.argmax())], first / 25, (first + length) / 25))
        best = max(tried)
        assert row["ranking"][0] == [best[1], pytest.approx(best[0], abs=1e-6)]
        assert (row["start_s"], row["end_s"]) == (pytest.approx(best[2]), pytest.approx(best[3]))


def test_a_video_of_another_rate_is_brought_to_that_of_the_contract(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    fast = write(tmp_path / "fast.mkv", np.repeat(pictures(12), 2, axis=0), fps=50)
    slow = write(tmp_path / "slow.mkv", pictures(12))
    outs = [tmp_path / "fast.npy", tmp_path / "slow.npy"]
    lines = [
        edgelip("predict", models["window"][0], video, "--logits", out).out.splitlines()
        for video, out in zip((fast, slow), outs, strict=True)
    ]
    assert [line.partition("  ")[2] for line in lines[0]] == [line.partition("  ")[2] for line in lines[1]]
    # Frames are counted in the file: 8..15 of the fast one are 4..7 of the slow one.
    edgelip("predict", models["span"][0], fast, "--frames", "8:15", "--logits", outs[0])
    edgelip("predict", models["span"][0], slow, "--frames", "4:7", "--logits", outs[1])
    np.testing.assert_allclose(np.load(outs[0]), np.load(outs[1]), atol=1e-6)


def test_open_ends_of_the_frames_are_the_videos(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], roi: Path
) -> None:
    whole = edgelip("predict", models["span"][0], roi, "--frames", ":")
    assert whole.out == edgelip("predict", models["span"][0], roi, "--frames", "0:16").out
    assert whole.out != edgelip("predict", models["span"][0], roi, "--frames", "3:").out
    assert " s  " not in whole.out


@pytest.mark.usefixtures("squares")
def test_the_mouth_is_found_where_frames_are_no_roi(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("edgelip.progress.Progress.say", lambda self, text: said.append(text))
    frames = pictures(17, height=200, width=260)
    video, boxes, sheet, out = (tmp_path / name for name in ("face.mkv", "b.csv", "s.png", "scores.npy"))
    write(video, frames)
    done = edgelip("predict", models["window"][0], video, "--boxes", boxes, "--sheet", sheet, "--logits", out)
    assert done.code == 0, done.line
    assert said == [
        f"{video}: 17 frames at 25 frames/s, face found in 16 of 17",
        f"{video}: 2 faces in 3 of the frames: the largest was followed",
        f"{video}: 4 windows of 6 frames, every 5",
    ]
    rows = list(csv.DictReader(boxes.open()))
    assert list(rows[0]) == ["clip", "frame", "mouth_x", "mouth_y", "side", "roll_deg"]
    assert list(rows[0].values()) == ["face.mkv", "0", "", "", "", ""]  # not seen
    assert list(rows[5].values()) == ["face.mkv", "5", "130.0", "100.0", "96.0", "0.00"]
    picture = cv2.imread(str(sheet), cv2.IMREAD_GRAYSCALE)
    assert picture.shape[1] > 9 * 96 > picture.shape[1] - 9 * 96  # 25 frames, every third
    crops = np.stack([frame[52:148, 82:178] for frame in frames])
    np.testing.assert_allclose(np.load(out)[0], logits(models["window"][1], crops[:6], WINDOW), atol=0.05)


@pytest.mark.usefixtures("squares")
def test_of_a_folder_the_broken_ones_are_told_and_the_rest_goes_on(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    write(folder / "a" / "one.mkv", pictures(6))
    whole = write(folder / "two.mkv", pictures(6, height=200, width=200))
    (folder / "broken.mp4").write_bytes(whole.read_bytes()[:300])
    (folder / "empty.avi").write_bytes(b"")
    (folder / "notes.txt").write_text("no video")
    done = edgelip("predict", models["window"][0], folder, "--json")
    assert done.code == 2
    assert done.line == f"edgelip: 2 of 4 videos in {folder} cannot be used."
    assert [Path(row["clip"]).name for row in json.loads(done.out)] == ["one.mkv", "two.mkv"]
    for name in ("a/one.mkv", "two.mkv"):
        (folder / name).unlink()
    done = edgelip("predict", models["window"][0], folder)
    assert (done.code, done.out) == (2, "")
    assert (
        f"none of the 2 videos in {folder} can be used; the first: {folder / 'broken.mp4'} is not a whole" in done.line
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mouth", "eyes"], "--mouth is 'eyes'; expected auto, none, haar, landmarks, landmarks-legacy, mediapipe."),
        (["--mouth", "landmarks"], "--mouth landmarks needs --landmarks FILE or FOLDER, 68 points of each frame."),
        (["--mouth", "haar", "--landmarks", "x.npz"], "--landmarks belongs to --mouth landmarks, not to --mouth haar."),
        (["--mean-face", "x.npy"], "--mean-face belongs to --landmarks. Leave it out."),
        (["--persons", "x.csv"], "--persons belongs to --landmarks. Leave it out."),
        (["--mouth", "mediapipe"], "--mouth mediapipe and --mouth-model FILE belong together"),
        (["--mouth-model", "x.task"], "--mouth mediapipe and --mouth-model FILE belong together"),
        (["--seconds", "2"], "--seconds belongs to camera:N; a video has a length of its own."),
        (["--frames", "1:2", "--every", "2"], "--frames names one word and --every lets windows slide. Leave one of"),
        (["--frames", "1-2"], "--frames is '1-2'; expected FIRST:LAST, as in --frames 12:21."),
        (["--frames", "5:90"], "which has frames 0 to 16."),
        (["--frames", "9:2"], "--frames 9:2 names the last frame first; "),
        (["--boxes", "b.csv"], "--boxes: the frames are mouth ROIs already, nothing was found in them. Leave it out."),
        (["--lengths", "3"], "--lengths belongs to --normalised"),
    ],
)
def test_options_that_cannot_be_obeyed_are_refused(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], roi: Path, arguments: list[str], message: str
) -> None:
    done = edgelip("predict", models["window"][0], roi, *arguments)
    assert done.code == 2
    assert message in done.line


def test_options_of_videos_do_not_go_with_arrays_and_spans(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    np.save(tmp_path / "clips.npy", np.zeros((1, 6, 96, 96), np.uint8))
    done = edgelip("predict", models["window"][0], tmp_path / "clips.npy", "--every", 3)
    assert f"--seconds belong to a video; {tmp_path / 'clips.npy'} holds clips already." in done.line
    done = edgelip("predict", models["window"][0], "--spans", "x.csv", "--mouth", "haar")
    assert "--seconds belong to a video, not to --spans." in done.line
    done = edgelip("predict", models["window"][0], tmp_path, "--frames", "1:2")
    assert f"--frames belongs to a single CLIP; {tmp_path} is a folder." in done.line
    done = edgelip("predict", models["window"][0], tmp_path)
    assert f"{tmp_path} has no video (" in done.line


def test_frames_of_another_size_are_no_rois(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    video = write(tmp_path / "small.mkv", pictures(6, height=48, width=64))
    done = edgelip("predict", models["window"][0], video, "--mouth", "none")
    assert done.code == 2
    assert "gives ROIs of 64x48 px; the classifier takes 96x96 px. Leave out --mouth none." in done.line


def test_landmarks_of_one_file_place_the_mouth(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    video = write(tmp_path / "face.mkv", pictures(17, height=256, width=256))
    points = np.tile(own_face(), (17, 1, 1))
    points[3] += 2.0
    for name, array in (("other name.npy", points), ("short.npy", points[:5])):
        np.save(tmp_path / name, array)
    boxes, file = tmp_path / "boxes.csv", tmp_path / "other name.npy"
    done = edgelip("predict", models["window"][0], video, "--landmarks", file, "--boxes", boxes)
    assert done.code == 0, done.line
    row = list(csv.DictReader(boxes.open()))[10]
    assert float(row["side"]) == pytest.approx(96, abs=1)  # aligned to the face that it is
    centre = own_face()[48:].mean(axis=0)
    assert (float(row["mouth_x"]), float(row["mouth_y"])) == pytest.approx(tuple(centre), abs=1.5)
    done = edgelip("predict", models["window"][0], video, "--landmarks", tmp_path / "short.npy")
    assert done.code == 2
    assert "short.npy" in done.line


@pytest.mark.usefixtures("squares")
def test_a_camera_is_watched_for_so_long(
    edgelip: Edgelip, models: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def camera(index: int, finder: MouthFinder, fps: float = 25.0, *, seconds: float) -> MouthVideo:
        asked.append((index, finder.name, fps, seconds))
        frames = pictures(round(seconds * fps))
        numbers = np.arange(len(frames))
        return MouthVideo(Video(frames, fps), finder.track(frames, source="camera"), numbers / fps, numbers, 30.0, 30)

    monkeypatch.setattr("edgelip.data.mouth.mouth_video.camera_mouths", camera)
    done = edgelip("predict", models["window"][0], "camera:1", "--seconds", "0.4", "--json")
    assert done.code == 0, done.line
    assert [row["clip"] for row in json.loads(done.out)] == ["camera:1", "camera:1"]
    assert edgelip("predict", models["window"][0], "camera:0").code == 0
    assert asked == [(1, "square", 25.0, 0.4), (0, "square", 25.0, 3.0)]


@pytest.mark.parametrize("name", ["camera:x", "camera:"])
def test_a_camera_has_a_number(edgelip: Edgelip, models: dict[str, tuple[Path, Any]], name: str) -> None:
    done = edgelip("predict", models["window"][0], name)
    assert done.code == 2
    assert f"{name} with --mouth auto: expected camera:N, and haar or mediapipe to look at it." in done.line


@needs_faces
def test_real_faces_are_read(edgelip: Edgelip, models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    grid, alfa = SHARED / "grid" / "raw" / "s22_lbbc2a.mpg", SHARED / "faces" / "alfa_1280x720_30fps.mp4"
    boxes = tmp_path / "boxes.csv"
    done = edgelip("predict", models["window"][0], grid, "--every", 20, "--boxes", boxes)
    assert done.code == 0, done.line
    assert [line.split()[1] for line in done.out.splitlines()] == [
        "0.00-0.24",
        "0.80-1.04",
        "1.60-1.84",
        "2.40-2.64",
        "2.76-3.00",
    ]
    assert len(boxes.read_text().splitlines()) == 76
    done = edgelip("predict", models["window"][0], alfa, "--json")
    rows = json.loads(done.out)
    assert rows[-1]["end_s"] == 1.0  # 30 frames at 30 frames/s are 25 at 25
