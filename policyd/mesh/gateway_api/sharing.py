"""Which routes may be at one place together, and which keeps it for itself.

Law: who comes first has it; a route for requests and one for calls have no host in common, under patterns neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api.attach import AnyRoute
from policyd.mesh.gateway_api.grpc_route import GrpcRouteResource
from policyd.mesh.gateway_api.http_route import HttpRouteResource
from policyd.mesh.hosts import overlap

REQUEST_ROUTES: Final = (HttpRouteResource, GrpcRouteResource)
TAKEN: Final = "what it is for has an older route that shares with none of its kind"


@dataclass(frozen=True, slots=True)
class Attached:
    """A route and the hosts for which it is somewhere."""

    route: Declared[Any]
    hosts: tuple[str, ...]


def may_have(route: AnyRoute, host: str, before: Iterable[Attached]) -> bool:
    """Whether no route that was there before keeps a host for itself."""
    return not any(_claims(one, route, host) for one in before if not share(route, one.route.resource))


def _claims(one: Attached, route: AnyRoute, host: str) -> bool:
    """Whether a route has a host for itself: one of requests whatever its patterns cover, else the very name."""
    if isinstance(route, REQUEST_ROUTES):
        return any(overlap(host, other) for other in one.hosts)
    return host in one.hosts


def share(one: AnyRoute, other: AnyRoute) -> bool:
    """Whether two routes may have rules for the same host: those of one kind, whose rules say what they are for."""
    return one.kind == other.kind and isinstance(one, REQUEST_ROUTES)
