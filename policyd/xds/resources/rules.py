"""One rule of a VirtualService as Envoy's routes: for whom it is, what it matches, and what is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from policyd.mesh.destinations import Caller
from policyd.mesh.gateway_api.values import PathRedirect
from policyd.mesh.istio.answers import DirectResponse, Redirect
from policyd.mesh.istio.connection_route import ConnectionMatch
from policyd.mesh.istio.destination import Headers
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.istio.virtual_service import MESH, VirtualService
from policyd.mesh.model import Mesh
from policyd.mesh.tokens import Believed
from policyd.xds.resources import claims, faults, headers, sessions
from policyd.xds.resources.forward import Forward
from policyd.xds.resources.matches import EVERYTHING, route_match

REDIRECT_CODES: Final = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


@dataclass(frozen=True, slots=True)
class View:
    """For whom routes are made: a class of proxies, at which gateways, on which declared and real port.

    `listener` is what their tunnels are asked about as, where their requests are asked about as another one.
    """

    caller: Caller
    port: int
    gateways: frozenset[str] = frozenset({MESH})
    asked_port: int = 0
    believed: tuple[Believed, ...] = ()  # whose tokens are verified before a route is chosen
    listener: str = ""

    def has(self, match: HttpMatch | ConnectionMatch, owner: VirtualService) -> bool:
        """Whether a block is for these proxies; what it says of requests is left to them."""
        return (
            match.port in (None, self.port)
            and match.source_namespace in (None, self.caller.namespace)
            and match.source_labels.items() <= self.caller.labels
            and (not match.gateways or not self.gateways.isdisjoint(map(owner.gateway_id, match.gateways)))
        )


def routes_of(mesh: Mesh, owner: VirtualService, view: View) -> list[dict[str, Any]]:
    """Every route of a VirtualService that is for these proxies, in its order."""
    return [route for rule in owner.spec.http for route in _routes(mesh, owner, rule, view)]


def answers_all(route: dict[str, Any]) -> bool:
    """Tell whether no request passes a route."""
    return bool(route["match"] == EVERYTHING)


def respond(status: int, text: str) -> dict[str, Any]:
    """Answer everything with a status and a line."""
    return {"match": EVERYTHING, "direct_response": {"status": status, "body": {"inline_string": text}}}


def _routes(mesh: Mesh, owner: VirtualService, rule: HttpRoute, view: View) -> list[dict[str, Any]]:
    forward = Forward(mesh, view.caller, owner.namespace)
    blocks = [match for match in rule.match or (HttpMatch(),) if view.has(match, owner)]
    return [
        _route(rule, match, told, forward, view) for match in blocks for told in claims.variants(match, view.believed)
    ]


def _route(rule: HttpRoute, match: HttpMatch, told: claims.Matchers, forward: Forward, view: View) -> dict[str, Any]:
    route: dict[str, Any] = {"match": route_match(match) | ({"dynamic_metadata": told} if told else {})}
    if name := ".".join(part for part in (rule.name, match.name) if part):
        route["name"] = name
    if match.stat_prefix:
        route["stat_prefix"] = match.stat_prefix
    said = {
        **faults.of_route(rule.fault, rule.cors_policy),
        **sessions.of_route(rule),
        **(forward.asked(rule) if rule.route else {}),
    }
    per_filter = {"typed_per_filter_config": said} if said else {}
    return route | _action(rule, match, forward, view) | _headers(rule) | per_filter


def _action(rule: HttpRoute, match: HttpMatch, forward: Forward, view: View) -> dict[str, Any]:
    if rule.redirect is not None:
        return {"redirect": _redirect(rule.redirect, view)}
    if rule.direct_response is not None:
        return {"direct_response": _response(rule.direct_response)}
    return {"route": forward.action(rule, match)}


def _headers(rule: HttpRoute) -> dict[str, Any]:
    """What the route does; of an only destination too, for a share alone has no place of its own."""
    only: tuple[Headers, ...] = (rule.route[0].headers,) if len(rule.route) == 1 else ()
    return headers.fields(*only, rule.headers)


def _redirect(redirect: Redirect, view: View) -> dict[str, Any]:
    port = view.asked_port or view.port if redirect.derive_port == "FROM_REQUEST_PORT" else redirect.port
    given: dict[str, Any] = {
        "path_redirect": redirect.uri,
        "prefix_rewrite": redirect.prefix_rewrite,
        "host_redirect": redirect.authority,
        "scheme_redirect": redirect.scheme,
        "port_redirect": port,
    }
    if isinstance(redirect, PathRedirect):
        regex = redirect.regex
        given["regex_rewrite"] = {"pattern": {"regex": regex.match}, "substitution": regex.rewrite}
    code = {"response_code": REDIRECT_CODES[redirect.redirect_code]}
    return code | {name: value for name, value in given.items() if value is not None}


def _response(response: DirectResponse) -> dict[str, Any]:
    if response.body is None:
        return {"status": response.status}
    body = response.body
    text = {"inline_string": body.string} if body.bytes is None else {"inline_bytes": body.bytes}
    return {"status": response.status, "body": text}
