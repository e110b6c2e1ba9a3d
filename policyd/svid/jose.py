"""JSON Web Signatures in their compact form, and public keys as JWKs (RFC 7515, 7517, 7518): what SPIFFE needs of them.

Law: text from the network is bounded before it is decoded, has one form only (no padding, no second name in an
object), and a signature is checked with a key of exactly the kind that its algorithm names.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from policyd.errors import IdentityError

MAX_TOKEN: Final = 16 * 1024  # characters
LEAST_RSA_BITS: Final = 2048
MOST_RSA_BITS: Final = 8192

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_HASHES: Final = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: Final[Mapping[str, tuple[str, ec.EllipticCurve]]] = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
    "ES512": ("P-521", ec.SECP521R1()),
}
_BY_CURVE: Final = dict(_CURVES.values())
ALGORITHMS: Final = (*(f"{kind}{bits}" for kind in ("RS", "PS") for bits in _HASHES), *_CURVES)


@dataclass(frozen=True, slots=True)
class Signed:
    """A token that was taken apart, and proves nothing yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Read base64url without padding, in its one form; raises IdentityError."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise IdentityError("this is no base64url") from None
    if encode(data) != text:
        raise IdentityError("this is no base64url in its shortest form")
    return data


def read_object(data: bytes) -> dict[str, Any]:
    """A JSON object in which no name stands twice and all text and numbers are whole; raises IdentityError."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be shown to anybody
    except (ValueError, RecursionError):
        raise IdentityError("this is no JSON, or a name stands twice in it") from None
    if not isinstance(value, dict):
        raise IdentityError("this is no JSON object")
    return value


def write_object(value: Mapping[str, Any]) -> bytes:
    """The shortest JSON of an object, names in their order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def parse(token: str) -> Signed:
    """Take a compact JWS apart; raises IdentityError."""
    if len(token) > MAX_TOKEN:
        raise IdentityError(f"a token has at most {MAX_TOKEN} characters, this one {len(token)}")
    parts = token.split(".")
    if len(parts) != 3:
        raise IdentityError("a token has three parts with dots between them: header, claims, signature")
    header, claims, signature = map(decode, parts)
    signed = token.rpartition(".")[0].encode("ascii")
    return Signed(read_object(header), read_object(claims), signed, signature)


def check_signature(token: Signed, algorithm: str, key: PublicKey) -> None:
    """Raise IdentityError unless `key` is one for `algorithm` and has signed the token."""
    digest = _HASHES.get(algorithm[2:])
    if algorithm not in ALGORITHMS or digest is None:
        raise IdentityError(f"the algorithm `{algorithm[:20]}` is not accepted")
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm[:2] in ("RS", "PS"):
            key.verify(token.signature, token.signed, _padding(algorithm, digest), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and _fits(key, algorithm):
            key.verify(_der_signature(token.signature, key), token.signed, ec.ECDSA(digest))
        else:
            raise IdentityError(f"the key is none for `{algorithm}`")
    except InvalidSignature:
        raise IdentityError("the token was not signed with that key") from None


def sign_es256(header: Mapping[str, Any], claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """A token in its compact form, signed with a P-256 key."""
    text = f"{encode(write_object(header))}.{encode(write_object(claims))}"
    r, s = utils.decode_dss_signature(key.sign(text.encode("ascii"), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def to_jwk(key: PublicKey) -> dict[str, str]:
    """The members of a public key as a JWK has them."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    point, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    curve = next(name for name, kind in _BY_CURVE.items() if kind.name == key.curve.name)
    return {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}


def from_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    """The public key of a JWK of the kind `EC` or `RSA`; raises IdentityError for one that is unsound, or private."""
    if "d" in jwk:
        raise IdentityError("a bundle holds a private key", remedy="publish its public half alone, and make a new pair")
    try:
        if jwk.get("kty") == "RSA":
            return _rsa_key(_integer(jwk, "n"), _integer(jwk, "e"))
        if jwk.get("kty") == "EC" and jwk.get("crv") in _BY_CURVE:
            curve = _BY_CURVE[jwk["crv"]]
            return ec.EllipticCurvePublicNumbers(_integer(jwk, "x"), _integer(jwk, "y"), curve).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"a key of the bundle is no key: {str(error)[:100]}") from None
    raise IdentityError(f"a key of the kind `{str(jwk.get('crv', jwk.get('kty')))[:20]}` is not accepted")


def _rsa_key(modulus: int, exponent: int) -> rsa.RSAPublicKey:
    if not LEAST_RSA_BITS <= modulus.bit_length() <= MOST_RSA_BITS:
        raise ValueError(f"an RSA key has {LEAST_RSA_BITS} to {MOST_RSA_BITS} bits, this one {modulus.bit_length()}")
    if not 3 <= exponent < 1 << 32:
        raise ValueError("an RSA key's exponent has at most 32 bits")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _integer(jwk: Mapping[str, Any], name: str) -> int:
    value = jwk.get(name)
    if not isinstance(value, str) or len(value) > MAX_TOKEN:
        raise ValueError(f"it lacks `{name}`")
    return int.from_bytes(decode(value), "big")


def _number(value: int, size: int = 0) -> str:
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _fits(key: ec.EllipticCurvePublicKey, algorithm: str) -> bool:
    return algorithm in _CURVES and _CURVES[algorithm][1].name == key.curve.name


def _padding(algorithm: str, digest: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if algorithm.startswith("PS"):
        return padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


def _der_signature(raw: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    size = (key.curve.key_size + 7) // 8
    if len(raw) != 2 * size:
        raise InvalidSignature
    return utils.encode_dss_signature(int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number too large")
    return number


def _no_number(_text: str) -> NoReturn:
    raise ValueError("not a number")
