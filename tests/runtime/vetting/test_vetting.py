from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from hostile_models import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from typical_model import CLIP, NUM_WORDS, edited, initialiser, insert_after_clip, prepend, typical_model

from edgelip.runtime.clip import ClipSpec
from edgelip.runtime.errors import BundleError
from edgelip.runtime.vetting.model import OnnxSummary, vet_file, vet_model

SPEC = ClipSpec(frames=4, roi_px=16, pool=2, crop_px=12)
FILES = {"model.onnx": 9999, "W.data": 64}


def vet(content: bytes, *, num_words: int = NUM_WORDS, clip: ClipSpec = SPEC) -> OnnxSummary:
    return vet_model(content, name="model.onnx", clip=clip, num_words=num_words, files=FILES)


def test_the_typical_model_is_accepted_as_what_it_is(tmp_path: Path) -> None:
    content = typical_model().SerializeToString()
    summary = vet(content)
    assert (summary.ir_version, summary.opset, summary.batch) == (10, 18, None)
    assert summary.input.axes == ("batch", *CLIP)
    assert summary.operators["Conv"] == 2
    # 6 x 4 x 9 weights at 6 x 6 places, 4 x 6 x 9 at 3 x 3, 3 x 4, factors 4 x 2 x 54: plus one for each value made.
    products = 36 * 6 * 36 + 9 * 4 * 54 + 12 + 4 * 54 * 2
    assert products < summary.multiply_adds < products + 4000
    (tmp_path / "model.onnx").write_bytes(content)
    with (tmp_path / "model.onnx").open("rb") as file:
        assert vet_file(file, name="model.onnx", clip=SPEC, num_words=NUM_WORDS, files=FILES) == summary


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("seed", range(8))
def test_a_hostile_model_is_refused_in_one_line(kind: str, seed: int) -> None:
    edit, message = HOSTILE[kind]
    with pytest.raises(BundleError, match=message) as caught:
        vet(edited(lambda model: edit(model, Random(seed))))
    text = str(caught.value)
    assert text.startswith("model.onnx ")
    assert text.endswith("Export the bundle again.")
    assert text.isascii()
    assert "\n" not in text
    assert len(text) < 700


@given(st.integers(0, 10**6), st.integers(1, 255), st.integers(0, 3))
@settings(max_examples=300)
def test_a_changed_byte_never_does_more_than_refuse(position: int, change: int, cut: int) -> None:
    content = bytearray(typical_model().SerializeToString())
    content[position % len(content)] ^= change
    if cut == 0:
        del content[(position * 7) % len(content) :]
    with suppress(BundleError):
        vet(bytes(content))


def test_an_empty_file_and_a_file_without_graph_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with (tmp_path / "model.onnx").open("rb") as file, pytest.raises(BundleError, match=r"model\.onnx is empty"):
        vet_file(file, name="model.onnx", clip=SPEC, num_words=NUM_WORDS, files=FILES)
    with pytest.raises(BundleError, match=r"model\.onnx has no graph\. Export the bundle again"):
        vet(b"")
    with pytest.raises(BundleError, match=r"is not readable as ONNX: it is cut short"):
        vet(typical_model().SerializeToString()[:-1])
    with pytest.raises(BundleError, match=r"has field 99 in a model, which this edgelip does not know"):
        vet(typical_model().SerializeToString() + b"\x98\x06\x01")


def test_two_graphs_are_refused_although_protobuf_would_merge_them() -> None:
    content = typical_model().SerializeToString()
    assert len(onnx.load_from_string(content + content).graph.node) == 2 * len(typical_model().graph.node)
    with pytest.raises(BundleError, match="has ir_version twice in one model"):
        vet(content + content)


