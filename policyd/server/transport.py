"""What every port of ours has: our certificate as it is now for each new connection, TLS 1.3, bounded ages."""

from __future__ import annotations

from typing import Any, Final, Protocol

import grpc

from policyd.ca.server_certificate import ServerCertificate
from policyd.config.addresses import Address
from policyd.errors import StateError

GRACE_SECONDS: Final = 2.0
# the thread that waits for events reads the sockets itself: with gRPC's own threads between them a check or a push
# costs a fifth more of the processor; it is looked at once, before the first port; where gRPC no longer knows the name
# it says so and goes on
GRPC: Final = {"GRPC_EXPERIMENTS": "-event_engine_listener"}
ALONE: Final = ("grpc.so_reuseport", 0)  # a port in use is an error, never shared
# Envoys and agents ping every 30 s to notice a dead connection, also one on which nothing is under way (that of spans);
# gRPC's defaults would hang up on them; the first is GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS
PINGS: Final = (
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
# no ping with each message to measure the bandwidth: a push costs a third more with it, and what comes in is small
STEADY: Final = ("grpc.http2.bdp_probe", 0)
# a connection is asked to end long before the certificate that opened it has: certificates are renewed at half of an
# hour; what is under way is finished first, and nobody notices
AGE: Final = (("grpc.max_connection_age_ms", 600_000), ("grpc.max_connection_age_grace_ms", 60_000))


class Identity(Protocol):
    """Who we are to those who connect."""

    def current(self) -> ServerCertificate:
        """The certificate for a connection of now."""


def credentials(identity: Identity, *, mutual: bool) -> grpc.ServerCredentials:
    """Of one port that renews its certificate; with `mutual`, a client's must come from our own authority.

    Not to be shared between ports: gRPC takes the first configuration once from each value of this kind.
    """
    first = identity.current()
    shown = first

    def configuration(certificate: ServerCertificate) -> Any:
        pair = [(certificate.key, certificate.chain)]
        return grpc.ssl_server_certificate_configuration(pair, certificate.roots if mutual else None)

    def fetch() -> Any:
        """The configuration for a new connection, None while it is the last one still (gRPC's rule)."""
        nonlocal shown
        now = identity.current()
        if now is shown:
            return None
        shown = now
        return configuration(now)

    return grpc.dynamic_ssl_server_credentials(configuration(first), fetch, mutual)


def bind(server: Any, address: Address, tls: grpc.ServerCredentials) -> None:
    """Open the port; raises StateError where another program has it."""
    remedy = "is another program using it? `policyd status` shows what runs"
    try:
        bound = server.add_secure_port(str(address), tls)
    except RuntimeError as error:
        raise StateError(f"cannot listen on `{address}`", remedy=remedy) from error
    if bound != address.port:
        raise StateError(f"cannot listen on `{address}`", remedy=remedy)
