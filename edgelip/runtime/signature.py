"""Who made a bundle: an ed25519 signature over its manifest, which names the sha256 of every other file.

`manifest.sig` lies beside the manifest: {"schema_version": 1, "algorithm": "ed25519", "public_key": hex, "signature":
hex}. The key inside only says whose it claims to be: the user holds the key that counts.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Dict

from edgelip.runtime.errors import BundleError, MissingError, UsageError
from edgelip.runtime.manifest import json_object
from edgelip.runtime.plain_files import read_plain

SIGNATURE_NAME = "manifest.sig"
SCHEMA_VERSION, ALGORITHM = 1, "ed25519"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
KEY_FILE_LIMIT_BYTES, _SIGNATURE_LIMIT_BYTES = 4096, 4096
_FIELDS = ("algorithm", "public_key", "schema_version", "signature")
# DER before the 32 bytes of an ed25519 public key: a SubjectPublicKeyInfo with OID 1.3.101.112 (RFC 8410).
_PUBLIC_DER = bytes.fromhex("302a300506032b6570032100")
_PEM = re.compile(r"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")


def read_public_key(path: Path) -> bytes:
    """The 32 bytes of an ed25519 public key: a PEM file or 64 hexadecimal digits.

    Raises UsageError if the file is none of the two, or holds a private key.
    """
    text = read_key_file(path)
    pem, key = _PEM.fullmatch(text), b""
    if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", text):
        key = bytes.fromhex(text.strip())
    elif pem is not None:
        with suppress(binascii.Error):
            der = base64.b64decode("".join(pem.group(1).split()), validate=True)
            key = der[len(_PUBLIC_DER) :] if der.startswith(_PUBLIC_DER) else b""
    if len(key) != KEY_BYTES:
        got = "a private key" if "PRIVATE KEY" in text else "no ed25519 public key"
        raise UsageError(f"{path} holds {got}; expected a public key, PEM or 64 hexadecimal digits (KEY.pub).")
    return key


def read_key_file(path: Path) -> str:
    """Its text. Raises UsageError if it cannot be read or is no key by its size."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(KEY_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"key {path} cannot be read ({error.strerror}).") from error
    if len(content) > KEY_FILE_LIMIT_BYTES or not content.isascii():
        raise UsageError(f"{path} is no key; expected at most {KEY_FILE_LIMIT_BYTES} bytes of PEM or hexadecimal text.")
    return content.decode("ascii")


def verify_signature(folder: Path, manifest_bytes: bytes, required_key: bytes) -> None:
    """Return if `manifest.sig` in `folder` is `required_key`'s signature of `manifest_bytes`.

    Raises BundleError if it is missing, damaged, wrong or by another key, MissingError without `cryptography`.
    """
    if len(required_key) != KEY_BYTES:
        raise UsageError(f"required key has {len(required_key)} bytes; expected {KEY_BYTES}.")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingError(
            "cryptography is not installed; a required signature cannot be checked without it. pip install cryptography"
        ) from error
    fields = _signature_fields(Path(folder) / SIGNATURE_NAME)
    key, signature = bytes.fromhex(fields["public_key"]), bytes.fromhex(fields["signature"])
    if key != required_key:
        got, wanted = key.hex()[:16], required_key.hex()[:16]
        raise BundleError(
            f"{SIGNATURE_NAME} is by key {got}..; expected {wanted}... Get the bundle from who holds that key."
        )
    try:
        Ed25519PublicKey.from_public_bytes(required_key).verify(signature, manifest_bytes)
    except InvalidSignature as error:
        raise BundleError(
            f"{SIGNATURE_NAME} by key {key.hex()[:16]}.. does not sign this manifest.json; one of them has changed. "
            "Copy the bundle anew."
        ) from error


def _signature_fields(path: Path) -> Dict[str, str]:
    """The checked fields of a manifest.sig. Raises BundleError."""
    if not os.path.lexists(path):
        raise BundleError(
            f"there is no {SIGNATURE_NAME}, and a signature is required. `edgelip export --sign KEY.pem` writes one."
        )
    fields = json_object(read_plain(path, limit_bytes=_SIGNATURE_LIMIT_BYTES), SIGNATURE_NAME)
    if tuple(sorted(fields)) != _FIELDS:
        got = ascii(sorted(fields))[:200]
        raise BundleError(f"{SIGNATURE_NAME} has {got}; expected {', '.join(_FIELDS)}. Sign again.")
    version, algorithm = fields["schema_version"], fields["algorithm"]
    if version != SCHEMA_VERSION or isinstance(version, bool) or algorithm != ALGORITHM:
        got = ascii([version, algorithm])[:100]
        raise BundleError(f"{SIGNATURE_NAME} is of kind {got}; expected [1, '{ALGORITHM}']. Upgrade edgelip.")
    for field, num_bytes in (("public_key", KEY_BYTES), ("signature", SIGNATURE_BYTES)):
        if not isinstance(fields[field], str) or not re.fullmatch(f"[0-9a-f]{{{2 * num_bytes}}}", fields[field]):
            got, wanted = ascii(fields[field])[:60], f"{2 * num_bytes} hexadecimal digits"
            raise BundleError(f"{SIGNATURE_NAME} {field} is {got}; expected {wanted}. Sign again.")
    return fields
