from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from tiny_models import compressed, dense_checkpoint

from edgelip.compress.pipeline import model_from_checkpoint
from edgelip.errors import CheckpointError
from edgelip.models import checkpoint as module
from edgelip.models.checkpoint import Checkpoint, OptimiserState, load_checkpoint, save_checkpoint, weights_sha256

DENSE = dense_checkpoint()


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "half": torch.randn(3).to(torch.bfloat16),
        "empty": torch.zeros(0, 4),
        **DENSE.tensors,
    }
    saved = Checkpoint(DENSE.architecture, tensors)
    save_checkpoint(saved, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.architecture == saved.architecture
    assert loaded.sha256 == saved.sha256
    assert {name: (t.dtype, t.shape) for name, t in loaded.tensors.items()} == {
        name: (t.dtype, t.shape) for name, t in tensors.items()
    }
    save_checkpoint(loaded, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_hash_sees_names_shapes_types_and_values_but_not_the_order() -> None:
    a, b = torch.arange(4.0), torch.ones(2)
    hashes = [
        weights_sha256(tensors)
        for tensors in (
            {"a": a, "b": b},
            {"a": a, "c": b},
            {"a": a.reshape(2, 2), "b": b},
            {"a": a, "b": b.double()},
            {"a": a + 1, "b": b},
            {"a": a},
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert weights_sha256({"b": b, "a": a}) == hashes[0]
    assert weights_sha256({"a": a[None].expand(3, 4)}) == weights_sha256({"a": a.repeat(3, 1)})


def write(path: Path, **changes: Any) -> Path:
    """A checkpoint file whose description is changed; None removes a key."""
    header = json.loads(json.dumps(DENSE.architecture.to_json())) | changes
    header = {key: value for key, value in header.items() if value is not None}
    path.write_bytes(save(dict(DENSE.tensors), metadata={"edgelip": json.dumps(header)}))
    return path


def one_line(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def test_a_missing_checkpoint_says_what_writes_one(tmp_path: Path) -> None:
    assert one_line(tmp_path / "x.safetensors").startswith(f"There is no checkpoint {tmp_path}/x.safetensors. `edgelip")


def test_a_newer_schema_is_named(tmp_path: Path) -> None:
    text = one_line(write(tmp_path / "m", schema_version=3, anything_new={"x": 1}))
    assert text.endswith("has checkpoint schema 3; this edgelip reads up to 2. Upgrade edgelip.")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"words": "ABOUT"}, "words: Input should be a list (got 'ABOUT')"),
        ({"words": [1, 2]}, "words.0: Input should be a valid string"),
        ({"words": []}, "words: "),
        ({"backbone": 3}, "backbone: Input should be a valid string (got 3)"),
        ({"backbone": None}, "key 'backbone' is missing"),
        ({"options": [1]}, "options: Input should be a table {key = value}"),
        ({"stages": {"a": 1}}, "stages: Input should be a list."),
        ({"stages": ["phm"]}, "stages.0: Input should be a valid dictionary"),
        ({"stages": [{"stage": "phm", "config": {}}]}, "key 'stages.0.record' is missing"),
        ({"clip": {"frames": 6}}, "clip contract has fields"),
        ({"schema_version": "new"}, "schema_version: Input should be a valid integer"),
        ({"schema_version": None}, "key 'schema_version' is missing"),
        ({"wrods": 1}, "unknown key 'wrods'. Did you mean 'words'?"),
    ],
)  # fmt: skip
def test_descriptions_of_wrong_types_are_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    message = one_line(write(tmp_path / "m", **changes))
    assert f"{tmp_path}/m is not an edgelip checkpoint, or is damaged: " in message
    assert text in message


def torch_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1)}, buffer)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.write_text, (Path("exploded"), "x"))


