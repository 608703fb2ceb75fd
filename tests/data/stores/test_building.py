from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_data_set import SPEC, WORDS, Mortal, Noting, write_samples

from edgelip import files
from edgelip.data.clip_maker import ClipMaker, CropMaker
from edgelip.data.readers.samples import Sample
from edgelip.data.stores import store_folder
from edgelip.data.stores.building import Built, build_store, refuse_failures
from edgelip.data.stores.workers import Workers
from edgelip.data.unusable import UnusableClip
from edgelip.errors import ClipError, DeviceError, MissingError, UsageError
from edgelip.progress import Progress

MAKER = CropMaker(SPEC)


def build(folder: Path, samples: list[Sample], maker: ClipMaker = MAKER, **more: Any) -> Built:
    settings = {"words": WORDS, "progress": Progress(quiet=True), "name": "prepare", "clips_per_shard": 3, **more}
    return build_store(folder, samples, maker, **settings)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return write_samples(tmp_path / "raw")


def test_a_store_holds_each_sample_sorted_by_name(tmp_path: Path, samples: list[Sample]) -> None:
    store = build(tmp_path / "s", list(reversed(samples))).usable()
    np.testing.assert_array_equal(store.frames, np.stack([np.load(sample.path) for sample in samples]))
    assert store.names == tuple(sample.name for sample in samples)
    assert store.labels.tolist() == [0, 1] * 5
    assert store.speaker_names == ("s0", "s1", "s2")
    assert store.speakers.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_allclose(store.durations_s, 0.08)
    assert store.boundaries.tolist() == [[0, 2]] * 10  # 2 frames and 1, around the middle one: LRW's rule
    store.verify()


def test_workers_order_and_place_change_nothing(tmp_path: Path, samples: list[Sample]) -> None:
    one = build(tmp_path / "one", samples).usable()
    moved = write_samples(tmp_path / "elsewhere")
    random.Random(0).shuffle(moved)
    two = build(tmp_path / "two", moved, workers=Workers(2)).usable()
    assert one.sha256 == two.sha256
    files = [sorted(entry.name for entry in folder.iterdir()) for folder in (tmp_path / "one", tmp_path / "two")]
    assert files[0] == files[1]
    for name in files[0]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_store(tmp_path: Path, samples: list[Sample]) -> None:
    local = build(tmp_path / "local", samples).usable()
    assert build(tmp_path / "ray", samples, workers=Workers(2, "local")).usable().sha256 == local.sha256


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path, samples: list[Sample]) -> None:
    with pytest.raises(DeviceError, match=r"the Ray cluster '127\.0\.0\.1:1' is not reached \("):
        build(tmp_path / "s", samples, workers=Workers(2, "127.0.0.1:1"))


@pytest.mark.parametrize(
    "change",
    [
        lambda sample: np.save(sample.path, np.load(sample.path) ^ 1),
        lambda sample: sample.path.write_bytes(b"broken"),
        lambda sample: sample.path.unlink(),
    ],
)
def test_another_content_is_another_store(
    tmp_path: Path, samples: list[Sample], change: Callable[[Sample], None]
) -> None:
    before = build(tmp_path / "before", samples).usable()
    change(samples[4])
    assert build(tmp_path / "after", samples).usable().sha256 != before.sha256


def test_what_cannot_be_used_is_listed_and_left_out(tmp_path: Path, samples: list[Sample]) -> None:
    samples[1].path.write_bytes(b"broken")
    samples[4].path.unlink()
    np.save(samples[8].path, np.zeros((4, 9, 8), np.uint8))
    built = build(tmp_path / "s", samples)
    store = built.usable()
    assert len(store) == 7
    assert set(store.names) == {sample.name for sample in samples} - {"clip01.npy", "clip04.npy", "clip08.npy"}
    assert [(failure.name, failure.word, failure.reason) for failure in built.failures] == [
        ("clip01.npy", "blue", "damaged"),
        ("clip04.npy", "red", "missing"),
        ("clip08.npy", "red", "size"),
    ]
    again = build(tmp_path / "s", samples, workers=Workers(2))
    assert (again.failures, again.usable().sha256, again.num_changed) == (built.failures, store.sha256, 0)
    three = (
        r"3 of 10 clips cannot be used: .*clip01\.npy cannot be read.* \| .*clip04\.npy does not exist.* \| .*08\.npy"
    )
    with pytest.raises(ClipError, match=three):
        refuse_failures(built.failures, 10)
    refuse_failures((), 10)


