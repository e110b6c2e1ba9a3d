"""Rules of TLSRoutes and TCPRoutes as those of VirtualServices.

Law: what would have gone to a backend that is not there ends, in its share.
"""

from __future__ import annotations

from policyd.mesh.gateway_api.backends import Backends, Referrer
from policyd.mesh.gateway_api.conditions import Fault
from policyd.mesh.gateway_api.connection_routes import TcpRouteResource, TlsRouteResource
from policyd.mesh.gateway_api.values import MILLION, TcpShare, TlsShare
from policyd.mesh.istio.common import Section
from policyd.mesh.istio.connection_route import (
    ConnectionDestination,
    ConnectionMatch,
    TcpRoute,
    TlsMatch,
    TlsRoute,
)
from policyd.mesh.istio.destination import Destination

ConnectionRoute = TlsRouteResource | TcpRouteResource


def tls_rule(route: TlsRouteResource, backends: Backends, names: tuple[str, ...]) -> TlsRoute | None:
    """What is done with TLS in which one of the names is asked for; None where it ends."""
    led, below = _led(route, backends)
    if not led:
        return None
    match = (TlsMatch(sni_hosts=names),)
    return TlsRoute(match=match, route=led) if below == MILLION else TlsShare(match=match, route=led, below=below)


def tcp_rule(
    route: ConnectionRoute, backends: Backends, port: int | None = None, otherwise: Destination | None = None
) -> TcpRoute | None:
    """What is done with connections, on a port; where all of them end, `otherwise` is named, and gets none."""
    led, below = _led(route, backends)
    if not led and otherwise is not None:
        led = (ConnectionDestination(destination=otherwise),)
    if not led:
        return None
    match = (ConnectionMatch(port=port),) if port is not None else ()
    return TcpRoute(match=match, route=led) if below == MILLION else TcpShare(match=match, route=led, below=below)


def reference_fault(route: ConnectionRoute, backends: Backends) -> Fault | None:
    """The first backend that is not there, or not to be had."""
    found = (backends.of(_who(route), ref, _section(route)) for rule in route.spec.rules for ref in rule.backend_refs)
    return next((one for one in found if isinstance(one, Fault)), None)


def _led(route: ConnectionRoute, backends: Backends) -> tuple[tuple[ConnectionDestination, ...], int]:
    """Where connections go, and how many of every million go there."""
    (rule,) = route.spec.rules
    found = [(backends.of(_who(route), ref, _section(route)), ref.weight) for ref in rule.backend_refs if ref.weight]
    led = tuple(ConnectionDestination(destination=to, weight=w) for to, w in found if isinstance(to, Destination))
    total = sum(weight for _, weight in found)
    return led, round(MILLION * sum(one.weight for one in led) / total) if total else 0


def _who(route: ConnectionRoute) -> Referrer:
    return Referrer(route.kind, route.namespace)


def _section(route: ConnectionRoute) -> Section:
    return "tls" if isinstance(route, TlsRouteResource) else "tcp"
