"""DestinationRules against the mesh: their hosts, ports and merged parts are there, and their TLS can work.

Law: what could not take effect, or would fail every request, is refused where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.destinations import group_of
from policyd.mesh.gateway_api.values import OpensTls
from policyd.mesh.hosts import CLUSTER_DOMAIN, covers, resolve
from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.traffic_policy import TrafficPolicy
from policyd.mesh.matching import did_you_mean
from policyd.mesh.model import Instance, PeerMode, Service
from policyd.mesh.outside import covers_name
from policyd.mesh.outside_checks import check_outside_rule
from policyd.mesh.targets import Targets
from policyd.yaml import Path

NAME_A_SERVICE: Final = "name a service, or several as in `*.default.svc.cluster.local`"
LEAVE_OUT: Final = "leave `tls` out, or write `ISTIO_MUTUAL`"


def check_destination_rules(declaration: Declaration, targets: Targets, problems: list[Problem]) -> None:
    """Each DestinationRule has its own name and an existing host; what is merged does not contradict itself."""
    services, outside = targets.services, targets.outside
    names: dict[str, str] = {}
    policies: dict[object, str] = {}
    subsets: dict[object, str] = {}
    wanting = _at_peers(targets.instances.values(), services, ("STRICT",)) if declaration.of(DestinationRule) else {}
    for declared in declaration.of(DestinationRule):
        rule = declared.resource
        place = f"{declared.document.file}:{declared.document.find(('metadata', 'name')).line}"
        if (first := names.setdefault(rule.id, place)) != place:
            message = f"the DestinationRule `{rule.id}` is declared twice, first in {first}"
            problems.append(declared.problem("duplicate", message, ("metadata", "name"), "rename or remove one"))
        hosts = _hosts(rule, services)
        strict = [pair for service in hosts for pair in wanting.get(service.id, ())]
        leaves = any(covers_name(rule.spec.host, one.host) for one in outside)
        if leaves:
            check_outside_rule(declared, outside, problems)
        if not hosts and not leaves:
            message = f"the host `{rule.spec.host}` is no service of the mesh"
            remedy = did_you_mean(resolve(rule.spec.host, rule.namespace) or rule.spec.host, services, problems)
            problems.append(declared.problem("reference", message, ("spec", "host"), remedy or NAME_A_SERVICE))
        _check_merged(declared, policies, subsets, problems)
        for path, policy in _policies(rule) if hosts else ():
            _check_ports(declared, hosts, path, policy, problems)
            _check_tls(declared, strict, path, policy, problems)
            if policy.tunnel is not None:
                message = f"`{rule.spec.host}` is in the mesh, where connections travel as tunnels already"
                remedy = "take it out; name a forward proxy outside as `host`"
                problems.append(declared.problem("field", message, (*path, "tunnel"), remedy))
            if policy.proxy_protocol is not None:
                message = f"`{rule.spec.host}` is in the mesh, whose sidecars take no header of the PROXY protocol"
                remedy = "take it out; an identity says who calls"
                problems.append(declared.problem("field", message, (*path, "proxyProtocol"), remedy))


def check_opened_tls(
    declaration: Declaration,
    instances: Mapping[str, Instance],
    services: Mapping[str, Service],
    problems: list[Problem],
) -> None:
    """A BackendTLSPolicy is for backends that do without the mesh's mutual TLS, which says more of who they are."""
    mutual = _at_peers(instances.values(), services, ("STRICT", "PERMISSIVE")) if declaration.of(OpensTls) else {}
    told: set[str] = set()
    for declared in declaration.of(OpensTls):
        opened = declared.resource
        service = resolve(opened.host, opened.namespace) or ""
        if (service, opened.port) in mutual.get(service, ()) and service not in told:
            told.add(service)
            message = f"TLS towards port {opened.port} of `{service}`, whose sidecars want the mesh's mutual TLS"
            remedy = "take it out, name a port by `sectionName`, or let a PeerAuthentication say DISABLE for it"
            problems.append(declared.problem("tls", message, ("spec", "targetRefs"), remedy))


