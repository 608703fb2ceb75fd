"""A seeded generator of corrupted bundles: each kind is an edit of a good folder and what is said of it.

UNMENDED: the manifest is what was changed, or it no longer fits the files. MENDED: a file's structure was changed and
the manifest's hash and size made right again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hostile_models import HOSTILE
from tiny_bundles import SPEC, WORDS, make_clips, model_entry
from typical_model import typical_model

Edit = Callable[[Path, Random], object]
UNMENDED: dict[str, tuple[Edit, str]] = {}
MENDED: dict[str, tuple[Edit, str]] = {}
LISTED = ("model.fp32.onnx", "W.data", "expected.npz", "MODEL_CARD.md")


def kind(table: dict[str, tuple[Edit, str]], message: str) -> Callable[[Edit], Edit]:
    """Enter an edit of a folder under its function's name; `message` is a pattern of what opening it says."""

    def enter(edit: Edit) -> Edit:
        table[edit.__name__] = (edit, message)  # type: ignore[attr-defined]
        return edit

    return enter


def good_contents(logits_of: Callable[[bytes, np.ndarray], np.ndarray]) -> dict[str, bytes]:
    """Every file of a good bundle by name. logits_of: what an engine gives for a model and frames."""
    model, frames_NTHW = typical_model().SerializeToString(), make_clips(4)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, frames=frames_NTHW, logits=logits_of(model, frames_NTHW))
    contents = dict(zip(LISTED, (model, bytes(64), arrays.getvalue(), b"# typical\n"), strict=True))
    manifest = {
        "schema_version": 2,
        "name": "typical",
        "producer": "edgelip 0.1.0",
        "files": {name: entry(content) for name, content in contents.items()},
        "vocabulary": list(WORDS),
        "clip": SPEC.to_json(),
        "models": [model_entry("model.fp32.onnx")],
        "weights_sha256": "0" * 64,
        "lineage": [],
        "ledger": {},
    }
    return {**contents, "manifest.json": json.dumps(manifest).encode()}


def entry(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def mend(folder: Path) -> None:
    """Make the manifest's hashes and sizes those of the files that are there."""

    def relist(manifest: dict[str, Any]) -> None:
        for name in manifest["files"]:
            manifest["files"][name] = entry((folder / name).read_bytes())

    edit_manifest(folder, relist)


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _model_edit(edit: Callable[[Any, Random], object]) -> Edit:
    def apply(folder: Path, rng: Random) -> None:
        model = typical_model()
        edit(model, rng)
        (folder / "model.fp32.onnx").write_bytes(model.SerializeToString())

    return apply


MENDED.update({name: (_model_edit(edit), message) for name, (edit, message) in HOSTILE.items()})


# Files that are not what the manifest says.


@kind(UNMENDED, r"has changed: sha256 \w{8}\.\., manifest says")
def changed_bytes(folder: Path, rng: Random) -> None:
    path = folder / rng.choice(LISTED)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 8])):
        content[rng.randrange(len(content))] ^= rng.randint(1, 255)
    path.write_bytes(bytes(content[:-1]) + bytes([content[-1] ^ 85]))


@kind(UNMENDED, r"has changed: \d+ bytes, manifest says \d+")
def another_size(folder: Path, rng: Random) -> None:
    path = folder / rng.choice(LISTED)
    content = path.read_bytes()
    path.write_bytes(rng.choice([content[: rng.randrange(len(content))], content + bytes(rng.randint(1, 99))]))


@kind(UNMENDED, r"has changed: \d+ bytes, manifest says \d+")
def sparse_giant(folder: Path, rng: Random) -> None:
    os.truncate(folder / rng.choice(LISTED), rng.randint(1 << 33, 1 << 42))


@kind(UNMENDED, r"is missing\. Export the bundle again")
def missing_file(folder: Path, rng: Random) -> None:
    (folder / rng.choice(LISTED)).unlink()


