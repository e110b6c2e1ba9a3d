"""An issuer of tokens (JWT) with real keys: what it signs verifies, and what others sign in its name does not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def b64(data: bytes) -> str:
    """Base64url without padding, as JOSE has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int = 0) -> str:
    """A number of a key."""
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8))


def new_key(kind: str) -> Key:
    """A fresh `RSA`, `EC` or `OKP` key."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else ed25519.Ed25519PrivateKey.generate()


def public(key: Key, kid: str) -> dict[str, str]:
    """The public half as a JWK."""
    half = key.public_key()
    if isinstance(half, rsa.RSAPublicKey):
        numbers = half.public_numbers()
        members = {"kty": "RSA", "alg": "RS256", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(half, ec.EllipticCurvePublicKey):
        point = half.public_numbers()
        members = {"kty": "EC", "alg": "ES256", "crv": "P-256", "x": number(point.x, 32), "y": number(point.y, 32)}
    else:
        raw = half.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        members = {"kty": "OKP", "alg": "EdDSA", "crv": "Ed25519", "x": b64(raw)}
    return {**members, "kid": kid, "use": "sig"}


def signed(header: Mapping[str, Any], claims: Mapping[str, Any], key: Key | bytes | None) -> str:
    """A token in its compact form; a key of bytes signs with HMAC, none does not sign."""
    text = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    return f"{text}.{b64(_signature(text.encode(), key))}"


def _signature(text: bytes, key: Key | bytes | None) -> bytes:
    if key is None:
        return b""
    if isinstance(key, bytes):
        code = hmac.HMAC(key, hashes.SHA256())
        code.update(text)
        return code.finalize()
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text)
    r, s = utils.decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


class Issuer:
    """`Issuer("https://login.example.com").token("alice", roles=["editor"])`."""

    def __init__(self, name: str, *kinds: str) -> None:
        self.name = name
        self.keys = {f"{kind.lower()}-1": new_key(kind) for kind in kinds or ("EC",)}

    @property
    def jwks(self) -> str:
        """The public keys, as they are published."""
        return json.dumps({"keys": [public(key, kid) for kid, key in self.keys.items()]})

    def token(self, subject: str | None, *, kid: str = "", lasts: float = 3600, **claims: Any) -> str:
        """A token for a user, signed with one of the keys (the first)."""
        kid = kid or next(iter(self.keys))
        key = self.keys[kid]
        header = {"alg": public(key, kid)["alg"], "kid": kid, "typ": "JWT"}
        return signed(header, self.claims(subject, lasts=lasts, **claims), key)

    def claims(self, subject: str | None, *, lasts: float = 3600, **claims: Any) -> dict[str, Any]:
        """The claims of such a token."""
        named = {} if subject is None else {"sub": subject}
        return {"iss": self.name, **named, "exp": int(time.time() + lasts), **claims}
