from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.deploy.layer_costs import LayerCost
from edgelip.deploy.roofline import BASIS, predict, prediction_json, prediction_text
from edgelip.deploy.target import Device, load_device
from edgelip.errors import UsageError

# orin-nano-8: 1.28 TFLOPS in fp32, 20 TOPS in int8, 68 GB/s.
ORIN = load_device("orin-nano-8")
# A convolution of 64 to 128 channels, 3 x 3, on 29 frames of 22 x 22: 29 * 484 * 128 * 576 multiply-adds.
CONV = LayerCost("conv", ("Conv", "Relu"), "fp32", 1_034_846_208, 4 * 73_728, 4 * 29 * 484 * (64 + 128))
# A product of one clip's 512 features with 500 words: 256,000 multiply-adds on 1,024,000 bytes of weights.
GEMM = LayerCost("gemm", ("Gemm",), "fp32", 256_000, 1_026_000, 4 * 1012)
COPY = LayerCost("copy", ("Transpose",), None, 0, 0, 6_800_000)


def test_convolution_is_bound_by_arithmetic_and_has_its_closed_form() -> None:
    (conv,) = predict([CONV], ORIN, model="m").layers
    assert conv.latency_ms == pytest.approx(2 * 29 * 484 * 128 * 576 / 1.28e12 * 1e3)  # 1.617 ms
    assert conv.memory_ms == pytest.approx((294_912 + 10_779_648) / 68e9 * 1e3)  # 0.163 ms
    assert conv.bound == "arithmetic"


def test_product_of_one_clip_is_bound_by_its_weights() -> None:
    (gemm,) = predict([GEMM], ORIN, model="m").layers
    assert gemm.latency_ms == pytest.approx((1_026_000 + 4_048) / 68e9 * 1e3)  # 0.0151 ms
    assert gemm.arithmetic_ms == pytest.approx(512e3 / 1.28e12 * 1e3)
    assert gemm.bound == "memory"


def test_layer_without_arithmetic_takes_the_time_of_its_bytes() -> None:
    (copy,) = predict([COPY], ORIN, model="m").layers
    assert (copy.arithmetic_ms, copy.latency_ms, copy.bound) == (0.0, pytest.approx(0.1), "memory")


def test_layers_follow_one_another_and_the_bound_is_a_share_of_the_time() -> None:
    prediction = predict([CONV, GEMM, COPY], ORIN, model="m")
    conv, gemm, copy = (layer.latency_ms for layer in prediction.layers)
    assert prediction.latency_ms == pytest.approx(conv + gemm + copy)
    assert prediction.memory_bound_pct == pytest.approx(100 * (gemm + copy) / (conv + gemm + copy))
    assert prediction.macs == CONV.macs + GEMM.macs


def test_int8_has_a_ceiling_of_its_own() -> None:
    mixed = [CONV, LayerCost("c8", ("Conv",), "int8", CONV.macs, 0, 0)]
    slow, fast = predict(mixed, ORIN, model="m").layers
    assert slow.arithmetic_ms / fast.arithmetic_ms == pytest.approx(20 / 1.28)


COSTS = st.builds(
    LayerCost,
    name=st.just("l"),
    operators=st.just(("Conv",)),
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    macs=st.integers(1, 10**10),
    weight_bytes=st.integers(0, 10**8),
    activation_bytes=st.integers(1, 10**8),
)


@given(st.lists(COSTS, min_size=1, max_size=6))
def test_prediction_is_no_less_than_either_ceiling_allows_in_whole(costs: list[LayerCost]) -> None:
    prediction = predict(costs, ORIN, model="m")
    moved = sum(cost.weight_bytes + cost.activation_bytes for cost in costs)
    assert prediction.latency_ms >= moved / 68e6 * 0.999999
    assert prediction.latency_ms >= sum(layer.arithmetic_ms for layer in prediction.layers) * 0.999999
    assert 0 <= prediction.memory_bound_pct <= 100.0001


