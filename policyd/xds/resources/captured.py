"""Captured connections: of an application that knows of no proxy, led as if it had asked its own proxy for the same.

Law: nothing is decided or routed here. HTTP is routed by its Host like any other, TLS becomes a tunnel to the name that
its client asks for, everything else one to the address that was meant; so what is captured goes around nothing.
Whoever connects here without having been redirected needs the secret of the application's own proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from policyd.mesh.istio.workload_entry import INBOUND_PORT, OUTBOUND_PORT
from policyd.mesh.model import Instance, Mesh, Served
from policyd.mesh.protocols import SERVER_FIRST
from policyd.xds.resources import guard, inner, sniffed
from policyd.xds.resources.model import CAPTURED, socket

BUFFER_BYTES: Final = 1_048_576
_FAMILIES: Final = {"": ("127.0.0.1", 32, "0.0.0.0"), "/6": ("::1", 128, "::")}
_BY_SNI: Final = "%REQUESTED_SERVER_NAME%:%DOWNSTREAM_LOCAL_PORT%"
_BY_ADDRESS: Final = "%DOWNSTREAM_LOCAL_ADDRESS%"


def outbound(
    mesh: Mesh, instance: Instance, explicit: Mapping[str, Any], requests: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Where an instance's connections are redirected to, one listener for each family, and what reads its tunnels.

    `explicit` is the filter of the application's own proxy, `requests` the same for who is captured.
    """
    chains: list[dict[str, Any]] = [
        {"filter_chain_match": {**sniffed.IS_HTTP, **sniffed.IN_CLEAR}, "filters": [requests]},
        {"filter_chain_match": {"transport_protocol": "tls"}, "filters": [inner.ends(), _tunnel(_BY_SNI)]},
        {"filter_chain_match": sniffed.IN_CLEAR, "filters": [inner.ends(), _tunnel(_BY_ADDRESS)]},
    ]
    looks = [inner.knows_ends(), *_unless(_unread(mesh), guard.TLS_INSPECTOR, sniffed.INSPECTOR)]
    for family, (host, bits, _) in _FAMILIES.items():
        own = {"prefix_ranges": [{"address_prefix": host, "prefix_len": bits}]}
        made = _listener(f"{instance.name}/captured{family}", host, OUTBOUND_PORT, "OUTBOUND", looks)
        not_redirected = {"filter_chain_match": own, "filters": [explicit]}
        yield {
            **made,
            "filter_chains": [not_redirected, *chains],
            "listener_filters_timeout": sniffed.SAID_WITHIN,
            "continue_on_listener_filters_timeout": True,
        }
    yield inner.internal(CAPTURED, [{"filters": [requests]}], inner.knows_ends())


def inbound(
    instance: Instance, captured: Iterable[int], chains: Iterable[tuple[Served, list[dict[str, Any]]]]
) -> Iterator[dict[str, Any]]:
    """Where connections that come in are redirected to: each leads to what its port has, and one to no such port ends.

    `chains` are those of what the instance serves; a port that is `captured` is reached by its own number, too.
    """
    ports: dict[int, list[dict[str, Any]]] = {}
    served = list(chains)
    for one, filters in served:
        ports[one.inbound_port] = filters
    for one, filters in served:
        if one.number in captured:
            ports.setdefault(one.number, filters)
            ports.setdefault(one.app_port, filters)
    found = [
        {**chain, "filter_chain_match": {**chain.get("filter_chain_match", {}), "destination_port": port}}
        for port, filters in sorted(ports.items())
        for chain in filters
    ]
    for family, (_, _, host) in _FAMILIES.items():
        looks = [inner.knows_ends(), guard.TLS_INSPECTOR]
        made = _listener(f"{instance.name}/captured-inbound{family}", host, INBOUND_PORT, "INBOUND", looks)
        yield {**made, "filter_chains": found}


def _listener(name: str, host: str, port: int, direction: str, looks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "address": socket(host, port),
        "enable_reuse_port": False,
        "traffic_direction": direction,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "listener_filters": looks,
    }


def _tunnel(to: str) -> dict[str, Any]:
    return guard.proxy("captured", CAPTURED, tunneling_config={"hostname": to})


def _unread(mesh: Mesh) -> list[int]:
    """The ports on which nobody waits for what a client says: it may be the server that speaks first."""
    ports = {port.number for one in mesh.services.values() for port in one.ports}
    ports |= {port.number for one in mesh.outside for port in one.ports}
    read = {port.number for one in mesh.services.values() for port in one.ports if port.protocol != "tcp"}
    read |= {port.number for one in mesh.outside for port in one.ports if port.protocol != "TCP"}
    return sorted((SERVER_FIRST | ports) - read)


def _unless(ports: Iterable[int], *filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Listener filters that look at no connection to these ports (ListenerFilterChainMatchPredicate)."""
    rules = [{"destination_port_range": {"start": port, "end": port + 1}} for port in ports]
    disabled = {"or_match": {"rules": rules}} if len(rules) > 1 else rules[0]
    yield from ({**one, "filter_disabled": disabled} for one in filters)
