"""Of a request only the key counts, and what asks for more is refused."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from policyd.ca.csr import MAX_BYTES, parse_csr
from policyd.errors import CsrError
from policyd.spiffe import SpiffeId
from tests.ca.samples import DOMAIN, REVIEWS, a_csr, a_key

OWN_NAME = x509.UniformResourceIdentifier(str(REVIEWS))
SERVER = x509.UniformResourceIdentifier(str(SpiffeId.server(DOMAIN)))
LARGE_RSA = rsa.generate_private_key(65537, 2048)
KEY = a_key()


def spki(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def builder() -> x509.CertificateSigningRequestBuilder:
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))


def usage() -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, True, True, False, False)


def forged() -> bytes:
    """A request whose signature is off by one bit: no proof that its sender holds the key."""
    good = a_csr(KEY)
    return good[:-1] + bytes([good[-1] ^ 1])


@pytest.mark.parametrize(
    "key", [KEY, ec.generate_private_key(ec.SECP384R1()), LARGE_RSA], ids=["P-256", "P-384", "RSA 2048"]
)
@pytest.mark.parametrize("names", [(), (OWN_NAME,)], ids=["no name", "its own name"])
def test_a_good_request_gives_its_key(key: ec.EllipticCurvePrivateKey, names: tuple[x509.GeneralName, ...]) -> None:
    der = a_csr(key, names=names)
    accepted = parse_csr(der, REVIEWS)
    assert (spki(accepted.key), accepted.sha256) == (spki(key.public_key()), hashlib.sha256(der).hexdigest())


REFUSED = [
    ("empty", b"", "cannot be read"),
    ("garbage", b"\x30\x82\xff\xff" + b"\x00" * 99, "cannot be read"),
    ("of no version", a_csr().replace(b"\x02\x01\x00", b"\x02\x01\x2c", 1), "cannot be read"),
    ("trailing bytes", a_csr() + b"\x00", "cannot be read"),
    ("PEM", x509.load_der_x509_csr(a_csr()).public_bytes(Encoding.PEM), "cannot be read"),
    ("oversized", a_csr() + b"\x00" * MAX_BYTES, f"at most {MAX_BYTES} bytes"),
    ("a bad signature", forged(), "is not signed by its key"),
    ("weak RSA", a_csr(rsa.generate_private_key(65537, 1024)), "2048 to 8192 bits, this one 1024"),
    ("another curve", a_csr(ec.generate_private_key(ec.SECP521R1())), "the curve `secp521r1` is not accepted"),
    ("a Bitcoin curve", a_csr(ec.generate_private_key(ec.SECP256K1())), "the curve `secp256k1` is not accepted"),
    (
        "Ed25519",
        builder().sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER),
        "a key of this kind is not accepted",
    ),
    ("a subject", a_csr(subject="admin"), "names no subject"),
    ("a foreign URI", a_csr(names=[SERVER]), "asks for other names"),
    ("a second URI", a_csr(names=[OWN_NAME, SERVER]), "asks for other names"),
    ("a DNS name", a_csr(names=[OWN_NAME, x509.DNSName("policyd")]), "asks for other names"),
    ("to be an authority", a_csr(extensions=[x509.BasicConstraints(True, 0)]), "`2.5.29.19` (BasicConstraints) is not"),
    ("not to be one", a_csr(extensions=[x509.BasicConstraints(False, None)]), "`2.5.29.19` (BasicConstraints) is not"),
    ("a usage", a_csr(extensions=[usage()]), "`2.5.29.15` (KeyUsage) is not accepted"),
    (
        "a purpose",
        a_csr(extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])]),
        "`2.5.29.37` (ExtendedKeyUsage) is not accepted",
    ),
    (
        "an attribute",
        builder()
        .add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.DER),
        "the attribute `1.2.840.113549.1.9.7` is not accepted",
    ),
]


@pytest.mark.parametrize(("der", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_request_for_anything_else_is_refused(der: bytes, message: str) -> None:
    with pytest.raises(CsrError) as caught:
        parse_csr(der, REVIEWS)
    assert message in caught.value.message


@pytest.mark.parametrize("key", [KEY, ec.generate_private_key(ec.SECP384R1())], ids=["P-256", "P-384"])
def test_a_key_in_place_of_another_is_not_proven(key: ec.EllipticCurvePrivateKey) -> None:
    """Who has somebody's public key, and not the private one, signs with their own."""
    victim = ec.generate_private_key(key.curve)
    own, wanted = spki(key.public_key()), spki(victim.public_key())
    signed = a_csr(key)
    assert signed.count(own) == 1
    with pytest.raises(CsrError, match="is not signed by its key"):
        parse_csr(signed.replace(own, wanted), REVIEWS)


def test_the_authority_s_own_key_is_refused() -> None:
    with pytest.raises(CsrError, match="the authority's own key"):
        parse_csr(a_csr(KEY), REVIEWS, own_keys=[a_key().public_key(), KEY.public_key()])


@given(st.binary(max_size=400), st.integers(0, 200))
def test_damaged_bytes_are_an_error_of_ours(noise: bytes, place: int) -> None:
    good = a_csr(KEY)
    damaged = good[:place] + noise + good[place + len(noise) :]
    if damaged != good:
        with pytest.raises(CsrError):
            parse_csr(damaged, REVIEWS)
