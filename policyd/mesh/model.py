"""The Mesh: everything declared, resolved and checked against itself, as one frozen value.

Law: whoever holds a Mesh may follow every reference in it. Rooms that decide and rooms that configure proxies
read this value and nothing else about what was declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from policyd.mesh.credentials import CredentialFile
from policyd.mesh.destinations import Caller, Destination, Destinations
from policyd.mesh.eras import Eras, Lost
from policyd.mesh.gateway_api.values import OpensTls
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.enforcement import Enforcement
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.probe import Probe
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.telemetry import Telemetry
from policyd.mesh.istio.traffic_policy import Sections
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.locality import Locality
from policyd.mesh.outside import REGISTRY_ONLY, Outbound, Outside, covers_name
from policyd.mesh.protocols import Protocol, takes_connections, takes_requests
from policyd.mesh.virtual import Virtual
from policyd.spiffe import SpiffeId

Role = Literal["sidecar", "gateway"]
PeerMode = Literal["STRICT", "PERMISSIVE", "DISABLE"]
Side = Literal["inbound", "gateway", "egress"]
CertificateForwarding = Literal["UNDEFINED", "SANITIZE", "SANITIZE_SET", "FORWARD_ONLY", "APPEND_FORWARD"]


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a Service: `number` is what callers use, `target` the workloads' own behind it (0: the same)."""

    number: int
    name: str = "http"
    protocol: Protocol = "http"
    target: int = 0

    @property
    def leads_to(self) -> int:
        """The number of the workloads' own port."""
        return self.target or self.number

    @property
    def takes_requests(self) -> bool:
        """Whether requests are decided on it."""
        return takes_requests(self.protocol)

    @property
    def takes_connections(self) -> bool:
        """Whether whole connections are decided on it."""
        return takes_connections(self.protocol)


