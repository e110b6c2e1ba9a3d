"""VirtualServices and DestinationRules that lead outside, against the Hosts that are declared.

Law: what could not be decided or could not take effect on the way out is refused where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from policyd.errors import Problem, SpiffeIdError
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.gateway_api.values import OpensTls
from policyd.mesh.istio.destination import Destination
from policyd.mesh.istio.destination_rule import DestinationRule, DestinationRuleSpec
from policyd.mesh.istio.traffic_policy import PortPolicy, Sections, TrafficPolicy
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.outside import Outside, covers_name
from policyd.spiffe import SpiffeId
from policyd.yaml import Path

OWN_TLS: Final = frozenset({"SIMPLE", "MUTUAL", "ISTIO_MUTUAL"})  # what a sidecar may open towards a Host
ASK_DIRECTLY: Final = "route to it by `route`, in a VirtualService that has `hosts`"


class OutsideDestinations:
    """What destinations of VirtualServices mean outside, and what is wrong with them."""

    def __init__(
        self, outside: Iterable[Outside], rules: Iterable[DestinationRule], opens_tls: Iterable[OpensTls] = ()
    ) -> None:
        self._outside = {one.host: one for one in outside if "*" not in one.host}
        self._rules = tuple(rules)
        self._opened = frozenset((one.host, one.port) for one in opens_tls)

    def means(self, destination: Destination) -> bool:
        """Whether a destination is a Host that some ServiceEntry declares."""
        return destination.host in self._outside

    def is_proxy(self, destination: Destination) -> bool:
        """Whether connections are led through a destination, somewhere else."""
        specs = [rule.spec for rule in self._rules if covers_name(rule.spec.host, destination.host)]
        named = [one for spec in specs for one in spec.subsets if one.name == destination.subset]
        policies = (*(spec.traffic_policy for spec in specs), *(one.traffic_policy for one in named))
        return any(policy is not None and policy.tunnel is not None for policy in policies)

    def namespace_of(self, host: str) -> str:
        """The namespace of the ServiceEntry that declares a Host."""
        return self._outside[host].namespace

    def check(
        self, declared: Declared[VirtualService], path: Path, destination: Destination, problems: list[Problem]
    ) -> None:
        """A Host is led to where it can be asked about, on a port that fits: for requests HTTP, or TLS of ours."""
        virtual, host = declared.resource, self._outside[destination.host]

        def refuse(message: str, remedy: str, *field: str) -> None:
            problems.append(declared.problem("reference", message, (*path, *(field or ("host",))), remedy))

        if "route" not in path:
            refuse(f"a copy of each request would leave to `{host.host}` undecided", ASK_DIRECTLY)
        elif virtual.is_delegate:
            refuse(f"a delegate does not lead outside, to `{host.host}`, yet", ASK_DIRECTLY)
        elif not host.is_seen(virtual.namespace):
            refuse(
                f"the host `{host.host}` is not exported to `{virtual.namespace}`", "see `exportTo` of its ServiceEntry"
            )
        elif host.is_dynamic and (set(virtual.spec.hosts) != {host.host} or self._is_tunnelled(virtual, path)):
            refuse(f"`{host.host}` is looked up by the name that is asked for", "set its `resolution` to DNS")
        elif problem := self._port(destination, host, requests="http" in path, by_sidecars=virtual.in_mesh):
            refuse(*problem, "port")

    @staticmethod
    def _is_tunnelled(virtual: VirtualService, path: Path) -> bool:
        """Whether it leads connections at a gateway, whose tunnels there are asked for by another name."""
        return bool(virtual.gateway_ids()) and path[1] != "http"

    def _port(
        self, destination: Destination, host: Outside, *, requests: bool, by_sidecars: bool
    ) -> tuple[str, str] | None:
        wanted = destination.port.number if destination.port else None
        if wanted is None and len(host.ports) == 1:
            wanted = host.ports[0].number
        port = next((one for one in host.ports if one.number == wanted), None)
        listed = ", ".join(f"{one.number} ({one.protocol})" for one in host.ports)
        if port is None:
            return f"the port of destination `{host.host}` is missing or none of its own", f"it has {listed}"
        if not requests:
            message = f"port {port.number} of `{host.host}` speaks HTTP, to which no connections are led"
            return (message, "write `http` rules for it") if port.is_http else None
        by_gateways = not by_sidecars and (host.host, port.number) in self._opened
        if not (port.is_http or by_gateways or any(_opens_tls(rule, host.host, port.number) for rule in self._rules)):
            message = f"port {port.number} of `{host.host}` does not speak plain HTTP"
            return message, "let a DestinationRule open TLS, `tls: {mode: SIMPLE}`, or at gateways a BackendTLSPolicy"
        return None


def check_outside_rule(
    declared: Declared[DestinationRule], outside: Iterable[Outside], problems: list[Problem]
) -> None:
    """What a DestinationRule says of Hosts can hold for them."""
    spec = declared.resource.spec
    led = [one for one in outside if covers_name(spec.host, one.host)]
    ports = sorted({port.number for one in led for port in one.ports})
    for at, subset in enumerate(spec.subsets):
        bare = next((one.host for one in led if one.of_labels(subset.labels) is None), None)
        if bare is not None:
            message = f"no endpoint of `{bare}` has the labels of the subset `{subset.name}`"
            remedy = "compare them with `endpoints` of its ServiceEntry"
            problems.append(declared.problem("reference", message, ("spec", "subsets", at, "labels"), remedy))
    for path, policy, number in _sections(spec):
        if number and number not in ports:
            message = f"port {number} is none of `{spec.host}`"
            remedy = f"it has {', '.join(map(str, ports))}"
            problems.append(declared.problem("port", message, (*path, "port"), remedy))
        balancer = policy.load_balancer
        if (
            policy.tls is not None
            and (policy.tls.sni or policy.tls.insecure_skip_verify)
            and any(o.is_dynamic for o in led)
        ):
            message = "the names under a pattern are each asked for, and checked, by their own"
            remedy = "remove `sni` and `insecureSkipVerify`"
            problems.append(declared.problem("tls", message, (*path, "tls"), remedy))
        placed = any(endpoint.locality for one in led for endpoint in one.endpoints)
        if balancer is not None and balancer.locality_lb_setting is not None and not placed:
            message = f"no endpoint of `{led[0].host}` has a `locality`"
            where = (*path, "loadBalancer", "localityLbSetting")
            problems.append(declared.problem("reference", message, where, "add it in its ServiceEntry, or remove this"))
        if getattr(policy, "tunnel", None) is not None:
            _check_tunnel(declared, led, path, problems)
        if balancer is not None and not balancer.passes_through and any(one.is_dynamic for one in led):
            message = "a host that is looked up as it is asked for has nothing to balance"
            problems.append(declared.problem("field", message, (*path, "loadBalancer"), "remove it"))


def _check_tunnel(
    declared: Declared[DestinationRule], led: Iterable[Outside], path: Path, problems: list[Problem]
) -> None:
    """What is led through is a forward proxy with an address, and takes connections."""
    for one in led:
        message, remedy = "", ""
        if one.is_dynamic:
            message = f"`{one.host}` is looked up as it is asked for, and is no forward proxy"
            remedy = "set its `resolution` to DNS, or remove `tunnel`"
        elif all(port.is_http for port in one.ports):
            message = f"`{one.host}` takes requests only, and a tunnel is for connections"
            remedy = "declare its port as TCP in its ServiceEntry, or remove `tunnel`"
        if message:
            problems.append(declared.problem("field", message, (*path, "tunnel"), remedy))
            return


def check_peers_outside(
    declaration: Declaration, outside: Iterable[Outside], federated: frozenset[str], problems: list[Problem]
) -> None:
    """The mesh's own mutual TLS leads to a Host only where that is a workload of a trust domain known here."""
    for declared in declaration.of(DestinationRule):
        spec = declared.resource.spec
        led = [one for one in outside if covers_name(spec.host, one.host)]
        for path, policy, _ in _sections(spec):
            if not led or policy.tls is None or policy.tls.mode != "ISTIO_MUTUAL":
                continue
            if any(not one.names or one.is_dynamic for one in led):
                message = f"`{led[0].host}` is outside, and no ServiceEntry says which workloads serve it"
                remedy = "name them in its `subjectAltNames`, as SPIFFE IDs; or write `SIMPLE` or `MUTUAL`"
                problems.append(declared.problem("tls", message, (*path, "tls", "mode"), remedy))
            for name in sorted({name for one in led for name in one.names}):
                if _trust_domain(name) not in federated:
                    message = f"`{name[:200]}` is no workload of a trust domain that this mesh knows"
                    remedy = "name the trust domain in `ca.federation`, or to `policyd ca federation create`"
                    problems.append(declared.problem("tls", message, (*path, "tls", "mode"), remedy))


def _trust_domain(name: str) -> str:
    """That of a SPIFFE ID; "" for another name."""
    try:
        return SpiffeId.parse(name).trust_domain
    except SpiffeIdError:
        return ""


def _sections(spec: DestinationRuleSpec) -> Iterator[tuple[Path, Sections | PortPolicy, int]]:
    """Every part of a policy with its place, that of the whole host and of its subsets; 0 is every port."""
    policies: list[tuple[Path, TrafficPolicy | None]] = [(("spec", "trafficPolicy"), spec.traffic_policy)]
    policies += [(("spec", "subsets", at, "trafficPolicy"), one.traffic_policy) for at, one in enumerate(spec.subsets)]
    for path, policy in policies:
        if policy is not None:
            yield path, policy, 0
            for at, port in enumerate(policy.port_level_settings):
                yield (*path, "portLevelSettings", at), port, port.port.number


def _opens_tls(rule: DestinationRule, host: str, port: int) -> bool:
    if not covers_name(rule.spec.host, host):
        return False
    return any(
        policy.tls is not None and policy.tls.mode in OWN_TLS and number in (0, port)
        for _, policy, number in _sections(rule.spec)
    )
