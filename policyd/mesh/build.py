"""A Declaration and its Placement become a Mesh, in which every reference leads somewhere.

Law: whatever does not fit together is a Problem with its line, and all of them are found in one go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from policyd.errors import InvalidInput, Problem
from policyd.mesh.claims import check_claims
from policyd.mesh.credentials import Credentials, check_credentials, used
from policyd.mesh.declare import Declaration, GatewayInstanceSpec, PortSpec, WorkloadSpec
from policyd.mesh.delegates import whole
from policyd.mesh.destination_checks import check_destination_rules
from policyd.mesh.edges import check_gateways, edge_listeners, peers_at
from policyd.mesh.enforcements import check_enforcements
from policyd.mesh.groups import build_groups
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.telemetry import Telemetry
from policyd.mesh.locality import parse_locality
from policyd.mesh.model import (
    Instance,
    Listener,
    Mesh,
    MetricsPage,
    Served,
    Workload,
    egress_listener,
)
from policyd.mesh.outside import REGISTRY_ONLY, Outbound
from policyd.mesh.outside_checks import check_peers_outside
from policyd.mesh.peers import listeners_of, with_peers
from policyd.mesh.placement import Placement
from policyd.mesh.probes import with_probes
from policyd.mesh.routing import check_virtual_services
from policyd.mesh.scope import check_sidecars, with_ingress
from policyd.mesh.service_entries import build_outside
from policyd.mesh.services import build_services
from policyd.mesh.telemetry import Providers, check_telemetries
from policyd.mesh.tokens import build_key_sets, issuers_of
from policyd.spiffe import SpiffeId
from policyd.strict import check_label
from policyd.yaml import Path

GATEWAY_LABELS: Final[Mapping[str, str]] = {"istio": "ingressgateway"}


def build(
    declaration: Declaration,
    trust_domain: str,
    placement: Placement,
    outbound: Outbound = REGISTRY_ONLY,
    credentials: Credentials | None = None,
    federated: frozenset[str] = frozenset(),
    providers: Providers | None = None,
) -> Mesh:
    """Resolve and cross-check what is declared; raises InvalidInput with every Problem.

    `placement` places this very declaration (see mesh.placement.place). `credentials` are the files that Gateways
    name, `providers` what Telemetries may; None where that is not at hand, for a Mesh that no proxy is sent.
    `federated` are other trust domains.
    """
    builder = _Instances(declaration, trust_domain, placement)
    instances = builder.build()
    problems = builder.problems
    services, instances = build_services(declaration, instances, problems)
    instances = with_probes(declaration, with_peers(declaration, instances, problems), problems)
    instances = with_ingress(declaration, instances)
    workloads = _workloads(declaration, instances, trust_domain, problems)
    groups = build_groups(declaration, trust_domain, workloads.keys(), services.keys(), problems)
    check_gateways(declaration, instances, problems)
    check_credentials(declaration, credentials, problems)
    outside = build_outside(declaration, outbound, instances, services, problems)
    check_virtual_services(declaration, instances, services, outside, problems)
    virtual_services = whole(declaration, problems)
    check_destination_rules(declaration, instances, services, outside, problems)
    check_peers_outside(declaration, outside, federated, problems)
    key_sets = build_key_sets(declaration, instances, problems)
    check_claims(declaration, instances, problems)
    check_sidecars(declaration, instances, services, outside, problems)
    check_telemetries(declaration, instances, providers, problems)
    enforcements = check_enforcements(declaration, instances, problems)
    if problems:
        raise InvalidInput(problems)
    gateways = tuple(found.resource for found in declaration.of(Gateway))
    peers = peers_at(gateways, virtual_services, instances, services)
    authentications = tuple(found.resource for found in declaration.of(RequestAuthentication))
    return Mesh(
        trust_domain=trust_domain,
        services=services,
        workloads=workloads,
        instances=instances,
        groups=groups,
        gateways=gateways,
        virtual_services=virtual_services,
        destination_rules=tuple(found.resource for found in declaration.of(DestinationRule)),
        outside=outside,
        outbound=outbound,
        credentials=tuple(credentials[path] for path in used(declaration) if credentials and path in credentials),
        listeners=_listeners(instances, gateways, peers, authentications),
        request_authentications=authentications,
        key_sets=key_sets,
        sidecars=tuple(found.resource for found in declaration.of(Sidecar)),
        peers_at=peers,
        federated=federated,
        telemetries=tuple(found.resource for found in declaration.of(Telemetry)),
        enforcements=enforcements,
    )


class _Instances:
    """Makes the instances of workloads.yaml, and keeps the problems met on the way."""

    def __init__(self, declaration: Declaration, trust_domain: str, placement: Placement) -> None:
        self.problems: list[Problem] = []
        self._document = declaration.workloads_document
        self._file = declaration.workloads
        self._trust_domain = trust_domain
        self._placement = placement
        self._given: dict[tuple[str, int], str] = {}

    def build(self) -> dict[str, Instance]:
        instances = {name: self._gateway(name, spec) for name, spec in self._file.gateways.items()}
        for name, spec in self._file.workloads.items():
            if name in instances:
                self._refuse("duplicate", f"`{name}` is a gateway too", ("workloads", name), "rename one")
            instances[name] = self._sidecar(name, spec)
        self._check_service_ports()
        return instances

    def _refuse(self, code: str, message: str, path: Path, remedy: str) -> None:
        self.problems.append(self._document.problem(code, message, path, remedy))

    def _identity(self, service: str, spec: WorkloadSpec | GatewayInstanceSpec, path: Path) -> SpiffeId:
        account = spec.service_account or self._file.defaults.service_account.replace("{service}", service)
        try:
            check_label(account)
        except ValueError as error:
            self._refuse("name", f"the service account {error}", path, "give `serviceAccount`")
            account = "default"
        return SpiffeId.workload(self._trust_domain, self._namespace(spec), account)

    def _namespace(self, spec: WorkloadSpec | GatewayInstanceSpec) -> str:
        return spec.namespace or self._file.defaults.namespace

    def _sidecar(self, name: str, spec: WorkloadSpec) -> Instance:
        path = ("workloads", name)
        given: list[tuple[Path, int | None]] = [(("outboundPort",), spec.outbound_port)]
        for where, port in spec.serves:
            given += [((*where, "appPort"), port.app_port), ((*where, "inboundPort"), port.inbound_port)]
        for field, number in given:
            if number is not None:
                self._claim(spec.address, number, name, (*path, *field))
        placed = self._placement.sidecars[name]
        return Instance(
            name=name,
            workload=self._identity(spec.service, spec, path),
            role="sidecar",
            service=f"{spec.service}.{self._namespace(spec)}",
            ports=tuple(
                Served(port.port, port.port, port.speaks, port.called, place.app_port, place.inbound_port)
                for (_, port), place in zip(spec.serves, placed.ports, strict=True)
            ),
            labels={"app": spec.service, **spec.labels},
            address=spec.address,
            outbound_port=placed.outbound_port,
            proxy_secret=placed.proxy_secret,
            locality=parse_locality(spec.locality) if spec.locality else None,
            weight=spec.weight or 1,
            metrics=_metrics(spec, placed.ports[0].app_port),
        )

    def _gateway(self, name: str, spec: GatewayInstanceSpec) -> Instance:
        path = ("gateways", name)
        for port in spec.listen:
            self._claim(spec.address, port, name, (*path, "listen"))
        return Instance(
            name=name,
            workload=self._identity(name, spec, path),
            role="gateway",
            service=f"{name}.{self._namespace(spec)}",
            labels={"app": name, **GATEWAY_LABELS, **spec.labels},
            address=spec.address,
            listens=self._placement.gateways[name],
            locality=parse_locality(spec.locality) if spec.locality else None,
        )

    def _claim(self, address: str, port: int, name: str, path: Path) -> None:
        if other := self._given.get((address, port)):
            self._refuse("port", f"port {port} of `{name}` is given to `{other}` already", path, "give another one")
        self._given.setdefault((address, port), name)

    def _check_service_ports(self) -> None:
        """What serves one Service has the same ports: its callers know no other."""
        first: dict[str, tuple[str, Mapping[int, PortSpec]]] = {}
        owners = {f"{name}.{self._namespace(spec)}": name for name, spec in self._file.gateways.items()}
        for name, spec in self._file.workloads.items():
            service = f"{spec.service}.{self._namespace(spec)}"
            if gateway := owners.get(service):
                message = f"service `{service}` is that of the gateway `{gateway}`"
                self._refuse("duplicate", message, ("workloads", name, "service"), "rename one")
            ports = {port.port: port for _, port in spec.serves}
            known, others = first.setdefault(service, (name, ports))
            path = ("workloads", name, "ports" if spec.ports else "port")
            if ports.keys() != others.keys():
                message = f"service `{service}` has {_listed(ports)} here and {_listed(others, '')} in `{known}`"
                what = "port" if len(ports) == len(others) == 1 else "ports"
                self._refuse("port", message, path, f"give both the same {what}")
                continue
            for number, port in ports.items():
                if port.speaks != others[number].speaks:
                    message = f"service `{service}` speaks {port.speaks} here and another protocol in `{known}`"
                    where = path if spec.ports else (*path[:-1], "protocol")
                    self._refuse("port", message, where, "give both the same protocol")
                elif port.called != others[number].called:
                    message = f"port {number} of service `{service}` has another name in `{known}`"
                    self._refuse("port", message, path, "give both the same name")


def _listed(numbers: Iterable[int], what: str = "port") -> str:
    found = [str(number) for number in numbers]
    return " ".join(filter(None, (what + "s" * (what != "" and len(found) > 1), ", ".join(found))))


def _metrics(spec: WorkloadSpec, first: int) -> MetricsPage | None:
    return MetricsPage("127.0.0.1", spec.metrics.port or first, spec.metrics.path) if spec.metrics else None


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
) -> dict[str, Listener]:
    found: list[Listener] = []
    for instance in instances.values():
        issuers = issuers_of(authentications, instance)
        if instance.role == "sidecar":
            found += listeners_of(instance, issuers)
            name = egress_listener(instance.name)
            found.append(Listener(name, "egress", instance.name, instance.workload, "", 0, verifies_peers=False))
        for listen in instance.listens:
            port = listen.declared
            found += edge_listeners(gateways, instance, port, issuers, (instance.name, port) in peers)
    return {listener.name: listener for listener in found}
