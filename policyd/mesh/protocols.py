"""What a port speaks: told by its name or its `appProtocol`, as Istio reads them.

Law: a word that is not known here is no protocol; of what nobody has said what it is, the first bytes tell (`auto`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

Protocol = Literal["http", "http2", "grpc", "grpc-web", "tcp", "tls", "auto"]

BY_WORD: Final[Mapping[str, Protocol]] = {
    **{protocol: protocol for protocol in get_args(Protocol) if protocol != "auto"},
    # what is not looked into
    "https": "tls",
    "mongo": "tcp",
    "mysql": "tcp",
    "redis": "tcp",
    # Kubernetes' own words, which stand in `appProtocol` only
    "kubernetes.io/h2c": "http2",
    "kubernetes.io/ws": "http",
    "kubernetes.io/wss": "tls",
}
SERVER_FIRST: Final = frozenset({25, 53, 3306, 27017})  # where the application speaks first, as Istio has it
CONNECTIONS: Final = frozenset({"tcp", "tls"})  # each is decided as a whole; of all others each request is
HTTP2: Final = frozenset({"http2", "grpc", "grpc-web"})  # what the application and the sidecars between speak


def by_word(word: str) -> Protocol | None:
    """The protocol that a word means; None for one that means none."""
    return BY_WORD.get(word)


def by_name(name: str) -> Protocol | None:
    """The protocol that the name of a port begins with, as in `http-main`; None where it begins with none."""
    longest = "grpc-web"
    return by_word(longest if f"{name}-".startswith(f"{longest}-") else name.partition("-")[0])


def takes_requests(protocol: Protocol) -> bool:
    """Whether a port is asked for by requests, each decided."""
    return protocol not in CONNECTIONS


def takes_connections(protocol: Protocol) -> bool:
    """Whether a port is asked for by connections, each decided as a whole."""
    return protocol in CONNECTIONS or protocol == "auto"


def undeclared(port: int) -> Protocol:
    """What a port speaks of which nobody says it: the first bytes tell, unless applications there speak first."""
    return "tcp" if port in SERVER_FIRST else "auto"
