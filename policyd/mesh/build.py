"""A Declaration and its Placement become a Mesh, in which every reference leads somewhere.

Law: whatever does not fit together is a Problem with its line, and all of them are found in one go.
"""

from __future__ import annotations

from collections.abc import Mapping

from policyd.errors import InvalidInput, Problem
from policyd.mesh.captured import check_captured, is_captured_somewhere
from policyd.mesh.claims import check_claims
from policyd.mesh.credential_checks import check_credentials, used
from policyd.mesh.credentials import Credentials
from policyd.mesh.declaration import Declaration, R
from policyd.mesh.delegates import whole
from policyd.mesh.destination_checks import check_destination_rules, check_opened_tls
from policyd.mesh.edges import check_gateways, check_proxied, edge_listeners, peers_at
from policyd.mesh.enforcements import check_enforcements
from policyd.mesh.gateway_api.values import OpensTls, ShowsBackends
from policyd.mesh.groups import build_groups
from policyd.mesh.instances import Instances, KeptInstances
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.telemetry import Telemetry
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import (
    Instance,
    Listener,
    Mesh,
    Service,
    Workload,
)
from policyd.mesh.outside import REGISTRY_ONLY, Outbound
from policyd.mesh.outside_checks import check_peers_outside
from policyd.mesh.peers import with_peers
from policyd.mesh.placement import Placement
from policyd.mesh.probes import with_probes
from policyd.mesh.proxyless import check_proxyless
from policyd.mesh.proxyless_rules import check_proxyless_rules
from policyd.mesh.routing import check_virtual_services
from policyd.mesh.scope import check_sidecars, with_ingress
from policyd.mesh.service_entries import build_outside
from policyd.mesh.services import build_services
from policyd.mesh.targets import Targets
from policyd.mesh.telemetry import Providers, check_telemetries
from policyd.mesh.tokens import build_key_sets, issuers_of
from policyd.mesh.virtual import names_of, virtual_addresses
from policyd.spiffe import SpiffeId
from policyd.strict import check_label


def build(
    declaration: Declaration,
    trust_domain: str,
    placement: Placement,
    outbound: Outbound = REGISTRY_ONLY,
    credentials: Credentials | None = None,
    federated: frozenset[str] = frozenset(),
    providers: Providers | None = None,
    kept: KeptInstances | None = None,
) -> Mesh:
    """Resolve and cross-check what is declared; raises InvalidInput with every Problem.

    `placement` places this very declaration (see mesh.placement.place). `credentials` are the files that Gateways
    name, `providers` what Telemetries may; None where that is not at hand, for a Mesh that no proxy is sent.
    `federated` are other trust domains; `kept` are instances of an earlier Mesh.
    """
    kept = kept or KeptInstances()
    builder = Instances(declaration, trust_domain, placement, kept)
    instances, problems = builder.build(), builder.problems
    services, instances = _served(declaration, instances, problems)
    workloads = _workloads(declaration, instances, trust_domain, problems)
    groups = build_groups(declaration, trust_domain, workloads.keys(), services.keys(), problems)
    check_gateways(declaration, instances, problems)
    check_credentials(declaration, credentials, problems)
    outside = build_outside(declaration, outbound, instances, services, problems)
    targets = Targets(instances, services, outside)
    virtual_services = _routing(declaration, targets, problems)
    check_peers_outside(declaration, outside, federated, problems)
    key_sets = build_key_sets(declaration, instances, problems)
    _check_proxies(declaration, targets, problems)
    check_telemetries(declaration, instances, providers, problems)
    enforcements = check_enforcements(declaration, instances, problems)
    if problems:
        raise InvalidInput(problems)
    kept.bound(instances)
    gateways, sidecars = _resources(declaration, Gateway), _resources(declaration, Sidecar)
    peers = peers_at(gateways, virtual_services, instances, services)
    check_proxied(declaration, instances, peers)
    authentications = _resources(declaration, RequestAuthentication)
    mesh = Mesh(
        trust_domain=trust_domain,
        services=services,
        workloads=workloads,
        instances=instances,
        groups=groups,
        gateways=gateways,
        virtual_services=virtual_services,
        destination_rules=_resources(declaration, DestinationRule),
        outside=outside,
        outbound=outbound,
        credentials=tuple(credentials[path] for path in used(declaration) if credentials and path in credentials),
        listeners=_listeners(instances, gateways, peers, authentications, kept),
        request_authentications=authentications,
        key_sets=key_sets,
        sidecars=sidecars,
        virtual=virtual_addresses(names_of(services, outside)) if is_captured_somewhere(sidecars) else {},
        peers_at=peers,
        federated=federated,
        telemetries=_resources(declaration, Telemetry),
        enforcements=enforcements,
        opens_tls=_resources(declaration, OpensTls),
        tells_of_clients=any(one.forwards not in ("UNDEFINED", "SANITIZE") for one in instances.values()),
        shows={name: one.credential for one in _resources(declaration, ShowsBackends) for name in one.instances},
    )
    if beyond := check_proxyless_rules(declaration, mesh):
        raise InvalidInput(beyond)
    return mesh


