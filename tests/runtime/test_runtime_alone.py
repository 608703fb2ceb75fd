"""The folder edgelip/runtime by itself, as it lies on a device."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import WORDS, expected_logits, make_clips, write_bundle

import edgelip.runtime

RUNTIME = Path(edgelip.runtime.__file__).parent
SOURCES = sorted(RUNTIME.rglob("*.py"))

# Imports nothing but the standard library, numpy, itself and what sys.argv[1] allows.
_GUARD = """
import builtins, runpy, sys
allowed, blocked = set(sys.argv[1].split(",")) - {""}, set(sys.argv[2].split(",")) - {""}
class Guard:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in blocked or not (root in sys.stdlib_module_names or root in allowed):
            raise ModuleNotFoundError("No module named %r" % root, name=root)
        if root == "edgelip" and name != "edgelip" and not (name + ".").startswith("edgelip.runtime."):
            raise ModuleNotFoundError("No module named %r" % name, name=name)
sys.meta_path.insert(0, Guard())
sys.argv = ["edgelip.runtime"] + sys.argv[3:]
runpy.run_module("edgelip.runtime", run_name="__main__")
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with edgelip/runtime and nothing else: edgelip is a namespace package there."""
    root = tmp_path_factory.mktemp("device")
    shutil.copytree(RUNTIME, root / "edgelip" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def run(
    device: Path, *arguments: object, allowed: str = "numpy,edgelip,onnxruntime", blocked: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _GUARD, allowed, blocked, *map(str, arguments)],
        cwd=device,
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_needs_numpy_and_one_engine_only(device: Path, bundle: Path) -> None:
    done = run(device, "check", bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OK tiny: 3 files, 8 clips, fp32 on ort, max |difference| ")


@pytest.mark.parametrize(("engine", "package"), [("ort", "onnxruntime"), ("openvino", "openvino")])
def test_missing_engine_is_exit_4(device: Path, bundle: Path, engine: str, package: str) -> None:
    done = run(device, "check", bundle, "--engine", engine, blocked=package)
    assert done.returncode == 4
    assert done.stderr == (
        f"edgelip: {package} is not installed; the engine '{engine}' needs it. pip install {package}\n"
    )
    assert done.stdout == ""


def test_missing_numpy_is_exit_4(device: Path, bundle: Path) -> None:
    done = run(device, "check", bundle, blocked="numpy")
    assert (done.returncode, done.stderr) == (
        4,
        "edgelip: numpy is not installed; edgelip.runtime needs it. pip install numpy\n",
    )


def test_help_works_without_numpy(device: Path) -> None:
    done = run(device, "--help", blocked="numpy,onnxruntime")
    assert done.returncode == 0
    assert "check" in done.stdout


def test_predict_prints_three_words_a_clip(device: Path, bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "clips.npz", frames=make_clips(20))
    done = run(device, "predict", bundle, tmp_path / "clips.npz")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(lines) == 20
    assert lines[0].startswith("0  ABOUT ")
    assert lines[0].count("%") == 3


def test_predict_takes_one_clip_and_answers_in_json(device: Path, bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", make_clips(5)[4])
    done = run(device, "predict", bundle, tmp_path / "clip.npy", "--json", "--top", 1)
    (clip,) = json.loads(done.stdout)["clips"]
    assert clip["word"] == WORDS[expected_logits(make_clips(5))[4].argmax()]
    assert len(clip["ranking"]) == 1


def test_predict_writes_logits_of_many_clips(device: Path, bundle: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "clips.npz", data=make_clips(50), labels=np.zeros(50, np.int64))
    done = run(device, "predict", bundle, tmp_path / "clips.npz", "--logits", tmp_path / "out.npy", "--batch", 7)
    assert done.returncode == 0
    assert done.stdout == f"50 clips of logits in {tmp_path / 'out.npy'}\n"
    assert "50/50 clips" in done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected_logits(make_clips(50)), atol=1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clips.npz", "out.npy"]


def test_bench_writes_every_sample(device: Path, bundle: Path, tmp_path: Path) -> None:
    done = run(device, "bench", bundle, "--seconds", 0.02, "--warm-up-cap", 1, "-o", tmp_path / "run.json")
    assert done.returncode == 0
    assert "latency_p90_ms" in done.stdout
    entry = json.loads((tmp_path / "run.json").read_text())["samples"]
    with np.load(tmp_path / "run.npz") as samples:
        assert len(samples["latency"]) == entry["counts"]["latency"] >= 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.npz"]


def test_strict_bench_is_exit_6_when_disturbed(device: Path, bundle: Path) -> None:
    done = run(device, "bench", bundle, "--seconds", 0, "--min-count", 5, "--strict")
    assert done.returncode == 6
    assert "the measurement of tiny is TOO-FEW: 5 samples; the percentile needs 64" in done.stderr


MISTAKES = {
    "no bundle": (["check", "absent"], "absent does not exist; expected a bundle"),
    "no clips": (["predict", "BUNDLE", "absent.npz"], "absent.npz: No such file or directory"),
    "clips of another type": (["predict", "BUNDLE", "float.npy"], "clips are float32 (2, 4, 8, 8); expected uint8"),
    "clips of another size": (["predict", "BUNDLE", "small.npy"], "clips have shape (2, 4, 5, 5); expected uint8"),
    "one number": (["predict", "BUNDLE", "number.npy"], "has shape (); expected uint8 clips (B, T, H, W)"),
    "not an array": (["predict", "BUNDLE", "text.npz"], "text.npz: is neither .npy nor .npz"),
    "truncated clips": (["predict", "BUNDLE", "cut.npy"], "cut.npy: is cut short"),
    "unknown engine": (["check", "BUNDLE", "--engine", "tflite"], "There is no engine 'tflite'. Known: ort, ort-cuda,"),
    "unknown precision": (["check", "BUNDLE", "--precision", "int4"], "tiny has no int4 model for engine 'ort'."),
    "option without a value": (
        ["check", "BUNDLE", "--option", "hint"],
        "--option hint is not NAME=VALUE, as in --option hint=throughput.",
    ),
    "unknown option": (["check", "BUNDLE", "--option", "hint=latency"], "Engine 'ort' has no option 'hint'."),
    "no threads": (["check", "BUNDLE", "--threads", "0"], "expected 1 or more"),
    "no verb": ([], "required"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_exit_2_with_one_line_and_no_traceback(
    device: Path, bundle: Path, tmp_path: Path, case: str
) -> None:
    arguments, message = MISTAKES[case]
    np.save(tmp_path / "float.npy", make_clips(2).astype(np.float32))
    np.save(tmp_path / "small.npy", make_clips(2)[:, :, :5, :5].copy())
    np.save(tmp_path / "number.npy", np.uint8(1))
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "cut.npy", make_clips(2))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    places = {"BUNDLE": str(bundle), **{file.name: str(file) for file in tmp_path.iterdir()}}
    done = run(device, *(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if "usage:" not in done.stderr:
        assert len(done.stderr.splitlines()) == 1


def test_output_that_cannot_be_written_is_exit_4(device: Path, bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "clips.npz", frames=make_clips(2))
    out = tmp_path / "absent" / "out.npy"
    done = run(device, "predict", bundle, tmp_path / "clips.npz", "--logits", out)
    assert done.returncode == 4
    assert done.stderr == f"edgelip: {out} cannot be written (No such file or directory). Choose another place.\n"


# Names that Python 3.8 does not have and its parser does not miss.
_NEWER = {"removeprefix", "removesuffix", "is_relative_to", "readlink", "cache", "pairwise", "bit_count", "file_digest"}
_BUILTIN_GENERICS = {"list", "dict", "tuple", "set", "frozenset", "type"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(RUNTIME)))
def test_source_is_python_3_8(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body) or not any(
        isinstance(node, (ast.arg, ast.AnnAssign)) for node in ast.walk(tree)
    )
    annotations = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        annotations |= {id(inner) for part in parts if part is not None for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in _NEWER
        if isinstance(node, ast.Call):
            assert "strict" not in {keyword.arg for keyword in node.keywords}
            assert not {"slots", "kw_only"} & {keyword.arg for keyword in node.keywords}
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and id(node) not in annotations:
            assert node.value.id not in _BUILTIN_GENERICS


def test_runtime_has_sources() -> None:
    assert len(SOURCES) > 10


def test_build_makes_what_check_then_runs(device: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    done = run(device, "build", bundle)
    assert done.returncode == 0
    assert re.fullmatch(r"\S+/optimised\.onnx for \S+-ort\S+, 1 files, [\d,]+ bytes\n", done.stdout)
    assert done.stderr == "build: optimising model.fp32.onnx\n"
    done = run(device, "check", bundle, "--json")
    assert json.loads(done.stdout)[0]["device_key"] in str(next((bundle / "engines").iterdir()))


def test_build_answers_in_json(device: Path, tmp_path: Path) -> None:
    done = run(device, "build", write_bundle(tmp_path / "tiny"), "--json", "--precision", "fp32")
    (built,) = json.loads(done.stdout)
    assert (built["engine"], built["main"], list(built["files"])) == ("ort", "optimised.onnx", ["optimised.onnx"])


def test_a_device_key_with_a_build_for_nobody_here_is_no_failure(device: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    run(device, "build", bundle)
    (built,) = (bundle / "engines").iterdir()
    built.rename(built.with_name("arm64-neon-ort1.31"))
    assert run(device, "check", bundle).returncode == 0
