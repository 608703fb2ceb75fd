"""What a file is before anything in it is unpickled: its kind, its size, and every name its pickle would import.

A pickle may import and call anything. The names it asks for are read without running it, and only those that rebuild
tensors, or that are plainly configuration (replaced by inert stand-ins, see container.py), are let through.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from edgelip.errors import CheckpointError

MAX_BYTES = 4 << 30
_MAX_PICKLE_BYTES = 64 << 20  # 3,000 tensors take about 0.5 MB
_MAX_MEMBERS = 100_000
_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file of torch.save before 1.6
_LEGACY_PICKLES = 3  # protocol, machine, object; the raw storages follow

_TENSOR_NAMES = re.compile(
    r"collections\.(OrderedDict|Counter)|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)"
    r"|torch\.nn\.parameter\.Parameter|torch\.(Size|device)|torch\.[A-Z][A-Za-z0-9]*Storage"
    r"|torch\.(bfloat|float|uint|int)[0-9]+|torch\.bool|_codecs\.encode"
    r"|builtins\.set"
)
CONFIGURATION_NAMES = re.compile(
    r"omegaconf\.(dictconfig\.DictConfig|listconfig\.ListConfig|base\.(ContainerMetadata|Metadata)|nodes\.[A-Za-z]+Node)"
    r"|argparse\.Namespace|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path|typing\.Any"
    r"|builtins\.(dict|list|tuple|int|float|str|bool)|collections\.defaultdict"
    r"|(pytorch_lightning\.utilities\.parsing|lightning\.pytorch\.utilities\.parsing|lightning_fabric\.utilities\.data"
    r"|lightning\.fabric\.utilities\.data)\.AttributeDict"
    r"|numpy\.(_?core\.multiarray\.scalar|dtype)|numpy\.dtypes\.[A-Za-z0-9]+"
)
_OTHER_TENSORS = {
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta (without values)",
    "torch._utils._rebuild_nested_tensor": "nested",
}
# Pickle protocol 2, which torch.save writes, spells these as Python 2 did.
_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_NAMES = {"builtins.long": "builtins.int", "builtins.unicode": "builtins.str"}


def vet(path: Path) -> frozenset[str]:
    """The configuration names (module.name) that the file asks for beside tensors. Runs nothing of it.

    Raises CheckpointError for what is no file of torch.save, is too large, is packed, or asks for code.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a checkpoint file such as ckpt.best.pth or epoch=9.ckpt.")
    if not path.is_file():
        raise CheckpointError(f"There is no file {path} to import.")
    num_bytes = path.stat().st_size
    if num_bytes > MAX_BYTES:
        raise CheckpointError(f"{path} has {num_bytes} bytes; a checkpoint to import has at most {MAX_BYTES}.")
    with path.open("rb") as file:
        head = file.read(4096)
    _refuse_other_kinds(path, head)
    try:
        names = _names_in_archive(path, num_bytes) if head.startswith(b"PK\x03\x04") else _names_in_pickles(path)
    except CheckpointError:
        raise
    except _BROKEN_ARCHIVE as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged or cut short ({detail:.120}). Copy it again.") from error
    for name in sorted(names & _OTHER_TENSORS.keys()):
        raise CheckpointError(
            f"{path} holds {_OTHER_TENSORS[name]} tensors; expected plain dense ones. Convert and save it again."
        )
    foreign = sorted(name for name in names if not (_TENSOR_NAMES.fullmatch(name) or _is_configuration(name)))
    if foreign:
        listed = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise CheckpointError(
            f"{path} is a pickle that asks to run {listed}; weights need no code, so nothing of it was executed. "
            'If the file is yours, save its weights alone: torch.save({"state_dict": model.state_dict()}, "clean.pth").'
        )
    return frozenset(name for name in names if not _TENSOR_NAMES.fullmatch(name))


