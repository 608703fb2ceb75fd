"""`--device`: what a path stands for, what a device refuses, and the folder to carry. Over ssh: tests/deploy/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundles import model_entry, write_bundle

from edgelip.cli.deploy_device import DeployOptions, export_to_device
from edgelip.errors import UsageError
from edgelip.runtime.effort import Effort

PI = "raspberry-pi-5"


def test_a_folder_to_carry_is_written_run_and_read_back_by_one_command(tmp_path: Path) -> None:
    bundle, folder = write_bundle(tmp_path / "tiny"), tmp_path / "carry"
    options = DeployOptions(engine="ort", offline=folder, effort=Effort(seconds=0.02, warm_up_cap_s=0.3))
    text = export_to_device(bundle, device=PI, options=options)
    assert text == (f"Next: copy {folder} to {PI}, run `sh run.sh` in it, bring it back, and give this command again.")
    (folder / "results").mkdir()
    with pytest.raises(UsageError, match=r"results holds no finished result of tiny\. Run run\.sh in "):
        export_to_device(bundle, device=PI, options=options)
    subprocess.run(["sh", folder / "run.sh", sys.executable], check=True, capture_output=True)
    (row,) = json.loads(export_to_device(bundle, device=PI, options=options, as_json=True))
    assert (row["device"], row["bundle"], row["num_equal_words"]) == (PI, "tiny", 8)


def test_json_says_where_the_folder_to_carry_is(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    text = export_to_device(bundle, device=PI, options=DeployOptions(offline=tmp_path / "carry"), as_json=True)
    script = str(tmp_path / "carry" / "run.sh")
    assert json.loads(text) == {"device": PI, "folder": str(tmp_path / "carry"), "script": script}


def test_a_precision_that_the_device_does_not_take_is_refused(tmp_path: Path) -> None:
    entry = model_entry("model.fp32.onnx", precision="fp8", engines=["ort"])
    bundle = write_bundle(tmp_path / "tiny", edit=lambda manifest: manifest.update(models=[entry]))
    with pytest.raises(UsageError, match=r"raspberry-pi-5 takes .*; got fp8\."):
        export_to_device(bundle, device=PI, options=DeployOptions(engine="ort", offline=tmp_path / "carry"))


def test_paths_that_stand_for_no_bundle_are_refused(tmp_path: Path) -> None:
    options = DeployOptions(offline=tmp_path / "carry")
    with pytest.raises(UsageError, match=r"holds no bundle; expected folders with manifest\.json in it\."):
        export_to_device(tmp_path, device=PI, options=options)
    with pytest.raises(UsageError, match=r"absent is no recipe, no bundle and no folder of bundles\."):
        export_to_device(tmp_path / "absent", device=PI, options=options)
    bundle = write_bundle(tmp_path / "tiny")
    with pytest.raises(UsageError, match=r"--set belongs to a recipe; a bundle is deployed as it is\."):
        export_to_device(bundle, device=PI, options=options, overrides=["train.epochs=1"])
    assert not (tmp_path / "carry").exists()


def test_a_recipe_is_exported_first_and_its_bundles_are_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Path(__file__).parents[1] / "recipes" / "debug.toml"

    def export(path: Path, *, overrides: list[str], out: Path, **options: object) -> str:
        assert (path, list(overrides)) == (recipe, ["train.epochs=1"])
        write_bundle(out / "dense", name="dense")
        write_bundle(out / "pruned", name="pruned")
        (out / "devices" / "old").mkdir(parents=True)
        return ""

    monkeypatch.setattr("edgelip.cli.export.export_recipe", export)
    options = DeployOptions(engine="ort", offline=tmp_path / "carry")
    export_to_device(recipe, device=PI, options=options, out=tmp_path / "dist", overrides=["train.epochs=1"])
    labels = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "carry" / "bundles").iterdir())
    assert labels == ["dense", "pruned"]


def test_the_device_answers_for_a_precision_before_the_bundle_does(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")  # it holds fp32 alone
    with pytest.raises(UsageError, match=r"^raspberry-pi-5 takes fp32, fp16, int8; got fp8\.$"):
        export_to_device(bundle, device=PI, options=DeployOptions(precision="fp8", offline=tmp_path / "carry"))
