from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgelip.runtime.errors import BundleError, MissingError, UsageError
from edgelip.runtime.signature import read_public_key, verify_signature

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]
MANIFEST = b'{"schema_version": 2}'


def write_signature(folder: Path, public_key: str, signature: str, **changes: Any) -> Path:
    fields = {"schema_version": 1, "algorithm": "ed25519", "public_key": public_key, "signature": signature} | changes
    (folder / "manifest.sig").write_text(json.dumps(fields))
    return folder


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, bytes]:
    """A folder with a right signature of MANIFEST, and the key that made it."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = key.public_key().public_bytes_raw()
    (tmp_path / "tiny").mkdir()
    return write_signature(tmp_path / "tiny", public.hex(), key.sign(MANIFEST).hex()), public


@pytest.mark.parametrize(("_secret", "public", "message", "signature"), RFC_8032)
def test_the_signatures_of_the_rfc_are_accepted_and_no_others(
    tmp_path: Path, _secret: str, public: str, message: str, signature: str
) -> None:
    write_signature(tmp_path, public, signature)
    verify_signature(tmp_path, bytes.fromhex(message), bytes.fromhex(public))
    with pytest.raises(BundleError, match=r"manifest\.sig by key \w{16}\.\. does not sign this manifest\.json"):
        verify_signature(tmp_path, bytes.fromhex(message) + b"x", bytes.fromhex(public))
    for digit in (0, 127):
        changed = f"{int(signature[digit], 16) ^ 1:x}"
        write_signature(tmp_path, public, signature[:digit] + changed + signature[digit + 1 :])
        with pytest.raises(BundleError, match=r"does not sign this manifest\.json; one of them has changed"):
            verify_signature(tmp_path, bytes.fromhex(message), bytes.fromhex(public))


def test_another_key_is_named_however_right_its_signature(signed: tuple[Path, bytes]) -> None:
    folder, public = signed
    with pytest.raises(BundleError) as caught:
        verify_signature(folder, MANIFEST, bytes(32))
    got, wanted = public.hex()[:16], "0" * 16
    assert str(caught.value) == (
        f"manifest.sig is by key {got}..; expected {wanted}... Get the bundle from who holds that key."
    )


def test_a_missing_signature_is_said_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no manifest\.sig, and a signature is required"):
        verify_signature(tmp_path, MANIFEST, bytes(32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_text("{"), r"manifest\.sig is not readable JSON"),
        (lambda file: file.write_bytes(b"\xff\xfe"), r"manifest\.sig is not readable JSON"),
        (lambda file: file.write_text("[" * 3000), r"manifest\.sig is not readable JSON"),
        (lambda file: file.write_text('{"signature": 1, "signature": 2}'), r"a key stands twice"),
        (lambda file: file.write_text("[]"), r"manifest\.sig holds a list; expected an object"),
        (lambda file: file.write_text("x" * 5000), r"manifest\.sig has 5000 bytes; the limit is 4096"),
        (lambda file: file.unlink() or file.symlink_to("/etc/hostname"), r"manifest\.sig is a link, folder or device"),
        (lambda file: write_signature(file.parent, "0", "0"), r"public_key is '0'; expected 64 hexadecimal digits"),
        (lambda file: write_signature(file.parent, "0" * 64, "Z" * 128), r"signature is 'Z+\.?.*; expected 128 hexa"),
        (
            lambda file: write_signature(file.parent, "0" * 64, "0", algorithm="rsa"),
            r"is of kind \[1, 'rsa'\]; expected",
        ),
        (lambda file: write_signature(file.parent, "0" * 64, "0", schema_version=2), r"is of kind \[2, 'ed25519'\]"),
        (lambda file: write_signature(file.parent, "0" * 64, "0", more=1), r"'more'.*; expected algorithm"),
    ],
)
def test_a_damaged_signature_is_refused_in_one_line(
    signed: tuple[Path, bytes], damage: Callable[[Path], Any], message: str
) -> None:
    folder, public = signed
    damage(folder / "manifest.sig")
    with pytest.raises(BundleError, match=message) as caught:
        verify_signature(folder, MANIFEST, public)
    assert "\n" not in str(caught.value)


def test_without_cryptography_a_required_signature_is_exit_4(
    signed: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError, match=r"cannot be checked without it\. pip install cryptography") as caught:
        verify_signature(signed[0], MANIFEST, signed[1])
    assert caught.value.exit_code == 4


def test_a_public_key_is_read_as_hex_or_pem(tmp_path: Path) -> None:
    public = bytes(range(32))
    (tmp_path / "hex.pub").write_text(public.hex().upper() + "\n")
    # The example of RFC 8410, section 10.1.
    pem = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    (tmp_path / "pem.pub").write_text(f"-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n")
    assert read_public_key(tmp_path / "hex.pub") == public
    assert read_public_key(tmp_path / "pem.pub").hex() == (
        "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            "holds a private key; expected a public key",
        ),
        ("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", "holds no ed25519 public key"),
        ("-----BEGIN PUBLIC KEY-----\nA=A\n-----END PUBLIC KEY-----\n", "holds no ed25519 public key"),
        ("00" * 31, "holds no ed25519 public key"),
        ("0" * 5000, "is no key; expected at most 4096 bytes"),
        ("ключ", "is no key; expected at most 4096 bytes"),
    ],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "KEY.pub").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_public_key(tmp_path / "KEY.pub")
    with pytest.raises(UsageError, match=r"key .*absent cannot be read \(No such file or directory\)"):
        read_public_key(tmp_path / "absent")
