from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelip.data.stores.store import Store, StoreWriter
from edgelip.data.stores.stored_frames import StoredFrames
from edgelip.runtime.clip import ClipSpec

SPEC = ClipSpec(frames=2, roi_px=8, pool=1, crop_px=8)
CLIPS = np.random.default_rng(3).integers(0, 256, (11, 2, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven clips in shards of 3, 3, 3 and 2."""
    folder = tmp_path_factory.mktemp("frames") / "s"
    zeros = np.zeros(11)
    with StoreWriter(folder, 11, SPEC, words=("a",), source_sha256="0" * 64, clips_per_shard=3) as writer:
        writer.write(0, CLIPS, labels_B=zeros, speakers_B=zeros)
        writer.finish()
    return folder


@pytest.fixture
def frames(folder: Path) -> StoredFrames:
    return Store.open(folder).frames


positions = st.integers(-11, 10)
keys = st.one_of(
    positions,
    st.slices(11),
    st.lists(positions, max_size=20),
    st.lists(st.booleans(), min_size=11, max_size=11).map(np.array),
    st.lists(positions, min_size=6, max_size=6).map(lambda chosen: np.array(chosen).reshape(2, 3)),
)


@given(key=keys)
@settings(max_examples=200, deadline=None)
def test_indexing_is_that_of_one_array(folder: Path, key: object) -> None:
    frames = Store.open(folder).frames
    expected = CLIPS[np.array(key, np.int64) if isinstance(key, list) else key]  # type: ignore[index]
    np.testing.assert_array_equal(frames[key], expected)
    assert frames[key].dtype == np.uint8
    assert frames[key].shape == expected.shape


def test_it_has_the_properties_of_an_array(frames: StoredFrames) -> None:
    assert (frames.shape, frames.ndim, frames.nbytes, len(frames)) == ((11, 2, 8, 8), 4, CLIPS.nbytes, 11)
    np.testing.assert_array_equal(np.stack(list(frames)), CLIPS)
    np.testing.assert_array_equal(np.asarray(frames, np.float32), CLIPS.astype(np.float32))
    np.testing.assert_array_equal(frames[2:9:3, 1], CLIPS[2:9:3, 1])
    np.testing.assert_array_equal(frames[5, 1, 2:4], CLIPS[5, 1, 2:4])


@pytest.mark.parametrize("key", [11, -12, [0, 11], [-12], np.ones(10, bool)])
def test_a_clip_that_is_not_there_is_an_index_error(frames: StoredFrames, key: object) -> None:
    with pytest.raises(IndexError):
        frames[key]


def test_a_batch_is_copied_into_a_place_of_its_own(frames: StoredFrames) -> None:
    out = np.zeros((8, 2, 8, 8), np.uint8)
    taken = frames.take_into(np.array([10, 0, 4, 4]), out)
    assert taken.base is out
    np.testing.assert_array_equal(out[:4], CLIPS[[10, 0, 4, 4]])
    assert not out[4:].any()
    with pytest.raises(IndexError, match=r"clips -1\.\.3 of 11"):
        frames.take_into(np.array([3, -1]), out)


def test_one_clip_is_a_view_that_cannot_be_written(frames: StoredFrames) -> None:
    with pytest.raises(ValueError, match="read-only"):
        frames[3][0] = 0


def test_a_copy_in_another_process_maps_the_files_itself(frames: StoredFrames) -> None:
    assert frames[0].shape == (2, 8, 8)
    packed = pickle.dumps(frames)
    assert len(packed) < 4000  # the clips are not in it
    np.testing.assert_array_equal(pickle.loads(packed), CLIPS)


def test_a_store_is_read_without_torch(folder: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgelip.data.stores.store import Store\n"
        "store = Store.open(sys.argv[1]); store.verify(); print(int(store.frames[[9, 1]].sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == CLIPS[[9, 1]].sum()
