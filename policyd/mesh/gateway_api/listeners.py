"""Gateways of the Gateway API: which of their listeners are open, at which gateway instances, with what certificates.

Law: of listeners that contradict one another none is open; the others of their Gateway are. A listener whose
certificate may not be had is not open either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policyd.mesh.credentials import Credentials
from policyd.mesh.gateway_api.backends import Grants
from policyd.mesh.gateway_api.common import GROUP
from policyd.mesh.gateway_api.conditions import (
    ACCEPTED,
    CONFLICTED,
    INSECURE,
    PROGRAMMED,
    RESOLVED,
    Condition,
    Fault,
    good,
    judged,
)
from policyd.mesh.gateway_api.gateway import GatewayAddress, KubernetesGateway, Listener
from policyd.mesh.gateway_api.gateway_class import BUILT_IN, CONTROLLER, GatewayClass
from policyd.mesh.gateway_api.held import folder_of
from policyd.mesh.gateway_api.known import EDGE, Edge, Known
from policyd.mesh.gateway_api.references import References
from policyd.mesh.gateway_api.values import OpenedListener, TakesAny
from policyd.mesh.hosts import resolve
from policyd.mesh.istio.common import Metadata, Section
from policyd.mesh.istio.gateway import GatewaySpec, Server, ServerPort
from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.model import gateway_listener

REQUESTS: Final = ("HTTPRoute", "GRPCRoute")
UNCHECKED: Final = Condition(
    INSECURE,
    "True",
    "ConfigurationChanged",
    "clients come in without a certificate, or with one that is not good; write `AllowValidOnly` once all have one",
)
PENDING: Final = Condition(
    ACCEPTED, "Unknown", "Pending", "its class is not one of this mesh, nothing is done about it"
)


@dataclass(frozen=True, slots=True)
class Opening:
    """A listener of a Gateway: where it is open (nowhere: it is not), and what stands against it."""

    gateway: KubernetesGateway
    listener: Listener
    instances: frozenset[str]
    accepted: Fault | None
    conflict: Fault | None
    resolved: Fault | None

    @property
    def is_open(self) -> bool:
        """Whether somebody can come in by it."""
        unresolved = self.resolved is not None and self.resolved.reason != "InvalidRouteKinds"
        return bool(self.instances) and not (self.accepted or self.conflict or unresolved)

    @property
    def id(self) -> str:
        """By what the rules of routes are bound to it."""
        return f"{self.gateway.namespace}/{self.gateway.name}~{self.listener.name}"

    @property
    def places(self) -> tuple[str, ...]:
        """The listeners of Envoys that it is."""
        return tuple(gateway_listener(name, self.listener.port) for name in sorted(self.instances))

    @property
    def section(self) -> Section:
        """Which rules lead on: of requests, of connections, of TLS that is passed on."""
        if self.listener.protocol in ("HTTP", "HTTPS"):
            return "http"
        return "tls" if self.listener.passes_through else "tcp"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of routes that it takes: those that fit, and that it is said to take."""
        fit: tuple[str, ...] = {"http": REQUESTS, "tls": ("TLSRoute",), "tcp": ("TCPRoute",)}[self.section]
        if self.ends_tls:
            fit = ("TLSRoute", "TCPRoute")
        wanted = [one.kind for one in self.listener.allowed_routes.kinds if one.group == GROUP]
        return fit if not self.listener.allowed_routes.kinds else tuple(kind for kind in fit if kind in wanted)

    def conditions(self) -> tuple[Condition, ...]:
        """What is told of it."""
        conflicted = Condition(CONFLICTED, "False", "NoConflicts")
        if self.conflict is not None:
            conflicted = Condition(CONFLICTED, "True", self.conflict.reason, self.conflict.message)
        programmed = None if self.is_open else Fault("Invalid", "nobody can come in by it, see its other conditions")
        return (
            conflicted,
            judged(ACCEPTED, self.accepted or self.conflict),
            judged(RESOLVED, self.resolved),
            judged(PROGRAMMED, programmed),
        )

    @property
    def ends_tls(self) -> bool:
        """Whether connections within TLS are led on, and not requests."""
        return self.listener.protocol == "TLS" and not self.listener.passes_through

    def opened(self, host: str = "", mark: str = "") -> OpenedListener:
        """The same as a Gateway of Istio's that has one server; `host` is one of its hosts alone, `mark` tells it."""
        listener = self.listener
        protocol = "HTTP" if listener.protocol == "HTTP" else listener.protocol
        tls = _server_tls(self.gateway, listener)
        port = ServerPort(number=listener.port, name=listener.protocol.lower(), protocol=protocol)  # type: ignore[arg-type]
        server = Server(port=port, hosts=(host or listener.host,), tls=tls, name=listener.name)
        namespace, _, name = self.id.partition("/")
        metadata = Metadata.model_construct(name=f"{name}{mark}", namespace=namespace, labels={}, annotations={})
        spec = GatewaySpec(selector=EDGE, servers=(server,))
        return OpenedListener(metadata=metadata, spec=spec, instances=self.instances)


