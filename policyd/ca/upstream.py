"""Another authority's certificate for ours: what its operator laid into files, read and put together.

Law: the chain's first certificate is ours, its last the root that verifiers will trust; nothing of it is believed
before it was verified as verifiers will do. The files are read and never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.ca.authority import Material
from policyd.ca.elsewhere import ElsewhereKey, Signer
from policyd.ca.files import read_secret
from policyd.ca.pkcs8 import read_key
from policyd.errors import IdentityError, KeyFileError, StateError
from policyd.svid import material
from policyd.svid.x509 import MAX_CHAIN

_LAID: Final = "lay our certificate there, then what signed it, and the root last, in PEM"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the chain is, and either the key's file or who signs with it."""

    chain: Path
    key: Path | None = None
    signer: Signer | None = None


def read(upstream: Upstream, passphrase: bytes | None) -> Material:
    """What the files hold; raises StateError or KeyFileError, which name them."""
    found = read_chain(upstream)
    return Material(found[-1], None, found[0], _key(upstream, found[0], passphrase), found[1:-1])


def read_chain(upstream: Upstream) -> tuple[x509.Certificate, ...]:
    """Our certificate, what is above it, and the root; raises StateError."""
    try:
        found = material.chain(upstream.chain.read_bytes())
    except OSError as error:
        raise StateError(f"`{upstream.chain}` cannot be read: {error.strerror}", remedy=_LAID) from error
    except IdentityError as error:
        raise StateError(f"`{upstream.chain}`: {error.message}", remedy=_LAID) from error
    if not 2 <= len(found) < MAX_CHAIN:
        raise StateError(f"`{upstream.chain}` holds {len(found)} certificates, and no chain to a root", remedy=_LAID)
    if found[-1].issuer != found[-1].subject:
        raise StateError(f"the last certificate of `{upstream.chain}` is no root", remedy=_LAID)
    return found


def behind(signer: Signer, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    """The key of a certificate, held by a signer; raises IdentityError for one of another kind."""
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise IdentityError("our certificate is for an elliptic key", remedy="use P-256")
    return ElsewhereKey(signer, public)


def _key(upstream: Upstream, certificate: x509.Certificate, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    if upstream.signer is not None:
        return behind(upstream.signer, certificate)
    assert upstream.key is not None, "the settings name one of the two"
    try:
        return read_key(read_secret(upstream.key), passphrase)
    except KeyFileError as error:
        if str(upstream.key) in error.message:
            raise
        raise KeyFileError(f"`{upstream.key}`: {error.message}", remedy=error.remedy) from error