def test_a_shard_without_a_usable_clip_is_no_file(tmp_path: Path, samples: list[Sample]) -> None:
    for sample in samples[3:6]:
        sample.path.unlink()
    store = build(tmp_path / "s", samples).usable()
    assert not (tmp_path / "s" / "shard-00001.npy").exists()
    assert len(store.frames[:]) == 7
    store.verify()


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path: Path, samples: list[Sample]) -> None:
    for sample in samples[:7]:
        sample.path.unlink()
    for sample in samples[7:]:
        sample.path.write_bytes(b"broken")
    built = build(tmp_path / "s", samples)
    assert (built.store, len(built.failures)) == (None, 10)
    with pytest.raises(ClipError, match=r"none of 10 clips can be used \(missing 7, damaged 3\): .*and 7 more\)$"):
        built.usable()


def test_notes_are_counted_and_mistakes_of_the_program_do_not_end_it(tmp_path: Path, samples: list[Sample]) -> None:
    broken = {"clip02.npy": ValueError("a\nb"), "clip03.npy": UnusableClip("clip03: none.", reason="no face")}
    built = build(tmp_path / "s", samples, Noting(MAKER, broken))
    assert built.notes == {"said by s0": 3, "said by s1": 3, "said by s2": 2}
    assert [failure.reason for failure in built.failures] == ["error", "no face"]
    assert built.failures[0].message.endswith("(clip02.npy) ends in ValueError: a b. Please report it.")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MissingError("no model here."), r"^no model here\.$"),
        (
            OSError(5, "Input/output error"),
            r"cannot be read now \(Input/output error\)\. What is finished is kept; run",
        ),
        (MemoryError(), r"cannot be read now \(out of memory\)"),
    ],
)
def test_what_is_wrong_with_the_machine_ends_it(
    tmp_path: Path, samples: list[Sample], error: Exception, message: str
) -> None:
    with pytest.raises(MissingError, match=message):
        build(tmp_path / "s", samples, Noting(MAKER, {"clip05.npy": error}), workers=Workers(2))
    assert len(build(tmp_path / "s", samples).usable()) == 10


def test_a_dead_worker_is_said_and_the_rest_goes_on_later(tmp_path: Path, samples: list[Sample]) -> None:
    maker = Mortal(SPEC, "clip07.npy", tmp_path / "alive")
    with pytest.raises(MissingError, match=r"a worker process died: killed, or out of memory\. What is finished is"):
        build(tmp_path / "s", samples, maker, workers=Workers(2))
    (tmp_path / "alive").touch()
    resumed = build(tmp_path / "s", samples, maker, workers=Workers(2)).usable()
    assert resumed.sha256 == build(tmp_path / "whole", samples).usable().sha256


KILLED = """
import sys; from pathlib import Path
sys.path[:0] = {tests!r}
from small_data_set import *
from test_building import build
samples = write_samples(Path(sys.argv[1]) / "raw")
build(Path(sys.argv[1]) / "s", samples, Mortal(SPEC, "clip07.npy", Path("/nonexistent")))
"""


