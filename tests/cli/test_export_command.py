"""`edgelip export` on the debug recipe, as a user runs it: whole, again, killed, changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEBUG = ROOT / "tests" / "recipes" / "debug.toml"
VARIANTS = ("dense", "phm4-int8", "pruned")


def edgelip(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgelip", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def weights(folder: Path) -> dict[str, str]:
    return {name: json.loads((folder / name / "manifest.json").read_text())["weights_sha256"] for name in VARIANTS}


def visible_files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if ".cache" not in path.parts and path.is_file()
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "dist"
    done = edgelip("export", DEBUG, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "dense" in done.stdout
    assert "phm4-int8" in done.stdout
    return folder


def test_an_export_leaves_bundles_and_a_table(unbroken: Path) -> None:
    bundle = {"manifest.json", "expected.npz", "MODEL_CARD.md", "accuracy.json"}
    for name in VARIANTS:
        assert bundle < {path.name for path in (unbroken / name).iterdir()}
    ledger = json.loads((unbroken / "tradeoff.json").read_text())
    rows = {row["variant"]: row for row in ledger["rows"]}
    assert list(rows) == ["dense", "dense-fp16", "phm4-int8", "pruned"]
    assert rows["dense-fp16"]["method"] == "dense fp16"
    assert rows["dense-fp16"]["file_bytes"] < 0.6 * rows["dense"]["file_bytes"]
    assert len(ledger["header"]["test_set"]) == 64
    assert ledger["header"]["measured_at"].endswith("+00:00")
    assert all(row["num_clips"] == 24 and row["top1_pct"] is not None for row in rows.values())
    assert rows["phm4-int8"]["int8_coverage_pct"] > 95
    assert rows["phm4-int8"]["file_bytes"] < rows["dense"]["file_bytes"] / 4
    assert rows["pruned"]["macs"] < rows["dense"]["macs"] / 2
    tables = {"tradeoff.md", "tradeoff.csv", "tradeoff.png", "measurements.json", "parity.md", "parity.json"}
    assert tables <= visible_files(unbroken)


def test_every_file_that_an_engine_here_takes_is_held_against_torch(unbroken: Path) -> None:
    parity = json.loads((unbroken / "parity.json").read_text())
    ran = {(row["variant"], row["engine"], row["precision"]) for row in parity["rows"]}
    engines = {"ort", "openvino"}
    floats = {(name, engine, each) for name in ("dense", "pruned") for engine in engines for each in ("fp32", "fp16")}
    assert ran == floats | {("phm4-int8", engine, "int8") for engine in engines}
    assert all(row["num_clips"] == 24 and row["max_difference"] <= row["limit"] for row in parity["rows"])
    assert all(row["num_same_words"] == 24 for row in parity["rows"] if row["precision"] == "fp32")
    assert {"tensorrt", "tensorrt-rtx", "ort-cuda"} <= set(parity["not_run"])


def test_builds_lie_in_the_bundles_and_run_there(unbroken: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "dist"
    shutil.copytree(unbroken, folder, copy_function=shutil.copy2)
    before = set(cached_steps(folder))
    sections = (
        '[{engine="openvino"},{engine="tensorrt-rtx",options={sm="86"}},{engine="tensorrt-rtx",options={sm="89"}}]'
    )
    done = edgelip("export", DEBUG, "--out", folder, "--set", f"build={sections}")
    assert done.returncode == 0, done.stderr
    assert {name.rpartition("-")[0] for name in set(cached_steps(folder)) - before} == {"engine"}
    built = {str(path.parent.relative_to(folder)) for path in folder.glob("*/engines/*/*/artefact.json")}
    keys = {path.split("/")[2] for path in built}
    assert {key.partition("-")[0] for key in keys if "rtx" in key} == {"sm86", "sm89"}
    files = {"dense": {"model.fp32", "model.fp16"}, "pruned": {"model.fp32", "model.fp16"}}
    for name, stems in files.items():
        assert {path for path in built if path.startswith(f"{name}/")} == {
            f"{name}/engines/{key}/{stem}" for key in keys for stem in stems
        }
    int8 = {path.rpartition("/")[2] for path in built if path.startswith("phm4-int8/")}
    assert int8 == {"model.int8-u8-dense", "model.int8-s8-dense"}
    rows = json.loads((folder / "parity.json").read_text())["rows"]
    assert all("built for openvino" in row["model"] for row in rows if row["engine"] == "openvino")
    assert "Nothing to do" in edgelip("export", DEBUG, "--out", folder, "--set", f"build={sections}").stderr


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ('[{engine="ort-cuda"}]', "build.engine 'ort-cuda' runs ONNX files as they are; there is nothing to build."),
        ('[{engine="onnx"}]', "There is no engine 'onnx'. Known: ort, "),
        ('[{engine="openvino",options={sm="86"}}]', "Engine 'openvino' has no option 'sm'. It has hint, precision."),
        ('[{engin="openvino"}]', "unknown key 'engin' in [build.0]. Did you mean 'engine'?"),
    ],
)
def test_a_build_that_cannot_be_is_said_before_anything_is_made(tmp_path: Path, sections: str, message: str) -> None:
    done = edgelip("export", DEBUG, "--out", tmp_path / "dist", "--set", f"build={sections}")
    assert done.returncode == 2
    assert message in done.stderr
    assert not list((tmp_path / "dist").rglob("clips.npy"))


def test_a_signed_export_is_refused_once_it_changes(unbroken: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "dist"
    shutil.copytree(unbroken, folder, copy_function=shutil.copy2)
    (tmp_path / "maker.key").write_text("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")  # RFC 8032
    (tmp_path / "maker.pub").write_text("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    done = edgelip("export", DEBUG, "--out", folder, "--sign", tmp_path / "maker.key")
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stderr

    def check(name: str) -> subprocess.CompletedProcess[str]:
        command = ["check", str(folder / name), "--require-signature", str(tmp_path / "maker.pub")]
        return subprocess.run(
            [sys.executable, "-m", "edgelip.runtime", *command], capture_output=True, text=True, check=False
        )

    assert all(check(name).returncode == 0 for name in VARIANTS)
    with (folder / "dense" / "manifest.json").open("a") as file:
        file.write(" ")
    refused = check("dense")
    assert refused.returncode == 2
    assert "does not sign this manifest.json; one of them has changed" in refused.stderr


def test_a_bundle_checks_itself_through_the_runtime(unbroken: Path) -> None:
    for name in VARIANTS:
        command = [sys.executable, "-m", "edgelip.runtime", "check", str(unbroken / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"OK {name}:")


def test_a_second_export_does_nothing_and_says_so(unbroken: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file() and path.name != "lock"}
    done = edgelip("export", DEBUG, "--out", unbroken)
    assert done.returncode == 0
    assert "Nothing to do" in done.stderr
    assert "dense" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_dry_run_says_what_is_cached(unbroken: Path, tmp_path: Path) -> None:
    assert "to make" not in edgelip("export", DEBUG, "--out", unbroken, "--dry-run").stdout
    fresh = edgelip("export", DEBUG, "--out", tmp_path / "new", "--dry-run")
    assert "cached" not in fresh.stdout
    assert not (tmp_path / "new").exists()


def cached_steps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / ".cache").iterdir() if path.is_dir()}


def test_a_changed_later_stage_redoes_only_what_follows(unbroken: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "dist"
    shutil.copytree(unbroken, folder, copy_function=shutil.copy2)
    before = cached_steps(folder)
    text = DEBUG.read_text().replace("learning_rate = 1e-4", "learning_rate = 2e-4")
    changed = tmp_path / "changed.toml"
    changed.write_text(text)
    done = edgelip("export", changed, "--out", folder)
    assert done.returncode == 0, done.stderr
    new = sorted(name.rpartition("-")[0] for name in set(cached_steps(folder)) - set(before))
    assert new == ["bundle", "qat", "words"]
    kept, redone = weights(unbroken), weights(folder)
    assert kept["dense"] == redone["dense"]
    assert kept["pruned"] == redone["pruned"]
    assert kept["phm4-int8"] != redone["phm4-int8"]


def kill_when(reached: Callable[[], bool], *arguments: object) -> None:
    """Start edgelip in a session of its own and end it with SIGKILL, children too, once `reached`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgelip", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=ROOT,
    )
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "ended before the point was reached"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_an_export_killed_at_five_points_ends_like_an_unbroken_one(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    cache = folder / ".cache"
    points: tuple[Callable[[], bool], ...] = (
        lambda: any(cache.glob("data-train-*.part")),
        lambda: any(cache.glob("train-*.part/training.ckpt")),
        lambda: any(cache.glob("phm-*.part")),
        lambda: any(cache.glob("bundle-*.part")) and any(cache.glob("qat-*")),
        lambda: (folder / "pruned" / "manifest.json").is_file(),
    )
    for point in points:
        kill_when(point, "export", DEBUG, "--out", folder)
    done = edgelip("export", DEBUG, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(unbroken)
    assert visible_files(folder) == visible_files(unbroken)
    assert sorted(cached_steps(folder)) == sorted(cached_steps(unbroken))
    assert not [path for path in folder.rglob("*") if path.name.endswith((".part", ".partial", ".tmp"))]


def test_an_interrupted_export_says_so_and_goes_on(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    process = subprocess.Popen(
        [sys.executable, "-m", "edgelip", "export", str(DEBUG), "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not any((folder / ".cache").glob("train-*.part")):
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "edgelip: interrupted; the same command goes on from here."
    assert "Traceback" not in said
    assert edgelip("export", DEBUG, "--out", folder).returncode == 0
    assert weights(folder) == weights(unbroken)


def test_two_exports_do_not_share_a_folder(unbroken: Path) -> None:
    import fcntl

    with (unbroken / ".cache" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = edgelip("export", DEBUG, "--out", unbroken)
    assert done.returncode == 2
    assert "Another edgelip is working in" in done.stderr
