"""Files that are hostile, damaged or something else: each is refused in a line, and nothing in them runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import write, write_lightning
from safetensors.torch import save_file

from edgelip.errors import CheckpointError
from edgelip.models.published import vetting
from edgelip.models.published.container import read_container

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3)}


class Bomb:
    """Unpickled by an ordinary reader, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class OpenBomb(Bomb):
    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def save_new(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_protocol_4(content: Any, path: Path) -> None:
    torch.save(content, path, pickle_protocol=4)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_plain(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def save_plain_2(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("bomb", [Bomb, OpenBomb])
@pytest.mark.parametrize("save", [save_new, save_protocol_4, save_legacy, save_plain, save_plain_2])
def test_code_in_a_pickle_is_refused_and_not_run(
    save: Callable[[Any, Path], None], bomb: type[Bomb], tmp_path: Path
) -> None:
    proof, path = tmp_path / "proof", tmp_path / "bomb.pth"
    save({"state_dict": WEIGHTS, "hyper_parameters": bomb(proof)}, path)
    with pytest.raises(CheckpointError, match=r"asks to run .*(system|open)") as caught:
        read_container(path)
    assert not proof.exists()
    assert "weights need no code, so nothing of it was executed" in str(caught.value)
    assert 'torch.save({"state_dict": model.state_dict()}, "clean.pth")' in str(caught.value)
    assert "\n" not in str(caught.value)
    if save in (save_plain, save_plain_2):  # the trap is a real one
        pickle.loads(path.read_bytes())
        assert proof.exists()


def test_text_pickles_are_not_run_either(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "proof"), protocol=0))
    with pytest.raises(CheckpointError, match="is a text file"):
        read_container(path)
    assert not (tmp_path / "proof").exists()


def test_a_pickled_module_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"asks to run .*torch\.nn\.modules\.linear\.Linear"):
        read_container(tmp_path / "model.pth")


