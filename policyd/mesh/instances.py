"""The instances of workloads.yaml, each at its place, with the identity that it bears.

Law: what is declared and placed as it was before is the very same instance; what does not fit together is a Problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration
from policyd.mesh.files import Defaults, GatewayInstanceSpec, WorkloadSpec
from policyd.mesh.locality import parse_locality
from policyd.mesh.model import Instance, Listener, MetricsPage, Served, egress_listener
from policyd.mesh.peers import listeners_of
from policyd.mesh.placement import Placement, SidecarPlace
from policyd.spiffe import SpiffeId
from policyd.strict import check_label
from policyd.yaml import Path

GATEWAY_LABELS: Final[Mapping[str, str]] = {"istio": "ingressgateway"}


@dataclass(frozen=True, slots=True)
class _Made:
    """An instance, and what it was made of."""

    spec: WorkloadSpec
    place: SidecarPlace
    under: tuple[str, Defaults]  # the trust domain, and what holds where an instance does not say otherwise
    instance: Instance


class KeptInstances:
    """Sidecars that were made for one Mesh: of the same specification at the same place the next one has the very same.

    So of a change of one file it is known at a glance which instances it concerns.
    """

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}
        self._listeners: dict[str, tuple[Instance, Mapping[str, frozenset[str]], tuple[Listener, ...]]] = {}

    def find(self, name: str, spec: WorkloadSpec, place: SidecarPlace, under: tuple[str, Defaults]) -> Instance | None:
        """The instance that was made of just these; None where there is none."""
        known = self._made.get(name)
        if known is None or known.spec is not spec or known.place != place or known.under != under:
            return None
        return known.instance

    def keep(self, spec: WorkloadSpec, place: SidecarPlace, under: tuple[str, Defaults], instance: Instance) -> None:
        """Have it found from now on."""
        self._made[instance.name] = _Made(spec, place, under, instance)

    def listeners(self, instance: Instance, issuers: Mapping[str, frozenset[str]]) -> tuple[Listener, ...]:
        """Where a sidecar is asked for its application, and for what leaves it."""
        known = self._listeners.get(instance.name)
        if known is not None and known[0] is instance and known[1] == issuers:
            return known[2]
        name = egress_listener(instance.name)
        leaving = Listener(name, "egress", instance.name, instance.workload, "", 0, verifies_peers=False)
        made = (*listeners_of(instance, issuers), leaving)
        self._listeners[instance.name] = (instance, issuers, made)
        return made

    def bound(self, names: Mapping[str, object]) -> None:
        """Forget the instances that are declared no longer."""
        if len(self._made) > len(names):
            self._made = {name: one for name, one in self._made.items() if name in names}
        if len(self._listeners) > len(names):
            self._listeners = {name: one for name, one in self._listeners.items() if name in names}


class Instances:
    """Makes the instances of workloads.yaml, and keeps the problems met on the way."""

    def __init__(self, declaration: Declaration, trust_domain: str, placement: Placement, kept: KeptInstances) -> None:
        self.problems: list[Problem] = []
        self._kept = kept
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
        for field, number in spec.given_ports:
            self._claim(spec.address, number, name, (*path, *field))
        placed, under = self._placement.sidecars[name], (self._trust_domain, self._file.defaults)
        known = self._kept.find(name, spec, placed, under)
        if known is not None:
            return known
        before = len(self.problems)
        made = self._make(name, spec, placed, path)
        if len(self.problems) == before:  # what is wrong with it is to be said the next time, too
            self._kept.keep(spec, placed, under, made)
        return made

    def _make(self, name: str, spec: WorkloadSpec, placed: SidecarPlace, path: Path) -> Instance:
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
            outbound_port=0 if spec.proxyless else placed.outbound_port,
            proxy_secret="" if spec.proxyless else placed.proxy_secret,
            locality=parse_locality(spec.locality) if spec.locality else None,
            weight=spec.weight or 1,
            metrics=_metrics(spec, placed.ports[0].app_port),
            proxyless=spec.proxyless,
        )

    def _gateway(self, name: str, spec: GatewayInstanceSpec) -> Instance:
        path = ("gateways", name)
        for port in spec.listen:
            self._claim(spec.address, port, name, (*path, "listen"))
        topology = spec.gateway_topology or self._file.defaults.gateway_topology
        if spec.http3 and topology.proxy_protocol is not None:
            remedy = "remove `http3`, or give it a `gatewayTopology` without `proxyProtocol`"
            self._refuse("field", "HTTP/3 has no PROXY headers", (*path, "http3"), remedy)
        return Instance(
            name=name,
            workload=self._identity(name, spec, path),
            role="gateway",
            service=f"{name}.{self._namespace(spec)}",
            labels={"app": name, **GATEWAY_LABELS, **spec.labels},
            address=spec.address,
            listens=self._placement.gateways[name],
            proxied_by=proxy.from_ if (proxy := topology.proxy_protocol) is not None else (),
            trusted_proxies=topology.num_trusted_proxies,
            forwards=topology.forward_client_cert_details,
            http3=spec.http3,
            locality=parse_locality(spec.locality) if spec.locality else None,
        )

    def _claim(self, address: str, port: int, name: str, path: Path) -> None:
        if other := self._given.get((address, port)):
            self._refuse("port", f"port {port} of `{name}` is given to `{other}` already", path, "give another one")
        self._given.setdefault((address, port), name)

    def _check_service_ports(self) -> None:
        """What serves one Service has the same ports: its callers know no other."""
        first: dict[str, tuple[str, WorkloadSpec]] = {}
        owners = {f"{name}.{self._namespace(spec)}": name for name, spec in self._file.gateways.items()}
        for name, spec in self._file.workloads.items():
            service = f"{spec.service}.{self._namespace(spec)}"
            if gateway := owners.get(service):
                message = f"service `{service}` is that of the gateway `{gateway}`"
                self._refuse("duplicate", message, ("workloads", name, "service"), "rename one")
            known, like = first.setdefault(service, (name, spec))
            if like is spec or like.shown == spec.shown:
                continue
            ports, others = ({port.port: port for _, port in one.serves} for one in (spec, like))
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
