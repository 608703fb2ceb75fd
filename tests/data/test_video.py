from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from written_videos import write_video

from edgelip.data.video import read_gray_frames
from edgelip.errors import ClipError, MissingError

av = pytest.importorskip("av", reason="PyAV writes the test videos")


def moving_bar(num_frames: int = 12, side_px: int = 32) -> np.ndarray:
    """uint8 (T, S, S): a bright bar that moves one column a frame."""
    frames_TSS = np.full((num_frames, side_px, side_px), 60, np.uint8)
    for index in range(num_frames):
        frames_TSS[index, :, index : index + 4] = 200
    return frames_TSS


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_frames_come_back_in_order_and_in_grey(tmp_path: Path, name: str) -> None:
    video = read_gray_frames(write_video(tmp_path / name, moving_bar()))
    assert video.fps == 25
    assert (video.frames_THW.shape, video.frames_THW.dtype) == ((12, 32, 32), np.uint8)
    error = np.abs(video.frames_THW.astype(int) - moving_bar())
    assert error.mean() < 4  # the codec loses a little
    middle_column = (video.frames_THW > 130).any(axis=1).argmax(axis=1)
    np.testing.assert_allclose(middle_column, np.arange(12), atol=1)


def test_a_file_cut_at_any_place_is_refused(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", moving_bar(), container={"movflags": "faststart"}).read_bytes()
    assert whole.find(b"moov") < whole.find(b"mdat"), "the index must come first, so that a cut file still opens"
    for num_bytes in range(1, len(whole), len(whole) // 40):
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole[:num_bytes])
        with pytest.raises(ClipError, match=r"cut\.mp4 (is|has) .*\. Copy or convert it again\.") as caught:
            read_gray_frames(path)
        assert "attribute" not in str(caught.value)


def test_a_picture_cut_in_two_is_refused_where_no_count_is_declared(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mpg", moving_bar(side_px=64), codec="mpeg1video")
    assert len(read_gray_frames(path).frames_THW) == 12
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    pictures = path.read_bytes()
    start = pictures.find(b"\x00\x00\x01\xb3")  # the sequence header, where the first picture's packet begins
    path.write_bytes(pictures[: start + sum(sizes[:6]) + sizes[6] // 2])
    with pytest.raises(ClipError, match=r"a\.mpg is damaged or cut off at frame \d+\. Copy or convert it again\."):
        read_gray_frames(path)


def test_a_file_cut_between_two_frames_says_how_many_are_left(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mp4", moving_bar(), container={"movflags": "faststart"})
    with av.open(str(path)) as container:
        start = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: start[7]])
    with pytest.raises(
        ClipError, match=r"cut\.mp4 is cut off: 7 of 12 frames can be decoded\. Copy or convert it again"
    ):
        read_gray_frames(path)


def test_frames_hidden_by_an_edit_list_are_not_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mp4", moving_bar())
    trimmed = tmp_path / "trimmed.mp4"
    with av.open(str(path)) as source, av.open(str(trimmed), "w", options={"avoid_negative_ts": "disabled"}) as result:
        stream = result.add_stream_from_template(source.streams.video[0])
        shift = 5 * round(1 / (source.streams.video[0].time_base * 25))
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                result.mux(packet)
    np.testing.assert_array_equal(
        read_gray_frames(trimmed).frames_THW[-7:], read_gray_frames(path).frames_THW[-7:], strict=True
    )
    assert len(read_gray_frames(trimmed).frames_THW) == 7


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    empty, text, sound = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "sound.wav"
    empty.touch()
    text.write_text("not a video " * 50)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    for path, message in (
        (empty, r"empty\.mp4 is empty \(0 bytes\); expected a video file\. Copy or download it again\."),
        (text, r"text\.mp4 is not a whole, readable video \(Invalid data found when processing input\)\. Copy or"),
        (sound, r"sound\.wav has no video stream that can be read; expected a video\. Copy or convert it again\."),
        (tmp_path, r"is a folder; expected a video file\."),
        (
            tmp_path / "gone.mp4",
            r"gone\.mp4 does not exist; expected a video file\. Check the path and the data root\.",
        ),
    ):
        with pytest.raises(ClipError, match=message):
            read_gray_frames(path)


def test_bounds_are_kept(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_bar())
    assert len(read_gray_frames(path, max_frames=12, max_side_px=32).frames_THW) == 12
    with pytest.raises(ClipError, match=r"a\.mp4 has more than 11 frames\. Cut out the part with the word\."):
        read_gray_frames(path, max_frames=11)
    with pytest.raises(ClipError, match=r"a\.mp4 is 32x32 px; expected at most 31 px a side\. Scale it down\."):
        read_gray_frames(path, max_side_px=31)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write_video(tmp_path / "a.mp4", moving_bar())
    monkeypatch.setattr(av, "open", denied)
    with pytest.raises(ClipError, match=r"a\.mp4 cannot be opened: permission denied\. Make it readable\."):
        read_gray_frames(path)


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingError, match=r'av cannot be imported here .*pip install "edgelip\[train\]"'):
        read_gray_frames(Path("a.mp4"))


def test_a_damaged_file_prints_nothing_of_its_own(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_bar(), container={"movflags": "faststart"})
    damaged = bytearray(path.read_bytes())
    middle = (damaged.find(b"mdat") + len(damaged)) // 2
    damaged[middle : middle + 60] = bytes(60)
    path.write_bytes(damaged)
    code = (
        "import sys; from pathlib import Path; from edgelip.data.video import read_gray_frames\n"
        "try: read_gray_frames(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
