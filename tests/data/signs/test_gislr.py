from __future__ import annotations

from pathlib import Path

import pytest
from sign_files import REAL, made_raw, needs_real, write_gislr, write_hdf5

from edgelip.data.inspection import inspect_listing
from edgelip.data.readers.source import read_source
from edgelip.data.sheets import frames_of_samples
from edgelip.data.signs.gislr import read_gislr
from edgelip.data.signs.label_map import read_label_map
from edgelip.data.signs.signer_files import read_signer_files
from edgelip.data.stores.workers import Workers
from edgelip.errors import ClipError, UsageError

ROWS = [
    (f"p/{signer}/{sign}{n}.parquet", signer, f"{n}", sign) for signer in "123" for sign in ("TV", "duck") for n in "12"
]


def test_label_order_is_that_of_the_map_and_a_signer_a_speaker(tmp_path: Path) -> None:
    listing = read_gislr(write_gislr(tmp_path / "g", ROWS, signs=("duck", "after", "TV")))
    assert listing.words == ("duck", "TV")
    assert len(listing.samples) == 12
    sample = listing.samples[0]
    assert (sample.name, sample.word, sample.speaker, sample.split, sample.clip_id) == (
        "p/1/TV1.parquet",
        "TV",
        "1",
        "train",
        "1",
    )
    assert not listing.unusable


def test_signs_that_the_map_does_not_know_follow_and_are_noted(tmp_path: Path) -> None:
    listing = read_gislr(write_gislr(tmp_path / "g", ROWS, signs=("duck", "after")))
    assert listing.words == ("duck", "TV")
    assert any("1 signs are not in" in note and "such as 'TV'" in note for note in listing.notes)


def test_named_signers_are_in_no_other_split(tmp_path: Path) -> None:
    listing = read_gislr(write_gislr(tmp_path / "g", ROWS), test_signers=["3"], val_signers=["1"])
    assert {split: {sample.speaker for sample in listing.of(split)} for split in ("train", "val", "test")} == {
        "train": {"2"},
        "val": {"1"},
        "test": {"3"},
    }
    assert "test: 4 signs of 1 signers who sign nowhere else (3)" in listing.notes


def test_a_share_is_held_out_by_whole_signers(tmp_path: Path) -> None:
    listing = read_gislr(write_gislr(tmp_path / "g", ROWS), test_share=0.3)
    held, kept = ({sample.speaker for sample in listing.of(split)} for split in ("test", "train"))  # type: ignore[arg-type]
    assert len(held) == 1
    assert not held & kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"test_signers": ["9"]}, r"test_signers has '9', who signs nothing\."),
        (
            {"test_signers": ["1"], "val_signers": ["1"]},
            r"signer '1' is in test_signers and val_signers\. Choose one\.",
        ),
        ({"test_signers": ["1"], "test_share": 0.2}, r"test_signers and test_share both choose who is held out\."),
        ({"test_signers": ["1", "2", "3"]}, r"all 3 signers are held out; expected at least one to train on\."),
        ({"words": ["TV", "cow"]}, r"has no clip of 'cow', one of the words asked for\."),
    ],
)
def test_signers_and_words_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, list[str]], said: str
) -> None:
    root = write_gislr(tmp_path / "g", ROWS)
    with pytest.raises(UsageError, match=said):
        read_gislr(root, **options)  # type: ignore[arg-type]


def test_rows_that_cannot_be_used_are_counted_by_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = write_gislr(tmp_path / "g", ROWS)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.parquet").write_bytes(b"")
    (root / "leads_out").symlink_to(tmp_path / "elsewhere")
    with (root / "train.csv").open("a") as file:
        file.write("../elsewhere/x.parquet,1,9,TV\n/etc/passwd,1,9,TV\nleads_out/x.parquet,1,9,TV\n")
        file.write("p/1/none.parquet,1,9,TV\np/1/TV1.parquet,1,9,TV\np/1/TV2.parquet,1,9,\n")
    listing = read_gislr(root)
    assert len(listing.samples) == 12
    found = {name: (error.reason, str(error)) for name, error in listing.unusable.items()}
    for line, reason, said in (
        (14, "outside", "has path '../elsewhere/x.parquet'; expected one below the data root, without '..'."),
        (15, "outside", "has path '/etc/passwd'; expected one below"),
        (16, "outside", "a link that leaves the data root"),
        (17, "missing", "names p/1/none.parquet, which is not there"),
        (18, "row", "repeats p/1/TV1.parquet of line 2"),
        (19, "row", "has sign ''; expected printable text"),
    ):
        assert found[f"train.csv line {line}"][0] == reason
        assert said in found[f"train.csv line {line}"][1]


