"""Who may call a service, and whom a caller may call: decided for everybody at once, where not all is known.

Law: three answers. What is said to be allowed or denied is so whatever the unknown may be; all else is conditional, and
the conditions are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Request
from policyd.cedar.policies import Policy
from policyd.cedar.scope import ScopeMatch, Scopes
from policyd.mesh.service_names import default_port
from policyd.policy.case_yaml import DEFAULT_TIME
from policyd.policy.change import Change, apply, callers_of, identifies, methods_of
from policyd.policy.partial import Applies, Chain, Known, applies_of
from policyd.policy.request_form import ANONYMOUS, CONNECT, parse_form
from policyd.policy.resolving import caller_of, resolve_form
from policyd.policy.ruling import Ruling

Verdict = Literal["allow", "deny", "conditional"]

UNKNOWN: Final[frozenset[Chain]] = frozenset(  # of a request of which only caller, method and URL are given
    {("context", "user"), ("context", "client_ip"), ("context", "source"), ("context", "time")}
)
UNKNOWN_URL: Final[frozenset[Chain]] = frozenset(  # where the URL is not given either
    {("context", "request", "path"), ("context", "request", "segments"), ("context", "request", "host")}
)
_LABELS: Final = ("context", "destination", "labels")
_PORT: Final = ("context", "destination", "port")


@dataclass(frozen=True, slots=True)
class Reach:
    """One answer: the policies that give it, and where it is conditional what has to hold or must not, a line each."""

    verdict: Verdict
    by: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WhoCan:
    """The answer for each caller, by name; `identified` says whether the service asks callers who they are.

    `service` is the Host where it is asked for one: its callers are known by the proxies that they leave the mesh by.
    """

    service: str
    callers: Mapping[str, Reach]
    identified: bool


def who_can(method: str, url: str, ruling: Ruling, headers: Mapping[str, str]) -> WhoCan:
    """Decide `METHOD URL` for everybody; raises InvalidInput, UnacceptablePath and DecisionError."""
    facts = _asked(method, url, ruling, headers)
    asked = ruling.request(facts)
    identified = bool(facts.outside) or identifies(ruling.mesh, facts.service)
    known = Known(UNKNOWN | _differing(facts.service, ruling), frozenset(headers))
    policies = [one for one, match in _matches(asked, ruling) if match.action and match.resource]
    found: dict[str, Reach] = {}
    for uid in callers_of(ruling.mesh) if identified else (asked.principal,):
        if facts.outside and uid.id == ANONYMOUS:
            continue
        request = apply([Change("caller", uid.id)], asked, ruling)
        if request is not None:
            found[str(uid)] = reach(request, policies, known, ruling)
    return WhoCan(facts.outside or facts.service, found, identified)


def _asked(method: str, url: str, ruling: Ruling, headers: Mapping[str, str]) -> HttpFacts:
    """The request of nobody in particular; to the outside only somebody with a sidecar asks."""
    form = parse_form(f"{ANONYMOUS} {method} {url}")
    if method == CONNECT or (ruling.mesh.outside_of(form.host) and ruling.mesh.workloads):
        form = replace(form, caller=str(min(ruling.mesh.workloads)))
    return resolve_form(form, ruling.mesh, DEFAULT_TIME, headers)


def what_can(caller: str, ruling: Ruling) -> dict[str, dict[str, Reach]]:
    """For every service (id) and Host and method what `caller`, a FROM, may on any path.

    Raises InvalidInput, DecisionError.
    """
    found = {
        service: _methods(caller, _url_of(ruling, service), service, ruling) for service in sorted(_answering(ruling))
    }
    for name, url in sorted(_hosts(caller, ruling).items()):
        found[name] = _methods(caller, url, "", ruling)
    return found


def callers_may(service: str, ruling: Ruling) -> dict[str, dict[str, Reach]]:
    """For everybody who may call a Service (its id), by name: what each may by method, on any path.

    A Service that verifies nobody has one caller, who is anonymous. Raises InvalidInput, DecisionError.
    """
    if service not in _answering(ruling):
        return {}
    identified = identifies(ruling.mesh, service)
    callers = [uid.id for uid in callers_of(ruling.mesh)] if identified else [ANONYMOUS]
    return {one: _methods(one, _url_of(ruling, service), service, ruling) for one in callers}


def policies_on(service: str, ruling: Ruling) -> list[Policy]:
    """The policies whose scope can mean a Service, whoever asks for what; raises InvalidInput."""
    port = next((one for one in ruling.mesh.services[service].ports if one.takes_requests), None)
    method, url = ("GET", _url_of(ruling, service)) if port else (CONNECT, _tunnel_of(ruling, service))
    asked = ruling.request(_asked(method, url, ruling, {}))
    return [one for one, match in _matches(asked, ruling) if match.resource]


def _tunnel_of(ruling: Ruling, service: str) -> str:
    declared = ruling.mesh.services[service]
    return f"{declared.name}.{declared.namespace}.svc.cluster.local:{declared.ports[0].number}"


def reach(request: Request, policies: Iterable[Policy], known: Known, ruling: Ruling) -> Reach:
    """What is sure of a request of which not all is known; raises DecisionError."""
    scopes = Scopes(request, ruling.schema)
    outcomes = applies_of([one for one in policies if all(scopes.match(one.tree))], request, known, ruling.schema)
    forbids = [one for one in outcomes if one.policy.effect == "forbid" and one.truth is not False]
    permits = [one for one in outcomes if one.policy.effect == "permit" and one.truth is not False]
    sure = [one for one in permits if one.truth is True]
    against = [one for one in forbids if one.truth is True]
    if against or not permits:
        return Reach("deny", _ids(against))
    if sure and not forbids:
        return Reach("allow", _ids(sure))
    open_ = [*([] if sure else permits), *forbids]
    return Reach("conditional", _ids(sure or permits), tuple(map(_told, open_)))


def _answering(ruling: Ruling) -> list[str]:
    """The Services that answer requests; of the others only connections are decided."""
    return [id_ for id_, one in ruling.mesh.services.items() if any(port.takes_requests for port in one.ports)]


def _url_of(ruling: Ruling, service: str) -> str:
    declared = ruling.mesh.services[service]
    return f"http://{declared.name}.{declared.namespace}.svc.cluster.local:{default_port(declared)}/"


def _hosts(caller: str, ruling: Ruling) -> dict[str, str]:
    """A URL of each Host, by its name, that answers the caller's requests; patterns of names are left out."""
    id_ = None if caller == ANONYMOUS else caller_of(caller, ruling.mesh)
    if id_ not in ruling.mesh.workloads or id_ is None:
        return {}
    seen = [one for one in ruling.mesh.outside if "*" not in one.host and one.is_seen(id_.namespace or "")]
    return {one.host: f"http://{one.host}:{port.number}/" for one in seen for port in one.ports if port.is_http}


