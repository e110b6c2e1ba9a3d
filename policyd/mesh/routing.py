"""VirtualServices against the mesh: what they are bound to and route to is there.

Law: a rule that could never take effect is refused, never kept without effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

from policyd.errors import Problem
from policyd.mesh.by_gateway import ByGateway
from policyd.mesh.connections import check_connections, unspoken
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.destinations import Caller, Destinations
from policyd.mesh.gateway_api.values import AttachedRules, OpenedListener, OpensTls
from policyd.mesh.hosts import overlap, resolve
from policyd.mesh.istio.common import export_rank
from policyd.mesh.istio.destination import Destination
from policyd.mesh.istio.destination_rule import DestinationRule, Subset
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.virtual_service import MESH, VirtualService, held_at, led_to
from policyd.mesh.matching import did_you_mean
from policyd.mesh.model import Role, Service
from policyd.mesh.outside_checks import OutsideDestinations
from policyd.mesh.precedence import check_hosts_once, inside, key
from policyd.mesh.selection import check_names
from policyd.mesh.service_names import target
from policyd.mesh.targets import Targets
from policyd.yaml import Path

DECLARE: Final = "declare it in workloads.yaml"
DECLARE_GATEWAY: Final = "declare the Gateway, or write `mesh` for all sidecars"
DECLARE_SUBSET: Final = "declare it in a DestinationRule of that host"
NAME_A_SERVICE: Final = "name a service, or a host outside of the mesh by its full name"


def check_virtual_services(declaration: Declaration, targets: Targets, problems: list[Problem]) -> None:
    """Each VirtualService has its own name, known gateways, hosts that lead to it, existing destinations."""
    gateways = {found.resource.id: found.resource for found in declaration.of(Gateway)}
    found = declaration.of(VirtualService)
    destinations = _Destinations(declaration, targets)
    check_names(found, "VirtualService", problems)
    check_hosts_once(found, targets.services, problems)
    for declared in found:
        served = _check_bound(declared, gateways, problems)
        _check_hosts(declared, served, targets.services, problems)
        check_connections(declared, gateways, targets.services, problems)
        destinations.check(declared, problems)


def _check_bound(
    declared: Declared[VirtualService], gateways: Mapping[str, Gateway], problems: list[Problem]
) -> list[str]:
    """Each gateway it is bound to is there; return the host patterns that those serve."""
    virtual = declared.resource
    for at, name in enumerate(virtual.spec.gateways):
        id_ = virtual.gateway_id(name)
        # to a listener of the Gateway API nothing is bound but routes that it lets
        let = isinstance(virtual, AttachedRules) or not isinstance(gateways.get(id_), OpenedListener)
        if name != MESH and (id_ not in gateways or not let):
            named = (one for one, found in gateways.items() if not isinstance(found, OpenedListener))
            remedy = did_you_mean(id_, named, problems)
            message = f"no Gateway is called `{name[:80]}`"
            path = ("spec", "gateways", at)
            problems.append(declared.problem("reference", message, path, remedy or DECLARE_GATEWAY))
    bound_to = {MESH, *virtual.gateway_ids()} if virtual.in_mesh else set(virtual.gateway_ids())
    for where, name in _narrowed_to(virtual):
        if not virtual.is_delegate and virtual.gateway_id(name) not in bound_to:
            message = f"the rule is for `{name[:80]}`, to which its VirtualService is not bound"
            problems.append(declared.problem("reference", message, where, "add it to `spec.gateways`"))
    bound = [gateways[id_] for id_ in virtual.gateway_ids() if id_ in gateways]
    servers = ((gateway, server) for gateway in bound for server in gateway.spec.servers)
    return [host for gateway, server in servers for host in server.hosts_for(gateway.namespace, virtual.namespace)]


def _narrowed_to(virtual: VirtualService) -> Iterator[tuple[Path, str]]:
    for path, match in virtual.matches():
        for which, name in enumerate(match.gateways):
            yield (*path, "gateways", which), name


def _check_hosts(
    declared: Declared[VirtualService], served: list[str], services: Mapping[str, Service], problems: list[Problem]
) -> None:
    """Each host leads here: through a gateway that serves it, or in sidecars as a Service's or an outside name."""
    virtual = declared.resource
    for at, host in enumerate(virtual.spec.hosts):
        path = ("spec", "hosts", at)
        named = services.get(key(host, virtual.namespace, services))
        if virtual.in_mesh and named is not None and (problem := unspoken(virtual, named, services)):
            problems.append(declared.problem("reference", f"the host `{host}` {problem[0]}", path, problem[1]))
            continue
        if any(overlap(host, pattern) for pattern in served):
            continue
        if virtual.in_mesh:
            if not _is_called(host, virtual.namespace, services):
                message = f"the host `{host}` is no service of the mesh"
                meant = resolve(host, virtual.namespace) or host
                remedy = did_you_mean(meant, services, problems)
                problems.append(declared.problem("reference", message, path, remedy or NAME_A_SERVICE))
        elif served:
            message = f"the host `{host}` is served by none of its gateways"
            problems.append(declared.problem("reference", message, path, "add it to a Gateway's `hosts`"))


def _is_called(host: str, namespace: str, services: Mapping[str, Service]) -> bool:
    """Tell whether a sidecar's application can ask for a host: a Service, a pattern of some, or an outside name."""
    if key(host, namespace, services) in services:
        return True
    if host.startswith("*") and any(overlap(host, f"{id_}.svc.cluster.local") for id_ in services):
        return True
    name, _, rest = host.partition(".")
    typing_error = not rest or rest in {service.namespace for service in services.values()}
    return not typing_error and not inside(host) and name != ""


