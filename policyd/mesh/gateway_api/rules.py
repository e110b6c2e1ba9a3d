"""Rules of HTTPRoutes and GRPCRoutes as those of VirtualServices, each with its order and its source.

Law: one rule a match, so that the matches of all routes of a host come in the specification's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api.actions import Action, AnyFilter, AnyRule, Led, actions, mirrored
from policyd.mesh.gateway_api.backends import Backends, Referrer
from policyd.mesh.gateway_api.common import MirrorFilter
from policyd.mesh.gateway_api.conditions import Fault
from policyd.mesh.gateway_api.grpc_route import GrpcRouteMatch, GrpcRouteResource
from policyd.mesh.gateway_api.http_matches import HttpRouteMatch
from policyd.mesh.gateway_api.http_route import HttpRouteResource
from policyd.mesh.gateway_api.matches import grpc_match, http_match
from policyd.mesh.gateway_api.paths import Place
from policyd.mesh.gateway_api.precedence import Order, by_grpc_match, by_http_match
from policyd.mesh.gateway_api.values import Persistent
from policyd.mesh.hosts import CLUSTER_DOMAIN
from policyd.mesh.istio.destination import Destination, MirrorPolicy
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch
from policyd.yaml import Document

RequestRoute = HttpRouteResource | GrpcRouteResource


@dataclass(frozen=True, slots=True)
class Ruled:
    """A rule with one match: its place among others of its host, and where it is written."""

    order: Order
    rule: HttpRoute
    source: tuple[Document, tuple[str | int, ...]]

    @property
    def answers_all(self) -> bool:
        """Whether no request of its port comes after it."""
        (match,) = self.rule.match
        return match == HttpMatch(port=match.port)

    @property
    def port(self) -> int | None:
        """The port on which alone it holds."""
        return self.rule.match[0].port


def rules(route: Declared[RequestRoute], backends: Backends, place: Place, port: int | None = None) -> list[Ruled]:
    """The rules of a route at a place; in the mesh they are for one port of a Service."""
    found = []
    for at, rule in enumerate(_written(route.resource)):
        led, mirrors = _led(route.resource, rule, backends)
        for of, match in enumerate(rule.matches or _everything(route.resource)):
            order = (*_narrowness(match), *route.resource.age, at, of)
            written = ("spec", "rules", at, *(("matches", of) if rule.matches else ()))
            there = Place(place.host, _prefix(match), place.scheme, place.port)
            for number, action in enumerate(actions(rule, rule.filters, led, mirrors, there)):
                made = _rule(route.resource, at, rule, match, action, port)
                found.append(Ruled((*order, number), made, (route.document, written)))
    return found


def reference_fault(route: RequestRoute, backends: Backends) -> Fault | None:
    """The first thing that its rules refer to and that is not there, or not to be had."""
    for rule in _written(route):
        for one in (*(found.to for found in _backends(route, rule, backends)), *_mirrors(route, rule, backends)):
            if isinstance(one, Fault):
                return one
    return None


def led_to(route: RequestRoute, backends: Backends) -> Iterator[str]:
    """The hosts to which its rules lead."""
    for rule in _written(route):
        for one in _backends(route, rule, backends):
            if isinstance(one.to, Destination):
                yield one.to.host


def _written(route: RequestRoute) -> Sequence[AnyRule]:
    return route.spec.rules


def _everything(route: RequestRoute) -> tuple[HttpRouteMatch | GrpcRouteMatch, ...]:
    return (HttpRouteMatch(),) if isinstance(route, HttpRouteResource) else (GrpcRouteMatch(),)


def _narrowness(match: HttpRouteMatch | GrpcRouteMatch) -> Order:
    return by_http_match(match) if isinstance(match, HttpRouteMatch) else by_grpc_match(match)


def _prefix(match: HttpRouteMatch | GrpcRouteMatch) -> str:
    is_prefix = isinstance(match, HttpRouteMatch) and match.path.type == "PathPrefix"
    return match.path.segments if is_prefix and isinstance(match, HttpRouteMatch) else ""


def _rule(
    route: RequestRoute,
    at: int,
    rule: AnyRule,
    match: HttpRouteMatch | GrpcRouteMatch,
    action: Action,
    port: int | None,
) -> HttpRoute:
    if isinstance(match, HttpRouteMatch):
        made = http_match(match, port, action.below)
    else:
        made = grpc_match(match, port, action.below)
    name = f"{route.namespace}.{route.name}.{rule.name or at}"[:253]
    if rule.session_persistence is None or not action.fields.get("route"):
        return HttpRoute(name=name, match=(made,), **action.fields)
    session = rule.session_persistence.session(f"{route.kind}/{name}", _cookie_path(match))
    return Persistent(name=name, match=(made,), session=session, **action.fields)


def _cookie_path(match: HttpRouteMatch | GrpcRouteMatch) -> str:
    """Below what path clients tell of their instance: of the very path, or prefix, where it is one."""
    if isinstance(match, HttpRouteMatch) and match.path.type != "RegularExpression":
        return match.path.value if match.path.type == "Exact" else match.path.segments
    return ""


def _led(route: RequestRoute, rule: AnyRule, backends: Backends) -> tuple[list[Led], list[MirrorPolicy]]:
    found = list(_backends(route, rule, backends))
    return found, list(_copies(route, rule.filters, backends))


def _backends(route: RequestRoute, rule: AnyRule, backends: Backends) -> Iterator[Led]:
    who = Referrer(route.kind, route.namespace)
    for ref in rule.backend_refs:
        yield Led(backends.of(who, ref, "http"), ref.weight, ref.filters, tuple(_copies(route, ref.filters, backends)))


def _copies(route: RequestRoute, filters: Iterable[AnyFilter], backends: Backends) -> Iterator[MirrorPolicy]:
    for one in filters:
        mirror = one.request_mirror
        if mirror is not None and isinstance(to := _mirror(route, mirror, backends), Destination):
            yield mirrored(mirror, to)


def _mirrors(route: RequestRoute, rule: AnyRule, backends: Backends) -> Iterator[Destination | Fault]:
    every: Sequence[AnyFilter] = (*rule.filters, *(own for ref in rule.backend_refs for own in ref.filters))
    for one in every:
        if one.request_mirror is not None:
            yield _mirror(route, one.request_mirror, backends)


def _mirror(route: RequestRoute, mirror: MirrorFilter, backends: Backends) -> Destination | Fault:
    """Copies stay in the mesh: nobody would decide on those that leave."""
    to = backends.of(Referrer(route.kind, route.namespace), mirror.backend_ref, "http")
    if isinstance(to, Destination) and not to.host.endswith(f".{CLUSTER_DOMAIN}"):
        return Fault("InvalidKind", f"a copy of each request would leave to `{to.host}` undecided; name a `Service`")
    return to


def first_to_answer(every: Iterable[Ruled]) -> list[Ruled]:
    """The rules as far as some request gets: none comes after one that answers everything."""
    found = []
    for one in every:
        found.append(one)
        if one.answers_all:
            break
    return found
