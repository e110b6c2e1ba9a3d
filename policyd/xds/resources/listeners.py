"""Listeners of sidecars: inbound (mTLS, then policy, then the application), and the application's own HTTP proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from policyd import decision_line
from policyd.mesh.captured import captured as captured_of
from policyd.mesh.istio.workload_entry import INBOUND_PORT, OUTBOUND_PORT
from policyd.mesh.model import (
    Instance,
    Mesh,
    Served,
    egress_listener,
    inbound_listener,
    plaintext_listener,
)
from policyd.mesh.protocols import Protocol, takes_connections, takes_requests
from policyd.mesh.scope import any_name_somewhere, tls_of
from policyd.xds.resources import (
    captured,
    certificates,
    counting,
    deciding,
    egress,
    faults,
    filters,
    guard,
    inner,
    observing,
    sessions,
    sniffed,
    tcp,
    tls,
    tokens,
)
from policyd.xds.resources.model import (
    OUTBOUND_ROUTES,
    Control,
    Switch,
    inbound_cluster,
    socket,
)

BUFFER_BYTES = 1_048_576
NO_SWITCHES: Final[Mapping[str, Switch]] = {}
HANDSHAKE_TIMEOUT = "15s"  # Istio's at gateways


# a peer of the mesh has a verified identity: its request id joins the records of one request
_PEER = {
    "forward_client_cert_details": "SANITIZE_SET",
    "set_current_client_cert_details": {"uri": True},
    "preserve_external_request_id": True,
}
_STRANGER = {"forward_client_cert_details": "SANITIZE"}


def _peer(mesh: Mesh) -> dict[str, Any]:
    """The same; what a gateway tells of its own client stays in front of what is told of the gateway."""
    return {**_PEER, "forward_client_cert_details": "APPEND_FORWARD"} if mesh.tells_of_clients else _PEER


def listener(name: str, host: str, port: int, chain: dict[str, Any], direction: str) -> dict[str, Any]:
    """A TCP socket and what becomes of its connections; nobody else may have its port open at the same time."""
    return {
        "name": name,
        "address": socket(host, port),
        "enable_reuse_port": False,
        "traffic_direction": direction,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [chain],
    }


def inbound(
    mesh: Mesh, instance: Instance, served: Served, control: Control, switches: Mapping[str, Switch] = NO_SWITCHES
) -> dict[str, Any]:
    """What peers reach at a port of its own."""
    chains = chains_of(mesh, instance, served, control, switches)
    name = inbound_listener(instance, served)
    made = listener(name, served.bind or instance.address, served.inbound_port, chains[0], "INBOUND")
    return made if len(chains) == 1 else {**made, "filter_chains": chains, "listener_filters": [guard.TLS_INSPECTOR]}


def of_served(
    mesh: Mesh, instance: Instance, control: Control, switches: Mapping[str, Switch] = NO_SWITCHES
) -> Iterator[dict[str, Any]]:
    """What peers reach at all ports of an instance, and where what comes in is redirected to, if it is captured."""
    ports = captured_of(mesh.sidecars, instance).inbound
    for port in instance.ports:
        if not ports or port.inbound_port != INBOUND_PORT:
            yield inbound(mesh, instance, port, control, switches)
    if ports:
        chains = ((port, chains_of(mesh, instance, port, control, switches)) for port in instance.ports)
        yield from captured.inbound(instance, ports, chains)


def chains_of(
    mesh: Mesh, instance: Instance, served: Served, control: Control, switches: Mapping[str, Switch] = NO_SWITCHES
) -> list[dict[str, Any]]:
    """What peers reach: mutual TLS, or plain text where that is allowed, the user's token, policyd, the application.

    With a switch (by the name under which requests are decided) it is the sidecar's routes that say who decides.
    """
    verification = tokens.verification(mesh, instance)
    seen = observing.seen(mesh, control, instance)
    chains: list[dict[str, Any]] = []
    if served.peers != "DISABLE":
        asked_for = inbound_listener(instance, served)
        filters_ = [
            _application(
                mesh, asked_for, instance, served, control, verification, seen, switches.get(asked_for), encrypted=True
            )
        ]
        match = {} if served.peers == "STRICT" else {"filter_chain_match": {"transport_protocol": "tls"}}
        chains += tls.for_peers(mesh, {**match, "filters": filters_})
    if served.peers != "STRICT":
        asked_for = plaintext_listener(instance, served)
        filters_ = [
            _application(
                mesh, asked_for, instance, served, control, verification, seen, switches.get(asked_for), encrypted=False
            )
        ]
        match = {"filter_chain_match": {"transport_protocol": "raw_buffer"}} if chains else {}
        chains.append({**match, **_for_strangers(mesh, instance, served), "filters": filters_})
    return chains


def _for_strangers(mesh: Mesh, instance: Instance, served: Served) -> dict[str, Any]:
    """The transport of who is not of the mesh: plain text, or TLS where a Sidecar's `ingress` shows a certificate."""
    shown = tls_of(mesh, instance, served)
    if shown is None:
        return {}
    socket_ = certificates.downstream(shown)
    return {"transport_socket": socket_, "transport_socket_connect_timeout": HANDSHAKE_TIMEOUT}