def test_a_csv_of_another_form_is_refused(tmp_path: Path) -> None:
    root = write_gislr(tmp_path / "g", ROWS)
    (root / "train.csv").write_text("path,sign\na,b\n")
    with pytest.raises(ClipError, match=r"train\.csv has no column 'participant_id'; expected path, participant_id"):
        read_gislr(root)
    (root / "train.csv").write_bytes(b"path,participant_id,sequence_id,sign\n\xff\xfe,1,1,1\n")
    with pytest.raises(ClipError, match=r"train\.csv cannot be read as CSV"):
        read_gislr(root)
    with pytest.raises(ClipError, match=r"none/train\.csv cannot be read as CSV \(No such file or directory\)"):
        read_gislr(tmp_path / "none")
    (root / "train.csv").write_text("path,participant_id,sequence_id,sign\n")
    with pytest.raises(UsageError, match=r"is all there is; expected rows below the header\."):
        read_gislr(root)


@pytest.mark.parametrize("text", ['{"a": 0, "b": 0}', '{"a": 1}', '{"a": true}', "[]", "{}", '{"a": "0"}', '{"": 0}'])
def test_a_label_map_gives_each_sign_one_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(
        ClipError, match=r"map\.json (is no label map; expected \{\"TV\": 0|has a sign without a printable)"
    ):
        read_label_map(tmp_path / "map.json")


def test_a_label_map_that_is_no_json_is_refused(tmp_path: Path) -> None:
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "map.json").write_bytes(content)
        with pytest.raises(ClipError, match=r"map\.json cannot be read as JSON"):
            read_label_map(tmp_path / "map.json")


@needs_real
def test_the_published_map_has_250_signs_in_order() -> None:
    signs = read_label_map(REAL / "sign_to_prediction_index_map.json")
    assert len(signs) == 250
    assert signs[:3] == ("TV", "after", "airplane")


def write_signer_files(root: Path) -> Path:
    root.mkdir()
    for signer in ("7", "7_swap", "8"):
        write_hdf5(root / f"{signer}.hdf5", {"11": (made_raw(seed=1), 0), "12": (made_raw(seed=2), 1)})
    (root / "sign_to_prediction_index_map.json").write_text('{"duck": 0, "TV": 1}')
    return root


def test_one_file_a_signer_gives_a_sample_a_group(tmp_path: Path) -> None:
    listing = read_signer_files(write_signer_files(tmp_path / "h"))
    assert [(s.name, s.word, s.speaker) for s in listing.samples] == [
        ("7.hdf5/11", "duck", "7"),
        ("7.hdf5/12", "TV", "7"),
        ("8.hdf5/11", "duck", "8"),
        ("8.hdf5/12", "TV", "8"),
    ]
    assert listing.words == ("duck", "TV")


def test_mirrored_copies_are_for_training_alone(tmp_path: Path) -> None:
    root = write_signer_files(tmp_path / "h")
    trained = read_signer_files(root, swapped=True, test_signers=["8"])
    assert {sample.name for sample in trained.of("train")} == {
        "7.hdf5/11",
        "7.hdf5/12",
        "7_swap.hdf5/11",
        "7_swap.hdf5/12",
    }
    tested = read_signer_files(root, swapped=True, test_signers=["7"])
    assert {sample.name for sample in tested.of("test")} == {"7.hdf5/11", "7.hdf5/12"}
    assert "2 mirrored copies of held-out signers are left out" in tested.notes


def test_groups_and_files_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    root = write_signer_files(tmp_path / "h")
    (root / "9.hdf5").write_bytes(b"nonsense")
    write_hdf5(root / "10.hdf5", {"1": (made_raw(), 2)})
    listing = read_signer_files(root)
    assert len(listing.samples) == 4
    assert listing.unusable["9.hdf5"].reason == "damaged"
    assert "group '1' has token 2; " in str(listing.unusable["10.hdf5/1"])


def test_tokens_without_names_are_refused(tmp_path: Path) -> None:
    root = write_signer_files(tmp_path / "h")
    (root / "sign_to_prediction_index_map.json").unlink()
    with pytest.raises(UsageError, match=r"it names them\. Give it by --label-map\."):
        read_signer_files(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty has no <signer>\.hdf5; expected one file a signer\."):
        read_signer_files(tmp_path / "empty")


def test_both_layouts_are_recognised_by_their_files(tmp_path: Path) -> None:
    assert len(read_source(write_gislr(tmp_path / "g", ROWS), test_signers=["1"]).of("test")) == 4
    assert len(read_source(write_signer_files(tmp_path / "h")).samples) == 4


def test_signs_are_inspected_and_drawn(tmp_path: Path) -> None:
    root = write_gislr(tmp_path / "g", ROWS)
    (root / "p/1/TV1.parquet").write_bytes(b"nonsense")
    listing = read_gislr(root)
    found = inspect_listing(listing, "gislr", compare=False, workers=Workers(1))
    assert found.reasons() == {"damaged": 1}
    assert found.frames is not None
    assert (found.frames.least, found.frames.most, found.frames.num_known) == (2, 4, 11)
    assert not found.sizes
    frames, labels = frames_of_samples(listing.samples, 4)
    assert frames.shape[1:] == (10, 96, 96)
    assert len(frames) == len(labels) == 3  # the damaged one is passed over
    assert (frames < 255).any(axis=(2, 3)).all()
    hdf5 = inspect_listing(read_signer_files(write_signer_files(tmp_path / "h")), "signer-files", compare=False)
    assert hdf5.num_clips == 4
    assert hdf5.frames is None