class _Destinations:
    """What the rules of VirtualServices lead to, for the callers that are given them."""

    def __init__(self, declaration: Declaration, targets: Targets) -> None:
        self._services = targets.services
        self._outside = OutsideDestinations(
            targets.outside,
            (found.resource for found in declaration.of(DestinationRule)),
            (found.resource for found in declaration.of(OpensTls)),
        )
        gateways = [found.resource for found in declaration.of(Gateway)]
        self._gateways = ByGateway(targets.instances.values(), gateways)
        self._rules = Destinations(found.resource for found in declaration.of(DestinationRule))
        self._instances = targets.instances

    @cached_property
    def _callers(self) -> list[tuple[Role, Caller]]:
        """Whom the rules may be for; asked only where there are rules."""
        of = self._rules.caller
        every = {(one.role, of(one.service.partition(".")[2], one.labels)) for one in self._instances.values()}
        return sorted(every, key=repr)

    def check(self, declared: Declared[VirtualService], problems: list[Problem]) -> None:
        """Each destination is a Service of the mesh, on a port of its own, in a subset that callers see."""
        for path, destination in led_to(declared.resource):
            self._check(declared, path, destination, problems)
        for section in ("tls", "tcp"):
            for at, rule in enumerate(getattr(declared.resource.spec, section)):
                if len({self._outside.means(one.destination) for one in rule.route}) == 2:
                    message = "a rule leads connections into the mesh or outside, never both"
                    remedy = "make two rules of it"
                    problems.append(declared.problem("reference", message, ("spec", section, at, "route"), remedy))
                if len(rule.route) > 1 and any(self._outside.is_proxy(one.destination) for one in rule.route):
                    message = "what is led through a forward proxy (`tunnel`) has no shares"
                    remedy = "keep one destination"
                    problems.append(declared.problem("reference", message, ("spec", section, at, "route"), remedy))

    def _check(
        self, declared: Declared[VirtualService], path: Path, destination: Destination, problems: list[Problem]
    ) -> None:
        virtual = declared.resource
        id_ = resolve(destination.host, virtual.namespace)
        if id_ not in self._services and self._outside.means(destination):
            self._outside.check(declared, path, destination, problems)
            self._check_part(declared, path, destination, problems)
        elif id_ is None or id_ not in self._services:
            remedy = did_you_mean(id_ or destination.host, self._services, problems)
            message = f"the destination `{destination.host}` is no service of the mesh"
            problems.append(declared.problem("reference", message, (*path, "host"), remedy or DECLARE))
        elif self._gateways.has(id_):
            if (fault := self._gateways.fault(virtual, path, destination, id_)) is not None:
                message, remedy, field = fault
                problems.append(declared.problem("reference", message, (*path, field), remedy))
            elif destination.subset is not None:
                self._check_subset(declared, path, destination.subset, self._services[id_], problems)
        elif target(destination, virtual.namespace, self._services) is None:
            ports = ", ".join(str(port.number) for port in self._services[id_].ports)
            message = f"the port of destination `{destination.host}` is missing or none of its own"
            problems.append(declared.problem("reference", message, (*path, "port"), f"it has {ports}"))
        elif not _takes(destination, self._services[id_], path[1]):
            speaks, section = ("TCP", "http") if path[1] == "http" else ("HTTP", path[1])
            message = f"`{destination.host}` speaks {speaks} there, to which no `{section}` rule leads"
            remedy = f"write `{'tcp' if section == 'http' else 'http'}` rules for it"
            problems.append(declared.problem("reference", message, (*path, "port"), remedy))
        elif destination.subset is not None:
            self._check_subset(declared, path, destination.subset, self._services[id_], problems)

    def _check_part(
        self, declared: Declared[VirtualService], path: Path, destination: Destination, problems: list[Problem]
    ) -> None:
        """A subset of a Host is one that callers know."""
        host, subset = destination.host, destination.subset
        namespace = self._outside.namespace_of(host)
        if subset is not None:
            found = {caller: self._rules.of_host(caller, host, namespace).subsets for _, caller in self._callers}
            self._check_known(declared, path, subset, f"the host `{host}`", found, problems)

    def _check_subset(
        self, declared: Declared[VirtualService], path: Path, subset: str, service: Service, problems: list[Problem]
    ) -> None:
        found = {caller: self._rules.of(caller, service.id, service.namespace).subsets for _, caller in self._callers}
        self._check_known(declared, path, subset, f"the service `{service.id}`", found, problems)

    def _check_known(
        self,
        declared: Declared[VirtualService],
        path: Path,
        subset: str,
        of: str,
        found: Mapping[Caller, Mapping[str, Subset]],
        problems: list[Problem],
    ) -> None:
        for role, caller in self._callers:
            known = found[caller]
            if subset not in known and _is_given(declared.resource, path, role, caller):
                message = f"callers in `{caller.namespace}` know no subset `{subset}` of {of}"
                remedy = did_you_mean(subset, known, problems) or DECLARE_SUBSET
                problems.append(declared.problem("reference", message, (*path, "subset"), remedy))
                return


def _takes(destination: Destination, service: Service, section: str | int) -> bool:
    """Whether what a rule of a section leads to a destination is what its port is asked for by."""
    number = destination.port.number if destination.port else service.ports[0].number
    port = service.port(number)
    return port is not None and (port.takes_requests if section == "http" else port.takes_connections)


def _is_given(virtual: VirtualService, path: Path, role: Role, caller: Caller) -> bool:
    names = held_at(virtual, path)
    bound = MESH in names if role == "sidecar" else bool(names - {MESH})
    return bound and export_rank(virtual.spec.export_to, virtual.namespace, caller.namespace) is not None