def safetensors_of(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


BROKEN = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "torch pickle": torch_pickle(),
    "pickle that runs code": pickle.dumps(Bomb()),
    "header beyond the file": struct.pack("<Q", 1 << 40) + b"{}",
    "header larger than allowed": struct.pack("<Q", module.MAX_HEADER_BYTES + 1) + b" " * (module.MAX_HEADER_BYTES + 9),
    "header of largest count": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "header that is no JSON": safetensors_of(b"{" * 50),
    "no metadata": save({"a": torch.ones(2)}),
    "metadata that is no JSON": save({"a": torch.ones(2)}, metadata={"edgelip": "{"}),
    "metadata that is a list": save({"a": torch.ones(2)}, metadata={"edgelip": "[]"}),
    "deep metadata": save({"a": torch.ones(2)}, metadata={"edgelip": "[" * 100_000}),
    "tensor beyond the file": safetensors_of(
        b'{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}', b"\0" * 8
    ),
    "overlapping tensors": safetensors_of(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b"\0" * 8,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_and_hostile_files_are_refused_in_one_line(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").write_bytes(BROKEN[case])
    assert "edgelip checkpoint" in one_line(tmp_path / "m")
    assert not (tmp_path / "exploded").exists()


def test_a_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(BROKEN["header of largest count"])
    assert f"it announces a header of {(1 << 64) - 1} bytes; a file of 10 bytes has at most 10" in one_line(
        tmp_path / "m"
    )


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "m").open("wb") as file:
        file.truncate(module.MAX_BYTES + 1)  # sparse
    assert f"it has {module.MAX_BYTES + 1} bytes; a checkpoint has at most {module.MAX_BYTES}" in one_line(
        tmp_path / "m"
    )


@given(cut=st.integers(0, 3000))
def test_every_truncation_is_refused(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "m")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - 1 - cut * len(whole) // 3001])
        one_line(path)


def refusal(**changes: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        model_from_checkpoint(Checkpoint(replace(DENSE.architecture, **changes), DENSE.tensors))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def entry(stage: str, record: dict[str, Any], **config: Any) -> tuple[dict[str, Any]]:
    return ({"stage": stage, "config": {"stage": stage, **config}, "record": record},)


def test_a_description_that_cannot_be_built_is_refused() -> None:
    cannot = "The checkpoint describes a model that cannot be built: "
    assert refusal(backbone="smal") == f"{cannot}There is no backbone 'smal'. Did you mean 'small'?"
    assert "unknown key 'a'" in refusal(options={"a": 1})
    assert "There is no compression stage 'x'" in refusal(stages=entry("x", {}))
    assert refusal(stages=entry("prune", {})) == f"{cannot}'widths'"
    assert cannot in refusal(stages=entry("prune", {"widths": {"nowhere": [1, 1]}}))
    assert cannot in refusal(stages=entry("prune", {"widths": {"head": 3}}))
    assert "from [6, 32] to [1000000000000, 32] channels is no pruning" in refusal(
        stages=entry("prune", {"widths": {"head": [10**12, 32]}})
    )
    assert cannot in refusal(stages=entry("phm", {"n": 0, "layers": ["head"]}))
    assert cannot in refusal(stages=entry("phm", {"n": 4, "layers": ["head"]}))
    assert cannot in refusal(stages=entry("phm", {"n": "x", "layers": 3}))


def test_weights_of_another_model_are_refused() -> None:
    assert "The weights do not fit the architecture of the checkpoint: " in refusal(words=("A", "B"))
    half = Checkpoint(DENSE.architecture, dict(list(DENSE.tensors.items())[:5]))
    with pytest.raises(CheckpointError, match="Missing key"):
        model_from_checkpoint(half)


def test_loading_changes_no_tensor_of_the_checkpoint() -> None:
    checkpoint = compressed("pruned-phm-int8")
    before = checkpoint.sha256
    model = model_from_checkpoint(checkpoint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert checkpoint.sha256 == before


SETTINGS = {"lr": 3e-4, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
NAMES = ("head.bias", "head.weight")


def moments(scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        name: scale * (1.0 + torch.arange(DENSE.tensors[name].numel())).view_as(DENSE.tensors[name]) for name in NAMES
    }


def optimiser(**changes: Any) -> OptimiserState:
    return replace(OptimiserState(7, moments(-0.5), moments(2.0), SETTINGS), **changes)


def test_an_optimiser_comes_back_bit_by_bit_beside_the_weights(tmp_path: Path) -> None:
    saved = Checkpoint(DENSE.architecture, DENSE.tensors, optimiser())
    save_checkpoint(saved, tmp_path / "a")
    loaded = load_checkpoint(tmp_path / "a")
    assert loaded.architecture == DENSE.architecture
    assert loaded.tensors.keys() == DENSE.tensors.keys()
    assert loaded.sha256 == DENSE.sha256
    assert loaded.optimiser is not None
    assert (loaded.optimiser.step, loaded.optimiser.settings) == (7, SETTINGS)
    for kind in ("first_moments", "second_moments"):
        got, expected = getattr(loaded.optimiser, kind), getattr(optimiser(), kind)
        assert weights_sha256(got) == weights_sha256(expected)
    assert loaded.optimiser.sha256 == optimiser().sha256
    save_checkpoint(loaded, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_checkpoint_without_optimiser_is_the_file_it_was(tmp_path: Path) -> None:
    save_checkpoint(DENSE, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == save(
        dict(DENSE.tensors), metadata={"edgelip": json.dumps(DENSE.architecture.to_json(), sort_keys=True)}
    )
    assert DENSE.architecture.to_json()["schema_version"] == 1
    assert load_checkpoint(tmp_path / "a").optimiser is None


def test_the_hash_of_an_optimiser_sees_step_settings_and_both_moments() -> None:
    swapped = optimiser(first_moments=moments(2.0), second_moments=moments(1.0))
    hashes = [
        state.sha256
        for state in (
            optimiser(),
            optimiser(step=8),
            optimiser(settings={**SETTINGS, "lr": 1e-3}),
            optimiser(first_moments=moments(1.0)),
            optimiser(second_moments=moments(1.0)),
            swapped,
        )
    ]
    assert len(set(hashes)) == 6


def refused(**changes: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(DENSE.architecture, DENSE.tensors, optimiser(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(scale: float, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**moments(scale), name: tensor}


def test_an_optimiser_that_does_not_fit_is_refused() -> None:
    bias = torch.zeros(6)
    assert refused(first_moments=changed(1, "head.x", bias)) == (
        "the optimiser has one moment of 'head.x'; expected exp_avg and exp_avg_sq of each parameter."
    )
    both = {"first_moments": changed(1, "head.x", bias), "second_moments": changed(1, "head.x", bias)}
    assert refused(**both) == "the optimiser has moments of 'head.x', which is no weight of the checkpoint."
    both = {
        "first_moments": changed(1, "head.bias", bias[:5]),
        "second_moments": changed(1, "head.bias", bias[:5]),
    }
    assert refused(**both) == "the optimiser's moments of 'head.bias' are float32 (5,); the weight is float32 (6,)."
    name = next(name for name in DENSE.tensors if name.endswith("num_batches_tracked"))
    both = {kind: changed(1, name, torch.tensor(0.0)) for kind in ("first_moments", "second_moments")}
    assert refused(**both).endswith("are float32 (); the weight is int64 ().")


def test_moments_out_of_range_are_refused() -> None:
    finite = "has numbers out of range; expected finite numbers"
    nan, minus = torch.full((6,), float("nan")), -torch.ones(6)
    assert refused(first_moments=changed(1, "head.bias", nan)) == f"the optimiser's exp_avg of 'head.bias' {finite}."
    text = f"the optimiser's exp_avg_sq of 'head.bias' {finite} of at least 0, being means of squares."
    assert refused(second_moments=changed(1, "head.bias", minus)) == text
    assert refused(second_moments=changed(1, "head.bias", nan)) == text
    assert refused(first_moments=changed(1, "head.bias", minus.double())) == (
        "the optimiser's exp_avg of 'head.bias' is torch.float64; expected torch.float32."
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"step": -1}, "optimiser: step: Input should be greater than or equal to 0 (got -1)."),
        ({"step": 2**24 + 1}, "optimiser: step: Input should be less than or equal to 16777216"),
        (
            {"settings": {**SETTINGS, "momentum": 0.9}},
            "optimiser: unknown key 'momentum' in [settings]. Known: lr, weigh",
        ),
        ({"settings": {"lr": 1e-3}}, "optimiser: key 'settings.weight_decay' is missing"),
        ({"settings": {**SETTINGS, "beta2": 1.0}}, "optimiser: settings.beta2: Input should be less than 1 (got 1.0)."),
        (
            {"settings": {**SETTINGS, "eps": -1e-8}},
            "optimiser: settings.eps: Input should be greater than or equal to 0",
        ),
        ({"settings": {**SETTINGS, "lr": float("nan")}}, "optimiser: settings.lr: Input should be "),
    ],
)
def test_steps_and_settings_out_of_range_are_refused(changes: dict[str, Any], text: str) -> None:
    assert refused(**changes).startswith(text)


def test_a_weight_with_a_name_of_the_optimiser_is_refused() -> None:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(DENSE.architecture, {**DENSE.tensors, "optimiser.exp_avg.head.bias": torch.zeros(6)})
    assert str(caught.value) == (
        "the weight 'optimiser.exp_avg.head.bias' bears a name kept for optimiser state; rename its module."
    )


def write_optimiser(path: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> Path:
    """A file with optimiser state whose tensors and description are changed; None removes either."""
    header = {"schema_version": 2, "optimiser": optimiser().to_json(), **changes}
    header = {k: v for k, v in (DENSE.architecture.to_json() | header).items() if v is not None}
    stored = {**DENSE.tensors, **optimiser().tensors(), **tensors}
    stored = {name: tensor for name, tensor in stored.items() if tensor is not None}
    path.write_bytes(save(stored, metadata={"edgelip": json.dumps(header)}))
    return path


@pytest.mark.parametrize(
    ("tensors", "changes", "text"),
    [
        ({"optimiser.exp_avg_sq.head.bias": None}, {}, "the optimiser has one moment of 'head.bias'; expected"),
        ({"head.bias": None}, {}, "the optimiser has moments of 'head.bias', which is no weight of the checkpoint."),
        ({"optimiser.exp_avg.head.bias": torch.zeros(2)}, {}, "moments of 'head.bias' are float32 (2,); the weight is"),
        ({"optimiser.exp_avg.head.bias": torch.zeros(6).half()}, {}, "exp_avg of 'head.bias' is torch.float16"),
        ({"optimiser.exp_avg_sq.head.bias": -torch.ones(6)}, {}, "exp_avg_sq of 'head.bias' has numbers out of range"),
        ({"optimiser.max.head.bias": torch.ones(6)}, {}, "the weight 'optimiser.max.head.bias' bears a name kept for"),
        ({}, {"optimiser": None}, "key 'optimiser' is missing; it has no default."),
        ({}, {"optimiser": {"step": 1}}, "key 'optimiser.settings' is missing; it has no default."),
        ({}, {"optimiser": 3}, "optimiser: Input should be a valid dictionary"),
        ({}, {"schema_version": 1}, "unknown key 'optimiser'. Did you mean 'optio"),
        (
            {},
            {"schema_version": 1, "optimiser": None},
            "the weight 'optimiser.exp_avg.head.bias' bears a name kept for",
        ),
    ],
)
def test_optimiser_files_of_wrong_form_are_refused(
    tmp_path: Path, tensors: dict[str, Any], changes: dict[str, Any], text: str
) -> None:
    message = one_line(write_optimiser(tmp_path / "m", tensors, **changes))
    assert f"{tmp_path}/m is not an edgelip checkpoint, or is damaged: " in message
    assert text in message


def test_the_file_that_the_refusals_start_from_loads(tmp_path: Path) -> None:
    assert load_checkpoint(write_optimiser(tmp_path / "m", {})).optimiser is not None
