"""A good chain, and one thing broken a row, leaf and authority: each is refused, and for its own reason."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid.x509 import MAX_CERTIFICATE_BYTES, MAX_CHAIN, check_leaf, check_signing, parse, verify
from tests.svid.drafts import (
    BOTH,
    DOMAIN,
    HOUR,
    NOW,
    WEB,
    Draft,
    a_leaf,
    an_authority,
    constraints,
    named,
    uris,
    usage,
)

ROOT = an_authority("root")
ISSUER = an_authority("issuer")
ROOT_CERTIFICATE = ROOT.sign(ROOT)
ISSUER_CERTIFICATE = ISSUER.sign(ROOT)
LEAF = a_leaf()
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")


def purposes(*words: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage(words), False


def with_names(*more: x509.GeneralName) -> Draft:
    return LEAF.but(names=(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(WEB), *more]), True))


GOOD: list[tuple[str, Draft]] = [
    ("as ours are", LEAF),
    ("DNS names besides", with_names(x509.DNSName("web.default"), x509.DNSName("web"))),
    ("other names besides", with_names(x509.IPAddress(ip_address("10.0.0.1")), x509.RFC822Name("a@b.c"))),
    ("a subject, names not critical", replace(LEAF.but(names=uris(WEB, critical=False)), subject=named("w"))),
    ("no extended key usage", LEAF.but(purposes=None)),
    ("more purposes", LEAF.but(purposes=purposes(*BOTH, ExtendedKeyUsageOID.CODE_SIGNING))),
    ("enciphers and agrees", LEAF.but(usage=usage("digital_signature", "key_encipherment", "key_agreement"))),
    ("constraints that are not critical", LEAF.but(constraints=constraints(ca=False, critical=False))),
]  # fmt: skip

BROKEN_LEAVES: list[tuple[str, Draft, str]] = [
    ("two URIs", LEAF.but(names=uris(WEB, WEB + "2")), "exactly one URI, this one 2"),
    ("the same URI twice", LEAF.but(names=uris(WEB, WEB)), "exactly one URI, this one 2"),
    ("a second URI of the web", LEAF.but(names=uris(WEB, "https://web")), "exactly one URI, this one 2"),
    ("no URI", LEAF.but(names=(x509.SubjectAlternativeName([x509.DNSName("w")]), True)), "exactly one URI, this one 0"),
    ("no names", LEAF.but(names=None), "lacks the extension SubjectAlternativeName"),
    ("no subject, names not critical", LEAF.but(names=uris(WEB, critical=False)), "the alternative name is critical"),
    ("another scheme", LEAF.but(names=uris("https://cluster.local/web")), "is no SPIFFE ID"),
    ("a trust domain's own id", LEAF.but(names=uris(f"spiffe://{DOMAIN}")), "a leaf's has a path"),
    ("a root path", LEAF.but(names=uris(f"spiffe://{DOMAIN}/")), "is no path of a SPIFFE ID"),
    ("dot segments", LEAF.but(names=uris(f"spiffe://{DOMAIN}/a/../web")), "is no path of a SPIFFE ID"),
    ("percent-encoded", LEAF.but(names=uris(f"spiffe://{DOMAIN}/w%65b")), "is no path of a SPIFFE ID"),
    ("a trailing newline", LEAF.but(names=uris(WEB + "\n")), "is no path of a SPIFFE ID"),
    ("a trailing NUL", LEAF.but(names=uris(WEB + "\0")), "is no path of a SPIFFE ID"),
    ("upper case", LEAF.but(names=uris("spiffe://Cluster.local/web")), "is no trust domain name"),
    ("a port", LEAF.but(names=uris("spiffe://cluster.local:8443/web")), "is no trust domain name"),
    ("another trust domain", LEAF.but(names=uris("spiffe://partner.org/web")), "not of the trust domain"),
    ("an authority", LEAF.but(constraints=constraints(ca=True)), "that of an authority"),
    ("no constraints", LEAF.but(constraints=None), "lacks the extension BasicConstraints"),
    ("no usage", LEAF.but(usage=None), "lacks the extension KeyUsage"),
    ("usage not critical", LEAF.but(usage=usage("digital_signature", critical=False)), "KeyUsage is critical"),
    ("signs certificates", LEAF.but(usage=usage("digital_signature", "key_cert_sign")), "signs no certificates"),
    ("signs revocations", LEAF.but(usage=usage("digital_signature", "crl_sign")), "signs no certificates"),
    ("signs nothing", LEAF.but(usage=usage("key_agreement")), "may not be used for signatures"),
    ("serves only", LEAF.but(purposes=purposes(ExtendedKeyUsageOID.SERVER_AUTH)), "server and client authentication"),
    ("calls only", LEAF.but(purposes=purposes(ExtendedKeyUsageOID.CLIENT_AUTH)), "server and client authentication"),
    ("over", replace(LEAF, begins=NOW - 2 * HOUR, ends=NOW - HOUR / 60), "compare the clocks"),
    ("not yet", replace(LEAF, begins=NOW + HOUR / 60), "compare the clocks"),
    ("an unknown critical extension", LEAF.but(more=(UNKNOWN, True)), "does not chain"),
]  # fmt: skip

BROKEN_ISSUERS: list[tuple[str, Draft, str]] = [
    ("no authority", ISSUER.but(constraints=constraints(ca=False)), "cA=true"),
    ("no constraints", ISSUER.but(constraints=None), "lacks the extension BasicConstraints"),
    ("no usage", ISSUER.but(usage=None), "lacks the extension KeyUsage"),
    ("signs no certificates", ISSUER.but(usage=usage("crl_sign")), "has keyCertSign"),
    ("usage not critical", ISSUER.but(usage=usage("key_cert_sign", critical=False)), "KeyUsage is critical"),
    ("a path in its id", ISSUER.but(names=uris(WEB, critical=False)), "a signing certificate's identity has none"),
    ("two ids", ISSUER.but(names=uris(f"spiffe://{DOMAIN}", WEB, critical=False)), "exactly one URI, this one 2"),
    ("another domain", ISSUER.but(names=uris("spiffe://partner.org", critical=False)), "the trust domain `partner"),
    ("upper case", ISSUER.but(names=uris("SPIFFE://cluster.local/web", critical=False)), "is no SPIFFE ID"),
    ("over", replace(ISSUER, begins=NOW - 2 * HOUR, ends=NOW - HOUR / 60), "compare the clocks"),
]  # fmt: skip


@pytest.mark.parametrize("draft", [d for _, d in GOOD], ids=[name for name, _ in GOOD])
def test_what_the_specification_allows_is_accepted(draft: Draft) -> None:
    chain = (draft.sign(ISSUER), ISSUER_CERTIFICATE)
    assert verify(chain, [ROOT_CERTIFICATE], DOMAIN, NOW) == SpiffeId.parse(WEB)


@pytest.mark.parametrize(("draft", "why"), [row[1:] for row in BROKEN_LEAVES], ids=[row[0] for row in BROKEN_LEAVES])
def test_a_leaf_with_one_thing_wrong_is_refused(draft: Draft, why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        verify((draft.sign(ISSUER), ISSUER_CERTIFICATE), [ROOT_CERTIFICATE], DOMAIN, NOW)
    assert why in str(caught.value)


@pytest.mark.parametrize(("draft", "why"), [row[1:] for row in BROKEN_ISSUERS], ids=[row[0] for row in BROKEN_ISSUERS])
def test_an_intermediate_with_one_thing_wrong_is_refused(draft: Draft, why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        verify((LEAF.sign(draft), draft.sign(ROOT)), [ROOT_CERTIFICATE], DOMAIN, NOW)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("draft", "why"), [row[1:] for row in BROKEN_ISSUERS[:-1]], ids=[row[0] for row in BROKEN_ISSUERS[:-1]]
)
def test_a_root_with_one_thing_wrong_is_refused(draft: Draft, why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        verify((LEAF.sign(draft),), [draft.sign(draft)], DOMAIN, NOW)
    assert why in str(caught.value)


def test_the_root_of_a_company_needs_no_spiffe_id() -> None:
    company = an_authority("company").but(names=None, usage=usage("key_cert_sign", critical=False))
    check_signing(company.sign(company), DOMAIN)
    assert verify((LEAF.sign(company),), [company.sign(company)], DOMAIN, NOW) == SpiffeId.parse(WEB)


def test_one_of_several_roots_vouches() -> None:
    other = an_authority("next root")
    chain = (LEAF.sign(ISSUER), ISSUER_CERTIFICATE)
    assert verify(chain, [other.sign(other), ROOT_CERTIFICATE], DOMAIN, NOW) == SpiffeId.parse(WEB)
    with pytest.raises(IdentityError, match="does not chain"):
        verify(chain, [other.sign(other)], DOMAIN, NOW)


def test_a_forged_issuer_of_the_same_name_is_refused() -> None:
    forged = an_authority("issuer")
    with pytest.raises(IdentityError, match="does not chain"):
        verify((LEAF.sign(forged), ISSUER_CERTIFICATE), [ROOT_CERTIFICATE], DOMAIN, NOW)


def test_a_bundle_without_roots_makes_everything_untrusted() -> None:
    with pytest.raises(IdentityError, match=r"no root vouches for `cluster\.local`"):
        verify((LEAF.sign(ISSUER), ISSUER_CERTIFICATE), [], DOMAIN, NOW)


@pytest.mark.parametrize("length", [0, MAX_CHAIN + 1])
def test_a_chain_has_bounds(length: int) -> None:
    with pytest.raises(IdentityError, match=f"1 to {MAX_CHAIN} certificates, this one {length}"):
        verify([ISSUER_CERTIFICATE] * length, [ROOT_CERTIFICATE], DOMAIN, NOW)


def test_an_authority_is_no_workload() -> None:
    with pytest.raises(IdentityError, match="a leaf's has a path"):
        check_leaf(ISSUER_CERTIFICATE)


def test_a_certificate_is_read_within_bounds() -> None:
    assert parse(ROOT_CERTIFICATE.public_bytes(Encoding.DER)) == ROOT_CERTIFICATE
    for noise, why in ((b"noise", "cannot be read"), (b"x" * (MAX_CERTIFICATE_BYTES + 1), "at most 16384 bytes")):
        with pytest.raises(IdentityError, match=why):
            parse(noise)