def test_a_model_that_gives_another_vocabulary_or_takes_sound_is_refused() -> None:
    content = typical_model().SerializeToString()
    with pytest.raises(
        BundleError, match=r"gives float32 \['batch', 3\]; expected float32 \(batch, 4\) as the manifest"
    ):
        vet(content, num_words=4)
    with pytest.raises(BundleError, match="belongs to a manifest whose clips are audio; expected video"):
        vet(content, clip=ClipSpec(kind="audio"))


def test_what_is_declared_must_be_what_is_computed() -> None:
    def shrink(model: onnx.ModelProto) -> None:
        for name, axes in (("V", (2, 4)), ("c", (2,))):
            initialiser(model, name).CopyFrom(numpy_helper.from_array(np.ones(axes, np.float32), name))

    with pytest.raises(BundleError, match=r"computes float32 \[1, 2\] from 1 clip; expected float32 \[1, 3\]"):
        vet(edited(shrink))


def test_a_static_batch_is_allowed_where_both_ends_have_it() -> None:
    def fix(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = 2

    assert vet(edited(fix)).batch == 2


@pytest.mark.parametrize(
    ("sides", "what"),
    [
        ((8192, 8193), r"node 0, 'MatMul', that makes 268468224 bytes"),  # one value
        ((8000, 8000), r"that makes 256000000 bytes, 1024000000 in use"),  # four that are still read
        ((7000, 7000), r"343\d{9} multiply-adds so far"),  # 7000^3 of one product
    ],
)
def test_a_small_file_cannot_ask_for_gigabytes_or_hours(sides: tuple[int, int], what: str) -> None:
    """Large matrices out of a row and a column of some kilobytes."""
    tall, wide = np.ones((sides[0], 1), np.float32), np.ones((1, sides[1]), np.float32)
    outer = [helper.make_node("MatMul", ["tall", "wide"], [f"o{i}"]) for i in range(4)]
    nodes = [*outer, helper.make_node("Concat", [f"o{i}" for i in range(4)], ["all"], axis=0)]
    if sides == (7000, 7000):
        nodes = [outer[0], helper.make_node("MatMul", ["o0", "o0"], ["all"])]
    content = edited(lambda model: prepend(model, *nodes, constants={"tall": tall, "wide": wide}))
    assert len(content) < 100_000
    with pytest.raises(BundleError, match=what + ".*; the limits for 1 are 268435456, 805306368, 274877906944"):
        vet(content)


def test_many_clips_cannot_ask_for_more_than_many_clips_need() -> None:
    """Each clip makes 132 MB, which is allowed once but not sixteen times."""

    def widen(model: onnx.ModelProto) -> None:
        nodes = [
            helper.make_node("Mul", ["clips", "wide"], ["large"]),
            helper.make_node("ReduceMean", ["large", "one"], ["y"]),
        ]
        insert_after_clip(model, *nodes, constants={"wide": np.ones((1, 230_000, 1, 1, 1), np.float32)})
        model.graph.node[0].input[0] = "clips"

    with pytest.raises(BundleError, match=r"'Mul', that makes 2\d{9} bytes, .*; the limits for 16 are 4294967296, "):
        vet(edited(widen))


def test_external_data_in_a_listed_file_is_allowed() -> None:
    def outside(model: onnx.ModelProto) -> None:
        tensor = initialiser(model, "V")
        onnx.external_data_helper.set_external_data(tensor, "W.data", offset=16, length=48)
        tensor.ClearField("raw_data")

    (tensor,) = [tensor for tensor in vet(edited(outside)).initialisers if tensor.external]
    assert tensor.external is not None
    assert (tensor.external.offset, tensor.external.length, tensor.num_bytes) == (16, 48, 48)


def test_too_many_fields_are_refused() -> None:
    empty_doc_strings = b"\x32\x00" * (1 << 20)
    assert vet(typical_model().SerializeToString() + empty_doc_strings[:2000]).opset == 18
    with pytest.raises(BundleError, match=r"is not readable as ONNX: it has too many fields"):
        vet(typical_model().SerializeToString() + empty_doc_strings)
