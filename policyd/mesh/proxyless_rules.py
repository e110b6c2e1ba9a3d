"""What is declared of how services are called, against what gRPC's own clients can do of it.

Law: what would lead a call elsewhere, or answer it otherwise, than a sidecar does is a Problem where it is written, if
an application without a sidecar would call by it; what is only done in another way is told, and stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.destinations import Caller
from policyd.mesh.gateway_api.values import Persistent
from policyd.mesh.hosts import resolve
from policyd.mesh.istio.destination import Headers
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.http_route import HttpRoute, Retries
from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.istio.traffic_policy import PortPolicy, TrafficPolicy
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Mesh, Service
from policyd.mesh.precedence import Precedence
from policyd.mesh.protocols import HTTP2
from policyd.mesh.proxyless import CODE
from policyd.mesh.scope import Scope, scope_of
from policyd.mesh.service_names import target
from policyd.yaml import Path

RETRY_ON: Final = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
DEFAULT_RETRY_ON: Final = ("cancelled", "unavailable")  # of Istio's those that gRPC has
MAX_RETRIES: Final = 4  # gRPC makes five attempts at the most
REMEDY: Final = "take it out, give who calls a sidecar, or let a Sidecar's `egress` keep the service from it"


@dataclass(frozen=True, slots=True)
class Beyond:
    """Something that gRPC has not: where it stands, and what that means; `stands`: it is told, and not refused."""

    path: Path
    why: str
    stands: bool = False


def retried(retries: Retries) -> tuple[str, ...]:
    """When gRPC tries again."""
    if retries.retry_on is None:
        return DEFAULT_RETRY_ON
    words = {word.strip() for word in retries.retry_on.split(",")}
    return tuple(word for word in RETRY_ON if word in words)


def check_proxyless_rules(declaration: Declaration, mesh: Mesh) -> list[Problem]:
    """Each thing that would not be kept; none where nobody calls without a sidecar."""
    return [problem for problem, stands in _found(declaration, mesh) if not stands]


def told(declaration: Declaration, mesh: Mesh) -> list[Problem]:
    """Each thing that is done in another way."""
    return [problem for problem, stands in _found(declaration, mesh) if stands]


def _found(declaration: Declaration, mesh: Mesh) -> Iterator[tuple[Problem, bool]]:
    callers = dict.fromkeys((mesh.caller(one), scope_of(mesh, one)) for one in mesh.instances.values() if one.proxyless)
    if not callers:
        return
    rules, services = _called_by(mesh, callers)
    seen: set[Problem] = set()
    found: list[tuple[Declared[Any], Beyond]] = [*_of_rules(declaration, mesh, rules)]
    found += _of_destinations(declaration, services)
    for place, beyond in found:
        message = f"callers without a sidecar would get this otherwise: {beyond.why}"
        remedy = "" if beyond.stands else REMEDY
        problem = place.problem(CODE, message, beyond.path if place.stands else ("spec",), remedy)
        if problem not in seen:
            seen.add(problem)
            yield problem, beyond.stands


def _called_by(mesh: Mesh, callers: Iterable[tuple[Caller, Scope]]) -> tuple[set[str], set[str]]:
    """The VirtualServices (ids) by which some caller calls, and the Services."""
    rules: set[str] = set()
    services: set[str] = set()
    for caller, scope in callers:
        held = Precedence(mesh.virtual_services, caller.namespace, mesh.services)
        for service in mesh.services.values():
            if any(port.protocol in HTTP2 and scope.sees(service, port.number) for port in service.ports):
                services.add(service.id)
                if (owner := held.of(service)) is not None:
                    rules.add(owner.id)
    return rules, services


# ---- rules of requests


def _of_rules(
    declaration: Declaration, mesh: Mesh, called: set[str]
) -> Iterator[tuple[Declared[VirtualService], Beyond]]:
    """What is in the rules by which somebody calls, and in those that they delegate to."""
    declared = declaration.of(VirtualService)
    wanted = [one for one in declared if one.resource.id in called]
    leaves = {
        f"{rule.delegate.namespace or one.resource.namespace}/{rule.delegate.name}"
        for one in wanted
        for rule in one.resource.spec.http
        if rule.delegate is not None
    }
    for one in declared:
        if one.resource.id in called or (one.resource.is_delegate and one.resource.id in leaves):
            for at, rule in enumerate(one.resource.spec.http):
                found = (*_of_rule(rule), *_of_routes(mesh, one.resource, rule))
                yield from ((one, Beyond(("spec", "http", at, *b.path), b.why, b.stands)) for b in found)


def _of_rule(rule: HttpRoute) -> Iterator[Beyond]:
    given = {
        "redirect": (rule.redirect, "gRPC redirects no call"),
        "directResponse": (rule.direct_response, "gRPC answers no call on its way"),
        "rewrite": (rule.rewrite, "gRPC rewrites neither the path nor the authority of a call"),
        "mirror": (rule.mirror, "gRPC sends no copies"),
        "mirrors": (rule.mirrors or None, "gRPC sends no copies"),
    }
    yield from (Beyond((name,), why) for name, (value, why) in given.items() if value is not None)
    if isinstance(rule, Persistent):
        yield Beyond(("sessionPersistence",), "its clients are told of no instance to stay with")
    changed = "gRPC changes no headers on their way"
    if rule.headers != Headers():
        yield Beyond(("headers",), changed)
    for at, one in enumerate(rule.route):
        if one.headers != Headers():
            yield Beyond(("route", at, "headers"), changed)
    for at, match in enumerate(rule.match):
        yield from (Beyond(("match", at, *one.path), one.why) for one in _of_match(match))
    if rule.cors_policy is not None:
        yield Beyond(("corsPolicy",), "it is for browsers, which do not call so", stands=True)
    if rule.retries is not None:
        yield from (Beyond(("retries", *one.path), one.why, stands=True) for one in _of_retries(rule.retries))


def _of_match(match: HttpMatch) -> Iterator[Beyond]:
    if match.query_params:
        yield Beyond(("queryParams",), "a call of gRPC has no query")
    for name in ("scheme", "authority"):
        if getattr(match, name) is not None:
            yield Beyond((name,), f"gRPC does not look at the {name}")
    if match.method is not None and not _is_post(match.method):
        yield Beyond(("method",), "every call of gRPC is a POST")
    for name, unwanted in match.without_headers.items():
        if not unwanted.presence:
            yield Beyond(("withoutHeaders", name), "gRPC takes a header that is missing for one that has the value")


def _is_post(method: StringMatch) -> bool:
    if method.regex is not None:
        return bool(re.fullmatch(r"[A-Z|]+", method.regex)) and "POST" in method.regex.split("|")
    return method.exact == "POST" if method.exact is not None else "POST".startswith(method.prefix or "")


def _of_retries(retries: Retries) -> Iterator[Beyond]:
    if not retries.attempts:
        return
    if retries.attempts > MAX_RETRIES:
        yield Beyond(("attempts",), f"gRPC tries again {MAX_RETRIES} times at the most")
    if retries.per_try_timeout:
        yield Beyond(("perTryTimeout",), "gRPC has one time for all tries, `timeout`")
    if retries.retry_on is not None and not retried(retries):
        yield Beyond(("retryOn",), f"nothing is tried again; gRPC knows {', '.join(RETRY_ON)}")
    if retries.retry_remote_localities:
        yield Beyond(("retryRemoteLocalities",), "gRPC chooses an endpoint anew, wherever it is")


def _of_routes(mesh: Mesh, owner: VirtualService, rule: HttpRoute) -> Iterator[Beyond]:
    """Destinations that gRPC cannot call, or nobody would decide about."""
    for at, one in enumerate(rule.route):
        path: Path = ("route", at, "destination")
        if (resolve(one.destination.host, owner.namespace) or "") not in mesh.services:
            yield Beyond((*path, "host"), "it leads outside, and nobody would be asked whether it may")
            continue
        found = target(one.destination, owner.namespace, mesh.services)
        if found is not None and not _speaks(*found):
            yield Beyond(path, f"port {found[1]} of `{found[0].id}` does not speak gRPC")


def _speaks(service: Service, number: int) -> bool:
    port = service.port(number)
    return port is not None and port.protocol in HTTP2


# ---- destinations


def _of_destinations(declaration: Declaration, called: set[str]) -> Iterator[tuple[Declared[DestinationRule], Beyond]]:
    for declared in declaration.of(DestinationRule):
        rule = declared.resource
        exact = resolve(rule.spec.host, rule.namespace)
        if exact is not None and exact not in called:
            continue
        for path, policy in _policies(rule):
            yield from ((declared, Beyond((*path, *b.path), b.why, b.stands)) for b in _of_policy(policy))


def _policies(rule: DestinationRule) -> Iterator[tuple[Path, TrafficPolicy | PortPolicy]]:
    wholes: list[tuple[Path, TrafficPolicy | None]] = [(("spec", "trafficPolicy"), rule.spec.traffic_policy)]
    wholes += [
        (("spec", "subsets", at, "trafficPolicy"), one.traffic_policy) for at, one in enumerate(rule.spec.subsets)
    ]
    for path, policy in wholes:
        if policy is not None:
            yield path, policy
            yield from (((*path, "portLevelSettings", at), one) for at, one in enumerate(policy.port_level_settings))


def _of_policy(policy: TrafficPolicy | PortPolicy) -> Iterator[Beyond]:
    balancer = policy.load_balancer
    if balancer is not None:
        where = ("loadBalancer",)
        if (ring := balancer.consistent_hash) is not None and ring.http_header_name is None:
            yield Beyond((*where, "consistentHash"), "gRPC tells calls apart by a header alone (`httpHeaderName`)")
        if ring is not None and ring.maglev is not None:
            yield Beyond((*where, "consistentHash", "maglev"), "gRPC has a ring in its place", stands=True)
        if balancer.simple in ("RANDOM", "PASSTHROUGH"):
            yield Beyond((*where, "simple"), "gRPC takes instances in turn", stands=True)
        if balancer.slow_start is not None:
            name = "warmup" if balancer.warmup is not None else "warmupDurationSecs"
            yield Beyond((*where, name), "what is new has its whole share at once", stands=True)
    if policy.outlier_detection is not None:
        why = "gRPC counts no errors in a row; an instance that cannot be connected to is left out"
        yield Beyond(("outlierDetection",), why, stands=True)
    if policy.connection_pool is not None:
        tcp, http = policy.connection_pool.tcp, policy.connection_pool.http
        said = sorted(tcp.model_fields_set) and "tcp", sorted(http.model_fields_set - {"http2_max_requests"}) and "http"
        for name in (one for one in said if one):
            why = "of a pool gRPC keeps `http.http2MaxRequests` alone"
            yield Beyond(("connectionPool", name), why, stands=True)
    if isinstance(policy, TrafficPolicy) and policy.retry_budget is not None:
        yield Beyond(("retryBudget",), "gRPC has no budget for retries", stands=True)
