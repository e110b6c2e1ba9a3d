"""Connections at a gateway: each is made a tunnel within its Envoy, decided there, and goes on as one to a sidecar.

Law: nothing is connected before the decision, whoever speaks first. Envoy's network filter for decisions asks only when
the client has sent something, and is too late for a service that speaks first; a tunnel has no other end until its
CONNECT is answered. Whose tunnel it is, our own configuration says: only this Envoy reaches its internal listener.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from policyd.mesh.istio.connection_pool import ConnectionPool
from policyd.mesh.model import Instance, Listen, Mesh, connections_listener
from policyd.names import SNI_HEADER
from policyd.xds.resources import by_sni, connections, counting, edges, filters, inner, observing, policies, tcp
from policyd.xds.resources.model import Control

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"
_ORIGINAL: Final = "envoy.filters.listener.original_dst"
# as the connection has them, for the tunnel's check too
_ENDS: Final = {"remote_ip": "%DOWNSTREAM_REMOTE_ADDRESS%", "local_ip": "%DOWNSTREAM_LOCAL_ADDRESS%"}
# else a client that its certificate does not let in would have been asked about, and led on, by then
_AFTER_HANDSHAKE: Final = {"upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE", "max_early_data_bytes": 65_536}
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def opened(mesh: Mesh, instance: Instance, listen: Listen) -> list[edges.Opened]:
    """The servers of a port whose connections are led on."""
    servers = edges.opened(mesh, instance, listen.declared)
    return [one for one in servers if one.server.section != "http" and not one.server.for_peers]


def into_tunnel(instance: Instance, listen: Listen, one: edges.Opened) -> list[dict[str, Any]]:
    """The filters of a server's connections: their ends are kept, and a tunnel made of each (tcp_proxy.v3.TcpProxy)."""
    name = connections_listener(instance.name, listen.declared)
    ends = [
        {
            "object_key": f"{_ORIGINAL}.{end}",
            "format_string": {"text_format_source": {"inline_string": text}},
            "shared_with_upstream": "ONCE",
        }
        for end, text in _ENDS.items()
    ]
    keep = {"@type": f"{_EXTENSIONS}.filters.network.set_filter_state.v3.Config", "on_new_connection": ends}
    asked = {"header": {"key": SNI_HEADER, "value": "%REQUESTED_SERVER_NAME%"}}
    tunnel = {
        "@type": f"{_EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name.replace("/", "."),
        "cluster": name,
        "idle_timeout": tcp.IDLE,
        **(_AFTER_HANDSHAKE if one.tls.shows else {}),
        "tunneling_config": {
            "hostname": _authority(one),
            "headers_to_add": [{**asked, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        },
    }
    return [
        {"name": "envoy.filters.network.set_filter_state", "typed_config": keep},
        {"name": "envoy.filters.network.tcp_proxy", "typed_config": tunnel},
    ]


def listener(mesh: Mesh, instance: Instance, listen: Listen, control: Control) -> dict[str, Any]:
    """Where the tunnels of a port are decided and routed; nobody outside of this Envoy reaches it."""
    name = connections_listener(instance.name, listen.declared)
    restored = {"@type": f"{_EXTENSIONS}.filters.listener.original_dst.v3.OriginalDst"}
    manager = filters.manager(
        name.replace("/", "."),
        [counting.says_who(instance), *filters.decision(control, [])],
        filters.rds(name),
        upgrade_configs=[tcp.CONNECT],
        **tcp.SOON_CLOSED,
        **observing.seen(mesh, control, instance).outbound(),
    )
    return {
        "name": name,
        "internal_listener": {},
        "traffic_direction": "INBOUND",
        "listener_filters": [{"name": _ORIGINAL, "typed_config": restored}],
        "filter_chains": [{"filters": [manager]}],
    }


def cluster(instance: Instance, listen: Listen) -> dict[str, Any]:
    """The way to it. No connection carries a second tunnel, which would be taken for the first one's client."""
    options = {
        "@type": f"type.googleapis.com/{_OPTIONS}",
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": {"max_requests_per_connection": 1},
    }
    return {
        **inner.cluster(connections_listener(instance.name, listen.declared)),
        "circuit_breakers": policies.breakers(ConnectionPool()),
        "typed_extension_protocol_options": {_OPTIONS: options},
    }


def table(mesh: Mesh, instance: Instance, listen: Listen) -> dict[str, Any]:
    """The routes of a port's tunnels: each server has its own, those of the narrower names first."""
    name = connections_listener(instance.name, listen.declared)
    nowhere = {**edges.NOWHERE, "match": connections.ANYTHING}
    hosts = [
        {
            "name": _authority(one),
            "domains": [_authority(one)],
            # decided before it is told that there is no such route
            "routes": [*_led(mesh, instance, listen, one), nowhere],
            "typed_per_filter_config": filters.asked_for(name),
        }
        for one in opened(mesh, instance, listen)
    ]
    return {"name": name, "virtual_hosts": hosts}


def _led(mesh: Mesh, instance: Instance, listen: Listen, one: edges.Opened) -> Iterable[dict[str, Any]]:
    if one.server.to_every_service:
        return by_sni.routes(mesh, instance, one)
    return _routes(mesh, instance, listen, one)


def _routes(mesh: Mesh, instance: Instance, listen: Listen, one: edges.Opened) -> list[dict[str, Any]]:
    bound = [
        (owner, replace(view, listener=""), hosts) for owner, view, hosts in edges.bound(mesh, instance, listen, one)
    ]
    at = instance.address
    if one.server.section == "tcp":
        return [route for owner, view, _ in bound for route in connections.tcp_routes(mesh, owner, view, at, None)][:1]
    # the very name that the client asks for chooses the route
    named = [
        found for owner, view, hosts in bound for found in connections.tls_routes(mesh, owner, view, hosts, at, None)
    ]
    named.sort(key=lambda found: (found[0].startswith("*"), -len(found[0])))
    return [{**route, "match": {**route["match"], **connections.asks_for(name)}} for name, route in named]


def _authority(one: edges.Opened) -> str:
    """By which name its tunnels ask for a server."""
    name = one.gateway.name.replace("~", "--")  # a listener of the Gateway API; `~` is in no name of a host
    return f"{one.at}.{name}.{one.gateway.namespace}:{one.server.port.number}"
