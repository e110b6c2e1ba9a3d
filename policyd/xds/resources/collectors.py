"""The ways to collectors that are no part of policyd, and how OTLP is spoken there.

Law: what is told in the clear stays on this machine, which the settings see to; elsewhere a server proves its name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from policyd.xds.resources import policies, tls
from policyd.xds.resources.model import Control, OtlpLog, socket

TIMEOUT: Final = "5s"
PORTS: Final = {"http": 80, "https": 443, "grpc": 4317, "grpcs": 4317}  # where a URL names none


def clusters(control: Control) -> Iterator[dict[str, Any]]:
    """All ways that settings and providers name."""
    spans = [*([control.tracing] if control.tracing is not None else []), *control.spans.values()]
    logs = [one for one in control.logs.values() if isinstance(one, OtlpLog)]
    ways = [*((one.cluster, one.url) for one in spans), *((one.cluster, one.url) for one in logs)]
    yield from (_cluster(name, url) for name, url in ways if url)


def _cluster(name: str, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    endpoint = {"endpoint": {"address": socket(host, port)}}
    made: dict[str, Any] = {
        "name": name,
        "type": "STATIC" if _is_address(host) else "STRICT_DNS",
        "connect_timeout": policies.CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": policies.protocol(
            "http2_protocol_options" if _is_grpc(url) else "http_protocol_options"
        ),
    }
    if parts.scheme in ("https", "grpcs"):
        made["transport_socket"] = tls.to_server(host, *(["h2"] if _is_grpc(url) else []))
    return made


def otlp(url: str, cluster: str) -> dict[str, Any]:
    """How OTLP is spoken there, as the URL says: by gRPC or by HTTP."""
    if _is_grpc(url):
        return {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": TIMEOUT}}
    return {"http_service": {"http_uri": {"uri": url, "cluster": cluster, "timeout": TIMEOUT}}}


def _is_grpc(url: str) -> bool:
    return url.startswith(("grpc:", "grpcs:"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