@kind(UNMENDED, r"is a link, folder or device; expected a plain file")
def something_else_than_a_file(folder: Path, rng: Random) -> None:
    path = folder / rng.choice([*LISTED, "manifest.json"])
    way = rng.randrange(4)
    content = path.read_bytes()
    path.unlink()
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    elif way == 2:
        path.symlink_to(rng.choice(["/etc/passwd", "/dev/zero", "../outside", path.name, "absent"]))
    else:
        (folder / "copy").write_bytes(content)  # the right content, but through a link
        path.symlink_to("copy")


@kind(UNMENDED, r"has changed: (sha256|\d+ bytes)")
def files_swapped(folder: Path, rng: Random) -> None:
    first, second = rng.sample(LISTED, 2)
    (folder / first).rename(folder / "third")
    (folder / second).rename(folder / first)
    (folder / "third").rename(folder / second)


# Manifests that no exporter writes.


@kind(UNMENDED, r"manifest lists the file .*; expected a plain name inside the bundle")
def name_that_leaves(folder: Path, rng: Random) -> None:
    tricks = [
        "..",
        ".",
        "",
        ".hidden",
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "a\\b",
        "C:x",
        "\\\\host\\x",
        "x\0y",
    ]
    tricks += [
        "model.fp32.onnx\0",
        "mod\u0435l.onnx",
        "x\u202eno.onnx",
        "x\n",
        " x",
        "-rf",
        "~root",
        "$HOME",
        "a" * 300,
    ]
    tricks += ["file:///etc/passwd", "..%2foutside", "\uff0e\uff0e/x", "x:stream", "./model.fp32.onnx"]
    name = rng.choice(tricks)
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: entry(b"")}))


@kind(UNMENDED, r"expected names that differ by more than case")
def twin_or_device_name(folder: Path, rng: Random) -> None:
    name = rng.choice(["MODEL.FP32.ONNX", "Expected.npz", "w.data", "NUL", "con", "COM1", "aux.onnx"])
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: entry(b"")}))


@kind(
    UNMENDED,
    r"manifest .*; expected|manifest says .* the limit is|has changed|manifest lists \d+ files|lists no expected",
)
def hostile_file_entry(folder: Path, rng: Random) -> None:
    name = rng.choice(LISTED)
    changes: list[Any] = [{"bytes": value} for value in (-1, 2**62, 10**19, 1.5, "9", True, None, [], 2**31 + 1)]
    changes += [{"sha256": value} for value in ("", "0" * 63, "0" * 64, "Z" * 64, 5, None, "0" * 64 + "\n")]
    change = rng.choice(changes)

    def edit(manifest: dict[str, Any]) -> None:
        if rng.random() < 0.2:
            manifest["files"] = {f"f{i}": entry(b"") for i in range(rng.randint(65, 3000))}
        else:
            manifest["files"][name].update(change)

    edit_manifest(folder, edit)


@kind(UNMENDED, r"typical: (manifest: clip contract|manifest) \w+")
def field_missing_or_of_another_kind(folder: Path, rng: Random) -> None:
    fields = ["name", "producer", "files", "vocabulary", "clip", "models", "weights_sha256", "lineage", "ledger"]
    field = rng.choice(fields[:7])
    value = rng.choice([None, 7, True, [[]], "\0" * 9, {"a": 1}, 0.5])

    def edit(manifest: dict[str, Any]) -> None:
        if rng.random() < 0.3:
            del manifest[field]
        else:
            manifest[field] = value
            manifest["files"] = manifest["files"] or {}

    edit_manifest(folder, edit)


@kind(UNMENDED, r"bundle has schema -?\d+; this edgelip reads 2|manifest schema_version is .*; expected a whole number")
def another_schema(folder: Path, rng: Random) -> None:
    version = rng.choice([0, 1, 3, -1, 10**19, 2.0, "2", True, None])
    edit_manifest(folder, lambda manifest: manifest.update(schema_version=version))


