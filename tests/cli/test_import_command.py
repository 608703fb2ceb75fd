"""`edgelip import`: what it prints, what it writes, and what a mistake costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Edgelip
from published_files import adam, tiny_dctcn, write
from safetensors import safe_open

from edgelip.models.checkpoint import load_checkpoint
from edgelip.models.checkpoint_files import is_checkpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(edgelip: Edgelip) -> Run:
    """Exit code, stdout and last line of stderr of `edgelip import` with arguments."""

    def call(*arguments: object) -> tuple[int, str, str]:
        done = edgelip("import", *arguments)
        return done.code, done.out, done.line

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = tiny_dctcn(n=2)
    return write(tmp_path / "ckpt.best.pth", tensors, optimiser=adam(tensors))


def test_the_result_says_what_it_is_and_what_to_run_next(run: Run, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    code, text, _ = run(source, "-o", out)
    assert code == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.optimiser is not None
    num_parameters = sum(
        tensor.numel() for name, tensor in checkpoint.tensors.items() if name in checkpoint.optimiser.first_moments
    )
    assert text.splitlines() == [
        str(out),
        f"vsr_phm checkpoint: lip_tcn, PHM n=2, {num_parameters} parameters, 3 words, 80 epochs, "
        "best accuracy 86.5 % as stored",
        "words: unknown: labels are numbers until --words FILE names them",
        "optimiser state: carried over after 7 steps",
        "as published: the temporal net sees padding, so a padded clip gives another result than alone",
        f"next: edgelip predict {out} CLIPS.npy --normalised",
        f"next: edgelip train RECIPE --from {out}",
        f"next: edgelip export {out} -o BUNDLE",
    ]


def test_json_says_the_same(run: Run, source: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "model.safetensors", tmp_path / "words.txt"
    words.write_text("yes\nno\nmaybe\n")
    code, text, _ = run(source, "--out", out, "--words", words, "--corrected", "--without-optimiser", "--json")
    assert code == 0
    result = json.loads(text)
    assert result["checkpoint"] == str(out)
    assert (result["published"], result["backbone"], result["phm_n"]) == ("vsr_phm", "lip_tcn", 2)
    assert (result["words"], result["words_origin"]) == (3, "from the word list given")
    assert (result["optimiser"], result["optimiser_note"]) == (False, "left out, as asked")
    assert (result["epochs"], result["best_accuracy_pct"]) == (80, 86.5)
    assert result["behaviour"][0].startswith("corrected: padding is hidden from the temporal net")
    assert result["notes"] == []
    checkpoint = load_checkpoint(out)
    assert checkpoint.architecture.words == ("yes", "no", "maybe")
    assert checkpoint.architecture.options["as_published"] is False
    assert checkpoint.optimiser is None
    assert result["weights_sha256"] == checkpoint.sha256


def test_another_ending_is_a_checkpoint_too(run: Run, source: Path, tmp_path: Path) -> None:
    code, text, _ = run(source, "-o", tmp_path / "model.edgelip")
    assert code == 0
    assert f"next: edgelip export {tmp_path / 'model.edgelip'} -o BUNDLE" in text
    assert is_checkpoint(tmp_path / "model.edgelip")
    assert load_checkpoint(tmp_path / "model.edgelip").architecture.backbone == "lip_tcn"


def test_the_file_holds_no_path_of_this_machine(run: Run, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    run(source, "-o", out)
    with safe_open(out, framework="pt") as file:
        assert str(tmp_path) not in json.dumps(file.metadata())


def test_a_catalogue_entry_is_named_with_the_assumed_words(golden: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    folder = golden / "snv05x_tcn1x"
    code, text, _ = run(folder / "model.pth.tar", "-o", out, "--config", folder / "config.json")
    assert code == 0
    assert "mpc001 checkpoint: snv05x_tcn1x, dense, 2909852 parameters, 500 words, 1 epoch," in text
    assert "words: assumed: the LRW words in alphabetical order; --words FILE says otherwise" in text
    assert "optimiser state: none stored" in text
    assert load_checkpoint(out).architecture.words[:2] == ("ABOUT", "ABSOLUTELY")


def test_the_source_is_not_overwritten(run: Run, source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(source)
    code, _, error = run(source, "-o", link)
    assert code == 2
    assert error == f"edgelip: --out {link} is the checkpoint to import; choose another file."
    assert source.read_bytes() == before


def test_mistakes_end_in_one_line_and_leave_nothing(run: Run, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "model.safetensors"
    (tmp_path / "text.pth").write_text("ABOUT\n")
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "words.txt").write_text("yes\nno\n")
    (tmp_path / "folder.safetensors").mkdir()
    for arguments, message in (
        ((tmp_path / "absent.pth", "-o", out), "There is no file"),
        ((tmp_path, "-o", out), "is a folder; expected a checkpoint file"),
        ((tmp_path / "text.pth", "-o", out), "is a text file, not a checkpoint"),
        ((source, "-o", tmp_path / "folder.safetensors"), "is a folder; expected a file to write"),
        ((source, "-o", out, "--config", tmp_path / "config.json"), "is no JSON"),
        ((source, "-o", out, "--config", tmp_path / "no.json"), "There is no configuration"),
        ((source, "-o", out, "--words", tmp_path / "words.txt"), "has 2 words and the checkpoint 3 classes"),
        ((source, "-o", out, "--family", "eflip"), "is a vsr_phm checkpoint"),
        ((source, "-o", out, "--ema"), "holds no averaged parameters"),
    ):
        code, text, error = run(*arguments)
        assert (code, text) == (2, ""), arguments
        assert message in error
    assert not out.exists()


def test_our_own_checkpoint_is_named_as_such(run: Run, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    run(source, "-o", out)
    code, _, error = run(out, "-o", tmp_path / "again.safetensors")
    assert code == 2
    assert "is an edgelip checkpoint already" in error
