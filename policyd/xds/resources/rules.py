"""One rule of a VirtualService as Envoy's routes: what it matches, and what is done."""

from __future__ import annotations

from typing import Any

from policyd.mesh.hosts import default_port, resolve
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.istio.virtual_service import HeaderOperations, HttpRoute, Retries, RouteDestination, VirtualService
from policyd.mesh.model import Mesh
from policyd.xds.resources.matches import EVERYTHING, route_match
from policyd.xds.resources.model import outbound_cluster, seconds

REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
DEFAULT_ATTEMPTS = 2
DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled"
_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"


def routes_of(mesh: Mesh, owner: VirtualService) -> list[dict[str, Any]]:
    """Every route of a VirtualService, in its order."""
    return [route for rule in owner.spec.http for route in _routes(mesh, owner, rule)]


def to_service(cluster: str) -> dict[str, Any]:
    """The route that holds where nothing is declared: everything to the service, with Istio's default retries."""
    return {"match": EVERYTHING, "route": {"cluster": cluster, "timeout": "0s", "retry_policy": retry_policy(None)}}


def respond(status: int, text: str) -> dict[str, Any]:
    """Answer everything with a status and a line."""
    return {"match": EVERYTHING, "direct_response": {"status": status, "body": {"inline_string": text}}}


def retry_policy(retries: Retries | None) -> dict[str, Any]:
    """Istio's retries; its defaults hold where none are declared (config.route.v3.RetryPolicy)."""
    policy: dict[str, Any] = {
        "num_retries": retries.attempts if retries else DEFAULT_ATTEMPTS,
        "retry_on": (retries and retries.retry_on) or DEFAULT_RETRY_ON,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"type.googleapis.com/{_PREVIOUS_HOSTS}"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    codes = [int(word) for word in policy["retry_on"].split(",") if word.strip().isdigit()]
    if codes:
        words = [word.strip() for word in policy["retry_on"].split(",") if not word.strip().isdigit()]
        policy["retry_on"] = ",".join([*words, "retriable-status-codes"])
        policy["retriable_status_codes"] = codes
    if retries and retries.per_try_timeout:
        policy["per_try_timeout"] = seconds(retries.per_try_timeout)
    return policy


def _routes(mesh: Mesh, owner: VirtualService, rule: HttpRoute) -> list[dict[str, Any]]:
    return [_route(mesh, owner, rule, match) for match in rule.match or (HttpMatch(),)]


def _route(mesh: Mesh, owner: VirtualService, rule: HttpRoute, match: HttpMatch) -> dict[str, Any]:
    route = {"match": route_match(match), **_action(mesh, owner, rule, match), **_headers(rule)}
    if rule.name:
        route["name"] = rule.name
    return route


def _action(mesh: Mesh, owner: VirtualService, rule: HttpRoute, match: HttpMatch) -> dict[str, Any]:
    if rule.redirect is not None:
        redirect = {"response_code": REDIRECT_CODES[rule.redirect.redirect_code]}
        if rule.redirect.uri is not None:
            redirect["path_redirect"] = rule.redirect.uri
        if rule.redirect.authority is not None:
            redirect["host_redirect"] = rule.redirect.authority
        return {"redirect": redirect}
    if rule.direct_response is not None:
        response: dict[str, Any] = {"status": rule.direct_response.status}
        if rule.direct_response.body is not None:
            response["body"] = {"inline_string": rule.direct_response.body.string}
        return {"direct_response": response}
    return {"route": _forward(mesh, owner, rule, match)}


def _forward(mesh: Mesh, owner: VirtualService, rule: HttpRoute, match: HttpMatch) -> dict[str, Any]:
    """RouteAction: where to, in which shares, rewritten how, with what patience."""
    forward: dict[str, Any] = {"timeout": seconds(rule.timeout or 0.0)}
    shares = [(_cluster(mesh, owner, one), one.weight) for one in rule.route]
    if len(shares) == 1:
        forward["cluster"] = shares[0][0]
    else:
        forward["weighted_clusters"] = {
            "clusters": [{"name": name, "weight": weight} for name, weight in shares if weight]
        }
    if rule.retries is None or rule.retries.attempts > 0:
        forward["retry_policy"] = retry_policy(rule.retries)
    if rule.rewrite is not None:
        if rule.rewrite.authority is not None:
            forward["host_rewrite_literal"] = rule.rewrite.authority
        if rule.rewrite.uri is not None:
            # without a path of its own the rule matched the prefix `/`, which the new one must end with too
            whole = match.uri is None and not rule.rewrite.uri.endswith("/")
            forward["prefix_rewrite"] = rule.rewrite.uri + ("/" if whole else "")
    return forward


def _cluster(mesh: Mesh, owner: VirtualService, one: RouteDestination) -> str:
    service = mesh.services[resolve(one.destination.host, owner.namespace) or ""]
    port = one.destination.port.number if one.destination.port else default_port(service)
    return outbound_cluster(service.id, port)


def _headers(rule: HttpRoute) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for side, operations in (("request", rule.headers.request), ("response", rule.headers.response)):
        if added := _added(operations):
            found[f"{side}_headers_to_add"] = added
        if operations.remove:
            found[f"{side}_headers_to_remove"] = list(operations.remove)
    return found


def _added(operations: HeaderOperations) -> list[dict[str, Any]]:
    actions = (("OVERWRITE_IF_EXISTS_OR_ADD", operations.set), ("APPEND_IF_EXISTS_OR_ADD", operations.add))
    return [
        # Envoy reads `%` as the beginning of a command
        {"header": {"key": name, "value": value.replace("%", "%%")}, "append_action": action}
        for action, values in actions
        for name, value in values.items()
    ]
