"""The `tcp` and `tls` rules of VirtualServices as routes of tunnels: the first match wins, whole or in shares.

Law: a rule chooses the proxies that get it; only the name that a client asks for is left to be looked at by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from policyd.mesh.hosts import covers, overlap
from policyd.mesh.istio.connection_route import ConnectionDestination, ConnectionMatch, TlsMatch
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Mesh
from policyd.names import SNI_HEADER
from policyd.xds.resources import filters, tcp
from policyd.xds.resources.forward import Forward
from policyd.xds.resources.rules import View

ANYTHING: Final[Mapping[str, Any]] = {"connect_matcher": {}}


def of_name(mesh: Mesh, owner: VirtualService, view: View, names: Iterable[str]) -> list[dict[str, Any]]:
    """The route of tunnels to a name (however it is spelled) in sidecars, where that is what TLS asks for too."""
    named = next((route for _, route in tls_routes(mesh, owner, view, names)), None)
    return [named] if named else list(tcp_routes(mesh, owner, view))


def tcp_routes(mesh: Mesh, owner: VirtualService, view: View, address: str = "") -> Iterator[dict[str, Any]]:
    """The routes of its `tcp` rules that are for these proxies, which have this address; none comes after one."""
    lead = Forward(mesh, view.caller, owner.namespace)
    for rule in owner.spec.tcp:
        if any(_has(view, match, owner, address) for match in rule.match or (ConnectionMatch(),)):
            yield _route(lead, rule.route, view.listener)
            return


def tls_routes(
    mesh: Mesh, owner: VirtualService, view: View, served: Iterable[str], address: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The routes of its `tls` rules that are for these proxies, each with the name or pattern that it is for."""
    served = list(served)
    lead = Forward(mesh, view.caller, owner.namespace)
    for rule in owner.spec.tls:
        for match in rule.match:
            if _has(view, match, owner, address):
                yield from ((name, _route(lead, rule.route, view.listener)) for name in _names(match, served))


def asks_for(name: str) -> dict[str, Any]:
    """What a tunnel says whose client asks for a name, or for one under a pattern (RouteMatch)."""
    if name == "*":
        return dict(ANYTHING)
    how = {"suffix": name[1:]} if name.startswith("*.") else {"exact": name}
    return {**ANYTHING, "headers": [{"name": SNI_HEADER, "string_match": how}]}


def _has(view: View, match: ConnectionMatch, owner: VirtualService, address: str) -> bool:
    return view.has(match, owner) and match.reaches(address)


def _names(match: TlsMatch, served: Sequence[str]) -> list[str]:
    """The names of a match that are served, the narrower of each pair."""
    pairs = [(name, other) for name in match.sni_hosts for other in served if overlap(name, other)]
    return list(dict.fromkeys(name if covers(other, name) else other for name, other in pairs))


def _route(lead: Forward, route: Sequence[ConnectionDestination], listener: str) -> dict[str, Any]:
    """Those of a rule lead all inside or all outside; `listener` is asked for, where that of the others is not."""
    shares = [one for one in route if one.weight] if len(route) > 1 else list(route)
    outside = lead.leaves(shares[0].destination)
    action: dict[str, Any] = dict(tcp.ENDS_HERE if outside else tcp.GOES_ON)
    if len(shares) > 1:
        clusters = [_share(lead, one) for one in shares]
        said = filters.asked_for(listener) if listener else {}
        action = {"weighted_clusters": {"clusters": clusters}, **action}
    else:
        said = _asked(outside, listener)
        action = {"cluster": lead.tunnel(shares[0].destination), **action}
    return {"match": dict(ANYTHING), "route": action, **({"typed_per_filter_config": said} if said else {})}


def _asked(outside: tuple[str, int] | None, listener: str) -> dict[str, Any]:
    if outside is not None:
        return filters.asked_for_host(*outside, listener)
    return filters.asked_for(listener) if listener else {}


def _share(lead: Forward, one: ConnectionDestination) -> dict[str, Any]:
    outside = lead.leaves(one.destination)
    found = {"name": lead.tunnel(one.destination), "weight": one.weight}
    return found | ({"typed_per_filter_config": filters.asked_for_host(*outside)} if outside else {})
