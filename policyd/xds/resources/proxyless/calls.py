"""How gRPC's clients find a Service: a Listener for each spelling of its name, and one route table for each port.

Law: rules come out in the order in which they were declared; the first that matches wins, as in sidecars. What a rule
has that gRPC has not was refused before; a name that is not known here has no Listener, and calls of it fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from policyd.mesh.destinations import Caller
from policyd.mesh.gateway_api.values import Segments
from policyd.mesh.istio.http_route import HttpRoute, Retries
from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Mesh, Service
from policyd.mesh.proxyless_rules import retried
from policyd.mesh.service_names import domains
from policyd.xds.resources import faults, filters
from policyd.xds.resources.forward import Forward
from policyd.xds.resources.matches import EVERYTHING, route_match, string_match
from policyd.xds.resources.model import outbound_cluster, seconds
from policyd.xds.resources.policies import hash_policy
from policyd.xds.resources.proxyless.clusters import hashed
from policyd.xds.resources.retries import DEFAULT
from policyd.xds.resources.rules import View

_ADS: Final = {"resource_api_version": "V3", "ads": {}}
_FAULTS: Final = {"name": faults.FAULT_FILTER, "typed_config": {"@type": f"{faults.HTTP}.fault.v3.HTTPFault"}}


def table_name(service: Service, port: int) -> str:
    """The name of the route table of a Service's port."""
    return f"{service.id}:{port}"


def listeners(caller: Caller, service: Service, port: int) -> Iterator[dict[str, Any]]:
    """What is asked for by each target `xds:///<name>` that means a Service's port."""
    rds = {"config_source": dict(_ADS), "route_config_name": table_name(service, port)}
    manager = {"@type": filters.MANAGER, "rds": rds, "http_filters": [dict(_FAULTS), dict(filters.ROUTER)]}
    for name in domains(service, port, caller.namespace):
        yield {"name": name, "api_listener": {"api_listener": manager}}


def table(mesh: Mesh, caller: Caller, owner: VirtualService | None, service: Service, port: int) -> dict[str, Any]:
    """Where calls of a Service's port go (RouteConfiguration)."""
    view = View(caller, port)
    declared = list(_declared(mesh, owner, view)) if owner is not None else []
    routes = declared or [{"match": dict(EVERYTHING), "route": _to_service(mesh, caller, service, port)}]
    name = table_name(service, port)
    return {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]}


def _to_service(mesh: Mesh, caller: Caller, service: Service, port: int) -> dict[str, Any]:
    ring = hashed(mesh.destination(caller, service).policy_of(port))
    found = {"cluster": outbound_cluster(service.id, port), **_retries(DEFAULT)}
    return found if ring is None else {**found, "hash_policy": [hash_policy(ring)]}


def _declared(mesh: Mesh, owner: VirtualService, view: View) -> Iterator[dict[str, Any]]:
    forward = Forward(mesh, view.caller, owner.namespace)
    for rule in owner.spec.http:
        for match in rule.match or (HttpMatch(),):
            if rule.route and view.has(match, owner):
                said = faults.of_route(rule.fault, None)
                per_filter = {"typed_per_filter_config": said} if said else {}
                yield {"match": _match(match), "route": _action(mesh, forward, rule, view), **per_filter}


def _match(match: HttpMatch) -> dict[str, Any]:
    """gRPC's calls are POST, so nothing is to be asked of their method; a prefix of whole segments it has not."""
    found = route_match(match.model_copy(update={"method": None}))
    if "headers" in found:
        found["headers"] = [_there(one) for one in found["headers"]]
    if isinstance(match.uri, Segments):
        del found["path_separated_prefix"]
        found["safe_regex"] = {"regex": f"{_literal(match.uri.prefix or '')}(?:/.*)?"}
    return found


def _there(header: dict[str, Any]) -> dict[str, Any]:
    """In Go a header without a value is not present, and a text that begins with anything."""
    if "present_match" not in header or header.get("invert_match"):
        return header
    return {"name": header["name"], "string_match": string_match(StringMatch(prefix=""))}


def _literal(text: str) -> str:
    return "".join(one if one.isalnum() or one in "/_-" else f"\\x{{{ord(one):x}}}" for one in text)


def _action(mesh: Mesh, forward: Forward, rule: HttpRoute, view: View) -> dict[str, Any]:
    action = forward.clusters(rule)
    # as in sidecars, patience is not tried on requests that are made to fail
    if rule.fault is None:
        if rule.timeout:
            action["max_stream_duration"] = {"max_stream_duration": seconds(rule.timeout)}
        action |= _retries(rule.retries or DEFAULT)
    rings = (hashed(forward.policy(one.destination)) for one in rule.route)
    if policies := [hash_policy(ring) for ring in rings if ring is not None]:
        action["hash_policy"] = [one for at, one in enumerate(policies) if one not in policies[:at]]
    return action


def _retries(retries: Retries) -> dict[str, Any]:
    """Of the conditions those that gRPC has; where it has none of them, nothing is tried again."""
    words = retried(retries)
    if not retries.attempts or not words:
        return {}
    policy: dict[str, Any] = {"retry_on": ",".join(words), "num_retries": retries.attempts}
    if retries.backoff:
        policy["retry_back_off"] = {"base_interval": seconds(retries.backoff)}
    return {"retry_policy": policy}
