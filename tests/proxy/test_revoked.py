"""What an agent does with lists of revoked certificates: checked, handed to Envoy, and what it holds itself renewed."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from policyd.ca.crl import Lists, RevokedSerial, turned
from policyd.ca.rotation import Authorities, Generation
from policyd.envoy_api import SECRET, shared
from policyd.errors import IdentityError
from proxy.identity import MAX_CRL_BYTES, MAX_ROOTS, Bundle, Svid, check_crls
from proxy.secret import secrets
from proxy.tainted import Tainted, serials
from tests.ca.samples import DOMAIN, NOW, REVIEWS, a_key, a_material
from tests.fakes.toy_ca import ToyCa

MATERIAL = a_material()
LOST = RevokedSerial(f"{42:032x}", str(REVIEWS), int(NOW.timestamp()), int(NOW.timestamp()) + 3600)
[CRL] = turned(Lists(), Authorities((Generation(MATERIAL, "active", NOW),)), [LOST], NOW).ders


def svid(serial: int) -> Svid:
    return Svid(REVIEWS, b"", (b"leaf", b"signer"), NOW, NOW + timedelta(hours=1), serial)


def test_a_certificate_that_is_revoked_is_renewed_as_one_that_is_tainted() -> None:
    tainted = Tainted()
    tainted.hear((), serials([CRL]))
    assert [tainted.holds(svid(serial)) for serial in (42, 43)] == [True, False]
    tainted.hear([hashlib.sha256(b"signer").digest()], ())
    assert tainted.holds(svid(43))


@pytest.mark.parametrize(
    ("crls", "message"),
    [
        ([b"junk"], "a list of revoked certificates cannot be read"),
        ([CRL, b""], "a list of revoked certificates cannot be read"),
        ([CRL] * (MAX_ROOTS + 1), "at most 64 lists"),
        ([b"\0" * (MAX_CRL_BYTES + 1)], "at most 64 lists"),
    ],
)
def test_what_is_no_list_is_refused_and_bounded(crls: list[bytes], message: str) -> None:
    with pytest.raises(IdentityError, match=message):
        check_crls(crls)


def test_a_list_is_taken_as_it_is() -> None:
    assert check_crls([CRL]) == (CRL,)


def test_envoy_gets_roots_with_lists_and_each_trust_domain_apart() -> None:
    partner = Bundle("partner.org", (ToyCa("partner.org").root.der,), 1)
    ca, key = ToyCa(now=NOW), a_key()
    chain = tuple(ca.sign(key.public_key(), [str(REVIEWS)], start=NOW))
    held = Svid(REVIEWS, b"key", chain, NOW, NOW + timedelta(hours=1), 1)
    own = Bundle(DOMAIN, (ca.root.der,), 1)
    assert sorted(secrets(shared(), held, own, [partner]).of(SECRET)) == ["ROOTCA", "default"]
    made = secrets(shared(), held, own, [partner], [CRL]).of(SECRET)
    assert sorted(made) == ["ROOTCA", "ROOTCA+CRL", "default", "spiffe://partner.org"]