def _methods(caller: str, url: str, service: str, ruling: Ruling) -> dict[str, Reach]:
    asked = ruling.request(resolve_form(parse_form(f"{caller} GET {url}"), ruling.mesh, DEFAULT_TIME))
    known = Known(UNKNOWN | UNKNOWN_URL | _differing(service, ruling))
    policies = [one for one, match in _matches(asked, ruling) if match.principal and match.resource]
    requests = {action.id: apply([Change("method", action.id)], asked, ruling) for action in methods_of(ruling.schema)}
    return {name: reach(one, policies, known, ruling) for name, one in requests.items() if one is not None}


def _matches(request: Request, ruling: Ruling) -> list[tuple[Policy, ScopeMatch]]:
    scopes = Scopes(request, ruling.schema)
    return [(one, scopes.match(one.tree)) for one in ruling.policy_set.policies]


def _differing(service: str, ruling: Ruling) -> frozenset[Chain]:
    """What depends on which instance answers; outside there are none."""
    if not service:
        return frozenset()
    instances = ruling.mesh.instances_of(service)
    labels = {tuple(sorted(one.labels.items())) for one in instances}
    ports = {one.number for one in ruling.mesh.services[service].ports}
    return frozenset({*([_LABELS] if len(labels) > 1 else []), *([_PORT] if len(ports) > 1 else [])})


def _ids(outcomes: Iterable[Applies]) -> tuple[str, ...]:
    return tuple(sorted(one.policy.id for one in outcomes))


def _told(outcome: Applies) -> str:
    """What has to be so for a permit to apply, or for a forbid not to."""
    conditions = " and ".join(outcome.open)
    if outcome.policy.effect == "permit":
        return f"{conditions} (`{outcome.policy.id}`)"
    return f"unless `{outcome.policy.id}` forbids it: {conditions}"
