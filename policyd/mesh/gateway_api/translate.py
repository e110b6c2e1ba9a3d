"""A folder's resources of the Gateway API become those that say the same in Istio's words, and the status of each.

Law: the outcome depends on what is declared alone; the order of files does not matter. Of what is attached all of it
is there, of what is not nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from policyd.mesh.credentials import Credentials
from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api import backend_tls, connections
from policyd.mesh.gateway_api import rules as requests
from policyd.mesh.gateway_api.attach import AnyRoute, AtListener, AtService, Attaching
from policyd.mesh.gateway_api.attached_rules import connections_of, named, rules_of
from policyd.mesh.gateway_api.backend_tls_policy import BackendTlsPolicy
from policyd.mesh.gateway_api.backends import Backends, Grants
from policyd.mesh.gateway_api.common import GatewayApiResource
from policyd.mesh.gateway_api.conditions import (
    ACCEPTED,
    RESOLVED,
    Condition,
    Fault,
    ListenerStatus,
    ParentStatus,
    Status,
    Statuses,
    good,
    judged,
)
from policyd.mesh.gateway_api.connection_routes import TcpRouteResource, TlsRouteResource
from policyd.mesh.gateway_api.gateway import KubernetesGateway
from policyd.mesh.gateway_api.gateway_class import CONTROLLER, GatewayClass
from policyd.mesh.gateway_api.known import Known
from policyd.mesh.gateway_api.listeners import PENDING, UNCHECKED, Opening, Openings, is_ours
from policyd.mesh.gateway_api.paths import Place
from policyd.mesh.gateway_api.precedence import by_host
from policyd.mesh.gateway_api.reference_grant import ReferenceGrant
from policyd.mesh.gateway_api.rules import Ruled
from policyd.mesh.gateway_api.sharing import REQUEST_ROUTES, TAKEN, Attached, may_have, share
from policyd.mesh.gateway_api.values import AttachedRules, ShowsBackends
from policyd.mesh.hosts import CLUSTER_DOMAIN, covers
from policyd.mesh.istio.answers import Body, DirectResponse
from policyd.mesh.istio.connection_route import TcpRoute
from policyd.mesh.istio.destination import Destination, PortSelector
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.istio.virtual_service import VirtualServiceSpec

R = TypeVar("R", bound=GatewayApiResource)
NO_ROUTE: Final = DirectResponse(status=404, body=Body(string="no route of this gateway matches\n"))


@dataclass(frozen=True, slots=True)
class Translation:
    """Further resources, and what is told of those of the Gateway API."""

    resources: tuple[Declared[Any], ...] = ()
    statuses: Statuses = field(default_factory=dict)


def translate(resources: Sequence[Declared[Any]], known: Known, credentials: Credentials | None = None) -> Translation:
    """What resources of the Gateway API come to; `credentials` are its files, None where they are not at hand."""
    if not any(isinstance(one.resource, GatewayApiResource) for one in resources):
        return Translation()
    return _Translator(resources, known, credentials).translation()


class _Translator:
    def __init__(self, resources: Sequence[Declared[Any]], known: Known, credentials: Credentials | None) -> None:
        self._classes = {one.resource.name: one.resource for one in _of(resources, GatewayClass)}
        self._gateways = _of(resources, KubernetesGateway)
        self._policies = _of(resources, BackendTlsPolicy)
        self._credentials = credentials
        self._routes: list[Declared[Any]] = [one for one in resources if isinstance(one.resource, AnyRoute)]
        ours = [one.resource for one in self._gateways if is_ours(one.resource, self._classes)]
        grants = Grants(one.resource for one in _of(resources, ReferenceGrant))
        self._ours = frozenset(one.id for one in ours)
        self._known = known
        self._backends = Backends(known, grants)
        self._openings = Openings(ours, known, grants, credentials)
        self._attaching = Attaching(self._openings, self._ours, known)
        self._at_listener: defaultdict[str, list[Attached]] = defaultdict(list)
        self._at_service: defaultdict[str, list[tuple[Declared[Any], AtService]]] = defaultdict(list)
        self._hidden: dict[str, list[str]] = {}
        self._count: defaultdict[str, int] = defaultdict(int)

    def translation(self) -> Translation:
        statuses: dict[tuple[str, str], Status] = {}
        for one in sorted(self._routes, key=lambda found: (*found.resource.age, found.resource.kind)):
            statuses[one.resource.kind, one.resource.id] = self._attach(one)
        policies = backend_tls.opened(self._policies, self._known, self._credentials, self._leading())
        made = [*self._at_gateways(), *self._in_mesh(), *policies[0], *self._shown()]
        statuses |= policies[1]
        for gateway in self._gateways:
            statuses[gateway.resource.kind_key, gateway.resource.id] = self._of_gateway(gateway.resource)
        for name, one_class in self._classes.items():
            statuses["GatewayClass", one_class.id] = _of_class(name, one_class)
        return Translation(tuple(made), statuses)

    # ---- what routes are attached to

    def _attach(self, declared: Declared[AnyRoute]) -> Status:
        route = declared.resource
        if isinstance(route, REQUEST_ROUTES):
            resolved = requests.reference_fault(route, self._backends)
        else:
            resolved = connections.reference_fault(route, self._backends)
        parents = []
        for parent in route.spec.parent_refs:
            found = self._attaching.of(route, parent)
            if isinstance(found, AtService):
                fault = self._to_service(declared, found)
            else:
                fault = found if isinstance(found, Fault) else self._to_listeners(declared, found)
            parents.append(ParentStatus(parent, (judged(ACCEPTED, fault), judged(RESOLVED, resolved))))
        return Status(parents=tuple(parents))

    def _to_listeners(self, declared: Declared[AnyRoute], found: Sequence[AtListener]) -> Fault | None:
        """Give it the hosts that no older route has that cannot share them.

        Routes for requests and routes for calls have no host in common: of two that would, the younger has none at all.
        """
        route, taken = declared.resource, []
        for at in found:
            id_ = at.opening.id
            before = self._at_listener[id_]
            if any(one.route is declared for one in before):
                taken.append(at)  # by another of its parents
                continue
            hosts = tuple(host for host in at.hosts if may_have(route, host, before))
            if isinstance(route, REQUEST_ROUTES) and hosts != at.hosts:
                hosts = ()
            if hosts:
                before.append(Attached(declared, hosts))
                self._count[id_] += 1
                taken.append(at)
        if not taken:
            return Fault("NotAllowedByListeners", TAKEN)
        return None

    def _to_service(self, declared: Declared[AnyRoute], at: AtService) -> Fault | None:
        rivals = [
            one.resource
            for one, other in self._at_service[at.service]
            if other.own is at.own
            and (at.own or one.resource.namespace == declared.resource.namespace)
            and (None in (at.port, other.port) or at.port == other.port)
        ]
        if any(not share(declared.resource, one) for one in rivals):
            return Fault("NotAllowedByListeners", TAKEN)
        self._at_service[at.service].append((declared, at))
        return None

    # ---- at gateways

    def _at_gateways(self) -> Iterator[Declared[Any]]:
        documents = {one.resource.id: one for one in self._gateways}
        for opening in self._openings.every():
            if opening.is_open:
                gateway = documents[opening.gateway.id]
                yield gateway.standing_for(opening.opened())
                attached = self._at_listener[opening.id]
                if opening.section == "http":
                    yield from self._of_requests(gateway, opening, attached)
                else:
                    yield from self._of_connections(opening, attached)

    def _of_requests(
        self, gateway: Declared[KubernetesGateway], opening: Opening, attached: Sequence[Attached]
    ) -> Iterator[Declared[Any]]:
        """The rules of each host, the narrower hosts' first; what none of them is for, is told so."""
        listener = opening.listener
        scheme = "https" if listener.protocol == "HTTPS" else "http"
        hosts = {host for one in attached for host in one.hosts}
        if listener.hostname is not None:
            hosts.add(listener.hostname)  # which is no wider listener's
        for host in sorted(hosts, key=by_host):
            place = Place(host, scheme=scheme, port=listener.port)
            found = _first_to_answer(self._ruled(attached, host, place))
            unmatched = Ruled((), HttpRoute(match=(HttpMatch(),), direct_response=NO_ROUTE), (gateway.document, ()))
            if not found:
                found.append(unmatched)
            written = next((one.route for one in attached if one.route.document is found[0].source[0]), gateway)
            yield written.standing_for(rules_of(opening, host, found))

    def _ruled(self, attached: Iterable[Attached], host: str, place: Place) -> Iterator[Ruled]:
        patterns = {pattern for one in attached for pattern in one.hosts if covers(pattern, host)}
        for pattern in sorted(patterns, key=by_host):
            led = (one.route for one in attached if pattern in one.hosts)
            every = [ruled for route in led for ruled in requests.rules(route, self._backends, place)]
            yield from sorted(every, key=lambda one: one.order)

    def _within_tls(self, opening: Opening, attached: Sequence[Attached]) -> Iterator[Declared[Any]]:
        """Of a TLSRoute where TLS ends: each host has a server of its own, unless it is the listener's host."""
        named = [(one.route, host) for one in attached for host in one.hosts]
        for at, (declared, host) in enumerate(named):
            mark = "" if host == opening.listener.host else f"~{at}"
            if mark:
                yield declared.standing_for(opening.opened(host, mark))
            rule = connections.tcp_rule(declared.resource, self._backends)
            if rule is not None:
                yield declared.standing_for(connections_of(opening, declared, (host,), {"tcp": (rule,)}, mark))

    def _of_connections(self, opening: Opening, attached: Sequence[Attached]) -> Iterator[Declared[Any]]:
        if opening.ends_tls:
            yield from self._within_tls(opening, attached)
            return
        for one in attached:
            route = one.route.resource
            rules: dict[str, Any] = {}
            if isinstance(route, TlsRouteResource):
                rules["tls"] = connections.tls_rule(route, self._backends, one.hosts)
            else:
                rules["tcp"] = connections.tcp_rule(route, self._backends)
            led = {section: (rule,) for section, rule in rules.items() if rule is not None}
            if led:
                yield one.route.standing_for(connections_of(opening, one.route, one.hosts, led))

    def _shown(self) -> Iterator[Declared[ShowsBackends]]:
        """What gateway instances show backends: what the oldest of their Gateways says."""
        taken: set[str] = set()
        for gateway in self._of_age():
            said = self._openings.client_certificate(gateway.resource)
            here = {edge.name for edge in self._openings.edges(gateway.resource)}
            if said is None or said[1] is not None:
                continue
            self._hidden[gateway.resource.id] = sorted(here & taken)
            metadata = named(gateway.resource.namespace, f"{gateway.resource.name}~shown")
            free = frozenset(here - taken)
            taken |= here
            yield gateway.standing_for(ShowsBackends(metadata=metadata, instances=free, credential=said[0]))

    def _of_age(self) -> list[Declared[KubernetesGateway]]:
        """The Gateways of this mesh, the oldest first."""
        ours = (one for one in self._gateways if one.resource.id in self._ours)
        return sorted(ours, key=lambda one: one.resource.age)

    # ---- in the mesh

    def _in_mesh(self) -> Iterator[Declared[Any]]:
        for service, attached in self._at_service.items():
            own = [(route, at) for route, at in attached if at.own]
            if own:
                yield self._of_service(service, own, "")
            for namespace in sorted({route.resource.namespace for route, at in attached if not at.own}):
                theirs = [(route, at) for route, at in attached if not at.own and route.resource.namespace == namespace]
                taken = {port for _, at in theirs for port in self._ports(at)}
                yield self._of_service(service, [*theirs, *_left(own, taken, self._ports)], namespace)

    def _ports(self, at: AtService) -> tuple[int, ...]:
        if at.port is not None:
            return (at.port,)
        return tuple(port.number for port in self._known.services[at.service])

    def _of_service(
        self, service: str, attached: Sequence[tuple[Declared[Any], AtService]], namespace: str
    ) -> Declared[Any]:
        """The rules of a Service: of all callers, or of those of a namespace."""
        host = f"{service}.svc.{CLUSTER_DOMAIN}"
        ports = {port.number: port for port in self._known.services[service]}
        ruled: list[Ruled] = []
        tcp: list[TcpRoute | None] = []
        sources: list[tuple[Any, tuple[str | int, ...]]] = []
        for number, port in sorted(ports.items()):
            led = [route for route, at in attached if number in self._ports(at)]
            if port.requests:
                every = [
                    one
                    for route in led
                    if isinstance(route.resource, REQUEST_ROUTES)
                    for one in requests.rules(route, self._backends, Place("*", port=number), number)
                ]
                ruled += _first_to_answer(sorted(every, key=lambda one: one.order))
            for route in led if port.connections else ():
                itself = Destination(host=host, port=PortSelector(number=number))
                if isinstance(route.resource, TcpRouteResource):
                    tcp.append(connections.tcp_rule(route.resource, self._backends, number, itself))
                    sources.append((route.document, ("spec", "rules", 0)))
        spec = VirtualServiceSpec(
            hosts=(host,),
            http=tuple(one.rule for one in ruled),
            tcp=tuple(one for one in tcp if one is not None),
            export_to=(namespace or "*",),
        )
        name, _, own = service.partition(".")
        made = AttachedRules(
            metadata=named(namespace or own, f"{name}.{own}~mesh" if namespace else f"{name}~mesh"),
            spec=spec,
            sources=(*(one.source for one in ruled), *sources),
        )
        return attached[0][0].standing_for(made)

    # ---- what is told

    def _leading(self) -> dict[str, list[str]]:
        """The Gateways (ids) that lead to a host, by host."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for opening in self._openings.every() if self._policies else ():
            for one in self._at_listener[opening.id] if opening.section == "http" else ():
                for host in requests.led_to(one.route.resource, self._backends):
                    found[host].add(opening.gateway.id)
        return {host: sorted(ids) for host, ids in found.items()}

    def _of_gateway(self, gateway: KubernetesGateway) -> Status:
        if gateway.id not in self._ours:
            return Status((PENDING,))
        listeners = tuple(
            ListenerStatus(one.listener.name, one.kinds, self._count[one.id], one.conditions(), one.places)
            for one in self._openings.of(gateway.id)
        )
        conditions = (
            *self._openings.conditions(gateway),
            *self._of_client_certificate(gateway),
            *([UNCHECKED] if gateway.spec.lets_anybody_in else []),
        )
        addresses = tuple(dict.fromkeys(edge.address for edge in self._openings.edges(gateway)))
        return Status(conditions, listeners, addresses=addresses)

    def _of_client_certificate(self, gateway: KubernetesGateway) -> Iterator[Condition]:
        said = self._openings.client_certificate(gateway)
        if said is None:
            return
        _, fault = said
        if fault is None and (hidden := self._hidden.get(gateway.id)):
            message = f"an older Gateway at {', '.join(hidden)} shows backends another certificate; name it in one"
            fault = Fault("InvalidClientCertificateRef", message)
        yield judged(RESOLVED, fault)


def _of_class(name: str, given: GatewayClass) -> Status:
    if given.spec.controller_name == CONTROLLER:
        return Status((good(ACCEPTED),))
    message = f"`{name}` is another controller's; that of this mesh is `{CONTROLLER}`"
    return Status((Condition(ACCEPTED, "Unknown", "Pending", message),))


def _of(resources: Iterable[Declared[Any]], kind: type[R]) -> list[Declared[R]]:
    return [one for one in resources if isinstance(one.resource, kind)]


def _first_to_answer(every: Iterable[Ruled]) -> list[Ruled]:
    """The rules as far as some request gets: none comes after one that answers everything."""
    found = []
    for one in every:
        found.append(one)
        if one.answers_all:
            break
    return found


def _left(
    attached: Iterable[tuple[Declared[Any], AtService]], taken: set[int], ports: Any
) -> Iterator[tuple[Declared[Any], AtService]]:
    """The same on those ports that are not taken."""
    for route, at in attached:
        for port in ports(at):
            if port not in taken:
                yield route, AtService(at.service, port, at.own)
