"""Who is behind an endpoint, and how it is spoken to: read from clusters and listeners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policyd.envoy_api import LISTENER
from policyd.mesh.model import Mesh
from policyd.way.model import Endpoint
from policyd.xds.resources.build import ProxyClass
from policyd.xds.resources.reuse import Snapshots
from policyd.xds.walk.sent import Sent, address_of

MAX_ENDPOINTS = 256  # of one cluster that are looked at


class Behind:
    """The listeners of all proxies by their addresses."""

    def __init__(self, mesh: Mesh, snapshots: Snapshots[ProxyClass]) -> None:
        self._mesh = mesh
        self._snapshots = snapshots
        self._found: dict[tuple[str, int], tuple[str, str]] | None = None

    def of(self, address: str, port: int) -> tuple[str, str]:
        """The instance and the name of its listener; "" twice where the address is none of ours."""
        if self._found is None:
            self._found = {
                address_of(one): (name, one.name)
                for name in self._mesh.instances
                for one in self._snapshots.own[name]
                if one.type_url == LISTENER
            }
        return self._found.get((address, port), ("", ""))


def endpoints(sent: Sent, cluster: Mapping[str, Any], behind: Behind) -> Iterator[Endpoint]:
    """Where a cluster leads, the preferred ones first."""
    whole = "transport_socket" in cluster
    plain = [one["match"] for one in cluster.get("transport_socket_matches", ()) if "raw_buffer" in str(one)]
    for group in sent.endpoints(cluster).get("endpoints", ()):
        for one in group.get("lb_endpoints", ()):
            address = one.get("endpoint", {}).get("address", {})
            inside = address.get("envoy_internal_address", {}).get("server_listener_name")
            if inside:
                yield Endpoint(inside, 0)
                continue
            place = address.get("socket_address")
            if place is None:
                continue
            labels = one.get("metadata", {}).get("filter_metadata", {}).get("envoy.transport_socket_match", {})
            in_clear = any(match.items() <= labels.items() for match in plain)
            port = place.get("port_value", 0)
            yield Endpoint(
                place["address"],
                port,
                behind.of(place["address"], port)[0],
                whole and not in_clear,
                group.get("priority", 0),
                one.get("load_balancing_weight", 0),
            )


def is_looked_up(cluster: Mapping[str, Any]) -> bool:
    """Whether addresses are found when it is called."""
    return "cluster_type" in cluster


def expected(cluster: Mapping[str, Any]) -> tuple[str, ...]:
    """The names one of which the other end has to prove."""
    common = _context(cluster).get("common_tls_context", {})
    combined = common.get("combined_validation_context", {}).get("default_validation_context", {})
    checked = combined or common.get("validation_context", {})
    return tuple(one["matcher"].get("exact", "") for one in checked.get("match_typed_subject_alt_names", ()))


def server_name(cluster: Mapping[str, Any]) -> str:
    """The name that TLS asks for (SNI)."""
    return str(_context(cluster).get("sni", ""))


def _context(cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    context: Mapping[str, Any] = cluster.get("transport_socket", {}).get("typed_config", {})
    return context