def _server_tls(gateway: KubernetesGateway, listener: Listener) -> ServerTls | None:
    if listener.tls is None:
        return None
    if listener.passes_through:
        return ServerTls(mode="PASSTHROUGH")
    own = gateway.namespace
    names = tuple(folder_of(one.name, one.namespace, own) for one in listener.tls.certificate_refs)
    wanted = gateway.spec.wanted_of_clients(listener)
    if wanted is None:
        return ServerTls(mode="SIMPLE", credential_names=names)
    (ref,) = wanted.ca_certificate_refs
    authorities = folder_of(ref.name, ref.namespace, own)
    if wanted.mode == "AllowInsecureFallback":
        return TakesAny(mode="OPTIONAL_MUTUAL", credential_names=names, ca_cert_credential_name=authorities)
    return ServerTls(mode="MUTUAL", credential_names=names, ca_cert_credential_name=authorities)


def is_ours(gateway: KubernetesGateway, classes: Mapping[str, GatewayClass]) -> bool:
    """Whether a Gateway's class is one of this mesh."""
    name = gateway.spec.gateway_class_name
    return classes[name].spec.controller_name == CONTROLLER if name in classes else name == BUILT_IN


class Openings:
    """The listeners of all Gateways of this mesh, the oldest first."""

    def __init__(
        self,
        gateways: Iterable[KubernetesGateway],
        known: Known,
        grants: Grants,
        credentials: Credentials | None = None,
    ) -> None:
        self._known = known
        self._references = References(grants, credentials)
        every = [
            _Wanted(gateway, listener, frozenset(edge.name for edge in edges if listener.port in edge.listens), edges)
            for gateway in sorted(gateways, key=lambda one: one.age)
            for edges in [self.edges(gateway)]
            for listener in gateway.spec.listeners
        ]
        self._of: dict[str, list[Opening]] = {}
        for one in every:
            made = self._opening(one, every)
            self._of.setdefault(one.gateway.id, []).append(made)

    def of(self, gateway: str) -> Sequence[Opening]:
        """Those of a Gateway (an id), in its order."""
        return self._of.get(gateway, ())

    def every(self) -> Iterator[Opening]:
        """All of them."""
        return (one for several in self._of.values() for one in several)

    def edges(self, gateway: KubernetesGateway) -> tuple[Edge, ...]:
        """The gateway instances that a Gateway is: those that its addresses name, else those of Istio's own label."""
        addresses = gateway.spec.addresses
        if not any(one.value for one in addresses):
            return tuple(edge for edge in self._known.edges if edge.labels.items() >= EDGE.items())
        return tuple(edge for edge in self._known.edges if any(_means(one, edge, gateway) for one in addresses))

    def conditions(self, gateway: KubernetesGateway) -> tuple[Condition, ...]:
        """What is told of a Gateway as a whole."""
        openings = self.of(gateway.id)
        bad = [one for one in openings if not one.is_open]
        fault = self._address_fault(gateway)
        if fault is not None and fault.reason == "AddressNotUsable":
            return good(ACCEPTED), judged(PROGRAMMED, fault)
        if fault is not None:
            unmeant = Fault("Invalid", "no gateway instance is meant by its addresses")
            return judged(ACCEPTED, fault), judged(PROGRAMMED, unmeant)
        if not self.edges(gateway):
            message = "there is no gateway instance; declare one under `gateways` in workloads.yaml"
            return good(ACCEPTED), Condition(PROGRAMMED, "False", "NoResources", message)
        if bad:
            message = f"not open: {', '.join(one.listener.name for one in bad)}"
            some = len(bad) < len(openings)
            accepted = Condition(ACCEPTED, "True" if some else "False", "ListenersNotValid", message)
            whole = good(PROGRAMMED) if some else Condition(PROGRAMMED, "False", "Invalid", message)
            return accepted, whole
        return good(ACCEPTED), good(PROGRAMMED)

    def _address_fault(self, gateway: KubernetesGateway) -> Fault | None:
        for one in gateway.spec.addresses:
            if one.type not in ("Hostname", "IPAddress"):
                message = f"an address of type `{one.type}` is not supported; write `Hostname` or `IPAddress`"
                return Fault("UnsupportedAddress", message)
            if one.value and not any(_means(one, edge, gateway) for edge in self._known.edges):
                what = "service" if one.type == "Hostname" else "`address`"
                return Fault("AddressNotUsable", f"`{one.value}` is the {what} of no gateway in workloads.yaml")
        return None

    def _opening(self, one: _Wanted, every: Sequence[_Wanted]) -> Opening:
        return Opening(
            one.gateway,
            one.listener,
            frozenset() if self._address_fault(one.gateway) else one.instances,
            _accepted(one) or self._nobody_is_let_in(one.gateway, one.listener),
            _conflict(one, every),
            self._resolved(one.gateway, one.listener),
        )

    def _nobody_is_let_in(self, gateway: KubernetesGateway, listener: Listener) -> Fault | None:
        """Clients are to be of authorities that are not to be had."""
        wanted = gateway.spec.wanted_of_clients(listener)
        fault = self._references.of_authorities(wanted, gateway.namespace) if wanted is not None else None
        return Fault("NoValidCACertificate", f"no client could be let in: {fault.message}") if fault else None

    def client_certificate(self, gateway: KubernetesGateway) -> tuple[str, Fault | None] | None:
        """What a Gateway shows backends, by its folder, or why it shows nothing; None where it does not say."""
        ref = gateway.spec.client_certificate
        if ref is None:
            return None
        fault = self._references.of_certificate(ref, gateway.namespace, "InvalidClientCertificateRef")
        return folder_of(ref.name, ref.namespace, gateway.namespace), fault

    def _resolved(self, gateway: KubernetesGateway, listener: Listener) -> Fault | None:
        for ref in listener.tls.certificate_refs if listener.tls else ():
            if fault := self._references.of_certificate(ref, gateway.namespace, "InvalidCertificateRef"):
                return fault
        wanted = gateway.spec.wanted_of_clients(listener)
        if wanted is not None and (fault := self._references.of_authorities(wanted, gateway.namespace)):
            return fault
        made = Opening(gateway, listener, frozenset(), None, None, None)
        kinds = listener.allowed_routes.kinds
        if wrong := next((one for one in kinds if one.group != GROUP or one.kind not in made.kinds), None):
            message = f"no `{wrong.kind}` can be attached to a listener of `{listener.protocol}`"
            return Fault("InvalidRouteKinds", message)
        return None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A listener as it is asked for."""

    gateway: KubernetesGateway
    listener: Listener
    instances: frozenset[str]
    edges: tuple[Edge, ...]


def _means(address: GatewayAddress, edge: Edge, gateway: KubernetesGateway) -> bool:
    """Whether an address is that of a gateway instance."""
    if address.type == "IPAddress":
        return address.value == edge.address
    return address.type == "Hostname" and resolve(address.value, gateway.namespace) == edge.service


def _accepted(one: _Wanted) -> Fault | None:
    protocol = one.listener.protocol
    if protocol not in ("HTTP", "HTTPS", "TLS", "TCP"):
        return Fault("UnsupportedProtocol", f"nothing here speaks `{protocol}`; known are HTTP, HTTPS, TLS and TCP")
    if one.edges and not one.instances:
        names = ", ".join(edge.name for edge in one.edges)
        message = f"port {one.listener.port} is opened by no gateway ({names}); add it to `listen` in workloads.yaml"
        return Fault("PortUnavailable", message)
    return None


def _conflict(one: _Wanted, every: Sequence[_Wanted]) -> Fault | None:
    """A port is for one protocol, and a host on it is one listener's: of two Gateways that of the older."""
    for other in every:
        same_port = other.listener.port == one.listener.port and other.instances & one.instances
        younger = other.gateway.age > one.gateway.age
        if other is one or not same_port or younger:
            continue
        called = f"`{other.listener.name}` of `{other.gateway.id}`"
        if _transport(other.listener) != _transport(one.listener):
            return Fault("ProtocolConflict", f"port {one.listener.port} is {called} for another protocol")
        if other.listener.host == one.listener.host:
            return Fault("HostnameConflict", f"`{one.listener.host}` on port {one.listener.port} is {called}, too")
    return None


def _transport(listener: Listener) -> str:
    """What a port is for: those that go by the name in TLS share one."""
    return "TLS" if listener.protocol in ("HTTPS", "TLS") else listener.protocol