@kind(UNMENDED, r"typical: manifest: ")
def hostile_clip(folder: Path, rng: Random) -> None:
    field = rng.choice(["frames", "roi_px", "pool", "crop_px", "fps", "mean", "kind", "timing", "evil"])
    value = rng.choice([-1, 2**40, "x", None, [1], {"a": 1}])
    edit_manifest(folder, lambda manifest: manifest["clip"].update({field: value}))


@kind(UNMENDED, r"manifest (vocabulary|models?|gives|engines|precision|activations|weights|tolerance|file)")
def hostile_model_entry(folder: Path, rng: Random) -> None:
    changes: list[Any] = [
        {"file": value} for value in ("../outside", "absent.onnx", "MODEL_CARD.md", "", 3, "/etc/passwd")
    ]
    changes += [{"precision": value} for value in ("int3", "", 5, None, ["fp32"])]
    changes += [{"engines": value} for value in ([], "ort", [1], ["../x"], ["\0"], None)]
    changes += [{"tolerance": value} for value in (0, -1, "1", None, True)]
    changes += [{"weights": "evil"}, {"activations": "s4"}]
    change = rng.choice(changes)
    edit_manifest(folder, lambda manifest: manifest["models"][0].update(change))


@kind(UNMENDED, r"manifest vocabulary (has|holds)|takes .* as the manifest says|gives .* as the manifest says")
def hostile_vocabulary(folder: Path, rng: Random) -> None:
    words: list[Any] = rng.choice(
        [[], ["A", "A", "B"], ["A" * 65] * 3, ["\n", "b"], [1, 2], ["a\0", "b"], ["", "b"], ["a"]]
    )
    edit_manifest(folder, lambda manifest: manifest.update(vocabulary=words))


@kind(UNMENDED, r"manifest\.json is not readable JSON \(.*\)\. Export|manifest\.json holds a \w+; expected an object")
def json_that_is_none(folder: Path, rng: Random) -> None:
    content = (folder / "manifest.json").read_bytes()
    depth = rng.randint(10_000, 200_000)
    (folder / "manifest.json").write_bytes(
        rng.choice(
            [
                b"[" * depth,
                b'{"a":' * depth,
                b'{"ledger": ' + b"[" * depth + b"]" * depth + b"}",
                content[: rng.randint(1, len(content) - 2)],
                content.replace(b'"name"', b'"name": "x", "name"'),  # twice
                content.replace(b'"bytes": 64', b'"bytes": ' + b"9" * rng.randint(21, 10**6)),
                content.replace(b'"bytes": 64', b'"bytes": ' + rng.choice([b"NaN", b"Infinity", b"1e999", b"0x40"])),
                b"\xff\xfe" + content,
                content + b"{}",
                rng.choice([b"[]", b"7", b"null", b'"x"', b"true"]),
                b"",
                bytes(100),
                rng.randbytes(200),
            ]
        )
    )


@kind(UNMENDED, r"manifest\.json has \d+ bytes; the limit is 4194304")
def giant_manifest(folder: Path, rng: Random) -> None:
    os.truncate(folder / "manifest.json", rng.randint(100 << 20, 1 << 40))


# Arrays, with hashes made right.


