"""What is attached to listeners, in Istio's words: a Gateway for each, and rules for each of its hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api import connections
from policyd.mesh.gateway_api import rules as requests
from policyd.mesh.gateway_api.attached_rules import connections_of, rules_of
from policyd.mesh.gateway_api.backends import Backends
from policyd.mesh.gateway_api.connection_routes import TlsRouteResource
from policyd.mesh.gateway_api.gateway import KubernetesGateway
from policyd.mesh.gateway_api.listeners import Opening, Openings
from policyd.mesh.gateway_api.paths import Place
from policyd.mesh.gateway_api.precedence import by_host
from policyd.mesh.gateway_api.rules import Ruled, first_to_answer
from policyd.mesh.gateway_api.sharing import Attached
from policyd.mesh.hosts import covers
from policyd.mesh.istio.answers import Body, DirectResponse
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch

NO_ROUTE: Final = DirectResponse(status=404, body=Body(string="no route of this gateway matches\n"))


class AtGateways:
    """`attached` is what is at a listener, by its id."""

    def __init__(
        self,
        gateways: Sequence[Declared[KubernetesGateway]],
        openings: Openings,
        attached: Mapping[str, Sequence[Attached]],
        backends: Backends,
    ) -> None:
        self._gateways = gateways
        self._openings = openings
        self._attached = attached
        self._backends = backends

    def made(self) -> Iterator[Declared[Any]]:
        """A Gateway for each listener that is open, and the rules of what is attached to it."""
        documents = {one.resource.id: one for one in self._gateways}
        for opening in self._openings.every():
            if opening.is_open:
                gateway = documents[opening.gateway.id]
                yield gateway.standing_for(opening.opened())
                attached = self._attached.get(opening.id, ())
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
            found = first_to_answer(self._ruled(attached, host, place))
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
