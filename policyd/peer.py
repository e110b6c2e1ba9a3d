"""Who is at the other end of a mutual TLS connection, from the facts that gRPC gives after the handshake.

Law: TLS 1.3 and exactly one SPIFFE ID, or nobody. grpcio has no setting for the oldest TLS version, so it is asked
for at each call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from policyd.errors import IdentityError, SpiffeIdError
from policyd.spiffe import SCHEME, SpiffeId

Facts = Mapping[str, Iterable[bytes]]  # gRPC's auth context

TLS_VERSION: Final = "ssl_tls_version"
NAMES: Final = "x509_subject_alternative_name"
IDENTITY: Final = "peer_spiffe_id"
_SCHEME: Final = SCHEME.encode()


def check_tls(facts: Facts) -> None:
    """Refuse a connection below TLS 1.3; raises IdentityError."""
    if tuple(facts.get(TLS_VERSION, ())) != (b"TLSv1.3",):
        raise IdentityError("this connection does not speak TLS 1.3", remedy="use a client that does")


def spiffe_peer(facts: Facts) -> SpiffeId:
    """The one SPIFFE ID of the client's certificate; raises IdentityError for anything less, or more."""
    check_tls(facts)
    names = [name for name in facts.get(NAMES, ()) if name.startswith(_SCHEME)]
    if len(names) != 1 or tuple(facts.get(IDENTITY, ())) != (names[0],):
        raise IdentityError("the client's certificate has not exactly one SPIFFE ID")
    peer = _parse(names[0])
    if peer is None:
        raise IdentityError("the client's certificate has no valid SPIFFE ID")
    return peer


@lru_cache(maxsize=4096)
def _parse(name: bytes) -> SpiffeId | None:
    """The same few peers come again and again."""
    try:
        return SpiffeId.parse(name.decode("ascii", "replace"))
    except SpiffeIdError:
        return None
