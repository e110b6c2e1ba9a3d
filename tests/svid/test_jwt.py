"""A good token, and one thing broken a row: each is refused, and for its own reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import IdentityError, PolicydError
from policyd.spiffe import SpiffeId
from policyd.svid import jose
from policyd.svid.bundle import Bundle, JwtKey
from policyd.svid.jwt import JwtSvid, check_audiences, read, validate
from tests.fakes.issuer import b64, new_key, public, signed
from tests.svid.drafts import NOW, WEB

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
BUNDLE = Bundle("cluster.local", jwt_keys=(JwtKey("k1", KEY.public_key()), JwtKey("k2", OTHER.public_key())))
PARTNER = Bundle("partner.org", jwt_keys=(JwtKey("k1", OTHER.public_key()),))
SECOND = int(NOW.timestamp())

HEADER = {"alg": "ES256", "kid": "k1", "typ": "JWT"}
CLAIMS = {"sub": WEB, "aud": ["shop"], "exp": SECOND + 300, "iat": SECOND}


def token(key: Any = KEY, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A good one, less what is changed; None leaves a claim or a header member out."""
    both = ({**HEADER, **(header or {})}, {**CLAIMS, **claims})
    return signed(*({name: value for name, value in part.items() if value is not None} for part in both), key)


def check(text: str, audience: str = "shop", later: float = 0) -> JwtSvid:
    bundles = {bundle.trust_domain: bundle for bundle in (BUNDLE, PARTNER)}
    return validate(text, bundles.get, audience, NOW + timedelta(seconds=later))


def with_header(**header: Any) -> str:
    return token(header=header)


def raw(header: str, claims: str) -> str:
    """Signed with the right key, whatever it says."""
    text = f"{b64(header.encode())}.{b64(claims.encode())}"
    return f"{text}.{signed(HEADER, CLAIMS, KEY).rpartition('.')[2]}"


def test_a_good_token_proves_its_subject() -> None:
    assert check(token()) == JwtSvid(
        SpiffeId.parse(WEB), ("shop",), NOW + timedelta(seconds=300), "k1", {**CLAIMS}
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        token(aud="shop"),
        token(aud=["other", "shop"]),
        with_header(typ=None),
        with_header(typ="JOSE"),
        token(iat=SECOND + 3600),
        token(nbf=SECOND),
        token(exp=SECOND + 0.5),
        token(jti="1", more={"nested": [1, None]}),
        token(OTHER, header={"kid": "k2"}),
        token(OTHER, sub="spiffe://partner.org/api"),
    ],
)
def test_what_the_specification_allows_is_accepted(text: str) -> None:
    assert "shop" in check(text).audiences


