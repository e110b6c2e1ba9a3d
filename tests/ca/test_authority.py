"""The authority signs what the registration says, no longer than its chain, and checks what it signed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from policyd.ca import template
from policyd.ca.authority import authority_of
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from tests.ca.samples import DOMAIN, NOW, REVIEWS, a_key, a_material, an_authority

MINUTE = timedelta(minutes=1)


def test_a_leaf_bears_its_identity_for_an_hour_and_began_two_minutes_ago() -> None:
    svid = an_authority().sign(REVIEWS, a_key().public_key(), now=NOW, random=os.urandom)
    alternative = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (alternative.critical, list(alternative.value)) == (True, [x509.UniformResourceIdentifier(str(REVIEWS))])
    assert list(svid.leaf.subject) == []
    assert template.life_of(svid.leaf) == template.Validity(NOW - 2 * MINUTE, NOW + 60 * MINUTE)
    assert svid.chain == tuple(c.public_bytes(Encoding.DER) for c in (svid.leaf, svid.intermediate))


def test_an_rsa_key_is_for_enciphering_keys_and_an_elliptic_one_for_agreeing_on_them() -> None:
    authority = an_authority()
    keys = (a_key().public_key(), rsa.generate_private_key(65537, 2048).public_key())
    leaves = [authority.sign(REVIEWS, key, now=NOW, random=os.urandom).leaf for key in keys]
    usages = [leaf.extensions.get_extension_for_class(x509.KeyUsage).value for leaf in leaves]
    assert [(u.key_agreement, u.key_encipherment) for u in usages] == [(True, False), (False, True)]


def test_dns_names_come_from_the_caller_of_sign() -> None:
    svid = an_authority().sign(
        SpiffeId.server(DOMAIN), a_key().public_key(), now=NOW, random=os.urandom, dns_names=("policyd",)
    )
    names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["policyd"]


def test_a_leaf_ends_with_its_chain() -> None:
    authority = an_authority()
    late = authority.intermediate.not_valid_after_utc - 10 * MINUTE
    svid = authority.sign(REVIEWS, a_key().public_key(), now=late, random=os.urandom)
    assert svid.not_after == authority.intermediate.not_valid_after_utc


def test_a_leaf_that_would_end_too_soon_is_refused() -> None:
    authority = an_authority()
    late = authority.intermediate.not_valid_after_utc - 4 * MINUTE
    with pytest.raises(IdentityError, match="the authority's own chain ends at"):
        authority.sign(REVIEWS, a_key().public_key(), now=late, random=os.urandom)
    with pytest.raises(IdentityError, match="ask for a longer life"):
        authority.sign(REVIEWS, a_key().public_key(), now=NOW, random=os.urandom, ttl=timedelta(seconds=4))


@given(st.integers(min_value=-1000, max_value=400 * 24 * 60), st.integers(min_value=-10, max_value=400 * 24 * 60))
def test_no_life_leaves_its_issuer_nor_is_shorter_than_five_minutes(starts: int, ttl: int) -> None:
    issuer = template.Validity(NOW, NOW + timedelta(days=365))
    now = NOW + starts * MINUTE
    try:
        life = template.validity(now, ttl * MINUTE, within=issuer)
    except IdentityError:
        assert min(now + ttl * MINUTE, issuer.not_after) - now < template.LEAST_LIFE
    else:
        assert issuer.not_before <= life.not_before
        assert now + template.LEAST_LIFE <= life.not_after <= issuer.not_after


def test_an_identity_of_another_trust_domain_is_refused() -> None:
    with pytest.raises(IdentityError, match=r"is not of the trust domain `cluster\.local`"):
        an_authority().sign(SpiffeId("partner.org", "/web"), a_key().public_key(), now=NOW, random=os.urandom)


def test_the_authority_certifies_none_of_its_own_keys() -> None:
    authority = an_authority()
    with pytest.raises(IdentityError, match="the authority's own key is nobody else's"):
        authority.sign(REVIEWS, authority.key.public_key(), now=NOW, random=os.urandom)


def test_what_fails_its_check_does_not_leave() -> None:
    """An authority whose key is not that of its certificate signs nothing that gets out."""
    broken = dataclasses.replace(an_authority(), key=a_key())
    with pytest.raises(IdentityError, match="was not signed by its issuer"):
        broken.sign(REVIEWS, a_key().public_key(), now=NOW, random=os.urandom)


def test_serial_numbers_are_the_random_source_s_128_bits() -> None:
    drawn = bytes(range(16))
    svid = an_authority().sign(REVIEWS, a_key().public_key(), now=NOW, random=lambda n: drawn[:n])
    assert svid.serial == drawn.hex()
    with pytest.raises(IdentityError, match="nothing but zeros"):
        template.serial_number(bytes)


def test_material_whose_parts_do_not_belong_together_makes_no_authority() -> None:
    material, other = a_material(), a_material()
    for part in ("root", "root_key", "intermediate", "intermediate_key"):
        with pytest.raises(IdentityError):
            authority_of(dataclasses.replace(material, **{part: getattr(other, part)}), DOMAIN, now=NOW)
    with pytest.raises(IdentityError, match=r"is of the trust domain `cluster\.local`, not `partner\.org`"):
        authority_of(material, "partner.org", now=NOW)


def test_keys_show_in_no_repr() -> None:
    material = a_material()
    assert "key" not in repr(material)
    assert "key" not in repr(authority_of(material, DOMAIN, now=NOW)).lower().replace("policyd", "")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_verifies_the_chain_strictly(tmp_path: Path, purpose: str) -> None:
    authority = an_authority()
    svid = authority.sign(REVIEWS, a_key().public_key(), now=NOW, random=os.urandom)
    for name, certificate in (("root", authority.root), ("mid", svid.intermediate), ("leaf", svid.leaf)):
        (tmp_path / name).write_bytes(certificate.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(NOW.timestamp()))]
    done = subprocess.run(
        [*command, "-CAfile", "root", "-untrusted", "mid", "leaf"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "leaf: OK\n"), done.stderr
