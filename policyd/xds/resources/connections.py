"""The `tcp` and `tls` rules of VirtualServices as routes of tunnels: the first match wins, whole or in shares.

Law: a rule chooses the proxies that get it; only the name that a client asks for is left to be looked at by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from policyd.mesh.gateway_api.values import TcpShare, TlsShare
from policyd.mesh.hosts import covers, overlap
from policyd.mesh.istio.connection_route import ConnectionDestination, ConnectionMatch, TcpRoute, TlsMatch, TlsRoute
from policyd.mesh.istio.traffic_policy import Tunnel
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Mesh
from policyd.names import SNI_HEADER
from policyd.xds.resources import filters, guard, tcp
from policyd.xds.resources.forward import Forward
from policyd.xds.resources.matches import below
from policyd.xds.resources.rules import View

ANYTHING: Final[Mapping[str, Any]] = {"connect_matcher": {}}


@dataclass(frozen=True, slots=True)
class Asked:
    """By which name tunnels are asked for ("": as their CONNECT has it), and whether nothing but TLS is in them."""

    name: str = ""
    is_tls: bool = False


BY_AUTHORITY: Final = Asked()


def of_name(
    mesh: Mesh, owner: VirtualService, view: View, names: Iterable[str], asked: Asked = BY_AUTHORITY
) -> list[dict[str, Any]]:
    """The route of tunnels to a name (however it is spelled) in sidecars, where that is what TLS asks for too."""
    named = next((route for _, route in tls_routes(mesh, owner, view, names, asked=asked)), None)
    return [named] if named else list(tcp_routes(mesh, owner, view, asked=asked))


def tcp_routes(
    mesh: Mesh, owner: VirtualService, view: View, address: str = "", asked: Asked | None = BY_AUTHORITY
) -> Iterator[dict[str, Any]]:
    """The routes of its `tcp` rules that are for these proxies, which have this address; none comes after one.

    Of tunnels that leave as TLS only those of clients get on that ask for the tunnel's name; with `asked` None nobody
    looks, as the name is the client's own already, or there is none.
    """
    lead = Forward(mesh, view.caller, owner.namespace)
    for rule in owner.spec.tcp:
        if any(_has(view, match, owner, address) for match in rule.match or (ConnectionMatch(),)):
            yield _shared(rule, _route(lead, rule.route, view.listener, asked))
            return


def tls_routes(
    mesh: Mesh,
    owner: VirtualService,
    view: View,
    served: Iterable[str],
    address: str = "",
    asked: Asked | None = BY_AUTHORITY,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The routes of its `tls` rules that are for these proxies, each with the name or pattern that it is for."""
    served = list(served)
    asked = replace(asked, is_tls=True) if asked is not None else None
    lead = Forward(mesh, view.caller, owner.namespace)
    for rule in owner.spec.tls:
        for match in rule.match:
            if _has(view, match, owner, address):
                route = _shared(rule, _route(lead, rule.route, view.listener, asked))
                yield from ((name, route) for name in _names(match, served))


def _shared(rule: TcpRoute | TlsRoute, route: dict[str, Any]) -> dict[str, Any]:
    """The route of those connections that are a rule's own, where that is not all."""
    if not isinstance(rule, TcpShare | TlsShare):
        return route
    return {**route, "match": {**route["match"], "runtime_fraction": below(rule.below)}}


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


def _route(lead: Forward, route: Sequence[ConnectionDestination], listener: str, asked: Asked | None) -> dict[str, Any]:
    """Those of a rule lead all inside or all outside; `listener` is asked for, where that of the others is not."""
    shares = [one for one in route if one.weight] if len(route) > 1 else list(route)
    outside = lead.leaves(shares[0].destination)
    looked_at = outside and asked and (asked.is_tls or any(lead.leaves_as_tls(one.destination) for one in shares))
    guarded = (asked.name or "*") if asked is not None and looked_at else ""
    if outside is not None and len(shares) == 1:
        one = shares[0].destination
        return leaving(lead.tunnel(one), outside, lead.through(one), listener, guarded)
    action: dict[str, Any] = dict(tcp.ENDS_HERE if outside else tcp.GOES_ON)
    if len(shares) > 1:
        clusters = [_share(lead, one, guarded) for one in shares]
        said = filters.asked_for(listener) if listener else {}
        action = {"weighted_clusters": {"clusters": clusters}, **action}
    else:
        said = filters.asked_for(listener) if listener else {}
        action = {"cluster": lead.tunnel(shares[0].destination), **action}
    found = {"match": dict(ANYTHING), "route": action, **({"typed_per_filter_config": said} if said else {})}
    return guard.leaving(found, guarded.removeprefix("*")) if guarded else found


def leaving(
    cluster: str, outside: tuple[str, int], through: Tunnel | None, listener: str = "", guarded: str = ""
) -> dict[str, Any]:
    """The route of tunnels that leave by a cluster, to a Host or through one that is a forward proxy.

    What is asked about is where the bytes come out. `guarded` is the name that TLS in them is for (`*`: as asked).
    """
    host, port = outside if through is None else (through.target_host, through.target_port)
    said = {"typed_per_filter_config": filters.asked_for_host(host, port, listener, guarded=guarded)}
    goes = tcp.ENDS_HERE if through is None or guarded else {"host_rewrite_literal": through.authority, **tcp.GOES_ON}
    found = {"match": dict(ANYTHING), "route": {"cluster": cluster, **goes}, **said}
    if not guarded:
        return found
    return guard.leaving(found, guarded.removeprefix("*"), target=through.authority if through else "")


def _share(lead: Forward, one: ConnectionDestination, guarded: str) -> dict[str, Any]:
    outside = lead.leaves(one.destination)
    found = {"name": lead.tunnel(one.destination), "weight": one.weight}
    said = {"typed_per_filter_config": filters.asked_for_host(*outside, guarded=guarded)} if outside else {}
    return found | said
