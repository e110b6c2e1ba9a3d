"""Bundles: written as the specification has them, read back the same, and refused when anything in them is unsound."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import IdentityError, PolicydError
from policyd.svid.bundle import JWT_SVID, X509_SVID, Bundle, JwtKey, read, write
from tests.svid.drafts import DOMAIN, WEB, a_leaf, an_authority, uris

ROOT = an_authority("root")
ROOT_DER = ROOT.sign(ROOT).public_bytes(Encoding.DER)
NEXT = an_authority("next")
NEXT_DER = NEXT.sign(NEXT).public_bytes(Encoding.DER)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
RSA_KEY = rsa.generate_private_key(65537, 2048).public_key()
BUNDLE = Bundle(DOMAIN, (ROOT_DER, NEXT_DER), (JwtKey("k1", KEY), JwtKey("k2", RSA_KEY)), (1 << 63) + 5, 300)


def test_a_bundle_reads_back_as_it_was_written() -> None:
    assert read(write(BUNDLE), DOMAIN) == BUNDLE


def test_a_bundle_is_the_jwk_set_of_the_specification() -> None:
    document = json.loads(write(BUNDLE))
    assert (document["spiffe_sequence"], document["spiffe_refresh_hint"]) == ((1 << 63) + 5, 300)
    root, _, first, second = document["keys"]
    point = KEY.public_numbers()

    def number(value: int) -> str:
        return base64.urlsafe_b64encode(value.to_bytes(32)).rstrip(b"=").decode()

    assert first == {
        "kty": "EC",
        "crv": "P-256",
        "x": number(point.x),
        "y": number(point.y),
        "use": "jwt-svid",
        "kid": "k1",
    }
    assert (second["kty"], second["e"], second["use"], second["kid"]) == ("RSA", "AQAB", "jwt-svid", "k2")
    assert (root["kty"], root["use"], root["x5c"]) == ("EC", "x509-svid", [base64.b64encode(ROOT_DER).decode()])
    assert "kid" not in root


@pytest.mark.parametrize(("uses", "kept"), [((X509_SVID,), {"x509-svid"}), ((JWT_SVID,), {"jwt-svid"}), ((), set())])
def test_keys_of_other_uses_are_left_out(uses: tuple[str, ...], kept: set[str]) -> None:
    assert {key["use"] for key in json.loads(write(BUNDLE, uses))["keys"]} == kept


def test_a_bundle_with_zero_keys_is_one_that_trusts_nobody() -> None:
    empty = read(b'{"keys": []}', DOMAIN)
    assert empty == Bundle(DOMAIN)
    assert json.loads(write(empty)) == {"keys": []}


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(write(BUNDLE))
    change(document)
    return json.dumps(document).encode()


PASSED_OVER: list[tuple[str, Callable[[dict[str, Any]], object], tuple[int, int]]] = [
    ("an unknown member", lambda d: d.update(more=1), (2, 2)),
    ("an unknown member of a key", lambda d: d["keys"][0].update(more=1), (2, 2)),
    ("an unknown use", lambda d: d["keys"][0].update(use="wit-svid"), (1, 2)),
    ("a use in upper case", lambda d: d["keys"][0].update(use="X509-SVID"), (1, 2)),
    ("no use", lambda d: d["keys"][2].pop("use"), (2, 1)),
    ("an unknown kind", lambda d: d["keys"][2].update(kty="OKP"), (2, 1)),
    ("no kind", lambda d: d["keys"][0].pop("kty"), (1, 2)),
    ("no x5c", lambda d: d["keys"][0].pop("x5c"), (1, 2)),
    ("an empty x5c", lambda d: d["keys"][0].update(x5c=[]), (1, 2)),
    ("more than one in x5c", lambda d: d["keys"][0]["x5c"].append("noise"), (2, 2)),
    ("a kid where none belongs", lambda d: d["keys"][0].update(kid="root"), (2, 2)),
]


@pytest.mark.parametrize(("change", "left"), [row[1:] for row in PASSED_OVER], ids=[row[0] for row in PASSED_OVER])
def test_what_is_not_for_us_is_passed_over(change: Callable[[dict[str, Any]], object], left: tuple[int, int]) -> None:
    found = read(changed(change), DOMAIN)
    assert (len(found.roots), len(found.jwt_keys)) == left


def der(uri: str) -> str:
    draft = an_authority("other").but(names=uris(uri, critical=False))
    return base64.b64encode(draft.sign(draft).public_bytes(Encoding.DER)).decode()


LEAF_DER = a_leaf().sign(ROOT).public_bytes(Encoding.DER)
UNSOUND: list[tuple[str, bytes, str]] = [
    ("noise", b"noise", "no JSON"),
    ("a list", b"[]", "no JSON object"),
    ("no keys", b"{}", "has a list `keys`"),
    ("keys that are none", b'{"keys": [1]}', "has a list `keys`"),
    ("a name twice", b'{"keys": [], "keys": []}', "stands twice"),
    ("too many keys", json.dumps({"keys": [{}] * 257}).encode(), "at most 256 keys, this one 257"),
    ("huge", b" " * (1 << 21), "at most 1,048,576 bytes"),
    ("no base64", changed(lambda d: d["keys"][0].update(x5c=["!"])), "no base64"),
    ("no text", changed(lambda d: d["keys"][0].update(x5c=[1])), "no base64"),
    ("no certificate", changed(lambda d: d["keys"][0].update(x5c=["AAAA"])), "cannot be read"),
    ("a leaf as root", changed(lambda d: d["keys"][0].update(x5c=[base64.b64encode(LEAF_DER).decode()])), "cA=true"),
    ("the root of another", changed(lambda d: d["keys"][0].update(x5c=[der("spiffe://partner.org")])), "`partner.org`"),
    ("a root with a path", changed(lambda d: d["keys"][0].update(x5c=[der(WEB)])), "identity has none"),
    ("another key", changed(lambda d: d["keys"][0].update(x=d["keys"][2]["x"], y=d["keys"][2]["y"])), "another key"),
    ("no kid", changed(lambda d: d["keys"][2].pop("kid")), "has a `kid`"),
    ("an empty kid", changed(lambda d: d["keys"][2].update(kid="")), "has a `kid`"),
    ("a long kid", changed(lambda d: d["keys"][2].update(kid="k" * 257)), "`kid` of 1 to 256"),
    ("a kid twice", changed(lambda d: d["keys"][3].update(kid="k1")), "two JWT keys"),
    ("off the curve", changed(lambda d: d["keys"][2].update(y=d["keys"][2]["x"])), "is no key"),
    ("another curve", changed(lambda d: d["keys"][2].update(crv="secp256k1")), "`secp256k1` is not accepted"),
    ("a curve that is no text", changed(lambda d: d["keys"][2].update(crv=["P-256"])), "is no"),
    ("a short RSA key", changed(lambda d: d["keys"][3].update(n="AQAB")), "2048 to 8192 bits"),
    ("a long exponent", changed(lambda d: d["keys"][3].update(e=d["keys"][3]["n"])), "at most 32 bits"),
    ("no modulus", changed(lambda d: d["keys"][3].pop("n")), "lacks `n`"),
    ("a private key", changed(lambda d: d["keys"][2].update(d="AQAB")), "holds a private key; publish its public half"),
    ("a sequence of text", changed(lambda d: d.update(spiffe_sequence="1")), "`spiffe_sequence` is a whole number"),
    ("a sequence that is true", changed(lambda d: d.update(spiffe_sequence=True)), "`spiffe_sequence` is a whole"),
    ("a negative sequence", changed(lambda d: d.update(spiffe_sequence=-1)), "`spiffe_sequence` is a whole number"),
    ("a sequence of 65 bits", changed(lambda d: d.update(spiffe_sequence=1 << 64)), "at most 64 bits"),
    ("a broken hint", changed(lambda d: d.update(spiffe_refresh_hint=1.5)), "`spiffe_refresh_hint` is a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "why"), [row[1:] for row in UNSOUND], ids=[row[0] for row in UNSOUND])
def test_an_unsound_bundle_is_refused_whole(data: bytes, why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        read(data, DOMAIN)
    assert why in str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_any_value_of_any_member_is_read_or_refused(value: Any) -> None:
    for name in ("kty", "use", "kid", "crv", "x", "y", "x5c"):
        for at in (0, 2):
            try:
                read(changed(lambda d, at=at, name=name: d["keys"][at].update({name: value})), DOMAIN)  # type: ignore[misc]
            except PolicydError:
                continue