def _header(shape: str, descr: str = "'|u1'", order: str = "False") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode("latin-1", "replace")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npz(folder: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(folder / "expected.npz", "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _good_arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "expected.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@kind(MENDED, r"expected\.npz (unpacks to \d+ bytes; the limit|frames are|is cut short|not a readable array)")
def giant_shape_in_an_array(folder: Path, rng: Random) -> None:
    sizes = [f"({rng.randint(2**20, 2**50)}, 4, 8, 8)", f"({'9' * rng.randint(15, 4000)},)", f"({2**63}, {2**63})"]
    _npz(folder, [("frames.npy", _header(rng.choice(sizes)) + bytes(rng.randint(0, 500)))])


@kind(MENDED, r"expected\.npz unpacks to \d+ bytes; the limit is 536870912")
def zip_bomb(folder: Path, rng: Random) -> None:
    _npz(folder, [("frames.npy", _header(f"({rng.randint(3 << 21, 1 << 40)}, 4, 8, 8)") + bytes(1 << 16))])


@kind(MENDED, r"expected\.npz (not a readable array|has no array 'frames')")
def nested_zip(folder: Path, rng: Random) -> None:
    inner = (folder / "expected.npz").read_bytes()
    for _ in range(rng.randint(0, 4)):
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w") as archive:
            archive.writestr("frames.npy", inner)
        inner = outer.getvalue()
    _npz(folder, [(rng.choice(["frames.npy", "inner.npz", "frames.npz"]), inner)])


@kind(MENDED, r"expected\.npz (holds Python objects; expected plain numbers|not a readable array)")
def pickled_array(folder: Path, rng: Random) -> None:
    body = b"cos\nsystem\n(S'touch pwned'\ntR."
    _npz(folder, [("frames.npy", _header("(4, 4, 8, 8)", rng.choice(["'|O'", "'O'", "[('a', '|O')]"])) + body)])


@kind(MENDED, r"expected\.npz not a readable array \(")
def header_that_is_code(folder: Path, rng: Random) -> None:
    code = ["__import__('os').system('touch pwned')", "(" * 900 + ")" * 900, "(1,) * 10**9", "9**9**9", "'a'\n 'b'"]
    _npz(folder, [("frames.npy", _header(rng.choice(code), "'|u1'") + bytes(1024))])


@kind(MENDED, r"expected\.npz frames are \S+ \(.*\); expected uint8 \(N, 4, 8, 8\)|not a readable array")
def frames_of_another_type_or_shape(folder: Path, rng: Random) -> None:
    arrays = _good_arrays(folder)
    frames, logits = arrays["frames"], arrays["logits"]
    kinds = [np.int8, np.float32, np.float64, np.uint16, np.bool_, np.complex64]
    shapes = [frames[:, :3], frames[..., 1:], frames[0], frames[:0], frames.reshape(-1), frames[None]]
    changed = frames.astype(rng.choice(kinds)) if rng.random() < 0.5 else rng.choice(shapes)
    np.savez(folder / "expected.npz", frames=changed, logits=logits)


@kind(MENDED, r"expected\.npz logits are (\S+ \(.*\); expected float32 \(4, 3\)|not all finite)|has no array")
def logits_of_another_type_or_shape(folder: Path, rng: Random) -> None:
    arrays = _good_arrays(folder)
    frames, logits = arrays["frames"], arrays["logits"]
    shapes = [logits[:3], logits[:, :2], logits.reshape(-1), logits[None], logits[:0], logits * np.float32(np.nan)]
    changed = (
        logits.astype(rng.choice([np.float64, np.float16, np.int32])) if rng.random() < 0.4 else rng.choice(shapes)
    )
    if rng.random() < 0.2:
        np.savez(folder / "expected.npz", frames=frames)
    else:
        np.savez(folder / "expected.npz", frames=frames, logits=changed)


@kind(
    MENDED, r"expected\.npz holds \d+ arrays or the same one twice|lists its members in \d+ bytes; the limit is 65536"
)
def members_twice_or_many(folder: Path, rng: Random) -> None:
    good = _good_arrays(folder)
    members = [(f"{name}.npy", _npy(array)) for name, array in good.items()]
    if rng.random() < 0.5:
        members += [(f"x{i}.npy", b"") for i in range(rng.choice([65, 1500]))]
    else:
        members.append(("frames.npy", _npy(good["frames"] + 1)))
    with warnings.catch_warnings(action="ignore"):  # of names that stand twice
        _npz(folder, members)


@kind(MENDED, r"expected\.npz is packed by another method than deflate")
def foreign_packing(folder: Path, rng: Random) -> None:
    members = [(f"{name}.npy", _npy(array)) for name, array in _good_arrays(folder).items()]
    _npz(folder, members, rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


@kind(MENDED, r"expected\.npz ")
def damaged_archive(folder: Path, rng: Random) -> None:
    """The compressed data, a length or the end: what CRCs and sizes of a zip archive guard."""
    content = bytearray((folder / "expected.npz").read_bytes())
    way = rng.randrange(4)
    if way == 0:
        del content[rng.randrange(4, len(content)) :]
    elif way == 1:
        start = content.index(b"frames.npy") + 40
        content[start : start + 20] = rng.randbytes(20)
    elif way == 2:
        content = bytearray(
            rng.choice([b"", b"PK", b"PK\5\6" + bytes(18), b"\x93NUM", rng.randbytes(300), b"PK\3\4" * 99])
        )
    else:
        content = bytearray(_npy(np.zeros((4, 4, 8, 8), np.uint8)))[: rng.randint(5, 200)]
    (folder / "expected.npz").write_bytes(bytes(content))


@kind(
    MENDED, r"expected\.npz (is stored column by column|is cut short|goes on after|not a readable array|has no array)"
)
def array_that_is_not_as_its_header_says(folder: Path, rng: Random) -> None:
    body = bytes(4 * 4 * 8 * 8)
    contents = [
        _header("(4, 4, 8, 8)", order="True") + body,
        _header("(4, 4, 8, 8)") + body[: rng.randrange(len(body))],
        _header("(4, 4, 8, 8)") + body + b"x",
        _header("(4, 4, 8, 8)").replace(b"\x01\x00", b"\x09\x00", 1) + body,
        _header("(-4, 4, 8, 8)") + body,
        _header("(4, 4, 8, 8)", "'|u1', 'descr': '|O'") + body,
    ]
    name = rng.choice(["frames.npy"] * 5 + ["../frames.npy", "/frames.npy", "FRAMES.npy"])
    _npz(folder, [(name, rng.choice(contents))])


# The model as a file, with hashes made right.


@kind(MENDED, r"model\.fp32\.onnx (is not readable as ONNX: it|has|is empty|gives|stores|takes|names|uses|computes)")
def truncated_model(folder: Path, rng: Random) -> None:
    content = (folder / "model.fp32.onnx").read_bytes()
    (folder / "model.fp32.onnx").write_bytes(content[: rng.randrange(len(content) - 6)])


@kind(MENDED, r"model\.fp32\.onnx (is not readable as ONNX: it|has|stores)")
def model_that_is_no_protobuf(folder: Path, rng: Random) -> None:
    contents = [b"\x0b" * 50, b"PK\x03\x04" * 20, b"\x3a\xff\xff\xff\xff\x7f", b"\x0a" * 999, bytes(64)]
    contents += [b"\x80" * 99, b"GIF89a", b"<html>", rng.randbytes(rng.randint(20, 2000))]
    (folder / "model.fp32.onnx").write_bytes(rng.choice(contents))


@kind(
    MENDED, r"model\.fp32\.onnx has (\w+ twice in one|field \d+ in a model, which this edgelip does not know|[a-z ]+;)"
)
def fields_after_the_model(folder: Path, rng: Random) -> None:
    content = (folder / "model.fp32.onnx").read_bytes()
    tail = rng.choice(
        [content, b"\x3a\x00", b"\x08\x0a", b"\xca\x01\x00", b"\xa2\x01\x00", b"\x98\x06\x01", b"\xa2\x06\x00"]
    )
    (folder / "model.fp32.onnx").write_bytes(content + tail)


@kind(MENDED, r"is a link, folder or device; expected a plain file in the bundle")
def link_with_a_right_hash(folder: Path, rng: Random) -> None:
    name = rng.choice(LISTED)
    place = folder.parent / "outside"
    (folder / name).unlink()
    (folder / name).symlink_to(rng.choice([str(place), "../outside", os.path.relpath(place, folder)]))
