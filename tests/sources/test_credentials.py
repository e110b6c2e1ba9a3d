"""Certificates and keys on disk: what can be used is known by its public key, of a private one nothing is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.sources.credentials import read_credentials
from policyd.sources.files import read_folder
from tests.certificates import Authority, key_pem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one credential."""
    authority = Authority("ca")
    certificate, key = authority.issue("shop.example")
    where = tmp_path / "credentials" / "shop"
    where.mkdir(parents=True)
    (where / "tls.crt").write_text(certificate)
    (where / "tls.key").write_text(key)
    (where / "tls.key").chmod(0o600)
    return tmp_path


def problem(folder: Path, name: str) -> str:
    return read_credentials(folder)[f"credentials/shop/{name}"].problem


def test_a_certificate_and_its_key_have_the_same_public_key(folder: Path) -> None:
    found = read_credentials(folder)
    certificate, key = (found[f"credentials/shop/tls.{kind}"] for kind in ("crt", "key"))

    assert certificate.public == key.public != ""
    assert (certificate.problem, key.problem, certificate.is_key, key.is_key) == ("", "", False, True)
    assert key.place == str(folder / "credentials/shop/tls.key")


def test_of_a_private_key_nothing_is_kept(folder: Path) -> None:
    secret = (folder / "credentials/shop/tls.key").read_text().splitlines()[1]
    read = read_folder(folder)

    assert secret not in repr(read)
    assert secret not in repr(read.known)
    assert read.texts == {}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_refused(folder: Path, mode: int) -> None:
    (folder / "credentials/shop/tls.key").chmod(mode)

    assert problem(folder, "tls.key") == "holds a private key that others may read"
    assert read_credentials(folder)["credentials/shop/tls.key"].public == ""


def test_a_key_in_the_file_of_the_certificate_is_a_key(folder: Path) -> None:
    (folder / "credentials/shop/tls.crt").write_text(key_pem())

    assert problem(folder, "tls.crt") == "holds a private key that others may read"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("tls.crt", "", "has no certificate that can be read"),
        (
            "tls.crt",
            "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
            "has no certificate that can be read",
        ),
        (
            "tls.key",
            "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n",
            "is no private key that can be read",
        ),
        ("tls.key", key_pem(b"secret"), "is a key with a passphrase"),
        ("tls.crt", "x" * 300_000, "is no file of certificates"),
    ],
)
def test_what_cannot_be_read_is_said(folder: Path, name: str, text: str, expected: str) -> None:
    (folder / "credentials/shop" / name).write_text(text)

    assert problem(folder, name) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (rsa.generate_private_key(65_537, 1024), "is an RSA key of 1024 bits"),
        (rsa.generate_private_key(65_537, 2048), ""),
        (ec.generate_private_key(ec.SECP256K1()), "is a key over the curve secp256k1"),
        (ec.generate_private_key(ec.SECP384R1()), ""),
        (ed25519.Ed25519PrivateKey.generate(), "is neither a key for RSA nor one for ECDSA"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_a_key_that_no_proxy_would_take_is_told(folder: Path, key: Any, expected: str) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "credentials/shop/tls.key").write_bytes(pem)

    assert problem(folder, "tls.key") == expected


def test_a_changed_certificate_changes_the_folder(folder: Path) -> None:
    before = read_folder(folder)
    (folder / "credentials/shop/tls.crt").write_text(Authority("ca").issue("shop.example")[0])

    assert read_folder(folder).digest != before.digest


def test_an_expired_certificate_is_told_from_one_that_holds(folder: Path) -> None:
    held = read_credentials(folder)["credentials/shop/tls.crt"]
    later = read_credentials(folder, datetime.now(UTC) + timedelta(days=365))["credentials/shop/tls.crt"]

    assert held.ended is None
    assert later.ended is not None
    assert held.ends == later.ends == later.ended  # which is told before it is over, too
    assert later.problem == ""


def test_a_list_of_revoked_certificates_is_kept_whole(folder: Path) -> None:
    text = Authority("one").revocations() + Authority("two").revocations(Authority("two").issue("x.example")[0])
    (folder / "credentials/shop/ca.crl").write_text(text)
    found = read_credentials(folder)["credentials/shop/ca.crl"]

    assert (found.text, found.is_list, found.is_key, found.problem, found.ended) == (text, True, False, "", None)


def test_of_two_lists_the_one_that_ended_is_told(folder: Path) -> None:
    authority = Authority("one")
    (folder / "credentials/shop/ca.crl").write_text(authority.revocations() + authority.revocations(ended=True))

    assert read_credentials(folder)["credentials/shop/ca.crl"].ended is not None


@pytest.mark.parametrize(
    "text", ["-----BEGIN X509 CRL-----\nMII\n-----END X509 CRL-----\n", "-----BEGIN X509 CRL-----"]
)
def test_a_list_that_cannot_be_read_is_said(folder: Path, text: str) -> None:
    (folder / "credentials/shop/ca.crl").write_text(text)

    assert problem(folder, "ca.crl") == "has no list of revoked certificates"


@pytest.mark.parametrize("for_rsa", [False, True])
def test_what_a_certificate_is_for_is_known(folder: Path, for_rsa: bool) -> None:
    (folder / "credentials/shop/tls.crt").write_text(Authority("ca").issue("shop.example", for_rsa=for_rsa)[0])

    assert read_credentials(folder)["credentials/shop/tls.crt"].algorithm == ("RSA" if for_rsa else "ECDSA")


def test_a_folder_without_credentials_has_none(tmp_path: Path) -> None:
    assert read_credentials(tmp_path) == {}


@pytest.mark.parametrize(
    ("data", "mode", "unfit"),
    [
        (b"Bearer abc=", 0o600, ""),
        (b"k", 0o400, ""),
        (b"k" * 4096, 0o600, ""),
        (b"k", 0o640, "can be read by others; `chmod 600` it (it has 640), and consider it known"),
        *(
            (
                data,
                0o600,
                "is no value of a header; write at most 4,096 characters and no line's end, as `printf %s` does",
            )
            for data in (
                b"",
                b"key\n",
                b"two\r\nx-other: 1",
                b" key",
                b"key ",
                b"\x00",
                "schlüssel".encode(),
                b"k" * 4097,
            )
        ),
    ],
)
def test_what_may_be_the_value_of_a_header_is_looked_at_and_not_kept(
    folder: Path, data: bytes, mode: int, unfit: str
) -> None:
    (folder / "credentials/shop/value").write_bytes(data)
    (folder / "credentials/shop/value").chmod(mode)
    found = read_credentials(folder)["credentials/shop/value"]

    assert (bool(found.writing), found.unfit, found.text) == (True, unfit, "")


def test_a_value_written_anew_changes_the_folder(folder: Path) -> None:
    value = folder / "credentials/shop/value"
    value.write_text("first")
    before = read_folder(folder)
    value.write_text("other, and longer")

    assert read_folder(folder).known != before.known
    assert "other, and longer" not in repr(read_folder(folder))


def test_neither_a_certificate_nor_a_key_is_the_value_of_a_header(folder: Path) -> None:
    assert {file.writing for file in read_credentials(folder).values()} == {""}
