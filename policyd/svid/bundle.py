"""A trust domain's bundle: its X.509 roots and JWT keys, as the JWK set that SPIFFE defines.

Law: a bundle without keys trusts nobody, and is no error. Entries of unknown kinds are passed over; one that we
understand and that is unsound refuses the whole, so that no key is believed to be trusted which is not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from policyd.errors import IdentityError
from policyd.spiffe import check_trust_domain
from policyd.svid import jose
from policyd.svid.jose import PublicKey
from policyd.svid.x509 import check_signing, parse

X509_SVID: Final = "x509-svid"
JWT_SVID: Final = "jwt-svid"
USES: Final = (X509_SVID, JWT_SVID)

MAX_BYTES: Final = 1 << 20
MAX_KEYS: Final = 256
MAX_KID: Final = 256  # characters
MAX_NUMBER: Final = (1 << 64) - 1
REFRESH_HINT: Final = 300  # seconds


@dataclass(frozen=True, slots=True)
class JwtKey:
    """A public key that JWT-SVIDs are verified with, by its name."""

    kid: str
    key: PublicKey


@dataclass(frozen=True, slots=True)
class Bundle:
    """The roots (DER) and JWT keys of one trust domain.

    A larger `sequence` is newer; None is unknown. `refresh_hint` is in seconds: how often to look for a newer one.
    """

    trust_domain: str
    roots: tuple[bytes, ...] = ()
    jwt_keys: tuple[JwtKey, ...] = ()
    sequence: int | None = None
    refresh_hint: int | None = None

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """The roots as certificates."""
        return tuple(parse(root) for root in self.roots)

    def jwt_key(self, kid: str) -> PublicKey | None:
        """The JWT key of that name."""
        return next((each.key for each in self.jwt_keys if each.kid == kid), None)


def write(bundle: Bundle, uses: Collection[str] = USES) -> bytes:
    """The JWK set of a bundle, with the keys of those `uses`; the same bundle gives the same bytes."""
    keys: list[dict[str, Any]] = []
    if X509_SVID in uses:
        keys += [_root_jwk(root) for root in bundle.roots]
    if JWT_SVID in uses:
        keys += [{**jose.to_jwk(each.key), "use": JWT_SVID, "kid": each.kid} for each in bundle.jwt_keys]
    numbers = {"spiffe_sequence": bundle.sequence, "spiffe_refresh_hint": bundle.refresh_hint}
    return jose.write_object({"keys": keys, **{name: n for name, n in numbers.items() if n is not None}})


def read(data: bytes, trust_domain: str) -> Bundle:
    """The bundle of `trust_domain` from its JWK set; raises IdentityError or SpiffeIdError."""
    check_trust_domain(trust_domain)
    if len(data) > MAX_BYTES:
        raise IdentityError(f"a bundle has at most {MAX_BYTES:,} bytes, this one {len(data):,}")
    document = jose.read_object(data)
    keys = document.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise IdentityError('a bundle has a list `keys`, as in `{"keys": [{"kty": "EC", "use": "x509-svid", …}]}`')
    if len(keys) > MAX_KEYS:
        raise IdentityError(f"a bundle has at most {MAX_KEYS} keys, this one {len(keys)}")
    known = [key for key in keys if key.get("kty") in ("EC", "RSA")]
    return Bundle(
        trust_domain,
        tuple(_roots((key for key in known if key.get("use") == X509_SVID), trust_domain)),
        _jwt_keys(key for key in known if key.get("use") == JWT_SVID),
        _whole(document, "spiffe_sequence"),
        _whole(document, "spiffe_refresh_hint"),
    )


def _root_jwk(root: bytes) -> dict[str, Any]:
    key = parse(root).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey), "roots were checked"
    return {**jose.to_jwk(key), "use": X509_SVID, "x5c": [base64.b64encode(root).decode("ascii")]}


def _roots(keys: Iterable[Mapping[str, Any]], trust_domain: str) -> Iterable[bytes]:
    for key in keys:
        chain = key.get("x5c")
        if not isinstance(chain, list) or not chain:
            continue  # section 6.2 of X509-SVID: passed over
        try:
            der = base64.b64decode(chain[0], validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise IdentityError("a root of the bundle is no base64") from None
        root = parse(der)
        check_signing(root, trust_domain)
        _check_same(root, key)
        yield der


def _check_same(root: x509.Certificate, jwk: Mapping[str, Any]) -> None:
    """A verifier may look at the certificate or at the key, so the two have to agree."""
    try:
        same = root.public_key() == jose.from_jwk(jwk)
    except (ValueError, UnsupportedAlgorithm):
        same = False
    if not same:
        raise IdentityError("a root of the bundle has another key than its certificate")


def _jwt_keys(keys: Iterable[Mapping[str, Any]]) -> tuple[JwtKey, ...]:
    found: dict[str, JwtKey] = {}
    for key in keys:
        kid = key.get("kid")
        if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
            raise IdentityError(f"a JWT key of the bundle has a `kid` of 1 to {MAX_KID} characters")
        if kid in found:
            raise IdentityError(f"two JWT keys of the bundle have the `kid` `{kid[:80]}`")
        found[kid] = JwtKey(kid, jose.from_jwk(key))
    return tuple(found.values())


def _whole(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        raise IdentityError(f"`{name}` is a whole number of at most 64 bits")
    return value