def _application(
    mesh: Mesh,
    asked_for: str,
    instance: Instance,
    served: Served,
    control: Control,
    verification: list[dict[str, Any]],
    seen: observing.Seen,
    switch: Switch | None,
    *,
    encrypted: bool,
) -> dict[str, Any]:
    """What decides about a request and hands it to the application; who sends it is known where it is `encrypted`."""
    cluster = inbound_cluster(instance.service, served.service_port)
    routes = _to_application(cluster, filters.asked_for(asked_for), served.protocol)
    hosts = [{"name": "inbound", "domains": ["*"], "routes": routes}]
    table = {"route_config": {"name": "inbound", "virtual_hosts": hosts, **counting.TELLS_NOBODY}}
    known = [counting.hears_who()] if encrypted else []
    told = [inner.tells(guard.CLAIMED)] if served.protocol in ("tls", "auto") else []
    deciding_ = filters.decision(control, verification)
    observed = seen.inbound(served, encrypted=encrypted, decided=deciding.DECIDED if switch else None)
    if switch is not None:
        table, deciding_ = filters.rds(asked_for), deciding.chain(control, switch, verification)
        peer = decision_line.ANY_PEER if mesh.federated else decision_line.OWN_PEER
        peer = peer if encrypted else decision_line.NO_PEER
        told_ = deciding.told(asked_for, switch, peer, connections=takes_connections(served.protocol))
        observed = {**observed, "access_log": [*observed["access_log"], told_]}
    messages = seen.messages(asked=True) if takes_requests(served.protocol) else []
    translated = [filters.GRPC_WEB] if served.protocol == "grpc-web" else []
    return filters.manager(
        "inbound",
        # translated in front of the decision, so that what is refused is refused in the caller's own words
        [*known, *translated, *deciding_, *told, *messages],
        table,
        server_header_transformation="PASS_THROUGH",
        skip_xff_append=True,
        # as in Istio: a stream may be quiet for as long as both ends like
        stream_idle_timeout="0s",
        **tokens.told(observed, asked_for, verification),
        **({"upgrade_configs": _upgrades(served.protocol)} if takes_connections(served.protocol) else {}),
        **({} if takes_requests(served.protocol) else tcp.SOON_CLOSED),
        **(_peer(mesh) if encrypted else _STRANGER),
        **(deciding.replies(switch, verification) if switch is not None else tokens.replies(verification)),
    )


def tables(instance: Instance, served: Served, switches: Mapping[str, Switch]) -> Iterator[dict[str, Any]]:
    """The routes of a port's listeners where these say who decides."""
    cluster = inbound_cluster(instance.service, served.service_port)

    def led(said: dict[str, Any]) -> dict[str, Any]:
        [route] = _to_application(cluster, said, served.protocol)
        return route

    for name in (inbound_listener(instance, served), plaintext_listener(instance, served)):
        if name in switches:
            yield deciding.table(name, led, switches[name])


def _to_application(cluster: str, said: dict[str, Any], speaks: Protocol) -> list[dict[str, Any]]:
    """The routes to an application, with what filters are told: of requests, of tunnels, or of both where the first
    bytes tell.
    """
    requests = {
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "timeout": "0s"},
        "typed_per_filter_config": said,
    }
    match speaks:
        case "tls":
            return [guard.served(cluster, said)]
        case "tcp":
            return [{**requests, **tcp.ending(cluster)}]
        case "auto":
            return [sniffed.served(cluster, said), requests]
        case _:
            return [requests]


def _upgrades(speaks: Protocol) -> list[dict[str, Any]]:
    return [tcp.CONNECT, *([{"upgrade_type": "websocket"}] if takes_requests(speaks) else [])]


def outbound(
    mesh: Mesh, instance: Instance, control: Control, lookup: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The application's HTTP proxy, on loopback, opened by the instance's secret, and what reads tunnels to it.

    Whatever a route does not except is asked about; `lookup` finds the addresses of names, after they may be asked for.
    """
    asked = [
        counting.says_who(instance),
        filters.asks_as(egress_listener(instance.name)),
        filters.authorization(control),
    ]
    seen = observing.seen(mesh, control, instance)
    observed = seen.outbound()
    by_proxy = egress.is_by_proxies(mesh)
    inside = [*asked, *lookup, *faults.FILTERS, sessions.FILTER, *seen.messages(asked=False)]
    within = seen.inside()
    yield inner.listener(inside, within)
    if mesh.is_sniffed:
        yield sniffed.at_caller(seen.connections(), inner.requests(inside, within))
    if egress.is_guarded(mesh):
        yield from guard.on_the_way_out(lookup, observed, any_name=any_name_somewhere(mesh), by_proxy=by_proxy)
    told = [*inside, inner.tells(by_proxy=by_proxy)]
    explicit = _proxy([filters.proxy_password(instance), *told], observed)
    is_captured = captured_of(mesh.sidecars, instance).outbound
    if is_captured:
        yield from captured.outbound(mesh, instance, explicit, _proxy(told, observed))
    if not is_captured or instance.outbound_port != OUTBOUND_PORT:
        chain = {"filters": [explicit]}
        yield listener(f"{instance.name}/outbound", "127.0.0.1", instance.outbound_port, chain, "OUTBOUND")


def _proxy(first: list[dict[str, Any]], observed: dict[str, Any]) -> dict[str, Any]:
    """The connection manager of what an application asks its own proxy for."""
    return filters.manager(
        "outbound",
        first,
        filters.rds(OUTBOUND_ROUTES),
        # tunnels, for the routes that end one
        upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        server_header_transformation="PASS_THROUGH",
        # what an application passes on joins the records of one request
        preserve_external_request_id=True,
        skip_xff_append=True,
        stream_idle_timeout="0s",
        **observed,
    )
