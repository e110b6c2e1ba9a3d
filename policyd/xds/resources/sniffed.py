"""Ports of which nobody says what they speak: the first bytes tell, and decide what is decided.

Law: HTTP is decided request by request, everything else as a connection. So a tunnel that was decided as a connection
takes no HTTP, not at the caller's end and not at the application's, however it is asked for. Where TLS goes elsewhere
than the rest, it is for the very name that the tunnel was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policyd.names import METADATA_CLUSTER
from policyd.xds.resources import filters, guard, inner, tcp
from policyd.xds.resources.model import SERVED_ANY, SNIFFED

MOST_WEIGHT: Final = 4_000_000_000  # of all shares together, which Envoy counts in 32 bits
# whoever has said less than five bytes by then speaks neither TLS nor HTTP; HTTP that comes later the other end refuses
SAID_WITHIN: Final = "2s"
IS_HTTP: Final = {"application_protocols": ["http/1.0", "http/1.1", "h2c"]}
IN_CLEAR: Final = {"transport_protocol": "raw_buffer"}  # what is in TLS is told of it as protocols, too (ALPN)
INSPECTOR: Final = {
    "name": "envoy.filters.listener.http_inspector",
    "typed_config": {"@type": f"{inner.TYPES}.filters.listener.http_inspector.v3.HttpInspector"},
}
_NOBODY: Final = {
    "name": "envoy.filters.network.rbac",
    "typed_config": {
        "@type": f"{inner.TYPES}.filters.network.rbac.v3.RBAC",
        "stat_prefix": "sniffed.",
        "rules": {"action": "ALLOW", "policies": {}},
    },
}


def outbound(route: Mapping[str, Any], encrypted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The route of a tunnel to such a port: what is no HTTP goes on where `route` leads; the other end asks.

    TLS for the name that is asked for goes on where `encrypted` leads.
    """
    ways = [
        (share * of, inner.share_inside(cluster, elsewhere))
        for share, cluster in _ways(route)
        for of, elsewhere in (_ways(encrypted) if encrypted else [(1, "")])
    ]
    if len(ways) > 1:
        less = 1 + sum(weight for weight, _ in ways) // MOST_WEIGHT
        clusters = [
            {"name": SNIFFED, "weight": weight // less or 1, "typed_per_filter_config": told} for weight, told in ways
        ]
        action = {"weighted_clusters": {"clusters": clusters}, **tcp.ENDS_HERE}
        return {"match": route["match"], "route": action, "typed_per_filter_config": filters.unasked()}
    if encrypted:
        return {**tcp.ending(SNIFFED), "typed_per_filter_config": {**filters.unasked(), **ways[0][1]}}
    return inner.into(SNIFFED, {METADATA_CLUSTER: route["route"]["cluster"]}, filters.unasked())


def _ways(route: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The clusters of a route with their shares."""
    shares = route["route"].get("weighted_clusters", {}).get("clusters", ())
    return [(one["weight"], one["name"]) for one in shares] or [(1, route["route"]["cluster"])]


def served(cluster: str, said: dict[str, Any]) -> dict[str, Any]:
    """The route of a tunnel to an application, once it was decided as a connection."""
    return inner.into(SERVED_ANY, {METADATA_CLUSTER: cluster}, said)


def at_caller(counted: dict[str, Any], requests: dict[str, Any]) -> dict[str, Any]:
    """What looks at an application's tunnels; `requests` reads those with requests, `counted` is said of the others."""
    tunnel = {"hostname": f"%FILTER_STATE({inner.AUTHORITY}:PLAIN)%"}
    other = guard.proxy("sniffed", SNIFFED, tunneling_config=tunnel, **counted)
    http = {**IS_HTTP, **IN_CLEAR}
    chains: list[dict[str, Any]] = [
        {"filter_chain_match": http, "filters": [requests]},
        guard.of_its_name("sniffed", SNIFFED, inner.goes_as_tls(), tunneling_config=tunnel, **counted),
        {"filter_chain_match": IN_CLEAR, "filters": [other]},
    ]
    made = inner.internal(SNIFFED, chains, inner.knows_ends(), guard.TLS_INSPECTOR, INSPECTOR)
    return {**made, "listener_filters_timeout": SAID_WITHIN, "continue_on_listener_filters_timeout": True}


def at_application() -> dict[str, Any]:
    """What looks at tunnels before an application, where they end; a tunnel says to which cluster it goes."""
    proxy = guard.proxy("served", SERVED_ANY)
    chains: list[dict[str, Any]] = [{"filter_chain_match": IS_HTTP, "filters": [_NOBODY, proxy]}, {"filters": [proxy]}]
    return inner.internal(SERVED_ANY, chains, INSPECTOR)
