"""An issuer of users' tokens inside a benchmark: one key of P-256, its set of keys, and a token (RFC 7515, 7517)."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

LASTS: Final = 86_400  # seconds


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Whom a mesh believes, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwks(self) -> str:
        """Its key, as a RequestAuthentication has it."""
        point = self._key.public_key().public_numbers()
        at = {"x": _text(point.x.to_bytes(32, "big")), "y": _text(point.y.to_bytes(32, "big"))}
        return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1", "use": "sig", **at}]})

    def token(self, **claims: Any) -> str:
        """A token that holds for a day."""
        said = {"iss": self.name, "exp": int(time.time()) + LASTS, **claims}
        parts = ({"alg": "ES256", "kid": "1", "typ": "JWT"}, said)
        text = ".".join(_text(json.dumps(part).encode()) for part in parts)
        numbers = utils.decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_text(b''.join(number.to_bytes(32, 'big') for number in numbers))}"
