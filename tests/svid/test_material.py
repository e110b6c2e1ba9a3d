"""Files of identity material are known by what is in them, and nothing else is taken for any."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import IdentityError
from policyd.svid import jose
from policyd.svid.material import Certificates, KeySet, PrivateKey, Request, Token, chain, read
from tests.svid.drafts import a_key, a_leaf, an_authority

ROOT = an_authority("root")
ROOT_CERTIFICATE, LEAF = ROOT.sign(ROOT), a_leaf().sign(ROOT)
KEY = a_key()
CSR = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(KEY, hashes.SHA256())
TOKEN = jose.sign_es256({"alg": "ES256"}, {"sub": "x"}, KEY)
KEY_PEM = KEY.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def test_each_kind_is_known_by_its_content() -> None:
    both = LEAF.public_bytes(Encoding.PEM) + ROOT_CERTIFICATE.public_bytes(Encoding.PEM)
    assert read(both) == Certificates((LEAF, ROOT_CERTIFICATE))
    assert read(LEAF.public_bytes(Encoding.DER)) == Certificates((LEAF,))
    for form in (Encoding.PEM, Encoding.DER):
        found = read(CSR.public_bytes(form))
        assert isinstance(found, Request)
        assert found.request == CSR
    assert read(f"  {TOKEN}\n".encode()) == Token(TOKEN)
    assert read(b' {"keys": []}\n') == KeySet(b'{"keys": []}')
    assert chain(both) == (LEAF, ROOT_CERTIFICATE)


@pytest.mark.parametrize("data", [KEY_PEM, LEAF.public_bytes(Encoding.PEM) + KEY_PEM])
def test_a_private_key_is_known_wherever_it_stands(data: bytes) -> None:
    assert read(data) == PrivateKey("PRIVATE KEY")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no certificate, request, token or bundle"),
        (b"noise", "no certificate, request, token or bundle"),
        (b"-----BEGIN CERTIFICATE-----\nnoise\n", "cannot be read"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nnoise\n", "cannot be read"),
        (CSR.public_bytes(Encoding.DER).replace(b"\x02\x01\x00", b"\x02\x01\x2c", 1), "cannot be read"),
        (b"-----BEGIN X509 CRL-----\n", "`X509 CRL` is nothing that is known here"),
        (b"{", "no JSON"),
        (b"\0" * (2 << 20), "more than 1,048,576 bytes"),
        (CSR.public_bytes(Encoding.PEM) * 2, "one certificate signing request, this one 2; give each its own file"),
        (LEAF.public_bytes(Encoding.PEM) * 65, "at most 64 certificates, this one 65"),
    ],
)
def test_anything_else_is_said_to_be_none(data: bytes, why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        read(data)
    assert why in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_our_words(data: bytes) -> None:
    for prefix in (b"", b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN CERTIFICATE REQUEST-----\n", b"{"):
        try:
            read(prefix + data)
        except IdentityError:
            continue
