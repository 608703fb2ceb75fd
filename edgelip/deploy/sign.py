"""Signing bundles on the machine that makes them, with a key as `openssl genpkey -algorithm ed25519` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edgelip.errors import BundleError, UsageError
from edgelip.files import write_atomic
from edgelip.registry import require
from edgelip.runtime.bundle import MANIFEST_NAME
from edgelip.runtime.manifest import MANIFEST_LIMIT_BYTES, manifest_from_bytes
from edgelip.runtime.signature import (
    ALGORITHM,
    KEY_BYTES,
    SCHEMA_VERSION,
    SIGNATURE_NAME,
    read_key_file,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """An ed25519 private key: unencrypted PEM, or the 64 hexadecimal digits of its seed. Raises UsageError."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text = read_key_file(path).strip()
    expected = f"expected an ed25519 private key of {KEY_BYTES} bytes, PEM without a password or hexadecimal"
    try:
        if "BEGIN" not in text:
            return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} cannot be read as a key; {expected}.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} holds a {type(key).__name__.strip('_')}; {expected}.")
    return key


def sign_bundle(folder: Path, key_path: Path) -> Path:
    """Write `manifest.sig` into the bundle, over what its manifest holds now; the file written.

    Raises BundleError if the manifest is not one, UsageError if the key is not.
    """
    key = read_private_key(key_path)
    try:
        with (folder / MANIFEST_NAME).open("rb") as file:
            content = file.read(MANIFEST_LIMIT_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{folder / MANIFEST_NAME} cannot be read ({error.strerror}); expected a bundle.") from error
    manifest_from_bytes(content)  # nothing is vouched for that no device would open
    fields = {
        "schema_version": SCHEMA_VERSION,
        "algorithm": ALGORITHM,
        "public_key": key.public_key().public_bytes_raw().hex(),
        "signature": key.sign(content).hex(),
    }
    write_atomic(folder / SIGNATURE_NAME, json.dumps(fields, indent=1) + "\n")
    return folder / SIGNATURE_NAME


def _require_cryptography() -> None:
    require("cryptography", extra="sign")
