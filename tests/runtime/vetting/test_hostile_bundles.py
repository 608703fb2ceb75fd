"""Two thousand corrupted bundles: every one is refused in one line before an engine sees a byte."""

from __future__ import annotations

import resource
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime
import pytest
from fake_engine import FakeEngine
from hostile_bundles import MENDED, UNMENDED, edit_manifest, good_contents, mend
from onnx import load_from_string, numpy_helper
from tiny_bundles import SPEC
from typical_model import initialiser

from edgelip.deploy.sign import sign_bundle
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.check import check
from edgelip.runtime.clip import network_input
from edgelip.runtime.engines.engine import ENGINES
from edgelip.runtime.errors import BundleError

NUM_CASES = 1000  # of each half
LIMIT_S = 20.0  # a hang, on however busy a machine


class TooLong(BaseException):
    """Not an Exception, so that nothing on the way can take it for a refusal."""


def _logits(model: bytes, frames_NTHW: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits_NV,) = session.run(None, {"clips": network_input(frames_NTHW, SPEC)})
    return np.asarray(logits_NV)


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    return good_contents(_logits)


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Engine `ort` is one that only notes which model it was given."""
    seen: list[Path] = []

    class Engine(FakeEngine):
        def __init__(self, model_path: Path, **_: object) -> None:
            seen.append(model_path)

    monkeypatch.setattr("fake_engine.FakeEngine", Engine)
    monkeypatch.setitem(ENGINES, "ort", "fake_engine:FakeEngine")
    return seen


@contextmanager
def within(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tree(root: Path) -> list[tuple[str, int, int, int]]:
    entries = [(path, path.lstat()) for path in sorted(root.rglob("*"))]
    return [(str(path.relative_to(root)), s.st_mode, s.st_size, s.st_mtime_ns) for path, s in entries]


@pytest.mark.parametrize("half", ["unmended", "mended"])
def test_every_corrupted_bundle_is_refused_before_an_engine_sees_it(
    half: str, good: dict[str, bytes], tmp_path: Path, no_engine: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = UNMENDED if half == "unmended" else MENDED
    names = sorted(kinds)
    counts: Counter[str] = Counter()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(NUM_CASES):
        name = names[case % len(names)]
        edit, message = kinds[name]
        place = tmp_path / str(case)
        place.mkdir()
        (place / "outside").write_bytes(b"outside")
        folder = write(place / "typical", good)
        edit(folder, Random(f"{half} {name} {case}"))
        if half == "mended":
            mend(folder)
        before = tree(place)
        with within(LIMIT_S), pytest.raises(BundleError, match=message) as caught:
            check(folder, "ort")
        assert tree(place) == before
        text = str(caught.value)
        assert text.isprintable()
        assert len(text) < 1000
        counts[name] += 1
    assert no_engine == []
    assert not any((tmp_path / "here").iterdir())
    assert set(counts) == set(kinds)
    assert min(counts.values()) >= NUM_CASES // len(kinds) > 10
    assert sum(counts.values()) == NUM_CASES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 256 << 10


def test_the_untouched_bundle_is_accepted(good: dict[str, bytes], tmp_path: Path) -> None:
    (parity,) = check(write(tmp_path / "typical", good), "ort")
    assert parity.num_clips == parity.num_equal_words == 4


def test_the_engine_that_must_see_nothing_would_have_noted_it(
    good: dict[str, bytes], tmp_path: Path, no_engine: list[Path]
) -> None:
    folder = write(tmp_path / "typical", good)
    mend(folder)  # mending by itself breaks nothing
    with pytest.raises(BundleError, match="does not give the expected numbers"):
        check(folder, "ort")
    assert no_engine == [folder / "model.fp32.onnx"]


def test_only_a_signature_tells_a_changed_weight_whose_hash_was_made_right(
    good: dict[str, bytes], tmp_path: Path
) -> None:
    folder = write(tmp_path / "typical", good)
    private, public = tmp_path / "maker.key", tmp_path / "maker.pub"
    private.write_text("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")  # RFC 8032, 7.1, test 2
    public.write_text("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    sign_bundle(folder, private)
    Bundle.open(folder, required_key=public)
    model = load_from_string(good["model.fp32.onnx"])
    bias = initialiser(model, "c")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, "c"))
    (folder / "model.fp32.onnx").write_bytes(model.SerializeToString())
    mend(folder)
    assert Bundle.open(folder).manifest.name == "typical"  # another bundle, as good as the first
    with pytest.raises(BundleError, match=r"typical: manifest\.sig by key \w+\.\. does not sign this manifest\.json"):
        Bundle.open(folder, required_key=public)


def test_a_listed_name_cannot_reach_what_lies_outside(good: dict[str, bytes], tmp_path: Path) -> None:
    folder = write(tmp_path / "typical", good)
    outside = write(tmp_path / "other", good)
    edit_manifest(folder, lambda manifest: manifest["files"].update({"../other/W.data": manifest["files"]["W.data"]}))
    assert (outside / "W.data").is_file()
    with pytest.raises(BundleError, match=r"manifest lists the file '\.\./other/W\.data'; expected a plain name"):
        Bundle.open(folder)
