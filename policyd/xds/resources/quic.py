"""HTTP/3 at the edge: beside an encrypted port's TCP socket a UDP one of the same number, for the same servers.

Law: nobody comes by QUIC who would not come by TCP, with the same certificates, and each request is decided by the very
same filters. Servers without TLS 1.3 are not offered; no request is taken from early data: it may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.model import Instance
from policyd.xds.resources import certificates
from policyd.xds.resources.edges import Opened, is_over_quic

ALPN: Final = "h3"
MAX_SESSIONS: Final = 10_000  # of one worker; a client that is one more is refused
MANAGER: Final = {"codec_type": "HTTP3", "http3_protocol_options": {}}


def listener(name: str, host: str, port: int, chains: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A UDP socket and what becomes of its connections.

    Workers share its port, else Envoy serves no QUIC with several; nobody else has it: they would need the TCP one.
    """
    bounds = {"crypto_handshake_timeout": "15s", "idle_timeout": "300s", "max_sessions_per_event_loop": MAX_SESSIONS}
    return {
        "name": f"{name}/quic",
        "address": {"socket_address": {"protocol": "UDP", "address": host, "port_value": port}},
        "enable_reuse_port": True,
        "traffic_direction": "INBOUND",
        "udp_listener_config": {"quic_options": bounds},
        "filter_chains": list(chains),
    }


def offered(instance: Instance, servers: Sequence[Opened]) -> list[Opened]:
    """Those that are served so."""
    return [one for one in servers if is_over_quic(instance, one)]


def downstream(tls: ServerTls) -> dict[str, Any]:
    """The transport socket of a server (QuicDownstreamTransport); QUIC has TLS 1.3 and its suites alone."""
    common = {"alpn_protocols": [ALPN], **certificates.proof(tls)}
    # a session that is resumed would not be asked for its certificate again
    resumes = {} if tls.ca_file is None else {"disable_stateless_session_resumption": True}
    config = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
        "downstream_tls_context": {**certificates.requires(tls), **resumes, "common_tls_context": common},
        "enable_early_data": False,
    }
    return {"name": "envoy.transport_sockets.quic", "typed_config": config}
