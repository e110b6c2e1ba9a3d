"""Key sets: what verifies is kept in one form, what could sign or is no key is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from policyd.mesh.jwks import MAX_BYTES, nobodys_keys, parse_jwks
from tests.fakes.issuer import Issuer, new_key, number, public

ISSUER = Issuer("https://login.example.com", "RSA", "EC", "OKP")
EC = public(new_key("EC"), "ec-1")


def jwks(*keys: object) -> str:
    return json.dumps({"keys": keys})


def test_keys_of_every_kind_are_kept_with_what_verifying_takes() -> None:
    kept = json.loads(parse_jwks(ISSUER.jwks))

    assert kept == json.loads(ISSUER.jwks)


def test_what_verifying_does_not_take_is_left_out() -> None:
    noisy = {**EC, "x5c": ["MII"], "x5t": "y", "exp": 1}
    encrypting = {**public(new_key("EC"), "enc"), "use": "enc"}
    wrapping = {**public(new_key("EC"), "wrap"), "key_ops": ["wrapKey"]}
    future = {"kty": "PQ", "crv": "lattice", "x": "AA"}
    other = {**public(new_key("EC"), "ecdh"), "alg": "ECDH-ES"}

    assert json.loads(parse_jwks(jwks(encrypting, noisy, wrapping, future, other))) == {"keys": [EC]}


def test_equal_keys_are_equal_texts_however_they_are_written() -> None:
    turned = {name: EC[name] for name in reversed(EC)}

    assert parse_jwks(jwks(turned)) == parse_jwks(json.dumps({"keys": [EC], "more": 1}, indent=4))


def weak() -> dict[str, Any]:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    return {"kty": "RSA", "kid": "weak", "n": number(numbers.n), "e": number(numbers.e)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the key set is no JSON"),
        ("[" * 100_000, "the key set is no JSON"),
        ("[]", "the key set has no list `keys`"),
        ('{"keys": {}}', "the key set has no list `keys`"),
        ('{"keys": [1]}', "the key set has no list `keys`"),
        ('{"keys": []}', "the key set has no key that verifies signatures; RSA, EC and Ed25519 keys do"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}), "`keys[0]` is a shared secret, with which anybody who verifies"),
        (jwks(EC, {**EC, "d": "AA"}), "`keys[1]` is a private key; publish its public half alone"),
        (jwks({**EC, "y": EC["x"]}), "`keys[0]` is no key: "),
        (jwks({**EC, "x": "!!"}), "`keys[0]` has a number that is no base64url"),
        (jwks({**EC, "kid": 1}), "`keys[0].kid` must be text"),
        (jwks({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), "`keys[0]` is no key: "),
        (jwks({"kty": "EC", "crv": "P-256"}), "`keys[0]` is no key: "),
        (jwks({"kty": "RSA", "n": "", "e": ""}), "`keys[0]` is no key: it has 0 bits"),
        (jwks(weak()), "`keys[0]` is no key: it has 1024 bits; RSA keys have 2048 to 8192"),
        (jwks(*[EC] * 101), "a key set has at most 100 keys, this one 101"),
        (jwks({**EC, "x5c": "A" * MAX_BYTES}), "a key set has at most 131,072 characters"),
    ],
)  # fmt: skip
def test_a_bad_key_set_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_jwks(text)
    assert str(error.value).startswith(problem)


def test_nobodys_keys_are_a_key_set_like_any_other() -> None:
    assert parse_jwks(nobodys_keys()) == nobodys_keys()
