"""What applies to a service or to a workload, in words: a few lines under each heading, with their places.

Law: what is told is what proxies and policies are given; nothing is told from names alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from policyd.errors import NotFound
from policyd.mesh.declaration import Declared
from policyd.mesh.edges import selects
from policyd.mesh.hosts import CLUSTER_DOMAIN, covers, overlap, resolve
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.peer_authentication import PeerAuthentication
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.virtual_service import SECTIONS, VirtualService
from policyd.mesh.matching import did_you_mean
from policyd.mesh.model import Instance, Mesh, Service
from policyd.mesh.selection import holds_for
from policyd.policy.reach import Reach, callers_may, policies_on, what_can
from policyd.reload.live import Live

MAX_NAMED = 20  # of one heading


@dataclass(frozen=True, slots=True)
class Description:
    """Headings with their lines; those without a line are left out."""

    kind: str
    name: str
    headings: Mapping[str, tuple[str, ...]]


def describe(name: str, live: Live, namespace: str) -> Description:
    """A service (`<name>[.<namespace>]`), an instance, or a workload by its identity; raises NotFound."""
    mesh = live.mesh
    if name in mesh.instances and f"{name}.{namespace}" not in mesh.services:
        return _instance(mesh.instances[name], live)
    service = mesh.services.get(resolve(name, namespace) or "")
    if service is not None:
        return _service(service, live)
    bearers = [one for one in mesh.instances.values() if name in _identities(one)]
    if bearers:
        return _instance(bearers[0], live)
    known = {*mesh.instances, *(one.name for one in mesh.services.values())}
    remedy = did_you_mean(name, known, ()) or f"there are {', '.join(sorted(known)[:12])}"
    raise NotFound(f"`{name[:80]}` is no service and no workload", remedy=remedy)


def _identities(instance: Instance) -> tuple[str, str]:
    return str(instance.workload), instance.workload.service_account or ""


def _made(kind: str, name: str, headings: Mapping[str, Iterable[str]]) -> Description:
    kept = {heading: _bounded(lines) for heading, lines in headings.items()}
    return Description(kind, name, {heading: lines for heading, lines in kept.items() if lines})


def _bounded(lines: Iterable[str]) -> tuple[str, ...]:
    found = tuple(lines)
    more = len(found) - MAX_NAMED
    return found if more <= 0 else (*found[:MAX_NAMED], f"and {more:,} more")


# ---- a service


def _service(service: Service, live: Live) -> Description:
    mesh, declaration = live.mesh, live.declaration
    serving = mesh.instances_of(service.id)
    rules = [one for one in declaration.of(DestinationRule) if _is_for(one.resource, service)]
    headings: dict[str, Iterable[str]] = {
        "ports": (f"{port.number} ({port.name}): {port.protocol}" for port in service.ports),
        "instances": (_told(one) for one in serving) if serving else ["none: requests to it find nobody"],
        "routed by": _routed(service, declaration.of(VirtualService)),
        "treated by": (f"DestinationRule {_place(one)}" for one in rules),
        "subsets": (line for one in rules for line in _subsets(one.resource, serving)),
        "reached at": _at_gateways(service, live),
        "mutual TLS": sorted({line for one in serving for line in _peers(one, live)}),
        "tokens": sorted({line for one in serving for line in _tokens(one, live)}),
        "policies": (
            f"{one.effect} `{one.id}` ({one.file}:{one.line})" for one in policies_on(service.id, live.ruling)
        ),
        "callers": _callers(callers_may(service.id, live.ruling)),
    }
    return _made("service", service.id, headings)


def _told(instance: Instance) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(instance.labels.items()))
    return f"{instance.name} ({labels}) as {instance.workload}"


def _place(declared: Declared[Gateway] | Declared[VirtualService] | Declared[DestinationRule]) -> str:
    line = declared.document.find(("kind",)).line
    return f"{declared.resource.id} ({declared.document.file}:{line})"


def _is_for(rule: DestinationRule, service: Service) -> bool:
    exact = resolve(rule.spec.host, rule.namespace)
    return exact == service.id or covers(rule.spec.host, f"{service.id}.svc.{CLUSTER_DOMAIN}")


def _routed(service: Service, declared: Iterable[Declared[VirtualService]]) -> Iterator[str]:
    for one in declared:
        owner = one.resource
        hosts = [host for host in owner.spec.hosts if _means(host, owner.namespace, service)]
        if owner.in_mesh and hosts:
            count = sum(len(getattr(owner.spec, section)) for section in SECTIONS)
            yield f"VirtualService {_place(one)}: {count} {'rule' if count == 1 else 'rules'} for callers in the mesh"


def _means(host: str, namespace: str, service: Service) -> bool:
    return resolve(host, namespace) == service.id or (
        host.startswith("*") and covers(host, f"{service.id}.svc.{CLUSTER_DOMAIN}")
    )


def _subsets(rule: DestinationRule, serving: Iterable[Instance]) -> Iterator[str]:
    for subset in rule.spec.subsets:
        bearing = [one.name for one in serving if subset.labels.items() <= one.labels.items()]
        yield f"{subset.name}: {', '.join(bearing) or 'no instance'}"


def _at_gateways(service: Service, live: Live) -> Iterator[str]:
    """The Gateways and hosts by which VirtualServices lead strangers here."""
    gateways = {one.resource.id: one for one in live.declaration.of(Gateway)}
    for declared in live.declaration.of(VirtualService):
        owner = declared.resource
        if not any(resolve(host, owner.namespace) == service.id for host in _led_to(owner)):
            continue
        for id_ in owner.gateway_ids():
            gateway = gateways[id_]
            edges = [name for name, one in live.mesh.instances.items() if selects(gateway.resource, one)]
            for server in gateway.resource.spec.servers:
                shown = [host for host in owner.spec.hosts if any(overlap(host, one) for one in server.bare_hosts)]
                if shown:
                    where = f"{', '.join(edges)} port {server.port.number} for {', '.join(shown)}"
                    yield f"{where}: VirtualService {_place(declared)}"


def _led_to(owner: VirtualService) -> Iterator[str]:
    for section in SECTIONS:
        for rule in getattr(owner.spec, section):
            yield from (one.destination.host for one in rule.route)


def _callers(found: Mapping[str, Mapping[str, Reach]]) -> Iterator[str]:
    """Who may something, and what: alike methods together."""
    nobody = True
    for caller, reached in found.items():
        may = [name for name, one in reached.items() if one.verdict == "allow"]
        perhaps = [name for name, one in reached.items() if one.verdict == "conditional"]
        if may or perhaps:
            nobody = False
            sure = f"may {_methods(may, reached)}" if may else ""
            under = f"may {_methods(perhaps, reached)} under conditions" if perhaps else ""
            yield f"{caller} {', '.join(filter(None, (sure, under)))}"
    if found and nobody:
        yield "nobody: no policy permits anybody anything"


def _methods(some: list[str], every: Mapping[str, Reach]) -> str:
    return "everything" if len(some) == len(every) else ", ".join(some)


# ---- an instance


def _instance(instance: Instance, live: Live) -> Description:
    headings: dict[str, Iterable[str]] = {
        "identity": [str(instance.workload)],
        "labels": (f"{name}={value}" for name, value in sorted(instance.labels.items())),
        "serves": [instance.service, *instance.also],
        "ports": (
            [f"{one.number} ({one.name}): {one.protocol}" for one in instance.ports]
            or [f"{one.declared}, open at the edge" for one in instance.listens]
        ),
        "mutual TLS": _peers(instance, live),
        "tokens": _tokens(instance, live),
        "knows": _scope(instance, live),
        "may call": _may_call(instance, live),
    }
    return _made(instance.role, instance.name, headings)


def _peers(instance: Instance, live: Live) -> Iterator[str]:
    """How callers reach a sidecar, and by which resource."""
    by = [
        f"PeerAuthentication {one.resource.id}"
        for one in live.declaration.of(PeerAuthentication)
        if holds_for(one.resource, one.resource.spec.selector.match_labels, instance)
    ]
    for port in instance.ports:
        yield f"port {port.number}: {port.peers} ({', '.join(by) or 'without a PeerAuthentication'})"


def _tokens(instance: Instance, live: Live) -> Iterator[str]:
    for one in live.declaration.of(RequestAuthentication):
        if holds_for(one.resource, one.resource.spec.selector.match_labels, instance):
            for rule in one.resource.spec.jwt_rules:
                yield f"of {rule.issuer} are verified (RequestAuthentication {one.resource.id})"


def _scope(instance: Instance, live: Live) -> Iterator[str]:
    if instance.role != "sidecar":
        return
    held = [
        one.resource
        for one in live.declaration.of(Sidecar)
        if holds_for(one.resource, one.resource.spec.labels, instance)
    ]
    yield f"what Sidecar {held[0].id} lets through" if held else "every service of the mesh"


def _may_call(instance: Instance, live: Live) -> Iterator[str]:
    mesh: Mesh = live.mesh
    for service, reached in what_can(str(instance.workload), live.ruling).items():
        may = [name for name, one in reached.items() if one.verdict == "allow"]
        perhaps = [name for name, one in reached.items() if one.verdict == "conditional"]
        if may or perhaps:
            sure = _methods(may, reached) if may else ""
            under = f"{_methods(perhaps, reached)} under conditions" if perhaps else ""
            where = service if service in mesh.services else f"{service}, outside"
            yield f"{where}: {', '.join(filter(None, (sure, under)))}"