GOOD = token()
LOOSE = GOOD[:-1] + chr(ord(GOOD[-1]) + 1)  # 64 bytes end in A, Q, g or w; the letter after it means the same bytes
BROKEN: list[tuple[str, str, str]] = [
    ("no exp", token(exp=None), "has no `exp`"),
    ("exp that is true", token(exp=True), "has no `exp`"),
    ("exp as text", token(exp=str(SECOND + 300)), "has no `exp`"),
    ("exp without end", raw(json.dumps(HEADER), '{"sub":"spiffe://a/b","aud":"shop","exp":1e999}'), "this is no JSON"),
    ("exp that is no time", token(exp=10**15), "`exp` is no time"),
    ("exp beyond all numbers", token(exp=10**400), "`exp` is no time"),
    ("exp before 1970", token(exp=-1), "`exp` is no time"),
    ("over", token(exp=SECOND), "ended at 2026-11-23T12:00:00Z, and here it is 2026-11-23T12:00:00Z, 0 s later"),
    ("not yet", token(nbf=SECOND + 1), "begins at 2026-11-23T12:00:01Z, and here"),
    ("nbf as text", token(nbf="soon"), "has no `nbf`"),
    ("alg none", token(None, header={"alg": "none"}), "algorithm `none`"),
    ("alg None", token(None, header={"alg": "None"}), "algorithm `None`"),
    ("no alg", with_header(alg=None), "algorithm `None`"),
    ("alg as a list", with_header(alg=["ES256"]), "algorithm `['ES256']`"),
    ("a shared secret", token(b"secret", header={"alg": "HS256"}), "algorithm `HS256`"),
    ("EdDSA", token(new_key("OKP"), header={"alg": "EdDSA"}), "algorithm `EdDSA`"),
    ("an algorithm of another kind of key", token(header={"alg": "RS256"}), "the key is none for `RS256`"),
    ("an algorithm of another curve", token(header={"alg": "ES384"}), "the key is none for `ES384`"),
    ("no kid", with_header(kid=None), "does not name its key"),
    ("an empty kid", with_header(kid=""), "does not name its key"),
    ("a foreign kid", with_header(kid="k3"), "no key of `cluster.local` has the `kid` `k3`"),
    ("another key's kid", with_header(kid="k2"), "not signed with that key"),
    ("another key", token(OTHER), "not signed with that key"),
    ("a key of another trust domain", token(sub="spiffe://partner.org/api"), "not signed with that key"),
    ("an unknown trust domain", token(sub="spiffe://nobody.org/api"), "`nobody.org` is not trusted here"),
    ("its own key brought along", with_header(jwk=public(KEY, "k1")), "header member `jwk`"),
    ("a place for its key", with_header(jku="https://evil.example/keys"), "header member `jku`"),
    ("a critical extension", with_header(crit=["exp"]), "header member `crit`"),
    ("compressed", with_header(zip="DEF"), "header member `zip`"),
    ("another type", with_header(typ="at+jwt"), "the type `at+jwt`"),
    ("no sub", token(sub=None), "has no `sub`"),
    ("a sub that is none", token(sub="alice"), "is no SPIFFE ID"),
    ("a trust domain as sub", token(sub="spiffe://cluster.local"), "a workload's has a path"),
    ("no aud", token(aud=None), "has no `aud`"),
    ("an empty aud", token(aud=[]), "has no `aud`"),
    ("aud with a number", token(aud=["shop", 1]), "has no `aud`"),
    ("another aud", token(aud=["bank"]), "not for `shop`"),
    ("part of an aud", token(aud=["shopping"]), "not for `shop`"),
    ("two parts", token().rpartition(".")[0], "three parts"),
    ("five parts", token() + ".a.b", "three parts"),
    ("nothing", "", "three parts"),
    ("no base64", "a!.b.c", "no base64url"),
    ("padding", token().replace(".", "=.", 1), "no base64url"),
    ("loose bits at the end", LOOSE, "shortest form"),
    ("no signature", token().rpartition(".")[0] + ".", "not signed with that key"),
    ("claims twice", raw(json.dumps(HEADER), '{"sub":"spiffe://a/b","sub":"spiffe://a/c"}'), "stands twice"),
    ("no object", raw("[]", "[]"), "no JSON object"),
    ("deep", raw("[" * 9000, "{}"), "this is no JSON"),
    ("half a character", raw(json.dumps(HEADER), '{"sub":"\\ud800"}'), "this is no JSON"),
    ("huge", token(more="x" * jose.MAX_TOKEN), "at most 16384 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_token_with_one_thing_wrong_is_refused(text: str, why: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check(text)
    assert why in str(caught.value)


def test_the_end_is_exact() -> None:
    assert check(token(), later=299.9).kid == "k1"
    with pytest.raises(IdentityError, match="ended at"):
        check(token(), later=300)


def test_who_verifies_says_who_it_is() -> None:
    with pytest.raises(IdentityError, match="knows the audience"):
        check(token(aud=[""]), audience="")


def test_a_changed_claim_breaks_the_signature() -> None:
    head, _, signature = token().split(".")
    claims = b64(json.dumps({**CLAIMS, "sub": WEB + "2"}).encode())
    with pytest.raises(IdentityError, match="not signed with that key"):
        check(f"{head}.{claims}.{signature}")


@given(st.integers(0, len(token()) - 1), st.sampled_from("ABCz019-_.=~\n"))
def test_a_token_changed_anywhere_is_no_token(at: int, letter: str) -> None:
    good = token()
    changed = good[:at] + letter + good[at + 1 :]
    if changed == good:
        return
    with pytest.raises(PolicydError):
        check(changed)


@given(
    st.text(max_size=80) | st.binary(max_size=80).map(lambda b: ".".join([base64.urlsafe_b64encode(b).decode()] * 3))
)
def test_any_text_is_refused_in_our_words(text: str) -> None:
    with pytest.raises(IdentityError):
        read(text)


def test_a_token_can_be_looked_at_without_being_believed() -> None:
    assert read(token(OTHER)).spiffe_id == SpiffeId.parse(WEB)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"])
def test_every_algorithm_of_the_specification_is_verified(algorithm: str) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, utils

    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]
    text = f"{b64(json.dumps({**HEADER, 'alg': algorithm}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if algorithm.startswith("E"):
        curve = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}[algorithm[2:]]
        key = ec.generate_private_key(curve)
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(digest)))
        size = (key.curve.key_size + 7) // 8
        signature = r.to_bytes(size) + s.to_bytes(size)
    else:
        key = new_key("RSA")
        pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        signature = key.sign(text.encode(), pss if algorithm.startswith("P") else padding.PKCS1v15(), digest)
    bundle = Bundle("cluster.local", jwt_keys=(JwtKey("k1", key.public_key()),))
    for given_signature, good in ((signature, True), (signature[:-1] + bytes([signature[-1] ^ 1]), False)):
        whole = f"{text}.{b64(given_signature)}"
        if good:
            assert validate(whole, lambda _: bundle, "shop", NOW).kid == "k1"
        else:
            with pytest.raises(IdentityError, match="not signed with that key"):
                validate(whole, lambda _: bundle, "shop", NOW)


def test_what_we_sign_is_a_token() -> None:
    assert check(jose.sign_es256(HEADER, CLAIMS, KEY)) == check(token())


@pytest.mark.parametrize(
    ("audiences", "why"),
    [
        ((), "1 to 16 audiences, not 0"),
        (("a",) * 17, "1 to 16 audiences, not 17"),
        (("",), "printable"),
        (("a\nb",), "printable"),
        (("x" * 2049,), "1 to 2048 printable"),
    ],
)
def test_audiences_have_bounds(audiences: tuple[str, ...], why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        check_audiences(audiences)


def test_an_audience_counts_once() -> None:
    assert check_audiences(("b", "a", "b")) == ("b", "a")


Bundles = Callable[[str], Bundle | None]


def test_a_bundle_of_another_trust_domain_is_never_used() -> None:
    mixed_up: Bundles = lambda _: PARTNER  # noqa: E731
    with pytest.raises(IdentityError, match="is not trusted here"):
        validate(token(OTHER), mixed_up, "shop", NOW)
