"""Clusters and their endpoints: other instances, the application beside the sidecar, and policyd itself."""

from __future__ import annotations

from typing import Any

from policyd.mesh.model import Instance, Mesh, Service
from policyd.xds.resources import tls
from policyd.xds.resources.model import AUTHZ_CLUSTER, Control, inbound_cluster, outbound_cluster, socket

CONNECT_TIMEOUT = "10s"  # Istio's default
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UNBOUNDED = 4294967295  # Envoy's own limits of 1,024 are no policy of ours


def _protocol(kind: str) -> dict[str, Any]:
    options = {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {kind: {}}}
    return {HTTP_OPTIONS: options}


def _breakers() -> dict[str, Any]:
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"thresholds": [dict.fromkeys(names, UNBOUNDED)]}


def _assignment(cluster: str, addresses: list[tuple[str, int]]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": socket(host, port)}} for host, port in addresses]
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}] if endpoints else []}


def outbound(mesh: Mesh, service: Service, port: int) -> dict[str, Any]:
    """A Service's port as callers see it: endpoints by EDS, mTLS with the identities that serve it."""
    name = outbound_cluster(service.id, port)
    expected = {instance.workload for instance in mesh.instances_of(service.id)}
    eds = {
        "resource_api_version": "V3",
        "ads": {},
        # the stream re-sends endpoints after a cluster changed; should that ever fail, Envoy waits no 15 s
        "initial_fetch_timeout": "1s",
    }
    cluster = {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": eds},
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": _breakers(),
        "typed_extension_protocol_options": _protocol("http_protocol_options"),
    }
    # without an instance there is no identity to expect, and no matcher would mean any
    if expected:
        cluster["transport_socket"] = tls.upstream(f"outbound_.{port}_._.{service.id}", expected)
    return cluster


def endpoints(mesh: Mesh, service: Service, port: int) -> dict[str, Any]:
    """Where the sidecars of a Service's instances listen (ClusterLoadAssignment)."""
    addresses = [(i.address, i.inbound_port) for i in mesh.instances_of(service.id) if i.role == "sidecar"]
    return _assignment(outbound_cluster(service.id, port), addresses)


def inbound(instance: Instance) -> dict[str, Any]:
    """The application beside the sidecar, on loopback, in plain HTTP."""
    name = inbound_cluster(instance.service, instance.service_port)
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "circuit_breakers": _breakers(),
        "load_assignment": _assignment(name, [("127.0.0.1", instance.app_port)]),
        "typed_extension_protocol_options": _protocol("http_protocol_options"),
    }


def authorization(control: Control) -> dict[str, Any]:
    """policyd's decision servers: each process an endpoint of its own, asked over mTLS."""
    addresses = [(control.authz_host, port) for port in control.authz_ports]
    return {
        "name": AUTHZ_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": _breakers(),
        "load_assignment": _assignment(AUTHZ_CLUSTER, addresses),
        "typed_extension_protocol_options": _protocol("http2_protocol_options"),
        "transport_socket": tls.upstream("policyd", [control.server_id], alpn=("h2",)),
        # a decision server that restarts is found again at once, not after a connection's time-out
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 10}},
    }