def _is_configuration(name: str) -> bool:
    return CONFIGURATION_NAMES.fullmatch(name) is not None


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Name the common wrong files by their first bytes."""
    if not head:
        raise CheckpointError(f"{path} is empty; expected a checkpoint that torch.save wrote.")
    header_bytes = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header_bytes < MAX_BYTES:
        with path.open("rb") as file:
            file.seek(8)
            text = file.read(min(header_bytes, _MAX_PICKLE_BYTES))
        try:
            is_ours = "edgelip" in json.loads(text).get("__metadata__", {})
        except (ValueError, AttributeError, RecursionError):
            is_ours = False
        kind = (
            "an edgelip checkpoint already: nothing to import" if is_ours else "a safetensors file of another program"
        )
        raise CheckpointError(f"{path} is {kind}. Import reads what torch.save wrote (.pth, .pth.tar, .ckpt).")
    kind = ""
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b":", b"B"):
        kind = "an ONNX file"  # protobuf: ir_version, then producer, graph or opset
    elif head.startswith(b"\x89HDF"):
        kind = "an HDF5 file"
    elif head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc")) or head[257:262] == b"ustar":
        kind = "a packed archive; unpack it first. It"
    elif _is_text(head):
        kind = "a text file"
    if kind:
        raise CheckpointError(f"{path} is {kind}, not a checkpoint that torch.save wrote (.pth, .pth.tar, .ckpt).")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def _names_in_archive(path: Path, num_bytes: int) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > num_bytes:  # torch.save stores without compression, so more is packed or overlapping
            raise CheckpointError(
                f"{path} has {num_bytes} bytes and would unpack to {unpacked}; torch.save never compresses, "
                "so this is no checkpoint of it. Nothing was unpacked."
            )
        if len(members) > _MAX_MEMBERS:
            raise CheckpointError(f"{path} has {len(members)} members; a checkpoint has at most {_MAX_MEMBERS}.")
        tops = [member for member in members if Path(member.filename).name == "data.pkl"]
        if any(Path(member.filename).name == "constants.pkl" for member in members):
            raise CheckpointError(f"{path} is a TorchScript program; expected a checkpoint with a state_dict.")
        if not tops:
            raise CheckpointError(f"{path} is a zip archive without data.pkl; expected what torch.save wrote.")
        names: set[str] = set()
        for member in tops:
            if member.file_size > _MAX_PICKLE_BYTES:
                raise CheckpointError(
                    f"{path} describes its tensors in {member.file_size} bytes; expected at most {_MAX_PICKLE_BYTES}."
                )
            names |= _imports(io.BytesIO(archive.read(member)), path, is_known=True)[0]
        return names


def _names_in_pickles(path: Path) -> set[str]:
    with path.open("rb") as file:
        names, number = _imports(file, path, is_known=False)
        if number == _LEGACY_MAGIC:
            for _ in range(_LEGACY_PICKLES):
                names |= _imports(file, path, is_known=True)[0]
        elif not names:
            raise CheckpointError(f"{path} is a plain pickle; expected what torch.save wrote.")
        return names


def _imports(file: IO[bytes], path: Path, *, is_known: bool) -> tuple[set[str], int | None]:
    """Every name that one pickle imports, and the number it consists of, if it is one; the file is left behind it.

    is_known: that torch.save began the file, which decides how a broken pickle is named.
    """
    names: set[str] = set()
    texts: list[str] = []
    number: int | None = None
    start = file.tell()
    try:
        for opcode, argument, position in pickletools.genops(file):
            if position is not None and position - start > _MAX_PICKLE_BYTES:
                raise CheckpointError(f"{path} has a pickle of more than {_MAX_PICKLE_BYTES} bytes; expected less.")
            if opcode.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                name = f"{_MODULES.get(module, module)}.{name}"
                names.add(_NAMES.get(name, name))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(texts[-2:]))
            elif opcode.name in ("EXT1", "EXT2", "EXT4"):
                names.add("copyreg.extension")
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
            elif opcode.name in ("LONG1", "LONG", "INT"):
                number = int(argument or 0)
    except (ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
        if names or is_known:
            raise CheckpointError(f"{path} is damaged or cut short ({error}). Copy it again.") from error
        raise CheckpointError(f"{path} is no checkpoint: not what torch.save wrote (.pth, .pth.tar, .ckpt).") from error
    return names, number
