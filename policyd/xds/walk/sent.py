"""What one proxy is sent, as JSON forms, each made when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPE_PREFIX, EnvoyApi
from policyd.xds.snapshot import Resource, Snapshot

MANAGER: Final = "HttpConnectionManager"


class Sent:
    """The resources of a Snapshot."""

    def __init__(self, snapshot: Snapshot, api: EnvoyApi | None = None) -> None:
        self._snapshot = snapshot
        self._api = api or envoy_api.shared()
        self._shown: dict[tuple[str, str], dict[str, Any]] = {}

    def listener(self, name: str) -> Mapping[str, Any] | None:
        """A listener."""
        return self._one(LISTENER, name)

    def listeners(self) -> Iterator[Mapping[str, Any]]:
        """All of them."""
        return (found for name in self._snapshot.of(LISTENER) if (found := self._one(LISTENER, name)))

    def routes(self, name: str) -> Mapping[str, Any] | None:
        """A RouteConfiguration."""
        return self._one(ROUTE, name)

    def cluster(self, name: str) -> Mapping[str, Any] | None:
        """A cluster."""
        return self._one(CLUSTER, name)

    def endpoints(self, cluster: Mapping[str, Any]) -> Mapping[str, Any]:
        """The ClusterLoadAssignment of a cluster, whichever way it comes; empty where names are looked up."""
        if "load_assignment" in cluster:
            found: Mapping[str, Any] = cluster["load_assignment"]
            return found
        name = cluster.get("eds_cluster_config", {}).get("service_name") or cluster["name"]
        return self._one(ENDPOINT, name) or {}

    def _one(self, type_url: str, name: str) -> dict[str, Any] | None:
        key = (type_url, name)
        if key not in self._shown:
            resource = self._snapshot.of(type_url).get(name)
            if resource is None:
                return None
            self._shown[key] = shown(resource, self._api)
        return self._shown[key]


def shown(resource: Resource, api: EnvoyApi | None = None) -> dict[str, Any]:
    """A resource in its JSON form."""
    known = api or envoy_api.shared()
    return known.to_dict(known.message(resource.type_url.removeprefix(TYPE_PREFIX)).FromString(resource.body))


def address_of(resource: Resource, api: EnvoyApi | None = None) -> tuple[str, int]:
    """Where a listener listens, without a look at the rest of it; port 0 where it is no socket's."""
    known = api or envoy_api.shared()
    found = known.message(LISTENER.removeprefix(TYPE_PREFIX)).FromString(resource.body).address.socket_address
    return found.address, found.port_value


def manager(chain: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The HttpConnectionManager of a filter chain; None where it has none."""
    for one in chain.get("filters", ()):
        config: Mapping[str, Any] = one.get("typed_config", {})
        if str(config.get("@type", "")).endswith(MANAGER):
            return config
    return None