def _hosts(rule: DestinationRule, services: Mapping[str, Service]) -> list[Service]:
    """The Services that a rule is for."""
    exact = resolve(rule.spec.host, rule.namespace)
    if exact is not None:
        return [services[exact]] if exact in services else []
    return [s for s in services.values() if covers(rule.spec.host, f"{s.id}.svc.{CLUSTER_DOMAIN}")]


def _at_peers(
    instances: Iterable[Instance], services: Mapping[str, Service], modes: Sequence[PeerMode]
) -> dict[str, list[tuple[str, int]]]:
    """The Services (ids) and their ports at which some instance is reached in one of these ways."""
    wanting: dict[str, list[tuple[str, int]]] = {}
    for one in instances:
        strict = {port.number for port in one.ports if port.peers in modes}
        for id_ in (one.service, *one.also) if strict else ():
            found = wanting.setdefault(id_, [])
            found += [
                pair
                for port in services[id_].ports
                if port.leads_to in strict and (pair := (id_, port.number)) not in found
            ]
    return wanting


def _check_merged(
    declared: Declared[DestinationRule],
    policies: dict[object, str],
    subsets: dict[object, str],
    problems: list[Problem],
) -> None:
    """Several rules of one host become one: of that, each part is in one of them only."""
    rule = declared.resource
    host = resolve(rule.spec.host, rule.namespace) or rule.spec.host
    group = (rule.namespace, host, *group_of(rule))
    if rule.spec.traffic_policy is not None and (other := policies.setdefault(group, rule.id)) != rule.id:
        message = f"the host `{rule.spec.host}` has its `trafficPolicy` in the DestinationRule `{other}` already"
        problems.append(declared.problem("duplicate", message, ("spec", "trafficPolicy"), "write it into one of them"))
    for at, subset in enumerate(rule.spec.subsets):
        if (other := subsets.setdefault((*group, subset.name), rule.id)) != rule.id:
            message = f"the subset `{subset.name}` of `{rule.spec.host}` is in the DestinationRule `{other}` already"
            problems.append(
                declared.problem("duplicate", message, ("spec", "subsets", at, "name"), "rename or remove one")
            )


def _policies(rule: DestinationRule) -> Iterator[tuple[Path, TrafficPolicy]]:
    if rule.spec.traffic_policy is not None:
        yield ("spec", "trafficPolicy"), rule.spec.traffic_policy
    for at, subset in enumerate(rule.spec.subsets):
        if subset.traffic_policy is not None:
            yield ("spec", "subsets", at, "trafficPolicy"), subset.traffic_policy


def _check_ports(
    declared: Declared[DestinationRule],
    hosts: list[Service],
    path: Path,
    policy: TrafficPolicy,
    problems: list[Problem],
) -> None:
    known = sorted({port.number for service in hosts for port in service.ports})
    for at, one in enumerate(policy.port_level_settings):
        if hosts and one.port.number not in known:
            message = f"port {one.port.number} is none of `{declared.resource.spec.host}`"
            remedy = f"it has {', '.join(map(str, known))}"
            problems.append(declared.problem("port", message, (*path, "portLevelSettings", at, "port"), remedy))


def _check_tls(
    declared: Declared[DestinationRule],
    strict: Sequence[tuple[str, int]],
    path: Path,
    policy: TrafficPolicy,
    problems: list[Problem],
) -> None:
    """Sidecars take the mesh's own mutual TLS and, where they are not strict, plain text; TLS of another kind never."""
    whole = [id_ for id_, _ in strict]
    given: list[tuple[Path, ClientTls | None, list[str]]] = [((*path, "tls", "mode"), policy.tls, whole)]
    for at, one in enumerate(policy.port_level_settings):
        there = [id_ for id_, port in strict if port == one.port.number]
        given.append(((*path, "portLevelSettings", at, "tls", "mode"), one.tls, there))
    for where, tls, ids in given:
        if tls is None or tls.mode == "ISTIO_MUTUAL" or (tls.mode == "DISABLE" and not ids):
            continue
        host = ids[0] if tls.mode == "DISABLE" and "*" in declared.resource.spec.host else declared.resource.spec.host
        message = f"`{tls.mode}` towards `{host}`, whose sidecars want the mesh's mutual TLS"
        problems.append(declared.problem("tls", message, where, LEAVE_OUT))