def _resources(declaration: Declaration, kind: type[R]) -> tuple[R, ...]:
    return tuple(found.resource for found in declaration.of(kind))


def _served(
    declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]
) -> tuple[dict[str, Service], dict[str, Instance]]:
    """Find what serves each Service, and give instances what is declared of their peers, health and ingress."""
    services, instances = build_services(declaration, instances, problems)
    instances = with_probes(declaration, with_peers(declaration, instances, problems), problems)
    return services, with_ingress(declaration, instances)


def _routing(declaration: Declaration, targets: Targets, problems: list[Problem]) -> tuple[VirtualService, ...]:
    """Check what says where requests go and how they get there; return the VirtualServices that have hosts."""
    check_virtual_services(declaration, targets, problems)
    virtual_services = whole(declaration, problems)
    check_destination_rules(declaration, targets, problems)
    check_opened_tls(declaration, targets.instances, targets.services, problems)
    return virtual_services


def _check_proxies(declaration: Declaration, targets: Targets, problems: list[Problem]) -> None:
    """Check what is declared of single proxies: which claims they ask for, what they see, what they capture."""
    check_claims(declaration, targets.instances, problems)
    check_sidecars(declaration, targets, problems)
    check_captured(declaration, targets.instances, problems)
    check_proxyless(declaration, targets.instances, problems)


def _workloads(
    declaration: Declaration, instances: Mapping[str, Instance], trust_domain: str, problems: list[Problem]
) -> dict[SpiffeId, Workload]:
    """Make the identities that some instance bears, with the labels of their service accounts."""
    workloads = {instance.workload: Workload(instance.workload) for instance in instances.values()}
    for name, spec in declaration.workloads.service_accounts.items():
        account, _, namespace = name.partition(".")
        path = ("serviceAccounts", name)
        try:
            names = check_label(account), check_label(namespace or declaration.workloads.defaults.namespace)
        except ValueError as error:
            problems.append(declaration.workloads_document.problem("name", str(error), path))
            continue
        id_ = SpiffeId.workload(trust_domain, names[1], names[0])
        if id_ not in workloads:
            message = f"no instance has the service account `{name}`"
            problems.append(declaration.workloads_document.problem("reference", message, path, "remove it"))
        elif workloads[id_].labels:
            message = f"the service account `{name}` is declared twice"
            problems.append(declaration.workloads_document.problem("duplicate", message, path, "remove one"))
        else:
            workloads[id_] = Workload(id_, spec.labels)
    return workloads


def _listeners(
    instances: Mapping[str, Instance],
    gateways: tuple[Gateway, ...],
    peers: frozenset[tuple[str, int]],
    authentications: tuple[RequestAuthentication, ...],
    kept: KeptInstances,
) -> dict[str, Listener]:
    found: list[Listener] = []
    for instance in instances.values():
        issuers = issuers_of(authentications, instance)
        if instance.role == "sidecar":
            found += kept.listeners(instance, issuers)
        for listen in instance.listens:
            port = listen.declared
            found += edge_listeners(gateways, instance, port, issuers, (instance.name, port) in peers)
    return {listener.name: listener for listener in found}
