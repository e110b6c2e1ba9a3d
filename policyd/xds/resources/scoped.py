"""What proxies of a limited scope are sent: routes to what they know, and the clusters that these lead to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from policyd.envoy_api import CLUSTER, ENDPOINT
from policyd.mesh.model import Mesh
from policyd.mesh.scope import Scope
from policyd.xds.resources.model import AUTHZ_CLUSTER, CAPTURED, LEAVING, SNIFFED
from policyd.xds.snapshot import Resource


def known_routes(mesh: Mesh, scope: Scope, routes: dict[str, Any]) -> dict[str, Any]:
    """A RouteConfiguration without the virtual hosts of what is not known."""
    if scope.hosts is None:
        return routes
    known = {f"{o.host}:{p.number}" for o in mesh.outside for p in o.ports if scope.sees_outside(o, p.number)}
    services = {f"{s.id}:{p.number}" for s in mesh.services.values() for p in s.ports if not scope.sees(s, p.number)}
    outside = {f"{one.host}:{port.number}" for one in mesh.outside for port in one.ports} - known
    unknown = services | outside
    return {**routes, "virtual_hosts": [one for one in routes["virtual_hosts"] if one["name"] not in unknown]}


def needed(resources: Iterable[Resource]) -> Iterator[Resource]:
    """Of all that a class could be sent, the clusters and endpoints that some other resource of it leads to."""
    found = list(resources)
    wanted = {one.name for other in found if other.type_url != CLUSTER for one in other.references}
    wanted |= {AUTHZ_CLUSTER, LEAVING, SNIFFED, CAPTURED}  # to which listeners lead
    for one in found:
        if one.type_url not in (CLUSTER, ENDPOINT) or one.name in wanted:
            yield one