def test_precision_without_a_ceiling_is_refused_with_those_that_have_one() -> None:
    int8 = LayerCost("c", ("Conv",), "int8", 1, 1, 1)
    with pytest.raises(
        UsageError, match=r"^raspberry-pi-4 has no datasheet ceiling for int8, in which m computes; has fp32\.$"
    ):
        predict([CONV, int8], load_device("raspberry-pi-4"), model="m")


def test_device_without_figures_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^x86 has no memory_gbps in its datasheet; nothing can be predicted\. Add it"
    ):
        predict([CONV], load_device("x86"), model="m")


def test_every_value_of_the_json_says_that_it_is_predicted_and_from_where() -> None:
    document = json.loads(prediction_json(predict([CONV, GEMM], ORIN, model="small/model.fp32.onnx")))
    times = [key for each in [document, *document["layers"]] for key in each if key.endswith(("_ms", "_pct", "bound"))]
    assert times
    assert all(key.startswith("predicted_datasheet_") for key in times)
    assert {each["basis"] for each in [document, *document["layers"]]} == {BASIS} == {"predicted, datasheet"}
    assert document["ceilings"] == {"fp32": {"value": 1.28, "source": "cores x 2 x clock", "unverified": False}}
    assert document["memory_gbps"]["source"] == "NVIDIA module datasheet"
    assert document["layers"][0]["operators"] == ["Conv", "Relu"]


def test_text_labels_its_numbers_and_names_the_sources() -> None:
    text = prediction_text(predict([CONV, COPY], ORIN, model="small/model.fp32.onnx"))
    first, header, conv, copy, total, ceilings = text.splitlines()
    assert first == "small/model.fp32.onnx on the GPU of orin-nano-8 (sm87), one clip [predicted, datasheet]"
    assert header.split() == [
        "layer",
        "operators",
        "in",
        "MMAC",
        "weights",
        "KiB",
        "moved",
        "KiB",
        "least",
        "ms",
        "bound",
        "by",
    ]
    assert re.split(r"  +", conv) == [
        "conv",
        "Conv Relu",
        "fp32",
        "1034.85",
        "288.0",
        "10527.0",
        "1.6169",
        "arithmetic",
    ]
    assert re.split(r"  +", copy) == ["copy", "Transpose", "6640.6", "0.1000", "memory"]
    assert total.startswith(
        "at least 1.7169 ms [predicted, datasheet]: 1034.85 MMAC; memory binds 6 % of the time, arith"
    )
    assert ceilings == "ceilings: fp32 1.28 TFLOPS (cores x 2 x clock); memory 68 GB/s (NVIDIA module datasheet)"


def test_unverified_ceiling_is_said_to_be_so() -> None:
    fp8 = LayerCost("c", ("Conv",), "fp8", 10**9, 1, 1)
    text = prediction_text(predict([fp8], load_device("agx-thor"), model="m"))
    assert "fp8 517 TFLOPS (NVIDIA module datasheet, half of the sparse 1035 (recalled), unverified)" in text


def test_nothing_to_compute_takes_no_time() -> None:
    empty: list[LayerCost] = []
    prediction = predict(empty, ORIN, model="m")
    assert (prediction.latency_ms, prediction.memory_bound_pct) == (0, 0.0)


@pytest.mark.parametrize("name", ["orin-nano-8", "agx-thor", "raspberry-pi-5", "h200"])
def test_faster_memory_is_never_slower(name: str) -> None:
    device = load_device(name)
    sheet = device.datasheet
    assert sheet.memory_gbps is not None
    twice = sheet.memory_gbps.model_copy(update={"value": 2 * sheet.memory_gbps.value})
    faster: Device = device.model_copy(update={"datasheet": sheet.model_copy(update={"memory_gbps": twice})})
    layers = [CONV, GEMM, COPY]
    assert predict(layers, faster, model="m").latency_ms < predict(layers, device, model="m").latency_ms
