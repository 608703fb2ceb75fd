from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelip.bench.ceiling import Ceiling, ceiling_here
from edgelip.bench.kernels import Kernel, Timeline, openvino_timeline, ort_timeline
from edgelip.bench.profile import BETWEEN, LayerWork, Part, layers_of_nodes, parts_of
from edgelip.runtime.errors import MeasurementError

CEILING = Ceiling(threads=1, fp32_gflops=100.0, int8_gops=400.0, memory_gb_s=10.0)
LAYERS = {"frontend.conv": ("1",), "head": ("4",)}
FEED = {"clips": np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A weight built from constants (0), a convolution (1), ReLU, mean, product (4); nodes named as their outputs."""
    rng = np.random.default_rng(0)
    constants = {
        "half": rng.standard_normal((4, 2, 3, 3)).astype(np.float32),
        "two": np.float32(2),
        "w": rng.standard_normal((4, 5)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Mul", ["half", "two"], ["0"], name="0"),
        helper.make_node("Conv", ["clips", "0"], ["1"], name="1"),
        helper.make_node("Relu", ["1"], ["2"], name="2"),
        helper.make_node("ReduceMean", ["2", "axes"], ["3"], name="3", keepdims=0),
        helper.make_node("MatMul", ["3", "w"], ["4"], name="4"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, ["batch", 2, 6, 6])],
        [helper.make_tensor_value_info("4", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_nodes_belong_to_the_layer_before_them_and_weights_to_their_reader(net: Path) -> None:
    found = layers_of_nodes(net, LAYERS)
    assert found == {**dict.fromkeys("0123", "frontend.conv"), "4": "head"}


def test_a_layer_that_is_not_in_the_file_is_refused(net: Path) -> None:
    with pytest.raises(MeasurementError, match=r"net\.onnx makes no value '9', which the manifest calls layer 'head'"):
        layers_of_nodes(net, {**LAYERS, "head": ("9",)})


@pytest.mark.parametrize("timeline_of", [ort_timeline, openvino_timeline])
def test_kernels_name_the_nodes_that_they_compute(net: Path, timeline_of: object) -> None:
    timeline = timeline_of(net, FEED, threads=1, runs=2)  # type: ignore[operator]
    multiplying = [k for k in timeline.kernels if k.kernel.split()[0] in ("Conv", "FusedConv", "Convolution")]
    assert [bool({*kernel.nodes} & {"1", "2"}) for kernel in multiplying] == [True]
    assert not any(kernel.integer for kernel in timeline.kernels)
    assert timeline.run_us > 0


def test_no_run_is_refused(net: Path) -> None:
    with pytest.raises(MeasurementError, match="runs is 0; expected at least one"):
        ort_timeline(net, FEED, threads=1, runs=0)


WORK = [LayerWork("trunk.a", 1_000_000, 1000), LayerWork("trunk.b", 2_000_000, 2000), LayerWork("head", 10, 40)]
TIMELINE = Timeline(
    (
        Kernel("QLinearConv", ("1",), True, 10.0),
        Kernel("Transpose", (), False, 4.0),
        Kernel("Conv", ("2",), False, 50.0),
        Kernel("Sigmoid", ("3",), False, 6.0),
        Kernel("Gemm", ("4",), False, 1.0),
    ),
    run_us=80.0,
)
OF_NODE = {"1": "trunk.a", "2": "trunk.b", "3": "trunk.b", "4": "head"}


def test_times_are_summed_by_layer_and_by_group() -> None:
    layers = {part.name: part for part in parts_of(TIMELINE, OF_NODE, WORK, by_group=False)}
    assert [*layers] == ["trunk.a", "trunk.b", "head", BETWEEN]
    assert (layers["trunk.a"].time_us, layers["trunk.a"].multiplying_us) == (14.0, 10.0)  # and what stands behind it
    assert (layers["trunk.b"].time_us, layers["trunk.b"].multiplying_us) == (56.0, 50.0)
    assert layers[BETWEEN].time_us == pytest.approx(9.0)
    trunk = parts_of(TIMELINE, OF_NODE, WORK, by_group=True)[0]
    assert (trunk.name, trunk.time_us, trunk.macs, trunk.integer_macs) == ("trunk", 70.0, 3_000_000, 1_000_000)
    assert sum(part.time_us for part in layers.values()) == pytest.approx(TIMELINE.run_us)


def part(time_us: float, **fields: float) -> Part:
    """Of a million products in float, with one kernel."""
    base = {
        "multiplying_us": time_us, "num_kernels": 1, "macs": 1_000_000, "integer_macs": 0, "channelwise_macs": 0,
        "moved_bytes": 1000,
    }  # fmt: skip
    return Part("trunk", time_us, **(base | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (part(25.0), "arithmetic: near the ceiling"),  # 2e6 operations at 100 G/s take 20 us
        (part(200.0), "kernels reach 10 % of the ceiling"),
        (part(200.0, multiplying_us=100.0), "50 % of its time in kernels that do not multiply"),
        (part(200.0, integer_macs=500_000), "50 % of its products in float"),
        (part(200.0, channelwise_macs=600_000), "depthwise: a weight serves one channel only"),
        (part(200.0, moved_bytes=1_500_000), "memory: 1 operations a byte, where this machine wants 10"),
        (part(200.0, num_kernels=40), "small kernels: 5 us each"),
        (part(5.0, macs=0), "multiplies nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_limit_is_read_off_the_numbers(measured: Part, words: str) -> None:
    assert measured.limits(CEILING) == words


def test_share_of_the_ceiling_counts_each_type_by_its_own() -> None:
    assert part(100.0).ceiling_pct(CEILING) == pytest.approx(20.0)
    assert part(100.0, integer_macs=1_000_000).ceiling_pct(CEILING) == pytest.approx(5.0)
    assert part(100.0).gops() == pytest.approx(20.0)


def test_ceiling_measures_each_kind_of_work() -> None:
    ceiling = ceiling_here(1, seconds=0.0, sizes=[(32, 16, 16)])
    assert ceiling.threads == 1
    assert min(ceiling.fp32_gflops, ceiling.int8_gops, ceiling.memory_gb_s) > 0