@dataclass(frozen=True, slots=True)
class Service:
    """A name that callers use; `id` is `<name>.<namespace>`.

    With `unready` they are led to instances that do not answer, too.
    """

    name: str
    namespace: str
    ports: tuple[Port, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    unready: bool = False

    @property
    def id(self) -> str:
        """`<name>.<namespace>`, the id of the Service entity in policies."""
        return f"{self.name}.{self.namespace}"

    def port(self, number: int) -> Port | None:
        """The port that callers know by a number."""
        return next((port for port in self.ports if port.number == number), None)


@dataclass(frozen=True, slots=True)
class Workload:
    """An identity; `labels` are its service account's, never one instance's."""

    id: SpiffeId
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listen:
    """A port of a gateway: `declared` in its Gateway resource, `actual` on the machine."""

    declared: int
    actual: int


@dataclass(frozen=True, slots=True)
class Served:
    """A port that a sidecar's application serves.

    `number` is the workload's own (`targetPort` of Services), `service_port` that of its own Service. The application
    listens on `app_port` of `app_address`, or on `app_socket` (a path, or `@` and an abstract name), peers reach the
    sidecar at `inbound_port` of its address (it listens on `bind`, "": there), and `peers` is how: by mutual TLS, in
    plain text (DISABLE), or both.
    """

    number: int
    service_port: int
    protocol: Protocol = "http"
    name: str = "http"
    app_port: int = 0
    inbound_port: int = 0
    peers: PeerMode = "STRICT"
    app_address: str = "127.0.0.1"
    app_socket: str = ""
    bind: str = ""


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """Where an application shows its metrics, on its own machine."""

    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy with its Envoy.

    A sidecar has `ports`, and its application's own HTTP proxy is 127.0.0.1:`outbound_port`, opened by `proxy_secret`.
    A gateway has `listens`; connections to it begin with a PROXY header, and come from `proxied_by` alone, where that
    is given; who its client is, the first of `trusted_proxies` says in x-forwarded-for. It may speak `http3` too, and
    `forwards` says what it tells of certificates. `also` are further Services (ids) whose selector matches it; what is
    asked about is always `service`. Of the requests to several instances each gets its `weight`'s share. One with a
    `probe` is reached only while it is `healthy`. A `proxyless` one has no Envoy: peers reach its application itself.
    """

    name: str
    workload: SpiffeId
    role: Role
    service: str  # the id of the Service that it serves
    ports: tuple[Served, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    outbound_port: int = 0
    proxy_secret: str = field(default="", repr=False)
    listens: tuple[Listen, ...] = ()
    also: tuple[str, ...] = ()
    locality: Locality | None = None
    weight: int = 1
    probe: Probe | None = None
    healthy: bool = True
    metrics: MetricsPage | None = None
    proxyless: bool = False
    proxied_by: tuple[str, ...] = ()
    trusted_proxies: int = 0
    forwards: CertificateForwarding = "UNDEFINED"
    http3: bool = False

    @property
    def service_port(self) -> int:
        """The first port of its Service; of a gateway the first declared one."""
        if self.ports:
            return self.ports[0].service_port
        return self.listens[0].declared if self.listens else 0

    def serving(self, number: int) -> Served | None:
        """What it serves on a port of the workload's own; a gateway on one that it was declared to open."""
        opened = (Served(one.declared, one.declared, inbound_port=one.actual) for one in self.listens)
        return next((port for port in (*self.ports, *opened) if port.number == number), None)


@dataclass(frozen=True, slots=True)
class Listener:
    """A place where requests are asked about; our xDS puts `name` into the check's context_extensions.

    `owner` is the identity whose Envoy may ask for it. The principal of a request is the peer's certificate
    only where `verifies_peers`, else Unauthenticated. Of an egress listener it is the owner: nobody else reaches it,
    and `service` is "", as each request names its Host. The user is that of a token of one of `issuers`, each with its
    claims that are words with spaces between them. `protocol` says whether requests are decided there, or connections.
    The client is who the first of `trusted_proxies` says.
    """

    name: str
    side: Side
    instance: str
    owner: SpiffeId
    service: str
    port: int
    verifies_peers: bool
    issuers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    protocol: Protocol = "http"
    trusted_proxies: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Operators' own set (groups.yaml); `groups` are the groups that are members of this one."""

    name: str
    workloads: frozenset[SpiffeId] = frozenset()
    users: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mesh:
    """All that is declared. Keys: services by id, workloads by SPIFFE ID, key sets by file or URI, the rest by name."""

    trust_domain: str
    services: Mapping[str, Service]
    workloads: Mapping[SpiffeId, Workload]
    instances: Mapping[str, Instance]
    groups: Mapping[str, Group]
    gateways: tuple[Gateway, ...]
    virtual_services: tuple[VirtualService, ...]
    listeners: Mapping[str, Listener]
    destination_rules: tuple[DestinationRule, ...] = ()
    destinations: Destinations = field(init=False, repr=False, compare=False)
    outside: tuple[Outside, ...] = ()
    outbound: Outbound = REGISTRY_ONLY
    credentials: tuple[CredentialFile, ...] = ()  # those that Gateways and settings name
    request_authentications: tuple[RequestAuthentication, ...] = ()
    key_sets: Mapping[str, str] = field(default_factory=dict)
    sidecars: tuple[Sidecar, ...] = ()
    telemetries: tuple[Telemetry, ...] = ()
    enforcements: tuple[Enforcement, ...] = ()
    peers_at: frozenset[tuple[str, int]] = frozenset()  # gateways, and their declared ports that workloads come to
    leaves_by_tunnel: bool = field(init=False, repr=False, compare=False)  # whether a Host has a port for no requests
    federated: frozenset[str] = frozenset()  # other trust domains, whose workloads are known here
    looks_at_serials: bool = False  # whether proxies look at lists of revoked certificates
    revoked: frozenset[SpiffeId] = frozenset()  # identities that no peer is expected to have
    lost: frozenset[Lost] = frozenset()  # certificates that are revoked, whose identities go on
    eras: Eras = field(init=False, repr=False, compare=False)  # what must not be older than who is revoked
    opens_tls: tuple[OpensTls, ...] = ()  # the backends to which gateways open TLS
    shows: Mapping[str, str] = field(default_factory=dict)  # by gateway, the credential that backends are shown
    virtual: Mapping[str, Virtual] = field(default_factory=dict)  # by Service id and Host, where some are captured
    is_sniffed: bool = field(
        init=False, repr=False, compare=False
    )  # whether some port's first bytes tell what it speaks
    tells_of_clients: bool = False  # whether some gateway tells of the certificates of its clients
    _serving: dict[str, tuple[Instance, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _declared_in: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index the instances and rules once; a mesh of a thousand services asks for them a thousand times."""
        sniffed = any(port.protocol == "auto" for one in self.services.values() for port in one.ports)
        object.__setattr__(self, "is_sniffed", sniffed)
        object.__setattr__(self, "eras", Eras.of(self.revoked, self.lost))
        by_tunnel = any(not port.is_http for one in self.outside for port in one.ports)
        object.__setattr__(self, "leaves_by_tunnel", by_tunnel)
        selected = (pair for owner in self.virtual_services for pair in owner.selected_labels())
        object.__setattr__(self, "destinations", Destinations(self.destination_rules, selected, self.opens_tls))
        for outside in self.outside:
            self._declared_in.setdefault(outside.host, outside.namespace)
        for _, instance in sorted(self.instances.items()):
            for service in (instance.service, *instance.also):
                self._serving[service] = (*self._serving.get(service, ()), instance)

    def caller(self, instance: Instance) -> Caller:
        """What of an instance's proxy its destinations depend on."""
        namespace = instance.service.partition(".")[2]
        at_edge, shows = instance.role == "gateway", self.shows.get(instance.name, "")
        return self.destinations.caller(namespace, instance.labels, instance.locality, at_edge=at_edge, shows=shows)

    def destination(self, caller: Caller, service: Service) -> Destination:
        """What DestinationRules say of a Service to a caller."""
        return self.destinations.of(caller, service.id, service.namespace)

    def outside_destination(self, caller: Caller, host: str) -> Destination:
        """What DestinationRules say of a Host outside to a caller."""
        return self.destinations.of_host(caller, host, self._declared_in.get(host, ""))

    def outside_policy(self, caller: Caller, host: str, port: int, subset: str = "") -> Sections:
        """What DestinationRules say of a port of a Host outside, or of one of its subsets, to a caller."""
        return self.outside_destination(caller, host).policy_of(port, subset)

    def instances_of(self, service: str) -> tuple[Instance, ...]:
        """The instances that serve `service` (an id), by name."""
        return self._serving.get(service, ())

    def reached(self, instance: Instance, service: str, port: int) -> Served | None:
        """What an instance serves callers of a port of a Service (an id)."""
        found = self.services[service].port(port) if service in self.services else None
        return instance.serving(found.leads_to) if found is not None else None

    def outside_of(self, name: str) -> bool:
        """Whether some ServiceEntry declares a name."""
        return any(covers_name(one.host, name) for one in self.outside)

    def host(self, name: str, namespace: str) -> Outside | None:
        """The Host that a name outside means for callers of `namespace`: the very name, else the longest pattern."""
        seen = (one for one in self.outside if one.is_seen(namespace) and covers_name(one.host, name))
        return max(seen, key=lambda one: (one.host == name, len(one.host)), default=None)


def inbound_listener(instance: Instance, served: Served) -> str:
    """The name of a sidecar's inbound listener for a port; that of the first one has no number."""
    own = f"{instance.name}/inbound"
    return own if served.number == instance.ports[0].number else f"{own}/{served.number}"


def plaintext_listener(instance: Instance, served: Served) -> str:
    """The name of a sidecar's listener for callers in plain text."""
    return f"{inbound_listener(instance, served)}/plaintext"


def gateway_listener(instance: str, declared_port: int) -> str:
    """The name of a gateway's listener for a declared port."""
    return f"{instance}/gateway/{declared_port}"


def connections_listener(instance: str, declared_port: int) -> str:
    """The name under which a gateway's connections on a declared port are asked about."""
    return f"{instance}/gateway/{declared_port}/connections"


def peers_listener(instance: str, declared_port: int) -> str:
    """The name under which requests of the mesh's own workloads at a gateway are asked about."""
    return f"{instance}/gateway/{declared_port}/peers"


def tunnels_listener(instance: str, declared_port: int) -> str:
    """The name under which connections of the mesh's own workloads at a gateway are asked about."""
    return f"{instance}/gateway/{declared_port}/peers/connections"


def egress_listener(instance: str) -> str:
    """The name under which an instance's requests to the outside are asked about."""
    return f"{instance}/egress"
