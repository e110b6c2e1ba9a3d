"""One good certificate, and one thing broken a row: each is refused, and for its own reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from policyd.ca.authority import Authority
from policyd.ca.check import check_intermediate, check_key, check_root, check_svid
from policyd.errors import IdentityError
from tests.ca.samples import DOMAIN, NOW, REVIEWS, a_key, a_material, an_authority

AUTHORITY = an_authority()
MATERIAL = a_material()
LEAF_KEY = a_key()
HOUR = timedelta(hours=1)
GOOD_USAGE = {
    "digital_signature": True, "content_commitment": False, "key_encipherment": False, "data_encipherment": False,
    "key_agreement": True, "key_cert_sign": False, "crl_sign": False, "encipher_only": False, "decipher_only": False,
}  # fmt: skip


def usage(**changes: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**(GOOD_USAGE | changes))


def names(*texts: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text) for text in texts])


@dataclass(frozen=True)
class Draft:
    """A certificate before its signature; `extensions` are (value, critical) by name, None leaves one out."""

    subject: x509.Name = field(default_factory=lambda: x509.Name([]))
    begins: datetime = NOW
    ends: datetime = NOW + HOUR
    serial: int = 1 << 100
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey = field(default_factory=LEAF_KEY.public_key)
    issuer: x509.Name = AUTHORITY.intermediate.subject
    signer: ec.EllipticCurvePrivateKey = AUTHORITY.key
    hash: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    extensions: dict[str, tuple[x509.ExtensionType, bool] | None] = field(default_factory=dict)

    def sign(self) -> x509.Certificate:
        signer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(AUTHORITY.key.public_key())
        extensions: dict[str, tuple[x509.ExtensionType, bool] | None] = {
            "names": (names(str(REVIEWS)), True),
            "constraints": (x509.BasicConstraints(False, None), True),
            "usage": (usage(), True),
            "purposes": (
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                False,
            ),
            "subject_id": (x509.SubjectKeyIdentifier.from_public_key(self.key), False),
            "signer_id": (signer_id, False),
        }
        builder = x509.CertificateBuilder(self.issuer, self.subject, self.key, self.serial, self.begins, self.ends)
        for extension in (extensions | self.extensions).values():
            if extension is not None:
                builder = builder.add_extension(*extension)
        return builder.sign(self.signer, self.hash)


def extended(**extensions: tuple[x509.ExtensionType, bool] | None) -> Draft:
    return Draft(extensions=extensions)


def with_names(*general: x509.GeneralName) -> Draft:
    own = x509.UniformResourceIdentifier(str(REVIEWS))
    return extended(names=(x509.SubjectAlternativeName([own, *general]), True))


BROKEN: list[tuple[str, Draft, str]] = [
    ("two URIs", extended(names=(names(str(REVIEWS), f"spiffe://{DOMAIN}/b"), True)), "exactly one URI, this one 2"),
    ("no URI", extended(names=(x509.SubjectAlternativeName([x509.DNSName("a")]), True)), "exactly one URI, this one 0"),
    ("no names", extended(names=None), "lacks the extension SubjectAlternativeName"),
    ("names not critical", extended(names=(names(str(REVIEWS)), False)), "without a subject the alternative name"),
    ("another scheme", extended(names=(names("https://cluster.local/a"), True)), "is no SPIFFE ID"),
    ("no path", extended(names=(names(f"spiffe://{DOMAIN}"), True)), "a leaf's has a path"),
    ("upper case", extended(names=(names("spiffe://Cluster.local/a"), True)), "is no trust domain name"),
    ("foreign domain", extended(names=(names("spiffe://partner.org/a"), True)), "not of the trust domain"),
    ("an address", with_names(x509.IPAddress(ip_address("127.0.0.1"))), "no other kind of name"),
    ("an e-mail address", with_names(x509.RFC822Name("a@b.c")), "no other kind of name"),
    ("an authority", extended(constraints=(x509.BasicConstraints(True, 0), True)), "cA=false"),
    ("no constraints", extended(constraints=None), "lacks the extension BasicConstraints"),
    ("constraints not critical", extended(constraints=(x509.BasicConstraints(False, None), False)), "is critical"),
    ("no usage", extended(usage=None), "lacks the extension KeyUsage"),
    ("usage not critical", extended(usage=(usage(), False)), "the extension KeyUsage is critical"),
    ("signs certificates", extended(usage=(usage(key_cert_sign=True), True)), "signs no certificates"),
    ("signs revocations", extended(usage=(usage(crl_sign=True), True)), "signs no certificates"),
    ("no signatures", extended(usage=(usage(digital_signature=False), True)), "a leaf's key is for signatures"),
    ("enciphers data", extended(usage=(usage(data_encipherment=True), True)), "a leaf's key is for signatures"),
    ("no purposes", extended(purposes=None), "lacks the extension ExtendedKeyUsage"),
    (
        "one purpose",
        extended(purposes=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)),
        "server and client authentication",
    ),
    ("no key id", extended(subject_id=None), "lacks the extension SubjectKeyIdentifier"),
    ("a wrong key id", extended(subject_id=(x509.SubjectKeyIdentifier(b"x" * 20), False)), "not that of the key"),
    ("no issuer id", extended(signer_id=None), "lacks the extension AuthorityKeyIdentifier"),
    (
        "a wrong issuer id",
        extended(signer_id=(x509.AuthorityKeyIdentifier(b"x" * 20, None, None), False)),
        "not that of the issuer",
    ),
    ("a foreign extension", extended(more=(x509.OCSPNoCheck(), False)), "`1.3.6.1.5.5.7.48.1.5` has no place"),
    ("another signer", replace(Draft(), signer=a_key()), "not signed by its issuer"),
    ("another issuer", replace(Draft(), issuer=AUTHORITY.root.subject), "not signed by its issuer"),
    ("a larger curve", replace(Draft(), key=ec.generate_private_key(ec.SECP521R1()).public_key()), "`secp521r1`"),
    ("outlives its issuer", replace(Draft(), ends=NOW + timedelta(days=366)), "ends no later"),
    ("older than its issuer", replace(Draft(), begins=NOW - HOUR), "begins no earlier"),
    ("not yet valid", replace(Draft(), begins=NOW + HOUR / 2), "the certificate begins at"),
]  # fmt: skip


def test_the_good_certificate_is_accepted() -> None:
    chain = (Draft().sign(), AUTHORITY.intermediate)
    assert check_svid(chain, AUTHORITY.root, NOW) == REVIEWS


@pytest.mark.parametrize(("draft", "message"), [(d, m) for _, d, m in BROKEN], ids=[n for n, _, _ in BROKEN])
def test_a_certificate_with_one_thing_wrong_is_refused(draft: Draft, message: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_svid((draft.sign(), AUTHORITY.intermediate), AUTHORITY.root, NOW)
    assert message in str(caught.value)


def test_a_certificate_with_a_subject_needs_no_critical_name() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "reviews")])
    draft = replace(Draft(), subject=subject, extensions={"names": (names(str(REVIEWS)), False)})
    assert check_svid((draft.sign(), AUTHORITY.intermediate), AUTHORITY.root, NOW) == REVIEWS


def test_a_chain_that_ends_at_another_root_is_refused() -> None:
    with pytest.raises(IdentityError, match="no valid path"):
        check_svid((Draft().sign(), AUTHORITY.intermediate), an_authority().root, NOW)


def test_a_chain_without_its_intermediate_is_refused() -> None:
    with pytest.raises(IdentityError, match="a chain holds the leaf and its intermediate"):
        check_svid((Draft().sign(),), AUTHORITY.root, NOW)


def test_an_expired_certificate_is_refused() -> None:
    with pytest.raises(IdentityError, match=r"ended at .*, and here it is 2026-11-23T14:00:00Z"):
        check_svid((Draft().sign(), AUTHORITY.intermediate), AUTHORITY.root, NOW + 2 * HOUR)


def test_the_authority_s_own_certificates_are_accepted() -> None:
    check_root(AUTHORITY.root, DOMAIN, NOW)
    check_intermediate(AUTHORITY.intermediate, AUTHORITY.root, DOMAIN, NOW)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda a: check_root(a.intermediate, DOMAIN, NOW), "authority key identifier is not"),
        (lambda a: check_intermediate(a.root, a.root, DOMAIN, NOW), "path length 0"),
        (lambda a: check_root(Draft().sign(), DOMAIN, NOW), "has a path"),
        (lambda a: check_root(a.root, "partner.org", NOW), "of the trust domain `cluster.local`"),
        (lambda a: check_root(a.root, DOMAIN, NOW + timedelta(days=4000)), "the certificate ended at"),
        (
            lambda a: check_intermediate(a.intermediate, a.root, DOMAIN, NOW + timedelta(days=366)),
            "the certificate ended at",
        ),
        (lambda a: check_intermediate(MATERIAL.intermediate, a.root, DOMAIN, NOW), "is not that of the issuer"),
    ],
)
def test_an_authority_s_certificate_out_of_place_is_refused(check: Callable[[Authority], None], message: str) -> None:
    with pytest.raises(IdentityError, match=message):
        check(AUTHORITY)


def test_the_root_lives_ten_years_and_the_intermediate_one() -> None:
    years = [c.not_valid_after_utc.year - NOW.year for c in (AUTHORITY.root, AUTHORITY.intermediate)]
    assert years == [10, 1]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (ec.generate_private_key(ec.SECP256K1()).public_key(), "the curve `secp256k1` is not accepted; use P-256"),
        (ec.generate_private_key(ec.SECP521R1()).public_key(), "the curve `secp521r1` is not accepted"),
        (ed25519.Ed25519PrivateKey.generate().public_key(), "a key of this kind is not accepted; use ECDSA with P-256"),
        (rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key(), "2048 to 8192 bits, this one 1024"),
        (rsa.RSAPublicNumbers(65537, (1 << 9000) + 1).public_key(), "2048 to 8192 bits, this one 9001"),
        (rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key(), "the public exponent 65537"),
        (b"", "a key of this kind"),
    ],
)
def test_a_key_that_tls_cannot_use_well_is_refused(key: object, message: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_key(key)
    assert message in str(caught.value)


def test_keys_that_tls_uses_are_accepted() -> None:
    for key in (a_key().public_key(), ec.generate_private_key(ec.SECP384R1()).public_key()):
        assert check_key(key) is key
