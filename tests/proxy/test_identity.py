"""Keys, requests, checked SVIDs and the moment to renew them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from proxy.identity import (
    Bundle,
    Svid,
    check_bundle,
    check_svid,
    load_key,
    make_key,
    renewal,
    request,
)
from tests.fakes.toy_ca import ToyCa

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WEB = SpiffeId.workload("cluster.local", "default", "web")
CA = ToyCa(now=NOW)
BUNDLE = Bundle("cluster.local", (CA.root.der,), 1)
KEY = make_key()


def chain(**changes: object) -> tuple[bytes, ...]:
    """A good chain for KEY and WEB, less what `changes` break."""
    given: dict[str, object] = {"uris": [str(WEB)], "start": NOW - timedelta(minutes=1), **changes}
    return CA.sign(KEY.public_key(), **given)  # type: ignore[arg-type]


def test_a_request_names_nobody_and_proves_its_key() -> None:
    csr = x509.load_der_x509_csr(request(KEY))
    assert csr.is_signature_valid
    assert csr.public_key() == KEY.public_key()
    assert (csr.subject, len(csr.extensions)) == (x509.Name([]), 0)


def test_a_good_chain_becomes_an_svid() -> None:
    certificates = chain()
    svid = check_svid(KEY, WEB, certificates, BUNDLE, NOW)
    leaf = x509.load_der_x509_certificate(certificates[0])
    assert (svid.id, svid.chain, svid.serial) == (WEB, certificates, leaf.serial_number)
    assert (svid.not_before, svid.not_after) == (NOW - timedelta(minutes=1), NOW + timedelta(minutes=59))
    assert load_key(svid.key_pem).public_key() == KEY.public_key()
    assert "PRIVATE KEY" not in repr(svid)


def test_an_svid_ends_with_its_chain() -> None:
    late = chain(start=NOW, life=timedelta(days=1000))
    assert check_svid(KEY, WEB, late, BUNDLE, NOW).not_after == NOW + timedelta(days=365)


OTHER_CA = ToyCa(now=NOW)
REFUSED: list[tuple[str, Callable[[], tuple[bytes, ...]], str]] = [
    ("nothing", lambda: (), "1 to 8 certificates"),
    ("too much", lambda: chain() * 5, "1 to 8 certificates"),
    ("noise", lambda: (b"noise",), "cannot be read"),
    ("huge", lambda: (b"x" * 20_000,), "at most 16384 bytes"),
    ("another key", lambda: CA.sign(make_key().public_key(), [str(WEB)], start=NOW), "another key"),
    ("another name", lambda: chain(uris=["spiffe://cluster.local/ns/default/sa/api"]), "names `spiffe://cluster.local/ns/d"),
    ("two names", lambda: chain(uris=[str(WEB), "spiffe://cluster.local/b"]), "exactly one URI, this one 2"),
    ("no name", lambda: chain(uris=[], dns=["web"]), "exactly one URI, this one 0"),
    ("an authority", lambda: chain(ca=True), "that of an authority"),
    ("no key usage", lambda: chain(key_usage=False), "lacks the extension KeyUsage"),
    ("no signatures", lambda: chain(digital_signature=False), "may not be used for signatures"),
    ("over", lambda: chain(start=NOW - timedelta(hours=2)), "compare the clocks"),
    ("not yet", lambda: chain(start=NOW + timedelta(seconds=1)), "compare the clocks"),
    ("no intermediate", lambda: chain()[:1], "does not chain"),
    ("another root", lambda: OTHER_CA.sign(KEY.public_key(), [str(WEB)], start=NOW), "does not chain"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "why"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_anything_else_is_refused(made: Callable[[], tuple[bytes, ...]], why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_svid(KEY, WEB, made(), BUNDLE, NOW)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("bundle", "why"),
    [
        (replace(BUNDLE, trust_domain="other"), "is of trust domain `other`"),
        (replace(BUNDLE, roots=()), "1 to 64 roots"),
        (replace(BUNDLE, roots=(b"noise",)), "cannot be read"),
        (replace(BUNDLE, roots=(chain()[0],)), "not the certificate of an authority"),
    ],
)
def test_a_bundle_is_checked_too(bundle: Bundle, why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_bundle(bundle, "cluster.local")
    assert why in str(caught.value)


@pytest.mark.parametrize("key", [b"", b"noise", ec.generate_private_key(ec.SECP384R1())])
def test_only_p256_keys_are_loaded(key: bytes | ec.EllipticCurvePrivateKey) -> None:
    from cryptography.hazmat.primitives import serialization as form

    pem = key if isinstance(key, bytes) else key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )  # fmt: skip
    with pytest.raises(IdentityError):
        load_key(pem)


def svid(life: timedelta) -> Svid:
    return Svid(WEB, b"", (), NOW, NOW + life, 1)


@pytest.mark.parametrize(("spread", "minutes"), [(0.0, 30.0), (1.0, 33.0), (-1.0, 27.0), (9.0, 33.0)])
def test_renewal_is_at_half_of_life_give_or_take_a_tenth(spread: float, minutes: float) -> None:
    assert renewal(svid(timedelta(hours=1)), NOW, NOW, spread) == NOW + timedelta(minutes=minutes)


def test_a_life_that_is_shorter_than_the_clocks_allowance_is_halved_as_well() -> None:
    held = replace(svid(timedelta(seconds=10)), not_before=NOW - timedelta(minutes=2))
    assert renewal(held, NOW, NOW, 0.0) == NOW + timedelta(seconds=5)


@given(st.floats(2, 1e7), st.floats(0, 1), st.floats(-1, 1))
def test_renewal_is_always_ahead_and_never_after_the_end(life: float, age: float, spread: float) -> None:
    held = svid(timedelta(seconds=life))
    now = held.not_before + (held.not_after - held.not_before) * age
    if now >= held.not_after:
        return
    moment = renewal(held, held.not_before, now, spread)
    assert now < moment <= held.not_after
    assert moment >= held.not_before + (held.not_after - held.not_before) * 0.44


def test_two_thousand_agents_that_start_at_once_never_renew_at_once() -> None:
    """A herd of them would come every half of a life for ever, as a mesh that was restarted shows."""
    chance, life, agents = Random(7), timedelta(hours=1), 2000
    due, crowds = [NOW] * agents, []
    for _ in range(4):
        due = [renewal(replace(svid(life), not_after=at + life), at, at, chance.uniform(-1, 1)) for at in due]
        crowds.append(max(Counter((at - NOW) // timedelta(seconds=10) for at in due).values()))
    assert crowds[0] < agents / 20  # in the busiest ten seconds; six minutes would be 56 each
    assert crowds == sorted(crowds, reverse=True)  # they drift apart, never together
