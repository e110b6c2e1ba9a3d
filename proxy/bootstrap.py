"""What one Envoy is told at its start: who it is, where its identity and its configuration come from.

Law: pure; everything else reaches Envoy over delta ADS. JSON, not YAML: Envoy reads a node id `n` in YAML as false.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policyd.errors import EnvoyError
from policyd.spiffe import SpiffeId
from policyd.xds.agreed import IDENTITY_SECRET, ROOTS_SECRET, SDS_CLUSTER, XDS_CLUSTER

OWNER_ONLY = 0o600
RUNTIME = {
    # Envoy's own limit of 100 instructions refuses regexes that people write; this one is Istio's
    "re2.max_program_size.error_level": 32_768,
    # spans are sent together, and soon: by itself Envoy sends five at a time, and waits five seconds for them
    "tracing.opentelemetry.min_flush_spans": 64,
    "tracing.opentelemetry.flush_interval_ms": 1_000,
}
MAX_CONNECTIONS = 20_000  # downstream, of one Envoy; beyond it new ones are refused, and Envoy does not warn at start
# of an Envoy's memory: at the first share of it requests get 503, at the second connections are closed as they come
FULL_FOR_REQUESTS, FULL_FOR_CONNECTIONS = 0.95, 1.0
MEMORY_LOOK = "0.25s"  # between two looks of Envoy at it: what comes meanwhile is in addition

_TYPES = "type.googleapis.com/envoy.extensions"
_HEAP = "envoy.resource_monitors.fixed_heap"
# where a gateway's connections become tunnels, and those of an application end
INTERNAL_LISTENERS = [
    {
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {"@type": f"{_TYPES}.bootstrap.internal_listener.v3.InternalListener"},
    }
]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address; `host` is an IP address or a name."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, any_port: bool = False) -> Endpoint:
        """Parse `host:port` or `[IPv6 address]:port`, of `any_port` port 0 too; raises EnvoyError."""
        host, colon, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        bracketed = bare != host
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
        if not colon or not bare or (":" in bare) != bracketed or not 1 - any_port <= number < 65536:
            raise EnvoyError(f"`{text[:100]}` is no address", remedy="write host:port")
        return cls(bare, number)

    def __str__(self) -> str:
        """As `parse` takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Start:
    """The facts of one Envoy's bootstrap; the two sockets are paths of Unix sockets."""

    instance: str  # node id
    cluster: str  # node cluster: the service
    xds: Endpoint
    server: SpiffeId  # whom the xDS server must prove to be
    sds_socket: str
    admin_socket: str
    memory: int  # bytes of heap


def bootstrap(start: Start) -> dict[str, Any]:
    """Return the bootstrap (envoy.config.bootstrap.v3.Bootstrap) as JSON data."""
    return {
        "node": {"id": start.instance, "cluster": start.cluster},
        "admin": {"address": {"pipe": {"path": start.admin_socket, "mode": OWNER_ONLY}}},
        "dynamic_resources": _dynamic_resources(),
        "static_resources": {"clusters": [sds_cluster(start.sds_socket), _xds_cluster(start)]},
        "overload_manager": _overload_manager(start.memory),
        "bootstrap_extensions": INTERNAL_LISTENERS,
        "layered_runtime": {"layers": [{"name": "policyd", "static_layer": RUNTIME}]},
        # nothing is flushed to a sink; a scrape gathers what it reads
        "stats_flush_on_admin": True,
    }


def _dynamic_resources() -> dict[str, Any]:
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
    }
    # wait for the first clusters and listeners however long it takes: ready means configured
    from_ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {"ads_config": ads, "cds_config": from_ads, "lds_config": from_ads}


def sds_cluster(socket: str) -> dict[str, Any]:
    """The agent at the path of its Unix socket: secrets come from it, and decisions are told it."""
    return _grpc_cluster(SDS_CLUSTER, "STATIC", {"pipe": {"path": socket}}, {})


def _xds_cluster(start: Start) -> dict[str, Any]:
    address = {"socket_address": {"address": start.xds.host, "port_value": start.xds.port}}
    keepalive = {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
    return {
        **_grpc_cluster(XDS_CLUSTER, "STRICT_DNS", address, keepalive),
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 5}},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": _server_tls(start.server)},
    }


def _grpc_cluster(name: str, kind: str, address: dict[str, Any], http2: dict[str, Any]) -> dict[str, Any]:
    options = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": http2},
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": kind,
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _server_tls(server: SpiffeId) -> dict[str, Any]:
    # as a client Envoy stops at TLS 1.2 unless the maximum is set too
    version = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
    exactly = [{"san_type": "URI", "matcher": {"exact": str(server)}}]
    return {
        "@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "policyd",
        "common_tls_context": {
            "tls_params": version,
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [_secret(IDENTITY_SECRET)],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": exactly},
                "validation_context_sds_secret_config": _secret(ROOTS_SECRET),
            },
        },
    }


def _secret(name: str) -> dict[str, Any]:
    source = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}],
    }
    # in the very words of what xDS sends: then Envoy has one stream a secret, whoever refers to it
    return {"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": source}}


def _overload_manager(memory: int) -> dict[str, Any]:
    """What an Envoy takes on at most (config.overload.v3.OverloadManager).

    Decisions that its agent does not read wait in its heap: it refuses before the system ends it, and them with it.
    """
    connections = {
        "@type": f"{_TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": MAX_CONNECTIONS,
    }
    heap = {
        "@type": f"{_TYPES}.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        "max_heap_size_bytes": memory,
    }
    return {
        "refresh_interval": MEMORY_LOOK,
        "resource_monitors": [
            {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": connections},
            {"name": _HEAP, "typed_config": heap},
        ],
        "actions": [
            _beyond("stop_accepting_requests", FULL_FOR_REQUESTS),
            _beyond("reject_incoming_connections", FULL_FOR_CONNECTIONS),
        ],
    }


def _beyond(action: str, share: float) -> dict[str, Any]:
    trigger = {"name": _HEAP, "threshold": {"value": share}}
    return {"name": f"envoy.overload_actions.{action}", "triggers": [trigger]}