@pytest.mark.parametrize("save", [save_new, save_legacy])
def test_both_forms_of_torch_save_are_read(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    save({"epoch_idx": 3, "model_state_dict": WEIGHTS, "best_prec": 0.5}, tmp_path / "a.pth")
    container = read_container(tmp_path / "a.pth")
    assert torch.equal(container.tensors["a.weight"], WEIGHTS["a.weight"])
    assert (container.epochs, container.best_accuracy_pct, container.name) == (3, 50.0, "a.pth")


def test_bare_weights_and_prefixes_are_read(tmp_path: Path) -> None:
    torch.save({"module.model.a.weight": WEIGHTS["a.weight"]}, tmp_path / "a.pth")
    assert list(read_container(tmp_path / "a.pth").tensors) == ["a.weight"]
    torch.save({"module.a.weight": torch.ones(1), "b": torch.ones(1)}, tmp_path / "b.pth")
    assert list(read_container(tmp_path / "b.pth").tensors) == ["module.a.weight", "b"]


def test_lightning_files_are_read(tmp_path: Path) -> None:
    path = write_lightning(
        tmp_path / "a.ckpt",
        WEIGHTS,
        callbacks={"EMACallback": {"state_dict_ema": {"model.a.weight": torch.ones(2, 3)}}},
        hyper_parameters={"dropout": 0.3, "path": pathlib.PurePosixPath("/x")},
        optimizer_states=[{"state": {}, "param_groups": []}],
    )
    container = read_container(path)
    assert container.epochs == 10
    assert container.settings == {"dropout": 0.3}
    assert container.averaged is not None
    assert torch.equal(container.averaged["a.weight"], torch.ones(2, 3))
    assert container.optimiser == {"state": {}, "param_groups": []}


class Namespace:
    """Stands for a configuration class of another package; state as that package would keep it."""

    def __init__(self) -> None:
        self.content = {"dropout": 0.4}


class Table(dict[str, Any]):
    """Stands for a dict subclass of another package."""


@pytest.mark.parametrize(
    ("module", "kind", "base"),
    [
        ("omegaconf.dictconfig", "DictConfig", Namespace),
        ("omegaconf.nodes", "AnyNode", Namespace),
        ("pytorch_lightning.utilities.parsing", "AttributeDict", Table),
        ("lightning.fabric.utilities.data", "AttributeDict", Table),
    ],
)
def test_configuration_objects_become_inert(
    module: str, kind: str, base: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = type(kind, (base,), {"__module__": module})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    setattr(sys.modules[module], kind, fake)
    made = fake()
    if isinstance(made, dict):
        made["dropout"] = 0.3
    write_lightning(tmp_path / "a.ckpt", WEIGHTS, hyper_parameters=made)
    monkeypatch.setattr(fake, "__setstate__", lambda *_: pytest.fail("the real class was used"), raising=False)
    trusted = set(torch.serialization.get_safe_globals())
    container = read_container(tmp_path / "a.ckpt")
    assert container.settings == ({"dropout": 0.3} if base is Table else {})
    assert list(container.tensors) == ["a.weight"]
    assert set(torch.serialization.get_safe_globals()) == trusted  # no stand-in is left behind


@pytest.mark.parametrize(
    "value", [argparse.Namespace(lr=1), pathlib.Path("/x"), np.float64(0.5), {"deep": [argparse.Namespace(x=1)]}]
)
def test_common_configuration_values_are_passed_over(value: Any, tmp_path: Path) -> None:
    write_lightning(tmp_path / "a.ckpt", WEIGHTS, hyper_parameters=value)
    assert read_container(tmp_path / "a.ckpt").settings == {}


def test_a_best_accuracy_that_is_no_float_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", WEIGHTS, best=np.float64(0.5))
    assert read_container(tmp_path / "a.pth").best_accuracy_pct is None


@pytest.mark.parametrize("name", ["omegaconf.dictconfig.DictConfigs", "omegaconf.omegaconf.OmegaConf", "builtins.eval"])
def test_names_beside_those_listed_are_no_configuration(name: str) -> None:
    assert vetting.CONFIGURATION_NAMES.fullmatch(name) is None


@pytest.mark.parametrize("save", [save_new, save_legacy])
@pytest.mark.parametrize("kept", [0.03, 0.5, 0.99])
def test_a_cut_file_is_named_damaged(save: Callable[[Any, Path], None], kept: float, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save({"model_state_dict": {f"layer{i}.weight": torch.rand(50) for i in range(20)}}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_container(path)


def test_a_compressed_archive_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(50 << 20))
    with pytest.raises(CheckpointError, match=r"would unpack to 52428\d+; torch\.save never compresses"):
        read_container(path)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.pth").open("wb") as file:
        file.truncate(vetting.MAX_BYTES + 1)  # sparse: takes no space
    with pytest.raises(CheckpointError, match=r"has 4294967297 bytes; a checkpoint to import has at most 4294967296"):
        read_container(tmp_path / "a.pth")


def test_a_view_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1).expand(1 << 20, 1 << 20)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"claims 4398046511104 bytes of weights"):
        read_container(tmp_path / "a.pth")


def text(path: Path) -> None:
    path.write_text("ABOUT\nABSOLUTELY\n")


def empty(path: Path) -> None:
    path.touch()


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def onnx_file(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    path.write_bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/constants.pkl", b"\x80\x02).")


def packed(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(100))


def safetensors_file(path: Path) -> None:
    save_file(WEIGHTS, path)


def our_checkpoint(path: Path) -> None:
    save_file(WEIGHTS, path, metadata={"edgelip": "{}"})


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def a_list(path: Path) -> None:
    torch.save([torch.ones(1)], path)


def no_weights(path: Path) -> None:
    torch.save({"epoch": 1, "weights": {}}, path)


def empty_weights(path: Path) -> None:
    torch.save({"model_state_dict": {}}, path)


def a_number_for_a_tensor(path: Path) -> None:
    torch.save({"model_state_dict": {"a": 3}}, path)


def a_long_name(path: Path) -> None:
    torch.save({"model_state_dict": {"a" * 201: torch.ones(1)}}, path)


def sparse(path: Path) -> None:
    torch.save({"model_state_dict": {"a": torch.eye(2).to_sparse()}}, path)


def quantised(path: Path) -> None:
    torch.save({"model_state_dict": {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}}, path)


def meta(path: Path) -> None:
    torch.save({"model_state_dict": {"a": torch.ones(2, device="meta")}}, path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "is a folder; expected a checkpoint file"),
        (lambda path: None, "There is no file"),
        (text, "is a text file, not a checkpoint that torch.save wrote"),
        (empty, "is empty; expected a checkpoint that torch.save wrote"),
        (noise, "is no checkpoint: not what torch.save wrote"),
        (onnx_file, "is an ONNX file, not a checkpoint"),
        (zip_file, "is a zip archive without data.pkl"),
        (torchscript, "is a TorchScript program; expected a checkpoint with a state_dict"),
        (packed, "is a packed archive; unpack it first"),
        (safetensors_file, "is a safetensors file of another program"),
        (our_checkpoint, "is an edgelip checkpoint already"),
        (plain_pickle, "is a plain pickle; expected what torch.save wrote"),
        (a_list, "holds a list; expected a dict with the weights by name"),
        (no_weights, "has the keys epoch, weights; expected model_state_dict, state_dict, or tensors by name"),
        (empty_weights, "has no weights where its layout keeps them"),
        (a_number_for_a_tensor, "'a' is a int; expected a tensor by its name"),
        (a_long_name, "has a tensor called 'aaaa"),
        (sparse, "holds sparse tensors; expected plain dense ones"),
        (quantised, "holds quantised tensors; expected plain dense ones"),
        (meta, "holds meta (without values) tensors; expected plain dense ones"),
    ],
)
def test_what_is_no_checkpoint_is_named(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        read_container(tmp_path / "a.pth")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [save_new, save_legacy])
def test_random_changes_to_a_file_end_in_our_error_or_in_weights(
    save: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    save({"model_state_dict": {f"l{i}": torch.rand(3) for i in range(4)}}, path)
    original = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(original)
        for position in generator.integers(0, len(content), size=3):
            content[position] = generator.integers(0, 256)
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):
            read_container(path)


def test_reading_needs_none_of_the_packages_that_a_file_names() -> None:
    code = "import sys, edgelip.models.published.container; sys.exit('omegaconf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
