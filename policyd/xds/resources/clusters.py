"""Clusters and their endpoints: other instances, the application beside the sidecar, and policyd itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from policyd.mesh.destinations import Caller
from policyd.mesh.gateway_api.values import BackendTls
from policyd.mesh.istio.connection_pool import ConnectionPool
from policyd.mesh.model import Instance, Mesh, Served, Service
from policyd.mesh.protocols import HTTP2
from policyd.mesh.scope import pool_of
from policyd.xds.resources import ages, localities, policies, spans, tls
from policyd.xds.resources.localities import Place
from policyd.xds.resources.model import (
    AUTHZ_CLUSTER,
    Control,
    inbound_cluster,
    outbound_cluster,
    pipe,
    sni_cluster,
    socket,
)

_EDS: Final[Mapping[str, Any]] = {
    "resource_api_version": "V3",
    "ads": {},
    # the stream re-sends endpoints after a cluster changed; should that ever fail, Envoy waits no 15 s
    "initial_fetch_timeout": "1s",
}


def _assignment(cluster: str, addresses: list[tuple[str, int]]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": socket(host, port)}} for host, port in addresses]
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}] if endpoints else []}


def outbound(mesh: Mesh, caller: Caller, service: Service, port: int, subset: str = "") -> dict[str, Any]:
    """A Service's port, or a subset of it, as callers see it: endpoints by EDS, mTLS with those that serve it."""
    name = outbound_cluster(service.id, port, subset)
    policy = mesh.destination(caller, service).policy_of(port, subset)
    served = list(serving(mesh, caller, service, port, subset))
    in_clear = policy.tls is not None and policy.tls.mode == "DISABLE"
    expected = {one.workload for one, there in served if there.peers != "DISABLE" and not in_clear}
    found = service.port(port)
    speaks = found.protocol if found is not None else "http"
    http2 = speaks in HTTP2
    cluster = {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _EDS},
        **policies.cluster_fields(policy, http2=http2, either=speaks == "auto"),
    }
    if isinstance(policy.tls, BackendTls):  # its instances do without the mesh's own
        speaks_tls = ["h2"] if policies.travels_as_http2(policy, http2=http2) else ["http/1.1"]
        cluster["transport_socket"] = tls.to_outside(service.id, policy.tls, (), speaks_tls)
        return cluster
    # without an instance there is no identity to expect, and no matcher would mean any
    if expected:
        alpn = ("h2",) if policies.travels_as_http2(policy, http2=http2) else ()
        asked = (policy.tls.sni if policy.tls else None) or sni_cluster(service.id, port, subset)
        peers = tls.expected_of(mesh, expected)
        cluster["transport_socket"] = tls.upstream(asked, peers, alpn, tls.roots_for(mesh, peers))
        cluster |= ages.cluster(mesh, expected)
    # to those that take plain text only there is no other way; where all are such, there is no transport socket
    if expected and any(there.peers == "DISABLE" for _, there in served):
        cluster["transport_socket_matches"] = [tls.PLAINTEXT]
    return cluster


def passed_on(mesh: Mesh, caller: Caller, service: Service, port: int, subset: str) -> dict[str, Any]:
    """A Service's port, or a subset of it, for connections whose TLS is the caller's: the same instances."""
    return {
        "name": sni_cluster(service.id, port, subset),
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _EDS, "service_name": outbound_cluster(service.id, port, subset)},
        **policies.cluster_fields(mesh.destination(caller, service).policy_of(port, subset)),
    }


def endpoints(mesh: Mesh, caller: Caller, service: Service, port: int, subset: str = "") -> dict[str, Any]:
    """Where the sidecars of a Service's instances listen, as a caller is to try them (ClusterLoadAssignment).

    One that does not answer is not there at all: of those that are there Envoy takes any when most are bad (panic).
    """
    policy = mesh.destination(caller, service).policy_of(port, subset)
    found = reachable(mesh, service, serving(mesh, caller, service, port, subset))
    return {
        "cluster_name": outbound_cluster(service.id, port, subset),
        "endpoints": localities.groups(map(localities.spot, found), caller, policy),
    }


def reachable(mesh: Mesh, service: Service, found: Iterable[Place]) -> Iterator[Place]:
    """Those that callers may be led to."""
    for one, served in found:
        if _takes_peers(mesh, one, served) and (one.healthy or service.unready) and one.workload not in mesh.revoked:
            yield one, served


def _takes_peers(mesh: Mesh, instance: Instance, served: Served) -> bool:
    return instance.role == "sidecar" or (instance.name, served.number) in mesh.peers_at


def serving(mesh: Mesh, caller: Caller, service: Service, port: int, subset: str) -> Iterator[Place]:
    """The instances of a Service, or those that bear the labels of a subset, with what they serve on its port."""
    labels = mesh.destination(caller, service).subsets[subset].labels if subset else {}
    for one in mesh.instances_of(service.id):
        if labels.items() <= one.labels.items() and (served := mesh.reached(one, service.id, port)) is not None:
            yield one, served


def inbound(mesh: Mesh, instance: Instance, served: Served) -> dict[str, Any]:
    """A port of the application beside the sidecar, on loopback, in plain text."""
    name = inbound_cluster(instance.service, served.service_port)
    pool = pool_of(mesh, instance, served)
    options = policies.protocol("http2_protocol_options" if served.protocol in HTTP2 else "http_protocol_options")
    if served.protocol == "auto":
        options = policies.as_client()
    options[policies.HTTP_OPTIONS] |= policies.connections(pool)
    return {
        "name": name,
        "type": "STATIC",
        **policies.limits(pool),
        "load_assignment": _application(name, served),
        "typed_extension_protocol_options": options,
    }


def _application(cluster: str, served: Served) -> dict[str, Any]:
    if not served.app_socket:
        return _assignment(cluster, [(served.app_address, served.app_port)])
    return {
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": pipe(served.app_socket)}}]}],
    }


def authorization(control: Control) -> dict[str, Any]:
    """policyd's decision servers: each process an endpoint of its own, asked over mTLS."""
    addresses = [(control.authz_host, port) for port in control.authz_ports]
    options = policies.protocol("http2_protocol_options")
    if untraced := spans.to_policyd(control):
        options[policies.HTTP_OPTIONS]["http_filters"] = [*untraced, policies.CODEC]
    return {
        "name": AUTHZ_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": policies.breakers(ConnectionPool()),
        "load_assignment": _assignment(AUTHZ_CLUSTER, addresses),
        "typed_extension_protocol_options": options,
        "transport_socket": tls.upstream("policyd", [control.server_id], alpn=("h2",)),
        # a process that is lost is asked no more until it is there again, unless it is the only one; what it answers,
        # errors too, is no reason to avoid it
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "base_ejection_time": "0.5s",
            "max_ejection_time": "0.5s",
            "interval": "0.25s",
            "max_ejection_percent": 50,
        },
        # a decision server that restarts is found again at once, not after a connection's time-out
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 10}},
    }
