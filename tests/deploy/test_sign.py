from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgelip.deploy import sign
from edgelip.deploy.sign import read_private_key, sign_bundle
from edgelip.errors import BundleError, UsageError
from edgelip.runtime.signature import read_public_key, verify_signature

# RFC 8032, section 7.1, test 2.
SEED = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sign, "manifest_from_bytes", lambda content: None)  # the manifest has tests of its own
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "manifest.json").write_bytes(b"{}")
    return tmp_path / "tiny"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key as OpenSSL writes it, and its public half."""
    private, public = tmp_path / "maker.pem", tmp_path / "maker.pub"
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SEED))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_a_signed_bundle_verifies_on_the_device(folder: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert sign_bundle(folder, private) == folder / "manifest.sig"
    verify_signature(folder, b"{}", read_public_key(public))
    with pytest.raises(BundleError, match="does not sign this manifest"):
        verify_signature(folder, b"{ }", read_public_key(public))


def test_a_private_key_may_be_the_hexadecimal_seed(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text(SEED + "\n")
    assert read_private_key(tmp_path / "seed").public_key().public_bytes_raw().hex() == PUBLIC


def test_other_keys_do_not_sign(tmp_path: Path) -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, message in [
        (curve, r"holds a ECPrivateKey; expected an ed25519 private key"),
        (b"00", r"cannot be read as a key; expected an ed25519 private key of 32 bytes, PEM without a password"),
        (b"-----BEGIN PRIVATE KEY-----", r"cannot be read as a key"),
    ]:
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(UsageError, match=message):
            read_private_key(tmp_path / "key")


def test_what_is_no_bundle_is_not_signed(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text(SEED)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read \(No such file or directory\)"):
        sign_bundle(tmp_path, tmp_path / "seed")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="manifest has no 'schema_version'"):
        sign_bundle(tmp_path, tmp_path / "seed")
    assert not (tmp_path / "manifest.sig").exists()