def test_a_killed_preparation_goes_on_and_makes_no_shard_twice(tmp_path: Path, samples: list[Sample]) -> None:
    code = KILLED.format(tests=[str(Path(__file__).parent), str(Path(__file__).parents[2])])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("shard-*")}
    assert {path.name for path in finished} == {f"shard-0000{n}.{ending}" for n in (0, 1) for ending in ("npy", "json")}
    (tmp_path / "alive").touch()
    resumed = build(tmp_path / "s", samples, Mortal(SPEC, "clip07.npy", tmp_path / "alive")).usable()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert resumed.sha256 == build(tmp_path / "whole", samples).usable().sha256


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_changed_source_is_made_again_and_nothing_else(
    tmp_path: Path, samples: list[Sample], is_finished: bool
) -> None:
    build(tmp_path / "s", samples)
    if not is_finished:
        (tmp_path / "s" / "index.json").unlink()
        (tmp_path / "s" / "shard-00003.json").unlink()
    then = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("shard-*.npy")}
    np.save(samples[4].path, np.full((4, 8, 8), 7, np.uint8))
    built = build(tmp_path / "s", samples)
    assert built.num_changed == 1
    assert (built.usable().frames[4] == 7).all()
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("shard-*.npy")}
    made = {name for name in then if now[name] != then[name]}
    assert made == {"shard-00001.npy"} | (set() if is_finished else {"shard-00003.npy"})
    assert built.usable().sha256 == build(tmp_path / "whole", samples).usable().sha256


def test_a_shard_that_is_made_again_does_not_count_until_it_is(tmp_path: Path, samples: list[Sample]) -> None:
    build(tmp_path / "s", samples)
    np.save(samples[4].path, np.full((4, 8, 8), 7, np.uint8))
    with pytest.raises(MissingError):
        build(tmp_path / "s", samples, Noting(MAKER, {"clip04.npy": MissingError("no model here.")}))
    records = {path.name for path in (tmp_path / "s").glob("*.json")}
    assert records == {"made_from.json", "shard-00000.json", "shard-00002.json", "shard-00003.json"}


def test_damaged_shards_and_records_are_made_again(tmp_path: Path, samples: list[Sample]) -> None:
    whole = build(tmp_path / "s", samples).usable()
    for number, damage in enumerate((b"", b"{}", b"[" * 9000)):
        (tmp_path / "s" / f"shard-0000{number}.json").write_bytes(damage)
    os.truncate(tmp_path / "s" / "shard-00003.npy", 100)
    again = build(tmp_path / "s", samples).usable()
    assert again.sha256 == whole.sha256
    again.verify()


def test_other_samples_settings_or_words_are_refused(tmp_path: Path, samples: list[Sample]) -> None:
    build(tmp_path / "s", samples)
    for other in ({"samples": samples[1:]}, {"words": ("blue", "red")}, {"clips_per_shard": 4}):
        with pytest.raises(UsageError, match=r"holds a finished store of other clips \(other samples, words, settings"):
            build(tmp_path / "s", **{"samples": samples, **other})  # type: ignore[arg-type]


def test_samples_that_do_not_fit_are_refused(tmp_path: Path, samples: list[Sample]) -> None:
    with pytest.raises(UsageError, match=r"two samples are called 'clip03\.npy'; names must differ\."):
        build(tmp_path / "s", [*samples, samples[3]])
    with pytest.raises(UsageError, match=r"the word 'blue' has samples and is not in the list of 1 words\."):
        build(tmp_path / "s", samples, words=("red",))
    with pytest.raises(UsageError, match=r"a store of 0 clips"):
        build(tmp_path / "s", [])
    with pytest.raises(UsageError, match=r"a clip is named 'x\\ny'; expected text on one line"):
        build(tmp_path / "s", [Sample("red", Path("x"), "x\ny", "train")])
    with pytest.raises(UsageError, match=r"0 workers; expected at least 1\."):
        Workers(0)


def test_a_disk_that_is_too_small_is_found_before_the_start(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000))
    with pytest.raises(MissingError, match=r"no space left on device \(needs 5 kB, 4 kB free\)"):
        build(tmp_path / "s", samples)
    assert not list((tmp_path / "s").glob("shard-*"))


def test_two_processes_do_not_build_one_folder(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    files.claim(descriptor, tmp_path)
    with pytest.raises(MissingError, match=r"another process is writing it"):
        build(tmp_path, samples)
    os.close(descriptor)
