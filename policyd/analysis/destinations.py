"""DestinationRules: subsets that select nothing or that nobody uses, and certificates that nobody verifies."""

from __future__ import annotations

from collections.abc import Iterator

from policyd.analysis.model import Analysed, Findings, at
from policyd.mesh.declaration import Declared
from policyd.mesh.hosts import CLUSTER_DOMAIN, covers, resolve
from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.istio.destination import Destination
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.traffic_policy import TrafficPolicy
from policyd.mesh.istio.virtual_service import SECTIONS, VirtualService
from policyd.mesh.model import Mesh, Service
from policyd.yaml import Path


def find(analysed: Analysed) -> Findings:
    """Everything about every DestinationRule."""
    used = set(_used(analysed.declaration.of(VirtualService)))
    for declared in analysed.declaration.of(DestinationRule):
        services = _services(declared.resource, analysed.mesh)
        for number, subset in enumerate(declared.resource.spec.subsets):
            path = ("spec", "subsets", number)
            bearing = [
                one
                for service in services
                for one in analysed.mesh.instances_of(service.id)
                if subset.labels.items() <= one.labels.items()
            ]
            host = declared.resource.spec.host
            if services and not bearing:
                message = f"no instance of `{host}` bears the labels of the subset `{subset.name}`"
                yield at(declared, "IST0173", message, path, "compare them with `labels` in workloads.yaml")
            elif services and not any((service.id, subset.name) in used for service in services):
                message = f"no rule leads to the subset `{subset.name}` of `{host}`"
                yield at(declared, "PM0102", message, path, "lead some requests there, or remove it")
        yield from _unverified(declared)


def _services(rule: DestinationRule, mesh: Mesh) -> list[Service]:
    exact = resolve(rule.spec.host, rule.namespace)
    if exact is not None:
        return [mesh.services[exact]] if exact in mesh.services else []
    return [one for one in mesh.services.values() if covers(rule.spec.host, f"{one.id}.svc.{CLUSTER_DOMAIN}")]


def _used(declared: tuple[Declared[VirtualService], ...]) -> Iterator[tuple[str, str]]:
    """The Services (ids) and subsets that some rule leads to."""
    for one in declared:
        for destination in _destinations(one.resource):
            if destination.subset is not None:
                yield resolve(destination.host, one.resource.namespace) or destination.host, destination.subset


def _destinations(owner: VirtualService) -> Iterator[Destination]:
    for section in SECTIONS:
        for rule in getattr(owner.spec, section):
            yield from (one.destination for one in rule.route)
    for rule in owner.spec.http:
        yield from (policy.destination for policy in rule.copies())


def _unverified(declared: Declared[DestinationRule]) -> Findings:
    for code, path, tls in _tls(declared.resource):
        if tls is not None and tls.insecure_skip_verify:
            host = declared.resource.spec.host
            message = f"whoever answers for `{host}` is believed: its certificate is not verified"
            remedy = "remove `insecureSkipVerify`; `caCertificates` names authorities of your own"
            yield at(declared, code, message, (*path, "tls", "insecureSkipVerify"), remedy)


def _tls(rule: DestinationRule) -> Iterator[tuple[str, Path, ClientTls | None]]:
    policies: list[tuple[Path, TrafficPolicy | None]] = [(("spec", "trafficPolicy"), rule.spec.traffic_policy)]
    for number, one in enumerate(rule.spec.subsets):
        policies.append((("spec", "subsets", number, "trafficPolicy"), one.traffic_policy))
    for path, policy in policies:
        if policy is not None:
            yield "IST0128", path, policy.tls
            for number, own in enumerate(policy.port_level_settings):
                yield "IST0129", (*path, "portLevelSettings", number), own.tls
