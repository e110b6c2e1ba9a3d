"""A set of public keys (JWKS, RFC 7517) as our Envoys get it: only keys that can verify signatures, each of them sound.

Law: pure, whoever the text comes from. A key that could also sign is refused, since whoever verifies could then make
tokens; keys for other purposes are left out; what is left is at least one key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

MAX_BYTES: Final = 131_072
MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192

_CURVES: Final[Mapping[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_ALGORITHMS: Final[Mapping[str, frozenset[str]]] = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA"}),
}
_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}


def parse_jwks(text: str) -> str:
    """Return the usable keys of a set, in one form; raises ValueError with `what is wrong; what to do`."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"a key set has at most {MAX_BYTES:,} characters, this one {len(text):,}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('the key set is no JSON; write it as in `{"keys": [{"kty": "RSA", …}]}`') from None
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError('the key set has no list `keys`; write it as in `{"keys": [{"kty": "RSA", …}]}`')
    if len(keys) > MAX_KEYS:
        raise ValueError(f"a key set has at most {MAX_KEYS} keys, this one {len(keys)}")
    usable = [_public(key, f"keys[{at}]") for at, key in enumerate(keys) if _verifies(key, f"keys[{at}]")]
    if not usable:
        raise ValueError("the key set has no key that verifies signatures; RSA, EC and Ed25519 keys do")
    return json.dumps({"keys": usable}, separators=(",", ":"), sort_keys=True)


def _verifies(key: Mapping[str, Any], where: str) -> bool:
    """Whether a key is one for signatures, of a kind that Envoy knows; raises ValueError for one that can sign."""
    if key.get("kty") == "oct":
        raise ValueError(f"`{where}` is a shared secret, with which anybody who verifies could sign; use a key pair")
    if "d" in key:
        raise ValueError(f"`{where}` is a private key; publish its public half alone, and make a new pair")
    operations = key.get("key_ops")
    if key.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return False
    kind = _kind(key)
    return kind is not None and key.get("alg", next(iter(_ALGORITHMS[kind]))) in _ALGORITHMS[kind]


def _kind(key: Mapping[str, Any]) -> str | None:
    """`RSA`, or the curve."""
    kind = "RSA" if key.get("kty") == "RSA" else key.get("crv")
    expected = {"RSA": "RSA", "Ed25519": "OKP"}.get(str(kind), "EC")
    return str(kind) if kind in _ALGORITHMS and key.get("kty") == expected else None


def _public(key: Mapping[str, Any], where: str) -> dict[str, str]:
    """The members that verifying takes; raises ValueError for a key that is no key."""
    kind, members = str(key["kty"]), dict(_texts(key, where))
    numbers = {name: _number(members.get(name, ""), where) for name in _MEMBERS[kind]}
    try:
        if kind == "RSA":
            _check_rsa(int.from_bytes(numbers["n"]), int.from_bytes(numbers["e"]))
        elif kind == "EC":
            x, y = int.from_bytes(numbers["x"]), int.from_bytes(numbers["y"])
            ec.EllipticCurvePublicNumbers(x, y, _CURVES[members["crv"]]).public_key()
        else:
            ed25519.Ed25519PublicKey.from_public_bytes(numbers["x"])
    except (ValueError, UnsupportedAlgorithm) as error:
        text = str(error)[:120].rstrip(".")
        raise ValueError(f"`{where}` is no key: {text[:1].lower()}{text[1:]}") from None
    return members


def _check_rsa(modulus: int, exponent: int) -> None:
    bits = modulus.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise ValueError(f"it has {bits} bits; RSA keys have {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _texts(key: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for name in ("kty", "kid", "alg", "use", "crv", *_MEMBERS[str(key["kty"])]):
        value = key.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"`{where}.{name}` must be text")
        if value is not None:
            yield name, value


def _number(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"`{where}` has a number that is no base64url") from None


@lru_cache(maxsize=1)
def nobodys_keys() -> str:
    """A key set that verifies no token: for an issuer whose keys are not known yet, since Envoy takes no empty one.

    Its point is hashed onto the curve, so that nobody knows, or could find out, the private half.
    """
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1  # of P-256 (FIPS 186-5); it is 3 mod 4, which makes roots easy
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    x = int.from_bytes(hashlib.sha256(b"policyd: nobody has this key").digest()) % prime
    while True:
        square = (x**3 - 3 * x + b) % prime
        y = pow(square, (prime + 1) // 4, prime)
        if y * y % prime == square:
            point = {
                name: base64.urlsafe_b64encode(n.to_bytes(32)).rstrip(b"=").decode() for name, n in (("x", x), ("y", y))
            }
            key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "nobody", **point}
            return json.dumps({"keys": [key]}, separators=(",", ":"), sort_keys=True)
        x = (x + 1) % prime
